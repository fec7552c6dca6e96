// A runner that computes nothing but checks everything: it keeps for each slot of the cache which prefix was
// written there, and compares what every sequence reads with its history. Draws are a function of the last
// two tokens, so that texts repeat themselves and guesses often hold.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/model_runner.h"

namespace bise {

struct CheckingRunnerOptions {
  std::int64_t vocab_size = 6, num_blocks = 64, block_size = 4;
  std::vector<std::int64_t> windows = {0};
  std::int64_t max_tokens = 64, max_sequences = 8;  // of a step
  std::int64_t max_length = 1000;                   // of a sequence
};

class CheckingRunner final : public ModelRunner {
 public:
  explicit CheckingRunner(const CheckingRunnerOptions& options)
      : options_(options),
        slots_(static_cast<std::size_t>(options.num_blocks * options.block_size)),
        writers_(slots_.size()) {
    for (const std::int64_t window : options.windows) layout_.groups.push_back({window});
    layout_.slots_per_block = 1;
  }

  std::int64_t vocab_size() const override { return options_.vocab_size; }
  std::int64_t num_blocks() const override { return options_.num_blocks; }
  std::int64_t block_size() const override { return options_.block_size; }
  const KvLayout& kv_layout() const override { return layout_; }

  void launch(std::span<const StepSequence> sequences) override {
    ++step_;
    std::int64_t tokens = 0;
    for (const StepSequence& sequence : sequences) tokens += size(sequence.token_ids);
    expect(tokens <= options_.max_tokens && size(sequences) <= options_.max_sequences, "the budget is kept");
    expect(tokens > 0, "a step computes something");
    for (const StepSequence& sequence : sequences) write(sequence);
    results_.assign(sequences.size(), {});
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      read(sequences[i]);
      draw(sequences[i], results_[i]);
    }
  }
  std::span<const StepResult> results() override { return results_; }

  std::int32_t token_after(std::span<const std::int32_t> tokens) const {
    const auto last = static_cast<std::uint64_t>(tokens.back());
    const auto before = static_cast<std::uint64_t>(tokens.size() > 1 ? tokens[tokens.size() - 2] : 99);
    return static_cast<std::int32_t>(mix(last * 1000 + before) %
                                     static_cast<std::uint64_t>(options_.vocab_size));
  }

 private:
  template <class T>
  static std::int64_t size(const T& values) {
    return static_cast<std::int64_t>(values.size());
  }
  static void expect(bool condition, const char* what) {
    if (!condition) throw std::runtime_error(what);
  }
  static std::uint64_t mix(std::uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  }

  // What is computed for each position depends on all tokens up to it.
  void hash_prefixes(const StepSequence& sequence) {
    expect(sequence.computed + size(sequence.token_ids) - sequence.drafts <= size(sequence.history) &&
               sequence.drafts < size(sequence.token_ids),
           "known tokens come before guesses");
    expect(sequence.sample ==
               (sequence.computed + size(sequence.token_ids) - sequence.drafts == size(sequence.history)),
           "a token is drawn after the last known one");
    expect(sequence.computed + size(sequence.token_ids) < options_.max_length,
           "a sequence keeps to its length");
    prefixes_.clear();
    std::uint64_t prefix = 1;
    for (std::int64_t p = 0; p < sequence.computed + size(sequence.token_ids); ++p) {
      const auto position = static_cast<std::size_t>(p);
      const bool given = p >= sequence.computed;
      const std::int32_t token = given ? sequence.token_ids[static_cast<std::size_t>(p - sequence.computed)]
                                       : sequence.history[position];
      if (given && p < size(sequence.history))
        expect(token == sequence.history[position], "tokens are the history's");
      prefix = mix(prefix * 31 + static_cast<std::uint64_t>(token) + 1);
      prefixes_.push_back(prefix);
    }
  }
  std::size_t slot(const StepSequence& sequence, std::size_t group, std::int64_t position) const {
    const auto table = sequence.block_tables[group];
    const std::int64_t index = position / options_.block_size;
    expect(index < size(table), "the block table is long enough");
    const std::int32_t block = table[static_cast<std::size_t>(index)];
    expect(block > 0 && block < options_.num_blocks, "a position that is used has a block");
    return static_cast<std::size_t>(block * options_.block_size + position % options_.block_size);
  }
  void write(const StepSequence& sequence) {
    hash_prefixes(sequence);
    for (std::size_t g = 0; g < layout_.groups.size(); ++g)
      for (std::int64_t p = sequence.computed; p < size(prefixes_); ++p) {
        const std::size_t at = slot(sequence, g, p);
        expect(writers_[at] != step_, "a slot is written once in a step");
        writers_[at] = step_;
        slots_[at] = prefixes_[static_cast<std::size_t>(p)] + g;
      }
  }
  void read(const StepSequence& sequence) {
    hash_prefixes(sequence);
    for (std::size_t g = 0; g < layout_.groups.size(); ++g) {
      const std::int64_t window = layout_.groups[g].sliding_window;
      const std::int64_t first = window == 0 ? 0 : std::max<std::int64_t>(sequence.computed - window + 1, 0);
      for (std::int64_t p = first; p < size(prefixes_); ++p)
        expect(slots_[slot(sequence, g, p)] == prefixes_[static_cast<std::size_t>(p)] + g,
               "the cache holds what the sequence computed");
    }
  }
  void draw(const StepSequence& sequence, StepResult& result) const {
    for (std::int64_t row = 0; row < sequence.score_rows; ++row) {
      PositionLogprobs scored;
      scored.token.token = sequence.history[static_cast<std::size_t>(sequence.computed + row + 1)];
      result.prompt_logprobs.push_back(scored);
    }
    if (!sequence.sample) return;
    std::vector<std::int32_t> tokens(sequence.history.begin(), sequence.history.end());
    for (const std::int32_t draft : sequence.token_ids.last(static_cast<std::size_t>(sequence.drafts))) {
      result.token_ids.push_back(token_after(tokens));
      if (result.token_ids.back() != draft) return;
      tokens.push_back(draft);
    }
    result.token_ids.push_back(token_after(tokens));
  }

  CheckingRunnerOptions options_;
  KvLayout layout_;
  std::vector<std::uint64_t> slots_;  // [num_blocks, block_size]
  std::vector<std::int64_t> writers_;
  std::vector<std::uint64_t> prefixes_;
  std::vector<StepResult> results_;
  std::int64_t step_ = 0;
};

}  // namespace bise
