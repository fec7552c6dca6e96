// What differs between model families: the MLP of a layer. One file a family; loader.cpp has the table.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "backend/backend.h"
#include "formats/model_config.h"
#include "model/weights.h"

namespace bise {

// Reads the linear layer `module` [rows, columns], shapes checked.
using ReadLinear =
    std::function<NamedLinear(const std::string& module, std::int64_t rows, std::int64_t columns)>;

struct Family {
  // Fills the MLP's part of `layer`; `prefix` is "model.layers.N.".
  void (*read_mlp)(const ModelConfig& config, const ReadLinear& read, const std::string& prefix,
                   LayerTensors& layer);
  // Prepares it; the tensors are moved out.
  void (*prepare_mlp)(Backend& backend, const ModelConfig& config, LayerTensors& tensors,
                      LayerWeights& weights);
};

extern const Family kLlamaFamily;    // Llama, Mistral, Ministral: gate, up, down
extern const Family kMixtralFamily;  // sparse mixture of experts

}  // namespace bise
