// ggml's block formats: how many elements and bytes a block has, and its values in float32.
// Layouts: ggml-common.h of https://github.com/ggml-org/ggml, versions of 2023 to 2026.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "formats/gguf.h"

namespace bise {

struct GgmlBlock {
  std::uint32_t type;
  std::string_view name;
  std::size_t elements, bytes;
  // `elements` values of one block.
  void (*dequantize)(const std::byte* block, float* out);
};

// Null for a type that is not supported.
const GgmlBlock* find_ggml_block(std::uint32_t type);

// Bytes of the whole tensor. Throws Error naming it when its type is not supported, when its rows are no
// whole number of blocks or when it is too large.
std::size_t ggml_bytes(const GgufTensor& tensor);

// Rows [begin, end) into `out` [(end - begin) * columns].
void dequantize_ggml(const GgufTensor& tensor, std::int64_t begin, std::int64_t end, std::span<float> out);

}  // namespace bise
