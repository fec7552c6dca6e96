// A checkpoint folder opened as a model: its configuration, one layer at a time, or all of it prepared for a
// backend. One thread. Views it hands out keep the mapped files alive; it may be destroyed before them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "backend/backend.h"
#include "formats/model_config.h"
#include "formats/quantization_config.h"
#include "formats/safetensors.h"
#include "model/partition.h"
#include "model/weights.h"

namespace bise {

class ModelLoader {
 public:
  // Opens configuration and weights' headers. Throws Error (path, key or tensor) when either is bad.
  explicit ModelLoader(const std::filesystem::path& folder);

  const ModelConfig& config() const { return config_; }
  const QuantizationConfig& quantization() const { return quantization_; }
  const Checkpoint& checkpoint() const { return checkpoint_; }

  // Views of layer `index`, every shape checked against the configuration; a missing tensor is an Error.
  LayerTensors read_layer(std::int64_t index) const;
  Tensor read_embed_tokens() const;  // [vocabulary, hidden]
  Tensor read_norm() const;          // [hidden]
  // [vocabulary, hidden]; with tied embeddings a view of embed_tokens.
  NamedLinear read_lm_head() const;

  // Reads layer `index`, prepares this rank's share of it and drops the file's pages that the backend does
  // not need.
  LayerWeights load_layer(Backend& backend, std::int64_t index, const Partition& partition = {}) const;
  // Everything. `on_layer` (may be empty) is called after each layer.
  ModelWeights load_model(Backend& backend,
                          const std::function<void(std::int64_t layers_done)>& on_layer = {},
                          const Partition& partition = {}) const;

  // Drops the pages of a layer's tensors from memory.
  void release_layer(LayerTensors& layer) const;

 private:
  // Of a float8 KV cache: the tensor `name`, or what older files call it.
  std::optional<float> read_cache_scale(const std::string& name, const std::string& older) const;
  Tensor read_float(const std::string& name, const Shape& shape) const;
  void report_unexpected() const;

  std::filesystem::path folder_;
  ModelConfig config_;
  QuantizationConfig quantization_;
  Checkpoint checkpoint_;
};

// A layer ready to compute; quantizing calls it with linear layers it has replaced. Throws Error where the
// backend cannot compute with a scheme, or where layers that share an input want it encoded differently.
LayerWeights prepare_layer(Backend& backend, const ModelConfig& config, LayerTensors tensors);

}  // namespace bise
