#include "engine/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "engine/log_softmax.h"

namespace bise {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

// splitmix64's finalizer (Steele et al. 2014): a bijection that spreads every bit.
std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// argmax(logit + Gumbel noise) draws from softmax(logits) (Gumbel 1954). The noise of a token is a hash of
// (key, token), so it needs no state and no order.
class GumbelDraw {
 public:
  explicit GumbelDraw(std::uint64_t key) : key_(key) {}

  void offer(float logit, std::int32_t token) {
    const std::uint64_t bits = mix(key_ + 0x9e3779b97f4a7c15u * (static_cast<std::uint64_t>(token) + 1));
    // With v = bits / 2^64 uniform, -ln(-ln(1 - v)) <= -ln v <= ln 2 * (leading zeros + 1): most tokens lose
    // by this bound, without a logarithm.
    const float bound = logit + 0.69314719f * static_cast<float>(std::countl_zero(bits) + 1);
    if (bound <= best_ || logit == kLowest) return;
    const double v = (static_cast<double>(bits >> 11) + 0.5) * 0x1p-53;
    const float value = logit + static_cast<float>(-std::log(-std::log1p(-v)));
    if (value > best_) {
      best_ = value;
      token_ = token;
    }
  }
  std::int32_t token() const { return token_; }

 private:
  std::uint64_t key_;
  float best_ = kLowest;
  std::int32_t token_ = -1;
};

// The `count`-th largest value, found with a heap of `count`.
float kth_largest(std::span<const float> values, std::size_t count, std::vector<float>& heap) {
  heap.assign(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(count));
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  for (std::size_t i = count; i < values.size(); ++i) {
    if (values[i] <= heap.front()) continue;
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    heap.back() = values[i];
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  }
  return heap.front();
}

}  // namespace

std::int32_t argmax(std::span<const float> values) {
  const float largest = largest_value(values);
  const auto found = std::find(values.begin(), values.end(), largest);
  check(found != values.end(), "logits are numbers");
  return static_cast<std::int32_t>(found - values.begin());
}

bool valid(const SamplingParams& params) {
  return params.temperature >= 0 && std::isfinite(params.temperature) && params.top_p > 0 &&
         params.top_p <= 1 && params.min_p >= 0 && params.min_p <= 1 && params.repetition_penalty > 0 &&
         std::isfinite(params.repetition_penalty) && std::abs(params.presence_penalty) <= 2 &&
         std::abs(params.frequency_penalty) <= 2 && params.max_tokens >= 1 && params.min_tokens >= 0 &&
         params.min_tokens <= params.max_tokens;
}

Sampler::Scratch::Scratch(std::int64_t vocab_size) : logits(static_cast<std::size_t>(vocab_size)) {
  largest.reserve(logits.size());
  candidates.reserve(logits.size());
}

Sampler::Sampler(const SamplingParams& params, std::uint64_t seed, std::span<const std::int32_t> prompt,
                 std::int64_t vocab_size)
    : params_(params), seed_(params.seed.value_or(seed)) {
  if (!has_penalties()) return;
  output_counts_.resize(static_cast<std::size_t>(vocab_size));
  seen_.resize(static_cast<std::size_t>(vocab_size));
  seen_tokens_.reserve(prompt.size() + static_cast<std::size_t>(params.max_tokens));
  for (const std::int32_t token : prompt) see(token);
}

void Sampler::see(std::int32_t token) {
  std::uint8_t& seen = seen_.at(static_cast<std::size_t>(token));
  if (seen == 0) seen_tokens_.push_back(token);
  seen = 1;
}

bool Sampler::has_penalties() const {
  return params_.repetition_penalty != 1 || params_.presence_penalty != 0 || params_.frequency_penalty != 0;
}

void Sampler::accept(std::int32_t token) {
  if (!has_penalties()) return;
  ++output_counts_.at(static_cast<std::size_t>(token));
  see(token);
}

