#include "model/decoder.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace bise {

Decoder::Decoder(Backend& backend, const ModelConfig& config, const ModelWeights& weights,
                 const DecoderLimits& limits)
    : Decoder(backend, config, weights, limits, make_kv_layout(config)) {}

Decoder::Decoder(Backend& backend, const ModelConfig& config, const ModelWeights& weights,
                 const DecoderLimits& limits, KvLayout layout, Partition partition)
    : backend_(backend),
      config_(config),
      weights_(weights),
      limits_(limits),
      kv_layout_(std::move(layout)),
      layers_(backend, config, limits.max_tokens, std::move(partition)),
      head_input_(backend.make_linear_input(limits.max_logit_rows, config.hidden_size)),
      logits_(backend.make_matrix(limits.max_logit_rows, config.vocab_size)),
      recorder_(backend.make_step_recorder()) {
  check(static_cast<std::int64_t>(weights.layers.size()) == config.num_hidden_layers,
        "the weights have every layer");
  check(static_cast<std::int64_t>(kv_layout_.layers.size()) == config.num_hidden_layers,
        "the cache has every layer");
  if (!backend.draws_tokens()) host_logits(static_cast<std::size_t>(limits.max_logit_rows));
}

std::unique_ptr<KvCache> Decoder::make_kv_cache(std::int64_t num_blocks, DType dtype) const {
  return backend_.make_kv_cache({kv_layout_.slots_per_block, num_blocks, backend_.preferred_block_size(),
                                 config_.num_key_value_heads, config_.head_dim, dtype});
}

bool Decoder::has_kv_scales() const {
  return std::ranges::all_of(weights_.layers, [](const LayerWeights& layer) {
    return layer.key_scale.has_value() && layer.value_scale.has_value();
  });
}

void Decoder::forward(const Batch& batch, KvCache& cache) {
  layers_.begin_step(batch, cache);
  run_layers();
}

void Decoder::run_layers() {
  layers_.embed(*weights_.embed_tokens);
  for (std::int64_t index = 0; index < config_.num_hidden_layers; ++index)
    layers_.run_layer(weights_.layers[static_cast<std::size_t>(index)], index,
                      kv_layout_.layers[static_cast<std::size_t>(index)]);
}

// Of all rows when `rows` is empty.
void Decoder::compute_logits(std::span<const std::int32_t> rows) {
  check(static_cast<std::int64_t>(rows.size()) <= limits_.max_logit_rows, "the rows fit the logits");
  layers_.norm(*weights_.norm, rows, encoding_for(*weights_.lm_head), *head_input_);
  backend_.linear(*head_input_, *weights_.lm_head, *logits_);
}

std::span<float> Decoder::host_logits(std::size_t rows) {
  const std::size_t count = rows * static_cast<std::size_t>(config_.vocab_size);
  if (host_logits_.size() < count) host_logits_.resize(count);
  return std::span(host_logits_).first(count);
}

std::span<const float> Decoder::logits(std::span<const std::int32_t> rows) {
  check(!rows.empty(), "there are rows");
  compute_logits(rows);
  const std::span<float> out = host_logits(rows.size());
  backend_.read(*logits_, out);
  return out;
}

void Decoder::forward_and_draw(const Batch& batch, KvCache& cache, std::span<const std::int32_t> rows) {
  check(!rows.empty() && rows.size() <= batch.draws.size(), "every row has a draw");
  const std::int64_t most_rows = std::min(limits_.max_tokens, limits_.max_logit_rows);
  if (!recorder_ || batch.tokens() != batch.sequences() || batch.tokens() > most_rows ||
      static_cast<std::int64_t>(rows.size()) != batch.tokens()) {
    forward(batch, cache);
    draw(rows, 0);
    return;
  }
  recorder_->run(batch, cache, most_rows, [this] {
    layers_.begin_recorded_step();
    run_layers();
    compute_logits({});
    backend_.draw(*logits_, 0);
  });
}

void Decoder::draw(std::span<const std::int32_t> rows, std::int64_t first_draw) {
  compute_logits(rows);
  backend_.draw(*logits_, first_draw);
}

std::span<const float> Decoder::drawn_logits(std::span<const std::int32_t> indices) {
  const std::span<float> out = host_logits(indices.size());
  backend_.read_rows(*logits_, indices, out);
  return out;
}

MemoryUse Decoder::memory_use(const KvCache* kv_cache) const {
  const std::int64_t head_columns = config_.hidden_size + 2 * config_.vocab_size;
  return {weights_.bytes, kv_cache ? kv_cache->bytes() : 0,
          layers_.workspace_bytes() +
              limits_.max_logit_rows * head_columns * static_cast<std::int64_t>(sizeof(float))};
}

}  // namespace bise
