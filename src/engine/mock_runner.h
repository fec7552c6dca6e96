// A runner without a model: it takes a stated time and draws tokens that are a hash of the sequence so far,
// so that everything around the model can be tested and measured alone. Belongs to the engine thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "engine/model_runner.h"

namespace bise {

struct MockRunnerOptions {
  std::int64_t vocab_size = 1000;
  std::int64_t num_blocks = 1024, block_size = 16;
  // Sliding windows of the KV groups; 0: none.
  std::vector<std::int64_t> windows = {0};
  double seconds_per_step = 0, seconds_per_token = 0;
  // Drawn tokens have ids in [first_token, vocab_size): ids below may be stop tokens and the like.
  std::int64_t first_token = 0;
  std::int64_t fail_after_steps = 0;  // later steps throw Error, as a device that is gone would; 0: never
};

class MockRunner : public ModelRunner {
 public:
  explicit MockRunner(const MockRunnerOptions& options);

  std::int64_t vocab_size() const override { return options_.vocab_size; }
  std::int64_t num_blocks() const override { return options_.num_blocks; }
  std::int64_t block_size() const override { return options_.block_size; }
  const KvLayout& kv_layout() const override { return layout_; }

  // Returns at once; results() waits for the rest of the step's time.
  void launch(std::span<const StepSequence> sequences) override;
  std::span<const StepResult> results() override;

  // The token after a sequence of `length` tokens that ends with `last`.
  std::int32_t token_after(std::int32_t last, std::int64_t length) const;

 private:
  void draw(const StepSequence& sequence, StepResult& result) const;

  MockRunnerOptions options_;
  KvLayout layout_;
  std::vector<StepResult> results_;  // of the largest step so far
  std::size_t sequences_ = 0;
  std::int64_t steps_ = 0;
  std::chrono::steady_clock::time_point ready_;
};

}  // namespace bise
