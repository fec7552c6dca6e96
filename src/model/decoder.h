// A whole decoder-only model computing logits for batches of sequences. Belongs to the thread that uses the
// backend; backend and weights outlive it. All memory is allocated by the constructor.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "formats/model_config.h"
#include "model/kv_layout.h"
#include "model/layer_runner.h"
#include "model/weights.h"

namespace bise {

struct DecoderLimits {
  std::int64_t max_tokens = 512;      // of one step; longer prompts are cut by the caller
  std::int64_t max_logit_rows = 128;  // of one call of logits()
};

class Decoder {
 public:
  Decoder(Backend& backend, const ModelConfig& config, const ModelWeights& weights,
          const DecoderLimits& limits = {});
  // With another layout of the cache than make_kv_layout(config).
  Decoder(Backend& backend, const ModelConfig& config, const ModelWeights& weights,
          const DecoderLimits& limits, KvLayout layout);

  const ModelConfig& config() const { return config_; }
  const DecoderLimits& limits() const { return limits_; }
  Backend& backend() const { return backend_; }
  // The groups whose block tables a batch has.
  const KvLayout& kv_layout() const { return kv_layout_; }

  // A cache of `num_blocks` blocks of the backend's preferred size, kv_layout().slots_per_block layers each.
  std::unique_ptr<KvCache> make_kv_cache(std::int64_t num_blocks, DType dtype = DType::kBF16) const;

  // Whether the checkpoint says how to scale keys and values for a cache of kF8E4M3; 1 is used where not.
  bool has_kv_scales() const;

  // Runs all layers on the batch; keys and values go into `cache`.
  void forward(const Batch& batch, KvCache& cache);
  // Logits [rows.size(), vocab_size], float32, of rows of the last batch given to forward(). At most
  // max_logit_rows rows a call, any number of calls. Valid until the next call.
  std::span<const float> logits(std::span<const std::int32_t> rows);

  // `kv_cache` may be null.
  MemoryUse memory_use(const KvCache* kv_cache) const;

 private:
  Backend& backend_;
  ModelConfig config_;
  const ModelWeights& weights_;
  DecoderLimits limits_;
  KvLayout kv_layout_;
  LayerRunner layers_;
  std::unique_ptr<LinearInput> head_input_;  // [max_logit_rows, hidden]
  std::unique_ptr<Matrix> logits_;           // [max_logit_rows, vocabulary]
  std::vector<float> host_logits_;           // the same on the host
};

}  // namespace bise
