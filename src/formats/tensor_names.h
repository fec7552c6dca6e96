// Other names for the tensors and modules that Hugging Face checkpoints of the Llama family hold.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "tensor/tensor.h"

namespace bise {

// The Hugging Face name of a tensor or module of a Mistral-native file:
// "layers.0.attention.wq.weight" -> "model.layers.0.self_attn.q_proj.weight". Empty for an unknown name.
std::optional<std::string> hugging_face_name(std::string_view mistral_native);

// The one name this program uses for what Hugging Face checkpoints spell in several ways: the prefix of a
// multimodal wrapper is dropped ("language_model.model.layers.0..." and "model.language_model.layers.0..."
// -> "model.layers.0..."), and Mixtral's experts are w1, w2, w3 ("...experts.0.gate_proj" -> "w1",
// "down_proj" -> "w2", "up_proj" -> "w3"; "mlp.experts" -> "block_sparse_moe.experts").
std::string canonical_name(std::string_view hugging_face);

// Rows of q or k from the interleaved rotary order (pairs 2i, 2i+1 of a head rotate together: Mistral-native
// files, GGUF of the Llama type) to Hugging Face's (i and i + head_dim/2). `tensor` [heads * head_dim, ...]
// of any dtype; returns a copy.
Tensor from_interleaved_rotary(const Tensor& tensor, std::int64_t heads);

}  // namespace bise
