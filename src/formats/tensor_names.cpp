#include "formats/tensor_names.h"

#include <array>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace bise {
namespace {

using Renaming = std::pair<std::string_view, std::string_view>;

// Modules of a Mistral-native file (mistral-inference, transformer.py), without "layers.N.".
constexpr std::array<Renaming, 3> kNativeTop = {
    {{"tok_embeddings", "model.embed_tokens"}, {"norm", "model.norm"}, {"output", "lm_head"}}};
constexpr std::array<Renaming, 10> kNativeLayer = {{{"attention_norm", "input_layernorm"},
                                                    {"ffn_norm", "post_attention_layernorm"},
                                                    {"attention.wq", "self_attn.q_proj"},
                                                    {"attention.wk", "self_attn.k_proj"},
                                                    {"attention.wv", "self_attn.v_proj"},
                                                    {"attention.wo", "self_attn.o_proj"},
                                                    {"attention", "self_attn"},
                                                    {"feed_forward.w1", "mlp.gate_proj"},
                                                    {"feed_forward.w2", "mlp.down_proj"},
                                                    {"feed_forward.w3", "mlp.up_proj"}}};
// Quantized tensors of Mistral's own files, and what compressed-tensors calls them.
constexpr std::array<Renaming, 4> kNativeSuffix = {{{"qscale_weight", "weight_scale"},
                                                    {"qscale_act", "input_scale"},
                                                    {"fake_quantizer.qscale_act", "input_scale"},
                                                    {"activation_fake_quantizer.qscale_act", "input_scale"}}};
constexpr std::array<Renaming, 3> kExpert = {{{"gate_proj", "w1"}, {"down_proj", "w2"}, {"up_proj", "w3"}}};

bool starts_with_module(std::string_view name, std::string_view module) {
  return name.starts_with(module) && (name.size() == module.size() || name[module.size()] == '.');
}

// Splits "PREFIX.NUMBER.REST" after PREFIX; empty when there is no number.
std::optional<std::pair<std::string_view, std::string_view>> number_and_rest(std::string_view text) {
  const std::size_t dot = text.find('.');
  if (dot == 0 || dot == std::string_view::npos) return std::nullopt;
  for (const char c : text.substr(0, dot))
    if (c < '0' || c > '9') return std::nullopt;
  return std::pair(text.substr(0, dot), text.substr(dot + 1));
}

std::string with_known_suffix(std::string_view tail) {
  for (const auto& [native, known] : kNativeSuffix)
    if (tail.size() > 1 && tail.substr(1) == native) return std::string(".").append(known);
  return std::string(tail);
}

}  // namespace

std::optional<std::string> hugging_face_name(std::string_view name) {
  constexpr std::string_view kLayers = "layers.";
  if (!name.starts_with(kLayers)) {
    for (const auto& [native, known] : kNativeTop)
      if (starts_with_module(name, native))
        return std::string(known) + with_known_suffix(name.substr(native.size()));
    return std::nullopt;
  }
  const auto layer = number_and_rest(name.substr(kLayers.size()));
  if (!layer) return std::nullopt;
  const std::string prefix = "model.layers." + std::string(layer->first) + ".";
  const std::string_view rest = layer->second;
  for (const auto& [native, known] : kNativeLayer)
    if (starts_with_module(rest, native))
      return prefix + std::string(known) + with_known_suffix(rest.substr(native.size()));
  // Mixture of experts: "feed_forward.experts.E.w1", or "block_sparse_moe.experts.E.w1" in older files.
  for (const std::string_view block : {"feed_forward", "block_sparse_moe"})
    for (const std::string_view part : {"experts", "gate"}) {
      const std::string module = std::string(block) + "." + std::string(part);
      if (starts_with_module(rest, module))
        return prefix + "block_sparse_moe." + std::string(part) +
               with_known_suffix(rest.substr(module.size()));
    }
  if (starts_with_module(rest, "gate"))
    return prefix + "block_sparse_moe.gate" + with_known_suffix(rest.substr(4));
  return std::nullopt;
}

std::string canonical_name(std::string_view name) {
  std::string result(name);
  constexpr std::string_view kWrapped = "language_model.";
  if (result.starts_with("model.language_model.")) result.erase(6, kWrapped.size());
  if (result.starts_with(kWrapped)) result.erase(0, kWrapped.size());
  if (!result.starts_with("model.layers.")) return result;
  constexpr std::string_view kNewBlock = ".mlp.experts.", kBlock = ".block_sparse_moe.experts.";
  if (const std::size_t at = result.find(kNewBlock); at != std::string::npos)
    result.replace(at, kNewBlock.size(), kBlock);
  const std::size_t block = result.find(kBlock);
  if (block == std::string::npos) return result;
  const std::size_t expert = block + kBlock.size();
  const auto split = number_and_rest(std::string_view(result).substr(expert));
  if (!split) return result;
  const std::size_t projection = expert + split->first.size() + 1;
  for (const auto& [other, known] : kExpert)
    if (starts_with_module(split->second, other)) {
      result.replace(projection, other.size(), known);
      break;
    }
  return result;
}

Tensor from_interleaved_rotary(const Tensor& tensor, std::int64_t heads) {
  const std::int64_t rows = tensor.shape().empty() ? 0 : tensor.dim(0);
  if (heads <= 0 || rows % (2 * heads) != 0)
    throw Error("rows do not divide into {} heads of even size", heads).got(shape_text(tensor.shape()));
  Tensor result = Tensor::allocate(tensor.dtype(), tensor.shape());
  if (rows == 0) return result;
  const std::size_t row_bytes = tensor.bytes().size() / static_cast<std::size_t>(rows);
  const std::byte* from = tensor.bytes().data();
  auto* to = reinterpret_cast<std::byte*>(result.mutable_data<std::uint8_t>());
  const std::int64_t head_dim = rows / heads, half = head_dim / 2;
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t head = row / head_dim, inside = row % head_dim;
    const std::int64_t source = head * head_dim + 2 * (inside % half) + inside / half;
    std::memcpy(to + static_cast<std::size_t>(row) * row_bytes,
                from + static_cast<std::size_t>(source) * row_bytes, row_bytes);
  }
  return result;
}

}  // namespace bise
