// Small safetensors and GGUF files made in memory, valid or not, for the tests of formats/.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/tensor.h"

namespace bise {

template <class T>
std::string raw(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

inline void put_file(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

inline std::string get_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// A safetensors file from its header's text and its data, whether they fit together or not.
inline std::string safetensors_bytes(const std::string& header, const std::string& data) {
  return raw(std::uint64_t{header.size()}) + header + data;
}

// Elements 0, 1, 2, ... counted in bytes, so that every row differs.
inline Tensor counted(DType dtype, Shape shape) {
  Tensor tensor = Tensor::allocate(dtype, std::move(shape));
  auto* bytes = tensor.mutable_data<std::uint8_t>();
  for (std::size_t i = 0; i < tensor.bytes().size(); ++i)
    bytes[i] = static_cast<std::uint8_t>(i * 7 + i / 256);
  return tensor;
}

inline bool same_tensor(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() && a.bytes().size() == b.bytes().size() &&
         std::memcmp(a.bytes().data(), b.bytes().data(), a.bytes().size()) == 0;
}

// Builds a GGUF file piece by piece.
class GgufBuilder {
 public:
  GgufBuilder& text(const std::string& key, const std::string& value) { return pair(key, 8, packed(value)); }
  GgufBuilder& number(const std::string& key, std::uint32_t value) { return pair(key, 4, raw(value)); }
  GgufBuilder& real(const std::string& key, float value) { return pair(key, 6, raw(value)); }
  GgufBuilder& flag(const std::string& key, bool value) { return pair(key, 7, raw(std::uint8_t{value})); }
  GgufBuilder& texts(const std::string& key, const std::vector<std::string>& values) {
    std::string body = raw(std::uint32_t{8}) + raw(std::uint64_t{values.size()});
    for (const std::string& value : values) body += packed(value);
    return pair(key, 9, body);
  }
  template <class T>
  GgufBuilder& list(const std::string& key, std::uint32_t type, const std::vector<T>& values) {
    std::string body = raw(type) + raw(std::uint64_t{values.size()});
    for (const T& value : values) body += raw(value);
    return pair(key, 9, body);
  }
  GgufBuilder& pair(const std::string& key, std::uint32_t type, const std::string& body) {
    pairs_ += packed(key) + raw(type) + body;
    ++pair_count_;
    return *this;
  }
  // `shape` is row-major.
  GgufBuilder& tensor(const std::string& name, const Shape& shape, std::uint32_t type, std::string bytes) {
    infos_ += packed(name) + raw(static_cast<std::uint32_t>(shape.size()));
    for (auto size = shape.rbegin(); size != shape.rend(); ++size) infos_ += raw(std::uint64_t(*size));
    infos_ += raw(type) + raw(std::uint64_t{data_.size()});
    bytes.resize((bytes.size() + 31) / 32 * 32, '\0');
    data_ += bytes;
    ++tensor_count_;
    return *this;
  }
  std::string bytes(std::uint32_t version = 3) const {
    std::string file = "GGUF" + raw(version) + raw(tensor_count_) + raw(pair_count_) + pairs_ + infos_;
    file.resize((file.size() + 31) / 32 * 32, '\0');
    return file + data_;
  }
  static std::string packed(const std::string& value) { return raw(std::uint64_t{value.size()}) + value; }

 private:
  std::string pairs_, infos_, data_;
  std::uint64_t pair_count_ = 0, tensor_count_ = 0;
};

// A whole Llama of 2 layers, 2 heads, 1 KV head, 64 columns and 12 tokens, with its tokenizer.
inline GgufBuilder small_llama() {
  GgufBuilder gguf;
  gguf.text("general.architecture", "llama")
      .number("llama.block_count", 2)
      .number("llama.embedding_length", 64)
      .number("llama.feed_forward_length", 96)
      .number("llama.attention.head_count", 2)
      .number("llama.attention.head_count_kv", 1)
      .number("llama.context_length", 128)
      .real("llama.rope.freq_base", 10000)
      .real("llama.attention.layer_norm_rms_epsilon", 1e-5f)
      .text("tokenizer.ggml.model", "gpt2")
      .text("tokenizer.ggml.pre", "smollm")
      .texts("tokenizer.ggml.tokens", {"<e>", "<s>", "a", "b", "c", "ab", "abc", "d", "e", "f", "g", "h"})
      .list<std::int32_t>("tokenizer.ggml.token_type", 5, {3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1})
      .texts("tokenizer.ggml.merges", {"a b", "ab c"})
      .number("tokenizer.ggml.bos_token_id", 1)
      .number("tokenizer.ggml.eos_token_id", 0);
  const auto floats = [](std::int64_t count) {
    std::string bytes;
    for (std::int64_t i = 0; i < count; ++i) bytes += raw(static_cast<float>(i % 251) / 8);
    return bytes;
  };
  const auto add = [&](const std::string& name, const Shape& shape) {
    gguf.tensor(name, shape, 0, floats(element_count(shape)));
  };
  add("token_embd.weight", {12, 64});
  add("output_norm.weight", {64});
  for (const std::string layer : {"blk.0.", "blk.1."}) {
    add(layer + "attn_norm.weight", {64});
    add(layer + "ffn_norm.weight", {64});
    add(layer + "attn_q.weight", {64, 64});
    add(layer + "attn_k.weight", {32, 64});
    add(layer + "attn_v.weight", {32, 64});
    add(layer + "attn_output.weight", {64, 64});
    add(layer + "ffn_gate.weight", {96, 64});
    add(layer + "ffn_up.weight", {96, 64});
    add(layer + "ffn_down.weight", {64, 96});
  }
  return gguf;
}

}  // namespace bise
