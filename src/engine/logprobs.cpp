#include "engine/logprobs.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "engine/log_softmax.h"
#include "engine/logit_kernels.h"

namespace bise {
namespace {

constexpr std::array<std::pair<LogprobsMode, std::string_view>, 4> kModes{
    {{LogprobsMode::kRawLogprobs, "raw_logprobs"},
     {LogprobsMode::kProcessedLogprobs, "processed_logprobs"},
     {LogprobsMode::kRawLogits, "raw_logits"},
     {LogprobsMode::kProcessedLogits, "processed_logits"}}};

}  // namespace

LogprobsMode parse_logprobs_mode(std::string_view name) {
  for (const auto& [mode, known] : kModes)
    if (known == name) return mode;
  throw Error("unknown logprobs mode")
      .expected("raw_logprobs, processed_logprobs, raw_logits or processed_logits")
      .got(std::string(name));
}

std::string_view logprobs_mode_name(LogprobsMode mode) {
  return kModes.at(static_cast<std::size_t>(mode)).second;
}

void position_logprobs(std::span<const float> logits, std::int32_t token, const LogprobsWanted& wanted,
                       LogprobsScratch& scratch, PositionLogprobs& result) {
  check(token >= 0 && static_cast<std::size_t>(token) < logits.size(), "the token is in the vocabulary");
  scratch.largest.scan(logits);
  const double normalizer = wanted.logits ? 0 : log_sum_exp(logits, scratch.largest.largest());
  const auto value = [&](std::int32_t id) {
    return TokenLogprob{id, static_cast<double>(logits[static_cast<std::size_t>(id)]) - normalizer};
  };
  result.token = value(token);
  result.rank = static_cast<std::int64_t>(
      logit_kernels().count_at_least(logits.data(), logits.size(), logits[static_cast<std::size_t>(token)]));

  const auto vocabulary = static_cast<std::int64_t>(logits.size());
  const std::int64_t count = wanted.count == SamplingParams::kAllLogprobs
                                 ? vocabulary
                                 : std::clamp<std::int64_t>(wanted.count, 0, vocabulary);
  std::vector<RankedLogit>& best = scratch.best;
  scratch.largest.select(static_cast<std::size_t>(count), false, best);
  const auto reported = best.size();
  for (const std::int32_t id : wanted.token_ids) {
    check(id >= 0 && id < vocabulary, "the token is in the vocabulary");
    const bool known =
        std::any_of(best.begin(), best.end(), [&](const auto& each) { return each.token == id; });
    if (!known) best.push_back({logits[static_cast<std::size_t>(id)], id});
  }
  // Those asked for by id are no better than the best ones: the order stays one.
  std::sort(best.begin(), best.begin() + static_cast<std::ptrdiff_t>(reported));
  std::sort(best.begin() + static_cast<std::ptrdiff_t>(reported), best.end());
  result.top.clear();
  result.top.reserve(best.size());
  for (const RankedLogit& each : best) result.top.push_back(value(each.token));
}

}  // namespace bise
