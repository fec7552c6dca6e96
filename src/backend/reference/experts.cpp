// Mixtral's sparse mixture of experts (Jiang et al. 2024, section 2.1).
#include <algorithm>
#include <cmath>
#include <numeric>

#include "backend/reference/reference_backend.h"
#include "base/check.h"

namespace bise {
namespace {

struct Choice {
  std::size_t expert;
  double weight;
};

// The `count` experts with the largest logits (the first of equals), their softmax weights scaled to sum 1:
// the softmax over the chosen logits alone.
std::vector<Choice> choose(std::span<const float> logits, std::int64_t count) {
  std::vector<std::size_t> order(logits.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
  order.resize(static_cast<std::size_t>(count));
  std::vector<Choice> choices;
  double sum = 0;
  for (const std::size_t expert : order) {
    choices.push_back(
        {expert, std::exp(static_cast<double>(logits[expert]) - static_cast<double>(logits[order.front()]))});
    sum += choices.back().weight;
  }
  for (Choice& choice : choices) choice.weight /= sum;
  return choices;
}

// down(silu(gate x) * up x) for one row.
std::vector<float> run_expert(std::span<const float> x, const ReferenceLinearWeight& gate_up,
                              const ReferenceLinearWeight& down) {
  ReferenceLinearInput in(1, gate_up.columns()), middle(1, down.columns());
  in.resize(1, gate_up.input_type());
  in.encode_row(0, x, encoding_for(gate_up));
  std::vector<float> product(static_cast<std::size_t>(gate_up.rows()));
  reference_product(in, gate_up, product);
  const auto intermediate = static_cast<std::size_t>(down.columns());
  std::vector<float> gated(intermediate);
  for (std::size_t i = 0; i < intermediate; ++i)
    gated[i] = reference_gated(product[i], product[intermediate + i]);
  middle.resize(1, down.input_type());
  middle.encode_row(0, gated, encoding_for(down));
  std::vector<float> out(static_cast<std::size_t>(down.rows()));
  reference_product(middle, down, out);
  return out;
}

}  // namespace

void ReferenceBackend::experts(const LinearInput& in, const ExpertWeights& weights, Matrix& out) {
  const auto& input = dynamic_cast<const ReferenceLinearInput&>(in);
  auto& matrix = dynamic_cast<ReferenceMatrix&>(out);
  check(in.type() == InputType::kNone, "experts take the input unquantized");
  const auto& router = dynamic_cast<const ReferenceLinearWeight&>(*weights.router);
  const std::int64_t experts = router.rows();
  check(experts == static_cast<std::int64_t>(weights.gate_up.size()) &&
            weights.gate_up.size() == weights.down.size() && weights.experts_per_token <= experts,
        "the router has a row per expert");
  std::vector<float> logits(static_cast<std::size_t>(in.rows() * experts));
  reference_product(input, router, logits);
  matrix.resize(in.rows());
  for (std::int64_t r = 0; r < in.rows(); ++r) {
    const auto x =
        std::span(input.codes)
            .subspan(static_cast<std::size_t>(r * in.columns()), static_cast<std::size_t>(in.columns()));
    const auto row_logits =
        std::span(logits).subspan(static_cast<std::size_t>(r * experts), static_cast<std::size_t>(experts));
    std::vector<double> sums(static_cast<std::size_t>(out.columns()));
    for (const Choice& choice : choose(row_logits, weights.experts_per_token)) {
      const std::vector<float> values =
          run_expert(x, dynamic_cast<const ReferenceLinearWeight&>(*weights.gate_up[choice.expert]),
                     dynamic_cast<const ReferenceLinearWeight&>(*weights.down[choice.expert]));
      for (std::size_t c = 0; c < sums.size(); ++c)
        sums[c] += choice.weight * static_cast<double>(values.at(c));
    }
    std::copy(sums.begin(), sums.end(), matrix.row(r).begin());
  }
}

}  // namespace bise
