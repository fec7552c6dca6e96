// Llama (Touvron et al. 2023), Mistral 7B (Jiang et al. 2023) and Ministral: one gated MLP.
#include <utility>

#include "model/family.h"

namespace bise {
namespace {

void read_mlp(const ModelConfig& config, const ReadLinear& read, const std::string& prefix,
              LayerTensors& layer) {
  layer.gate_proj = read(prefix + "mlp.gate_proj", config.intermediate_size, config.hidden_size);
  layer.up_proj = read(prefix + "mlp.up_proj", config.intermediate_size, config.hidden_size);
  layer.down_proj = read(prefix + "mlp.down_proj", config.hidden_size, config.intermediate_size);
}

void prepare_mlp(Backend& backend, const ModelConfig&, LayerTensors& tensors, LayerWeights& weights) {
  weights.gate_up =
      backend.prepare_linear({std::move(tensors.gate_proj.linear), std::move(tensors.up_proj.linear)});
  weights.down_proj = backend.prepare_linear({std::move(tensors.down_proj.linear)});
}

}  // namespace

const Family kLlamaFamily = {read_mlp, prepare_mlp};

}  // namespace bise
