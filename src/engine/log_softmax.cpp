#include "engine/log_softmax.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"

namespace bise {
namespace {

// Four lanes in the compiler's vector extension: the same code on every processor, and the same result.
using Float4 = float __attribute__((vector_size(16)));
using Int4 = std::int32_t __attribute__((vector_size(16)));
constexpr std::size_t kLanes = 4, kVectors = 4;
// Lanes are added in float32 for so many elements, then in double.
constexpr std::size_t kBlock = 1024;

Float4 load(const float* from) {
  Float4 result;
  std::memcpy(&result, from, sizeof(result));
  return result;
}

// exp(x) for x <= 0: 2^n * exp(r), r = x - n ln 2 within +-ln(2)/2, by the Taylor polynomial of degree 6
// (relative error 1e-7); 0 below -87, where float32 ends.
Float4 exp_of_negative(Float4 x) {
  const Int4 tiny = x < -87.0f;
  x = tiny ? Float4{} - 87.0f : x;
  const Float4 scaled = x * 1.44269504f - 0.5f;
  const Int4 n =
      __builtin_convertvector(scaled, Int4);  // truncation of a negative value: rounds up to nearest
  const Float4 whole = __builtin_convertvector(n, Float4);
  const Float4 r = (x - whole * 0.693359375f) - whole * -2.12194440e-4f;  // ln 2 in two parts (Cody, Waite)
  Float4 sum = Float4{} + 1.0f / 720;
  sum = sum * r + 1.0f / 120;
  sum = sum * r + 1.0f / 24;
  sum = sum * r + 1.0f / 6;
  sum = sum * r + 0.5f;
  sum = sum * r + 1.0f;
  sum = sum * r + 1.0f;
  const Int4 power = (n + 127) << 23;
  Float4 factor;
  std::memcpy(&factor, &power, sizeof(factor));
  return tiny ? Float4{} : sum * factor;
}

double add_lanes(const Float4 (&lanes)[kVectors]) {
  double sum = 0;
  for (const Float4& vector : lanes)
    for (std::size_t lane = 0; lane < kLanes; ++lane) sum += static_cast<double>(vector[lane]);
  return sum;
}

// sum over i of term(i), in vectors of four and the rest one by one. `term` gets the position and how many
// elements from there are real (4, or fewer at the end).
template <class Term>
double sum_over(std::size_t count, const Term& term) {
  double total = 0;
  std::size_t i = 0;
  while (i + kLanes * kVectors <= count) {
    Float4 lanes[kVectors] = {};
    const std::size_t end = std::min(i + kBlock, count);
    for (; i + kLanes * kVectors <= end; i += kLanes * kVectors)
      for (std::size_t v = 0; v < kVectors; ++v) lanes[v] += term(i + v * kLanes, kLanes);
    total += add_lanes(lanes);
  }
  for (; i < count; i += kLanes) {
    const std::size_t real = std::min(kLanes, count - i);
    const Float4 values = term(i, real);
    for (std::size_t lane = 0; lane < real; ++lane) total += static_cast<double>(values[lane]);
  }
  return total;
}

// Elements [i, i + real) and, past them, `fill`.
Float4 load_part(std::span<const float> values, std::size_t i, std::size_t real, float fill) {
  if (real == kLanes) return load(values.data() + i);
  Float4 result = Float4{} + fill;
  for (std::size_t lane = 0; lane < real; ++lane) result[lane] = values[i + lane];
  return result;
}

}  // namespace

float largest_value(std::span<const float> values) {
  check(!values.empty(), "there are values");
  constexpr std::size_t kStep = kLanes * kVectors;
  float lanes[kStep];
  std::fill_n(lanes, kStep, values[0]);
  std::size_t i = 0;
  for (; i + kStep <= values.size(); i += kStep)
    for (std::size_t lane = 0; lane < kStep; ++lane)
      lanes[lane] = lanes[lane] > values[i + lane] ? lanes[lane] : values[i + lane];
  for (; i < values.size(); ++i) lanes[0] = std::max(lanes[0], values[i]);
  return *std::max_element(lanes, lanes + kStep);
}

double log_sum_exp(std::span<const float> logits) {
  const float largest = largest_value(logits);
  const double sum = sum_over(logits.size(), [&](std::size_t i, std::size_t real) {
    return exp_of_negative(load_part(logits, i, real, largest) - largest);
  });
  return static_cast<double>(largest) + std::log(sum);
}

std::vector<TokenLogprob> top_logprobs(std::span<const float> logits, double normalizer, std::int64_t count) {
  const auto better = [&](std::int32_t a, std::int32_t b) {
    const float x = logits[static_cast<std::size_t>(a)], y = logits[static_cast<std::size_t>(b)];
    return x > y || (x == y && a < b);
  };
  // A heap of the best so far, the worst of them in front.
  std::vector<std::int32_t> best;
  const auto most =
      static_cast<std::size_t>(std::clamp<std::int64_t>(count, 0, static_cast<std::int64_t>(logits.size())));
  for (std::size_t i = 0; i < logits.size() && most > 0; ++i) {
    const auto token = static_cast<std::int32_t>(i);
    if (best.size() == most) {
      if (!better(token, best.front())) continue;
      std::pop_heap(best.begin(), best.end(), better);
      best.pop_back();
    }
    best.push_back(token);
    std::push_heap(best.begin(), best.end(), better);
  }
  std::sort_heap(best.begin(), best.end(), better);
  std::vector<TokenLogprob> result;
  for (const std::int32_t token : best)
    result.push_back({token, static_cast<double>(logits[static_cast<std::size_t>(token)]) - normalizer});
  return result;
}

double kl_divergence(std::span<const float> p_logits, double p_normalizer, std::span<const float> q_logits,
                     double q_normalizer) {
  check(p_logits.size() == q_logits.size(), "both rows have one vocabulary");
  const float p_largest = largest_value(p_logits);
  // sum p (a - b) with p = exp(a - largest) / sum: the constants are taken out of the sum.
  const double weighted = sum_over(p_logits.size(), [&](std::size_t i, std::size_t real) {
    const Float4 a = load_part(p_logits, i, real, p_largest), b = load_part(q_logits, i, real, 0);
    return exp_of_negative(a - p_largest) * (a - b);
  });
  const double scale = std::exp(static_cast<double>(p_largest) - p_normalizer);
  return weighted * scale - p_normalizer + q_normalizer;
}

}  // namespace bise
