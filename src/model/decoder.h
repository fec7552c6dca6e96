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
  // With another layout of the cache than make_kv_layout(config), or as one of several ranks, whose shares
  // `config` and `weights` are (model/partition.h).
  Decoder(Backend& backend, const ModelConfig& config, const ModelWeights& weights,
          const DecoderLimits& limits, KvLayout layout, Partition partition = {});

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

  // Whether the backend draws tokens itself. Then instead of forward() and logits():
  bool draws_tokens() const { return backend_.draws_tokens(); }
  // forward(), and a token drawn for each of `rows` (at most max_logit_rows) as batch.draws says. A step of
  // one token a sequence, all of them drawn for, is recorded and replayed where the backend can: block 0 of
  // the cache is no sequence's.
  void forward_and_draw(const Batch& batch, KvCache& cache, std::span<const std::int32_t> rows);
  // Draws for more rows of the same batch, as batch.draws[first_draw], ... say.
  void draw(std::span<const std::int32_t> rows, std::int64_t first_draw);
  // Draws for some of the rows drawn for last, by their edited logits; `row` counts those rows.
  void draw_edited(std::span<const EditedDraw> draws) { backend_.draw_edited(*logits_, draws); }
  // The tokens of the draws before it; -1 where a logit was no number or none was above -infinity.
  void read_drawn(std::span<std::int32_t> out) { backend_.read_drawn(out); }
  // Logits [indices.size(), vocab_size] of some of the rows drawn for last. Valid until the next call.
  std::span<const float> drawn_logits(std::span<const std::int32_t> indices);

  // `kv_cache` may be null.
  MemoryUse memory_use(const KvCache* kv_cache) const;

 private:
  void run_layers();
  void compute_logits(std::span<const std::int32_t> rows);
  std::span<float> host_logits(std::size_t rows);

  Backend& backend_;
  ModelConfig config_;
  const ModelWeights& weights_;
  DecoderLimits limits_;
  KvLayout kv_layout_;
  LayerRunner layers_;
  std::unique_ptr<LinearInput> head_input_;  // [max_logit_rows, hidden]
  std::unique_ptr<Matrix> logits_;           // [max_logit_rows, vocabulary]
  std::vector<float> host_logits_;  // the same on the host; where the device draws, as many as were asked for
  std::unique_ptr<StepRecorder> recorder_;  // null where the backend has none
};

}  // namespace bise
