// Mixtral (Jiang et al. 2024): a router picks num_experts_per_tok of num_local_experts gated MLPs.
#include <fmt/format.h>

#include <utility>

#include "model/family.h"

namespace bise {
namespace {

void read_mlp(const ModelConfig& config, const ReadLinear& read, const std::string& prefix,
              LayerTensors& layer) {
  layer.gate = read(prefix + "block_sparse_moe.gate", config.num_local_experts, config.hidden_size);
  for (std::int64_t expert = 0; expert < config.num_local_experts; ++expert) {
    const std::string module = fmt::format("{}block_sparse_moe.experts.{}.", prefix, expert);
    layer.experts.push_back({read(module + "w1", config.intermediate_size, config.hidden_size),
                             read(module + "w3", config.intermediate_size, config.hidden_size),
                             read(module + "w2", config.hidden_size, config.intermediate_size)});
  }
}

void prepare_mlp(Backend& backend, const ModelConfig& config, LayerTensors& tensors, LayerWeights& weights) {
  weights.experts = std::make_unique<ExpertWeights>();
  weights.experts->experts_per_token = config.num_experts_per_tok;
  weights.experts->router = backend.prepare_linear({std::move(tensors.gate.linear)});
  for (ExpertTensors& expert : tensors.experts) {
    weights.experts->gate_up.push_back(
        backend.prepare_linear({std::move(expert.w1.linear), std::move(expert.w3.linear)}));
    weights.experts->down.push_back(backend.prepare_linear({std::move(expert.w2.linear)}));
  }
}

}  // namespace

const Family kMixtralFamily = {read_mlp, prepare_mlp};

}  // namespace bise
