// One decoder layer computed on the hidden states that it holds, with all intermediate matrices. The decoder
// runs its layers through it; quantizing runs one layer at a time and looks at the inputs of its linear
// layers. Belongs to the thread that uses the backend, which outlives it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "formats/model_config.h"
#include "model/partition.h"
#include "model/weights.h"

namespace bise {

// Called with the input of the linear layers at `site`, encoded as they want it; `expert` is -1 but for the
// kDown sites of experts.
using InputObserver = std::function<void(InputSite site, std::int64_t expert, const LinearInput& input)>;

class LayerRunner {
 public:
  // Allocates for steps of up to `max_tokens` tokens. `config`: of this rank's share of the model.
  LayerRunner(Backend& backend, const ModelConfig& config, std::int64_t max_tokens, Partition partition = {});

  std::int64_t max_tokens() const { return residual_->max_rows(); }
  std::int64_t workspace_bytes() const;

  // Starts a step. Then embed() or write_hidden() gives the hidden states of its tokens.
  void begin_step(const Batch& batch, KvCache& cache);
  // The same where the backend's step has begun already (StepRecorder).
  void begin_recorded_step() { delta_pending_ = false; }
  void embed(const DeviceTensor& embed_tokens);
  void write_hidden(std::span<const float> hidden);  // [tokens, hidden]
  // Of `tokens` rows of the store, from `first` on.
  void load_hidden(RowStore& store, std::int64_t first, std::int64_t tokens);

  // Runs decoder layer `index` (which gives its sliding window) with its keys and values at `cache_layer`.
  // With an `observer`, each expert computes all tokens besides what the router sends it, so that every
  // expert sees inputs.
  void run_layer(const LayerWeights& weights, std::int64_t index, CacheLayer cache_layer,
                 const InputObserver* observer = nullptr);

  // out = encode(norm(hidden state)) for `rows` (all when empty).
  void norm(const DeviceTensor& weight, std::span<const std::int32_t> rows, InputEncoding encoding,
            LinearInput& out);
  // The hidden states [tokens, hidden] after the last layer run. `weight` is any norm weight of this model:
  // the backend adds a layer's output to the residual only while norming.
  void read_hidden(const DeviceTensor& weight, std::span<float> out);
  // The same into the store.
  void save_hidden(const DeviceTensor& weight, RowStore& store, std::int64_t first);

 private:
  void run_dense(const LayerWeights& weights, const InputObserver* observer);
  void run_experts(const LayerWeights& weights, const InputObserver* observer);
  // The residual gets the product: at once, or by way of delta_.
  void add_product(const LinearInput& in, const LinearWeight& weight);
  // delta_ is an output of attention or MLP: of this rank's share of them.
  void end_delta();
  // add_rms_norm with the layer output that has not been added yet.
  void add_and_norm(const DeviceTensor& weight, InputEncoding encoding, LinearInput& out,
                    std::span<const std::int32_t> rows = {});

  Backend& backend_;
  Partition partition_;
  AttentionShape attention_;
  RopeTable rope_;
  std::vector<std::int64_t> sliding_window_;
  float eps_;
  std::unique_ptr<Matrix> residual_;  // [tokens, hidden]
  std::unique_ptr<Matrix> delta_;     // [tokens, hidden] output of attention or MLP, where not yet added
  std::unique_ptr<Matrix> qkv_;       // [tokens, qkv_columns]
  std::unique_ptr<LinearInput> hidden_input_, attention_output_, mlp_inner_;
  bool delta_pending_ = false;  // delta_ is not in residual_ yet
};

}  // namespace bise
