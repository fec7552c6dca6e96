#include "formats/ggml_blocks.h"

#include <array>
#include <cstring>

#include "base/check.h"
#include "base/error.h"
#include "tensor/float_types.h"

namespace bise {
namespace {

template <class T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

std::uint8_t byte_at(const std::byte* at, int index) {
  return std::to_integer<std::uint8_t>(at[index]);
}

float half_at(const std::byte* at) {
  return f16_to_float(load<f16>(at));
}

void from_f32(const std::byte* block, float* out) {
  *out = load<float>(block);
}

void from_f16(const std::byte* block, float* out) {
  *out = half_at(block);
}

void from_bf16(const std::byte* block, float* out) {
  *out = bf16_to_float(load<bf16>(block));
}

// 32 elements: f16 scale, 16 bytes; byte i holds element i (low nibble) and element 16 + i.
void from_q4_0(const std::byte* block, float* out) {
  const float scale = half_at(block);
  for (int i = 0; i < 16; ++i) {
    const std::uint8_t pair = byte_at(block + 2, i);
    out[i] = static_cast<float>((pair & 15) - 8) * scale;
    out[i + 16] = static_cast<float>((pair >> 4) - 8) * scale;
  }
}

// The same with an f16 minimum after the scale.
void from_q4_1(const std::byte* block, float* out) {
  const float scale = half_at(block), minimum = half_at(block + 2);
  for (int i = 0; i < 16; ++i) {
    const std::uint8_t pair = byte_at(block + 4, i);
    out[i] = static_cast<float>(pair & 15) * scale + minimum;
    out[i + 16] = static_cast<float>(pair >> 4) * scale + minimum;
  }
}

// 32 elements: f16 scale, 32 signed bytes.
void from_q8_0(const std::byte* block, float* out) {
  const float scale = half_at(block);
  for (int i = 0; i < 32; ++i)
    out[i] = static_cast<float>(static_cast<std::int8_t>(byte_at(block + 2, i))) * scale;
}

// 6-bit scale and minimum of sub-block `j` of a Q4_K block: 0..3 in bytes j and j + 4; 4..7 in the nibbles of
// byte j + 4, with their two high bits on top of bytes j - 4 and j.
void scale_and_minimum(const std::byte* packed, int j, int& scale, int& minimum) {
  if (j < 4) {
    scale = byte_at(packed, j) & 63;
    minimum = byte_at(packed, j + 4) & 63;
  } else {
    scale = (byte_at(packed, j + 4) & 15) | ((byte_at(packed, j - 4) >> 6) << 4);
    minimum = (byte_at(packed, j + 4) >> 4) | ((byte_at(packed, j) >> 6) << 4);
  }
}

// 256 elements in 8 sub-blocks of 32: f16 d, f16 dmin, 12 bytes of scales and minimums, 128 bytes of nibbles;
// sub-blocks 2k and 2k + 1 share bytes 32k .. 32k + 31 (low and high nibble). value = d*scale*q -
// dmin*minimum.
void from_q4_k(const std::byte* block, float* out) {
  const float d = half_at(block), dmin = half_at(block + 2);
  const std::byte* codes = block + 16;
  for (int j = 0; j < 8; ++j) {
    int scale = 0, minimum = 0;
    scale_and_minimum(block + 4, j, scale, minimum);
    const float factor = d * static_cast<float>(scale), offset = dmin * static_cast<float>(minimum);
    for (int i = 0; i < 32; ++i) {
      const std::uint8_t pair = byte_at(codes, j / 2 * 32 + i);
      const int code = j % 2 == 0 ? pair & 15 : pair >> 4;
      out[j * 32 + i] = factor * static_cast<float>(code) - offset;
    }
  }
}

// 256 elements in 16 sub-blocks of 16: 128 bytes of low nibbles, 64 of high bit pairs, 16 signed scales,
// f16 d. value = d * scale * (q - 32). Each half of 128 elements has four runs of 32, interleaved.
void from_q6_k(const std::byte* block, float* out) {
  const float d = half_at(block + 208);
  for (int half = 0; half < 2; ++half) {
    const std::byte* low = block + half * 64;
    const std::byte* high = block + 128 + half * 32;
    const std::byte* scales = block + 192 + half * 8;
    for (int run = 0; run < 4; ++run)
      for (int i = 0; i < 32; ++i) {
        const std::uint8_t pair = byte_at(low, run % 2 * 32 + i);
        const int nibble = run < 2 ? pair & 15 : pair >> 4;
        const int code = (nibble | (((byte_at(high, i) >> (2 * run)) & 3) << 4)) - 32;
        const auto scale = static_cast<std::int8_t>(byte_at(scales, run * 2 + i / 16));
        out[half * 128 + run * 32 + i] = d * static_cast<float>(scale) * static_cast<float>(code);
      }
  }
}

constexpr std::array<GgmlBlock, 8> kBlocks = {{{0, "F32", 1, 4, from_f32},
                                               {1, "F16", 1, 2, from_f16},
                                               {2, "Q4_0", 32, 18, from_q4_0},
                                               {3, "Q4_1", 32, 20, from_q4_1},
                                               {8, "Q8_0", 32, 34, from_q8_0},
                                               {12, "Q4_K", 256, 144, from_q4_k},
                                               {14, "Q6_K", 256, 210, from_q6_k},
                                               {30, "BF16", 1, 2, from_bf16}}};

}  // namespace

const GgmlBlock* find_ggml_block(std::uint32_t type) {
  for (const GgmlBlock& block : kBlocks)
    if (block.type == type) return &block;
  return nullptr;
}

std::size_t ggml_bytes(const GgufTensor& tensor) {
  const GgmlBlock* block = find_ggml_block(static_cast<std::uint32_t>(tensor.type));
  if (!block)
    throw Error("tensor {} has an unsupported type", tensor.name)
        .expected("F32, F16, BF16, Q4_0, Q4_1, Q8_0, Q4_K or Q6_K")
        .got(fmt::format("ggml type {}", static_cast<std::uint32_t>(tensor.type)));
  const auto per_block = static_cast<std::int64_t>(block->elements);
  if (tensor.columns() % per_block != 0)
    throw Error("rows of tensor {} are no whole number of blocks", tensor.name)
        .expected(fmt::format("a multiple of {}", per_block))
        .got(fmt::format("{} columns", tensor.columns()));
  const auto blocks = static_cast<std::size_t>(element_count(tensor.shape) / per_block);
  if (blocks > (std::size_t{1} << 56) / block->bytes) throw Error("tensor {} is too large", tensor.name);
  return blocks * block->bytes;
}

void dequantize_ggml(const GgufTensor& tensor, std::int64_t begin, std::int64_t end, std::span<float> out) {
  const GgmlBlock* block = find_ggml_block(static_cast<std::uint32_t>(tensor.type));
  check(block && 0 <= begin && begin <= end && end <= tensor.rows(), "rows stay inside the tensor");
  check(static_cast<std::int64_t>(out.size()) == (end - begin) * tensor.columns(), "rows fit the output");
  const std::size_t blocks_per_row = static_cast<std::size_t>(tensor.columns()) / block->elements;
  const std::byte* from =
      tensor.bytes.data() + static_cast<std::size_t>(begin) * blocks_per_row * block->bytes;
  for (std::size_t i = 0; i < out.size(); i += block->elements, from += block->bytes)
    block->dequantize(from, out.data() + i);
}

}  // namespace bise
