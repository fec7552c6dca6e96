// The calibration sequences on their way through the model, one layer at a time: the hidden states of all
// tokens wait in bfloat16, in the device's memory where there is one, while a single layer is loaded. Belongs
// to the backend's thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "model/layer_runner.h"
#include "model/step_batch.h"

namespace bise {

class CalibrationRun {
 public:
  // `sequences` of token ids; none may be empty or hold an id outside the vocabulary (Error).
  CalibrationRun(Backend& backend, const ModelConfig& config,
                 std::vector<std::vector<std::int32_t>> sequences);

  std::int64_t sequences() const { return static_cast<std::int64_t>(sequences_.size()); }
  std::int64_t tokens() const { return tokens_; }

  // The hidden states before layer 0.
  void embed(const DeviceTensor& embed_tokens, const DeviceTensor& any_norm);
  // Runs layer `index` on all tokens, causally within each sequence, and shows `observer` every linear input;
  // the hidden states stay as they are.
  void observe(const LayerWeights& weights, std::int64_t index, const InputObserver& observer);
  // Runs it and keeps its outputs as the next layer's inputs.
  void advance(const LayerWeights& weights, std::int64_t index);

 private:
  // Sequences [first, last) make one step; their tokens start at row `begin` of hidden_.
  struct Step {
    std::size_t first = 0, last = 0;
    std::int64_t begin = 0, tokens = 0;
  };
  void begin(const Step& step);
  void load(const Step& step);

  std::vector<std::vector<std::int32_t>> sequences_;
  std::int64_t tokens_ = 0;
  std::vector<Step> steps_;
  std::int64_t blocks_per_sequence_;
  LayerRunner runner_;
  std::unique_ptr<KvCache> cache_;  // of one layer and one step
  std::unique_ptr<StepBatch> batch_;
  std::unique_ptr<RowStore> hidden_;  // [tokens, hidden]
};

}  // namespace bise
