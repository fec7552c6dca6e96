// The device functions behind the CUDA backend, launched on `stream`, one .cu file for each section. Pointers
// are device memory. Widths are padded: a linear input has `stride` = columns rounded up to kPad values a
// row, zero beyond the columns, so that kernels load whole vectors.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/int4_panels.h"

namespace bise::cuda {

constexpr std::int64_t kPad = 128;
inline std::int64_t padded(std::int64_t columns) {
  return (columns + kPad - 1) / kPad * kPad;
}

// A float value's type on the device; kE4M3 in KV caches only.
enum class Float { kF32, kBf16, kE4M3 };

// A matrix row-major [rows, columns] of either type.
struct Values {
  void* data = nullptr;
  Float type = Float::kF32;
};

// How a row is encoded; numbers as InputType's.
enum class Encoding { kBf16, kInt8Token, kFp8Token, kFp8Tensor };
// codes: bf16 or one byte each [rows, stride]; scales [rows].
struct Encoded {
  void* codes = nullptr;
  float* scales = nullptr;
  Encoding encoding = Encoding::kBf16;
  std::int64_t columns = 0, stride = 0;
};

// bandwidth.cu: reads all bytes (a multiple of 16) once.
void read_all(const void* bytes, std::int64_t count, std::uint32_t* sum, cudaStream_t stream);

// embed.cu: out[t] = table[token_ids[t]] for `tokens` rows.
void embed(Values table, const std::int32_t* token_ids, std::int64_t tokens, std::int64_t columns, Values out,
           cudaStream_t stream);

// norm.cu: Backend::add_rms_norm. `delta` may have no data; `rows` may be null (then count = all rows).
void add_rms_norm(Values delta, float* residual, std::int64_t residual_rows, const float* weight, float eps,
                  float static_scale, const std::int32_t* rows, std::int64_t count, Encoded out,
                  cudaStream_t stream);

// encode.cu
void encode(Values in, std::int64_t rows, float static_scale, Encoded out, cudaStream_t stream);
// silu(gate) * up of gate_up [rows, 2 * out.columns], encoded.
void gate_and_encode(Values gate_up, std::int64_t rows, float static_scale, Encoded out, cudaStream_t stream);
// What sums of codes are multiplied with, for each row of the output and each column, and what is added.
struct SumScales {
  const float *rows = nullptr, *columns = nullptr, *bias = nullptr;
};
// gate_and_encode() of sums of codes, int32 or float32, that are scaled first. `scales.columns` is there.
bool supports_gate_of_sums(const Encoded& out);
void gate_sums_and_encode(const void* sums, bool integers, const SumScales& scales, std::int64_t rows,
                          float static_scale, Encoded out, cudaStream_t stream);
// Back to floats [rows, columns], codes times scales.
void decode(Encoded in, std::int64_t rows, float* out, cudaStream_t stream);
// The codes alone as bf16 [rows, stride]; exact.
void codes_to_bf16(Encoded in, std::int64_t rows, void* out, cudaStream_t stream);
// out[r, i] = in[r, permutation[i]] of bf16 rows of `stride`; entries of -1 give zero.
void permute_columns(const void* in, const std::int32_t* permutation, std::int64_t rows, std::int64_t stride,
                     void* out, cudaStream_t stream);
// The values as [stride, depth], zero beyond `rows`: columns become rows.
void transpose(Encoded in, std::int64_t rows, std::int64_t depth, Values out, cudaStream_t stream);
void to_float(Values in, std::int64_t count, float* out, cudaStream_t stream);
void from_float(const float* in, std::int64_t count, Values out, cudaStream_t stream);

struct TokenDraw;  // draw.h

// The tokens of a step on the device (Batch).
struct StepView {
  const std::int32_t *token_ids = nullptr, *positions = nullptr, *token_sequence = nullptr;
  const std::int32_t *query_starts = nullptr, *context_lengths = nullptr;
  const std::int32_t* block_table = nullptr;  // [sequences, groups, blocks_per_sequence]
  const TokenDraw* draws = nullptr;
  std::int64_t tokens = 0, sequences = 0, groups = 1, blocks_per_sequence = 0;
  // Of a recorded step, the longest context that it may be replayed with.
  std::int64_t longest_query = 0, longest_context = 0;
};

// One layer's keys and values: [num_blocks, block_size, num_kv_heads, head_dim] each.
struct CacheView {
  void *keys = nullptr, *values = nullptr;
  Float type = Float::kBf16;
  std::int64_t num_blocks = 0, block_size = 0, num_kv_heads = 0, head_dim = 0;
  float key_scale = 1, value_scale = 1;  // of kE4M3: what its codes are multiplied with
};

// rope.cu: Backend::rope_and_store. `inv_freq` [head_dim / 2].
void rope_and_store(Values qkv, std::int64_t num_heads, const float* inv_freq, float attention_factor,
                    const StepView& step, std::int64_t group, const CacheView& cache, cudaStream_t stream);
// The keys and values of qkv into the cache, both bf16, keys turned by rope_angles(); qkv stays as it is.
void turn_and_store(const void* qkv, std::int64_t num_heads, const float* angles, const StepView& step,
                    std::int64_t group, const CacheView& cache, cudaStream_t stream);
// Each token's cosines and sines, [tokens, half] pairs.
void rope_angles(const float* inv_freq, std::int64_t half, float attention_factor, const StepView& step,
                 float* angles, cudaStream_t stream);

// attention.cu and tile_attention.cu: Backend::attention, into `out`, float32 or bf16, rows of `out_stride`
// values. `workspace` holds attention_workspace() bytes, zero at first. longest_query and longest_context of
// the step may be larger than they are. `angles`: null, or as tile_attention.h says.
std::size_t attention_workspace(const StepView& step, std::int64_t num_heads, const CacheView& cache);
void attention(Values qkv, const float* angles, std::int64_t num_heads, const StepView& step,
               std::int64_t group, std::int64_t sliding_window, const CacheView& cache, Values out,
               std::int64_t out_stride, void* workspace, cudaStream_t stream);

// A stored weight [rows, columns] on the device, rows padded to 16, columns to kPad; codes in the order of
// the checkpoint, low bits first.
enum class WeightFormat { kBf16, kFp8, kInt8, kInt4, kInt4Panels, kNf4 };
struct Weight {
  WeightFormat format = WeightFormat::kBf16;
  const void* codes = nullptr;  // kInt4 and kNf4: two a byte; kNf4 holds the high nibble first
  Int4Panels panels;            // kInt4Panels, instead of codes, zero_points and but for kNone scales
  // [padded rows, groups] of the value (code - zero point) * scale; null for kBf16.
  const float* scales = nullptr;
  const std::int8_t* zero_points = nullptr;  // [padded rows, groups] or null
  const float* levels = nullptr;             // kNf4: [16]
  std::int64_t rows = 0, columns = 0, stride = 0, groups = 1, group_size = 0;
};
inline std::int64_t padded_rows(std::int64_t rows) {
  return (rows + 15) / 16 * 16;
}

// small_linear.cu: out[r, n] = (sum over k of weight[n, k] * in[r, k]) * in.scales[r] + bias[n], for few
// rows. Reads the weight once for every 64 rows. Where in.encoding is kInt8Token or fp8, the weight has the
// same codes, one scale a row and no zero points. The result of a row does not depend on the others.
void small_linear(const Encoded& in, std::int64_t rows, const Weight& weight, const float* bias, Values out,
                  cudaStream_t stream);

// dequantize.cu: the weight's values as bf16 [rows, stride].
void dequantize(const Weight& weight, void* out, cudaStream_t stream);
// out[r, n] = sums[r, n] * scales.rows[r] * scales.columns[n] + scales.bias[n] (null: 1, 1, 0), sums int32 or
// float32.
void scale_sums(const void* sums, bool integers, std::int64_t rows, std::int64_t columns,
                const SumScales& scales, Values out, cudaStream_t stream);

}  // namespace bise::cuda
