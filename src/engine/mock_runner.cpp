#include "engine/mock_runner.h"

#include <algorithm>
#include <numbers>
#include <thread>

#include "base/check.h"
#include "base/error.h"

namespace bise {
namespace {

// As if the i-th best token had the probability 2^-i; the ids after `token` come next.
PositionLogprobs halving_logprobs(std::int32_t token, std::int64_t wanted, std::int64_t vocab_size) {
  PositionLogprobs result{.token = {token, -std::numbers::ln2}, .rank = 1, .top = {}};
  const std::int64_t count =
      wanted == SamplingParams::kAllLogprobs ? vocab_size : std::min(wanted, vocab_size);
  for (std::int64_t i = 0; i < count; ++i)
    result.top.push_back({static_cast<std::int32_t>((token + i) % vocab_size),
                          -std::numbers::ln2 * static_cast<double>(i + 1)});
  return result;
}

}  // namespace

MockRunner::MockRunner(const MockRunnerOptions& options) : options_(options) {
  check(options.first_token >= 0 && options.first_token < options.vocab_size, "there are tokens to draw");
  for (const std::int64_t window : options.windows) {
    layout_.groups.push_back({window});
    layout_.layers.push_back({static_cast<std::int64_t>(layout_.layers.size()), 0});
  }
  layout_.slots_per_block = 1;
}

std::int32_t MockRunner::token_after(std::int32_t last, std::int64_t length) const {
  std::uint64_t hash = (static_cast<std::uint64_t>(last) << 32 | static_cast<std::uint64_t>(length)) + 1;
  hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9u;
  hash = (hash ^ (hash >> 27)) * 0x94d049bb133111ebu;
  const auto choices = static_cast<std::uint64_t>(options_.vocab_size - options_.first_token);
  return static_cast<std::int32_t>(static_cast<std::uint64_t>(options_.first_token) +
                                   (hash ^ (hash >> 31)) % choices);
}

void MockRunner::launch(std::span<const StepSequence> sequences) {
  if (options_.fail_after_steps > 0 && ++steps_ > options_.fail_after_steps)
    throw Error("the mock's device is gone").got(fmt::format("step {}", steps_));
  if (results_.size() < sequences.size()) results_.resize(sequences.size());
  sequences_ = sequences.size();
  std::size_t tokens = 0;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    tokens += sequences[i].token_ids.size();
    draw(sequences[i], results_[i]);
  }
  const double seconds = options_.seconds_per_step + options_.seconds_per_token * static_cast<double>(tokens);
  if (seconds <= 0) return;
  ready_ = std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                                                  std::chrono::duration<double>(seconds));
}

std::span<const StepResult> MockRunner::results() {
  if (options_.seconds_per_step > 0 || options_.seconds_per_token > 0) std::this_thread::sleep_until(ready_);
  return std::span(results_).first(sequences_);
}

void MockRunner::draw(const StepSequence& sequence, StepResult& result) const {
  result.token_ids.clear();
  result.logprobs.clear();
  result.prompt_logprobs.clear();
  const SamplingParams* params = sequence.sampler == nullptr ? nullptr : &sequence.sampler->params();
  for (std::int64_t row = 0; row < sequence.score_rows; ++row)
    result.prompt_logprobs.push_back(
        halving_logprobs(sequence.history[static_cast<std::size_t>(sequence.computed + row + 1)],
                         params->prompt_logprobs, options_.vocab_size));
  if (!sequence.sample) return;
  const auto add = [&](std::int32_t token) {
    result.token_ids.push_back(token);
    if (params != nullptr && params->logprobs != SamplingParams::kNoLogprobs)
      result.logprobs.push_back(halving_logprobs(token, params->logprobs, options_.vocab_size));
  };
  // Accepts guesses as long as they are what it would have drawn.
  auto length = static_cast<std::int64_t>(sequence.history.size());
  add(token_after(sequence.history.back(), length));
  for (const std::int32_t draft : sequence.token_ids.last(static_cast<std::size_t>(sequence.drafts))) {
    if (draft != result.token_ids.back()) return;
    add(token_after(draft, ++length));
  }
}

}  // namespace bise
