#include "model/layer_runner.h"

#include "base/check.h"
#include "model/rope.h"

namespace bise {

LayerRunner::LayerRunner(Backend& backend, const ModelConfig& config, std::int64_t max_tokens,
                         Partition partition)
    : backend_(backend),
      partition_(std::move(partition)),
      attention_{config.num_attention_heads, config.num_key_value_heads, config.head_dim},
      rope_(make_rope_table(config.rope, config.head_dim)),
      sliding_window_(config.sliding_window),
      eps_(static_cast<float>(config.rms_norm_eps)),
      residual_(backend.make_residual(max_tokens, config.hidden_size)),
      delta_(backend.make_intermediate(max_tokens, config.hidden_size)),
      qkv_(backend.make_intermediate(max_tokens, attention_.qkv_columns())),
      hidden_input_(backend.make_linear_input(max_tokens, config.hidden_size)),
      attention_output_(backend.make_linear_input(max_tokens, attention_.num_heads * attention_.head_dim)),
      mlp_inner_(backend.make_linear_input(max_tokens, config.intermediate_size)) {
  check(static_cast<std::int64_t>(sliding_window_.size()) == config.num_hidden_layers,
        "every layer has a sliding window entry");
  check(partition_.ranks == 1 || partition_.all_reduce, "several ranks have a way to add");
}

std::int64_t LayerRunner::workspace_bytes() const {
  std::int64_t columns = residual_->columns() + delta_->columns() + qkv_->columns();
  for (const auto* input : {&hidden_input_, &attention_output_, &mlp_inner_}) columns += (*input)->columns();
  return max_tokens() * columns * static_cast<std::int64_t>(sizeof(float));
}

void LayerRunner::begin_step(const Batch& batch, KvCache& cache) {
  check(batch.tokens() <= max_tokens(), "a step fits the workspace");
  backend_.begin_step(batch, cache);
  delta_pending_ = false;
}

void LayerRunner::embed(const DeviceTensor& embed_tokens) {
  backend_.embed(embed_tokens, *residual_);
}

void LayerRunner::write_hidden(std::span<const float> hidden) {
  const auto columns = static_cast<std::size_t>(residual_->columns());
  backend_.write(hidden, static_cast<std::int64_t>(hidden.size() / columns), *residual_);
}

void LayerRunner::load_hidden(RowStore& store, std::int64_t first, std::int64_t tokens) {
  store.load(first, tokens, *residual_);
}

void LayerRunner::add_and_norm(const DeviceTensor& weight, InputEncoding encoding, LinearInput& out,
                               std::span<const std::int32_t> rows) {
  const Matrix* delta = delta_pending_ ? delta_.get() : nullptr;
  backend_.add_rms_norm(delta, *residual_, weight, eps_, encoding, out, rows);
  delta_pending_ = false;
}

void LayerRunner::run_layer(const LayerWeights& weights, std::int64_t index, CacheLayer cache_layer,
                            const InputObserver* observer) {
  cache_layer.key_scale = weights.key_scale.value_or(1);
  cache_layer.value_scale = weights.value_scale.value_or(1);
  add_and_norm(*weights.input_layernorm, encoding_for(*weights.qkv), *hidden_input_);
  if (observer) (*observer)(InputSite::kQkv, -1, *hidden_input_);
  backend_.qkv_linear(*hidden_input_, *weights.qkv, attention_, rope_, cache_layer, *qkv_);
  backend_.attention(attention_, cache_layer, sliding_window_[static_cast<std::size_t>(index)], *qkv_,
                     encoding_for(*weights.o_proj), *attention_output_);
  if (observer) (*observer)(InputSite::kOutput, -1, *attention_output_);
  add_product(*attention_output_, *weights.o_proj);
  weights.experts ? run_experts(weights, observer) : run_dense(weights, observer);
}

void LayerRunner::add_product(const LinearInput& in, const LinearWeight& weight) {
  if (partition_.ranks == 1 && backend_.linear_add(in, weight, *residual_)) return;
  backend_.linear(in, weight, *delta_);
  end_delta();
}

void LayerRunner::end_delta() {
  if (partition_.ranks > 1) partition_.all_reduce(*delta_);
  delta_pending_ = true;
}

void LayerRunner::run_dense(const LayerWeights& weights, const InputObserver* observer) {
  add_and_norm(*weights.post_attention_layernorm, encoding_for(*weights.gate_up), *hidden_input_);
  if (observer) (*observer)(InputSite::kGateUp, -1, *hidden_input_);
  backend_.gated_linear(*hidden_input_, *weights.gate_up, encoding_for(*weights.down_proj), *mlp_inner_);
  if (observer) (*observer)(InputSite::kDown, -1, *mlp_inner_);
  add_product(*mlp_inner_, *weights.down_proj);
}

void LayerRunner::run_experts(const LayerWeights& weights, const InputObserver* observer) {
  const ExpertWeights& experts = *weights.experts;
  add_and_norm(*weights.post_attention_layernorm, {}, *hidden_input_);
  if (observer) {
    (*observer)(InputSite::kGateUp, -1, *hidden_input_);
    for (std::size_t expert = 0; expert < experts.gate_up.size(); ++expert) {
      check(experts.gate_up[expert]->input_type() == InputType::kNone,
            "experts are observed before their inputs are quantized");
      backend_.gated_linear(*hidden_input_, *experts.gate_up[expert], {}, *mlp_inner_);
      (*observer)(InputSite::kDown, static_cast<std::int64_t>(expert), *mlp_inner_);
    }
  }
  backend_.experts(*hidden_input_, experts, *delta_);
  end_delta();
}

void LayerRunner::norm(const DeviceTensor& weight, std::span<const std::int32_t> rows, InputEncoding encoding,
                       LinearInput& out) {
  add_and_norm(weight, encoding, out, rows);
}

void LayerRunner::read_hidden(const DeviceTensor& weight, std::span<float> out) {
  if (delta_pending_) add_and_norm(weight, {}, *hidden_input_);
  backend_.read(*residual_, out);
}

void LayerRunner::save_hidden(const DeviceTensor& weight, RowStore& store, std::int64_t first) {
  if (delta_pending_) add_and_norm(weight, {}, *hidden_input_);
  store.save(*residual_, first);
}

}  // namespace bise