// repetition_penalty over prompt and output (Keskar et al. 2019), the other two over the output.
void Sampler::apply_penalties(std::span<float> logits) const {
  const auto repetition = static_cast<float>(params_.repetition_penalty);
  for (const std::int32_t token : seen_tokens_) {
    float& logit = logits[static_cast<std::size_t>(token)];
    logit = logit > 0 ? logit / repetition : logit * repetition;
    const std::int32_t count = output_counts_[static_cast<std::size_t>(token)];
    if (count == 0) continue;
    logit -= static_cast<float>(params_.frequency_penalty) * static_cast<float>(count);
    logit -= static_cast<float>(params_.presence_penalty);
  }
}

std::int32_t Sampler::sample(std::span<const float> logits, std::int64_t position, std::int64_t generated,
                             Scratch& scratch) const {
  const bool mask_stop = generated < params_.min_tokens && !params_.stop_token_ids.empty();
  if (params_.greedy() && !has_penalties() && !mask_stop) return argmax(logits);

  std::vector<float>& work = scratch.logits;
  check(work.size() == logits.size(), "the scratch fits the vocabulary");
  std::copy(logits.begin(), logits.end(), work.begin());
  if (mask_stop)
    for (const std::int32_t token : params_.stop_token_ids)
      if (token >= 0 && static_cast<std::size_t>(token) < work.size())
        work[static_cast<std::size_t>(token)] = kLowest;
  if (has_penalties()) apply_penalties(work);
  if (params_.greedy()) return argmax(work);

  // vLLM raises temperatures below 0.01 to it, against overflow.
  const auto temperature = static_cast<float>(std::max(params_.temperature, 0.01));
  if (temperature != 1)
    for (float& logit : work) logit /= temperature;

  GumbelDraw draw(mix(seed_ + 0x9e3779b97f4a7c15u * (static_cast<std::uint64_t>(position) + 1)));
  const bool filtered = params_.min_p > 0 || params_.top_p < 1 ||
                        (params_.top_k > 0 && static_cast<std::size_t>(params_.top_k) < work.size());
  if (filtered) {
    filter(work, scratch);
    for (const auto& [logit, token] : scratch.candidates) draw.offer(logit, token);
  } else {
    for (std::size_t token = 0; token < work.size(); ++token)
      draw.offer(work[token], static_cast<std::int32_t>(token));
  }
  check(draw.token() >= 0, "logits are numbers");
  return draw.token();
}

// Fills scratch.candidates with the tokens that min_p, then top_k (ties kept), then top_p leave.
void Sampler::filter(std::span<const float> logits, Scratch& scratch) const {
  const float largest = largest_value(logits);
  float threshold = kLowest;
  if (params_.min_p > 0) threshold = largest + static_cast<float>(std::log(params_.min_p));
  if (params_.top_k > 0 && static_cast<std::size_t>(params_.top_k) < logits.size())
    threshold =
        std::max(threshold, kth_largest(logits, static_cast<std::size_t>(params_.top_k), scratch.largest));
  auto& candidates = scratch.candidates;
  candidates.clear();
  for (std::size_t token = 0; token < logits.size(); ++token)
    if (logits[token] >= threshold) candidates.push_back({logits[token], static_cast<std::int32_t>(token)});
  if (params_.top_p >= 1) return;

  double total = 0;
  for (const auto& each : candidates) total += static_cast<double>(std::exp(each.logit - largest));
  // Tokens this unlikely weigh less than 1 - top_p together, so the kept ones are among the others; only
  // those need sorting.
  const double cut = std::log((1 - params_.top_p) * total / static_cast<double>(candidates.size()));
  std::erase_if(candidates, [&](const auto& each) {
    return each.logit != largest && static_cast<double>(each.logit - largest) < cut;
  });
  std::sort(candidates.begin(), candidates.end(), [](const auto& a, const auto& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
  });
  double before = 0;
  std::size_t kept = 0;
  for (; kept < candidates.size() && before < params_.top_p * total; ++kept)
    before += static_cast<double>(std::exp(candidates[kept].logit - largest));
  candidates.resize(kept);
}

}  // namespace bise
