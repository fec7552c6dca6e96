#include "model/loader.h"

#include <fmt/format.h>

#include <cmath>
#include <set>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/log.h"
#include "formats/quantized_tensors.h"
#include "model/family.h"
#include "tensor/float_types.h"

namespace bise {
namespace {

const Family& family_of(const ModelConfig& config) {
  return config.num_local_experts > 0 ? kMixtralFamily : kLlamaFamily;
}

std::int64_t tensor_bytes(const Tensor& tensor) {
  return static_cast<std::int64_t>(tensor.bytes().size());
}

std::int64_t layer_bytes(LayerTensors& layer) {
  std::int64_t total = tensor_bytes(layer.input_layernorm) + tensor_bytes(layer.post_attention_layernorm);
  for (const NamedLinear* each : layer.linears()) total += stored_bytes(each->linear);
  return total;
}

}  // namespace

ModelLoader::ModelLoader(const std::filesystem::path& folder)
    : folder_(folder),
      config_(read_model_config(folder)),
      quantization_(QuantizationConfig::read(folder)),
      checkpoint_(Checkpoint::open(folder)) {
  report_unexpected();
}

Tensor ModelLoader::read_float(const std::string& name, const Shape& shape) const {
  Tensor tensor = checkpoint_.tensor(name);
  if (tensor.shape() != shape)
    throw Error("tensor {} has the wrong shape", name)
        .at(folder_.string())
        .expected(shape_text(shape))
        .got(shape_text(tensor.shape()));
  const DType dtype = tensor.dtype();
  if (dtype != DType::kBF16 && dtype != DType::kF16 && dtype != DType::kF32)
    throw Error("tensor {} has the wrong type", name)
        .at(folder_.string())
        .expected("BF16, F16 or F32")
        .got(std::string(dtype_name(dtype)));
  return tensor;
}

Tensor ModelLoader::read_embed_tokens() const {
  return read_float("model.embed_tokens.weight", {config_.vocab_size, config_.hidden_size});
}

Tensor ModelLoader::read_norm() const {
  return read_float("model.norm.weight", {config_.hidden_size});
}

NamedLinear ModelLoader::read_lm_head() const {
  if (!config_.tie_word_embeddings)
    return {"lm_head",
            read_linear(checkpoint_, quantization_, "lm_head", config_.vocab_size, config_.hidden_size)};
  NamedLinear head = {"lm_head", {}};
  head.linear.rows = config_.vocab_size;
  head.linear.columns = config_.hidden_size;
  head.linear.weight = read_embed_tokens();
  head.linear.scheme.num_bits = head.linear.weight.dtype() == DType::kF32 ? 32 : 16;
  return head;
}

LayerTensors ModelLoader::read_layer(std::int64_t index) const {
  check(index >= 0 && index < config_.num_hidden_layers, "the layer exists");
  const std::string prefix = fmt::format("model.layers.{}.", index);
  const ReadLinear read = [&](const std::string& module, std::int64_t rows, std::int64_t columns) {
    return NamedLinear{module, read_linear(checkpoint_, quantization_, module, rows, columns)};
  };
  const std::int64_t hidden = config_.hidden_size;
  const std::int64_t query = config_.num_attention_heads * config_.head_dim;
  const std::int64_t key = config_.num_key_value_heads * config_.head_dim;
  LayerTensors layer;
  layer.input_layernorm = read_float(prefix + "input_layernorm.weight", {hidden});
  layer.post_attention_layernorm = read_float(prefix + "post_attention_layernorm.weight", {hidden});
  layer.q_proj = read(prefix + "self_attn.q_proj", query, hidden);
  layer.k_proj = read(prefix + "self_attn.k_proj", key, hidden);
  layer.v_proj = read(prefix + "self_attn.v_proj", key, hidden);
  layer.o_proj = read(prefix + "self_attn.o_proj", hidden, query);
  family_of(config_).read_mlp(config_, read, prefix, layer);
  layer.k_scale = read_cache_scale(prefix + "self_attn.k_scale", prefix + "self_attn.k_proj.output_scale");
  layer.v_scale = read_cache_scale(prefix + "self_attn.v_scale", prefix + "self_attn.v_proj.output_scale");
  return layer;
}

std::optional<float> ModelLoader::read_cache_scale(const std::string& name, const std::string& older) const {
  for (const std::string& each : {name, older}) {
    if (!checkpoint_.contains(each)) continue;
    const Tensor tensor = checkpoint_.tensor(each);
    if (!is_float(tensor.dtype()) || tensor.elements() != 1)
      throw Error("tensor {} is not one float, as a scale of the KV cache is", each)
          .at(folder_.string())
          .got(fmt::format("{} {}", dtype_name(tensor.dtype()), shape_text(tensor.shape())));
    float scale = 0;
    to_float(tensor, {&scale, 1});
    if (!(scale > 0 && std::isfinite(scale)))
      throw Error("tensor {} is not positive, as a scale of the KV cache is", each)
          .at(folder_.string())
          .got(fmt::format("{}", scale));
    return scale;
  }
  return std::nullopt;
}

void ModelLoader::release_layer(LayerTensors& layer) const {
  for (const NamedLinear* each : layer.linears()) release_linear(checkpoint_, each->module);
}

LayerWeights ModelLoader::load_layer(Backend& backend, std::int64_t index, const Partition& partition) const {
  LayerTensors layer = read_layer(index);
  LayerWeights weights =
      prepare_layer(backend, share_of(config_, partition), share_of(layer, config_, partition));
  // On a device nothing competes with these pages for memory, and dropping them takes time.
  if (backend.memory().host) release_layer(layer);
  return weights;
}

ModelWeights ModelLoader::load_model(Backend& backend, const std::function<void(std::int64_t)>& on_layer,
                                     const Partition& partition) const {
  ModelWeights weights;
  const Tensor embedding = read_embed_tokens(), norm = read_norm();
  weights.embed_tokens = backend.prepare_tensor(embedding);
  weights.norm = backend.prepare_tensor(norm);
  weights.bytes = tensor_bytes(embedding) + tensor_bytes(norm);
  for (std::int64_t index = 0; index < config_.num_hidden_layers; ++index) {
    weights.layers.push_back(load_layer(backend, index, partition));
    weights.bytes += weights.layers.back().bytes;
    if (on_layer) on_layer(index + 1);
  }
  NamedLinear head = read_lm_head();
  if (!config_.tie_word_embeddings) weights.bytes += stored_bytes(head.linear);
  weights.lm_head = backend.prepare_head(std::move(head.linear));
  return weights;
}

void ModelLoader::report_unexpected() const {
  std::set<std::string, std::less<>> modules = {"model.embed_tokens", "model.norm", "lm_head"};
  for (std::int64_t index = 0; index < config_.num_hidden_layers; ++index) {
    const std::string prefix = fmt::format("model.layers.{}.", index);
    modules.insert(prefix + "input_layernorm");
    modules.insert(prefix + "post_attention_layernorm");
    const ReadLinear name_only = [](const std::string& module, std::int64_t, std::int64_t) {
      return NamedLinear{module, {}};
    };
    LayerTensors layer;
    for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"})
      modules.insert(prefix + "self_attn." + name);
    family_of(config_).read_mlp(config_, name_only, prefix, layer);
    for (const NamedLinear* each : layer.linears()) modules.insert(each->module);
  }
  // A tensor belongs to a module when a prefix of its name, up to some dot, is the module's.
  for (const std::string& name : checkpoint_.names()) {
    bool known = false;
    for (std::size_t dot = name.find('.'); dot != std::string::npos && !known; dot = name.find('.', dot + 1))
      known = modules.contains(std::string_view(name).substr(0, dot));
    if (!known) log_debug("{}: tensor {} is not used", folder_.string(), name);
  }
}

LayerWeights prepare_layer(Backend& backend, const ModelConfig& config, LayerTensors tensors) {
  LayerWeights weights;
  weights.bytes = layer_bytes(tensors);
  weights.key_scale = tensors.k_scale;
  weights.value_scale = tensors.v_scale;
  const std::string place = tensors.q_proj.module.substr(0, tensors.q_proj.module.find(".self_attn"));
  try {
    weights.input_layernorm = backend.prepare_tensor(tensors.input_layernorm);
    weights.post_attention_layernorm = backend.prepare_tensor(tensors.post_attention_layernorm);
    weights.qkv = backend.prepare_linear({std::move(tensors.q_proj.linear), std::move(tensors.k_proj.linear),
                                          std::move(tensors.v_proj.linear)});
    weights.o_proj = backend.prepare_linear({std::move(tensors.o_proj.linear)});
    family_of(config).prepare_mlp(backend, config, tensors, weights);
  } catch (const Error& error) {
    rethrow_inside(error, place);
  }
  return weights;
}

}  // namespace bise
