#include "backend/cuda/int4_panels.h"

#include <algorithm>

#include "backend/cuda/device_math.cuh"

namespace bise::cuda {
namespace {

constexpr int kThreads = 128, kBlockRows = 64, kBlockColumns = 128;

// Where a panel's nibble comes from: row and column within the block.
struct Origin {
  int row, column;
};
__device__ inline Origin origin_of(int thread, int step, int nibble, int high) {
  const int warp = thread / 32, g = thread % 32 / 4, t = thread % 4;
  return {warp * 16 + g + nibble % 2 * 8, step * 16 + 2 * t + high + nibble / 2 * 8};
}

__device__ inline void store_scale(char* scales, int index, PanelScale type, float scale) {
  if (type == PanelScale::kBf16)
    reinterpret_cast<bf16*>(scales)[index] = __float2bfloat16_rn(scale);
  else if (type == PanelScale::kF16)
    reinterpret_cast<__half*>(scales)[index] = __float2half_rn(scale);
  else
    reinterpret_cast<float*>(scales)[index] = scale;
}

__device__ inline float load_scale(const char* scales, int index, PanelScale type) {
  if (type == PanelScale::kBf16) return __bfloat162float(reinterpret_cast<const bf16*>(scales)[index]);
  if (type == PanelScale::kF16) return __half2float(reinterpret_cast<const __half*>(scales)[index]);
  return reinterpret_cast<const float*>(scales)[index];
}

// A block of threads makes a block of the panels. Rows beyond the weight's get the code of zero.
__global__ void __launch_bounds__(kThreads)
    make_kernel(Weight weight, Int4Panels panels, std::int64_t rows, char* out) {
  const std::int64_t chunk = blockIdx.x, first_row = static_cast<std::int64_t>(blockIdx.y) * kBlockRows;
  char* block = out + (blockIdx.y * std::int64_t{gridDim.x} + chunk) * panels.block_bytes;
  const auto* bytes = static_cast<const std::uint8_t*>(weight.codes);
  for (int half = 0; half < 2; ++half) {
    std::uint32_t words[4] = {};
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const Origin from = origin_of(threadIdx.x, half * 4 + i / 8, i % 4, i / 4 % 2);
      const std::int64_t row = first_row + from.row, column = chunk * kBlockColumns + from.column;
      unsigned code = 8;
      if (row < rows) code = (bytes[(row * weight.stride + column) / 2] >> (column % 2 * 4)) & 15;
      words[i / 8] |= code << (i % 4 * 4 + i / 4 % 2 * 16);
    }
    reinterpret_cast<uint4*>(block)[half * kThreads + threadIdx.x] = {words[0], words[1], words[2], words[3]};
  }
  const int groups = kBlockColumns / panels.group_columns;
  for (int i = threadIdx.x; i < groups * kBlockRows; i += kThreads) {
    const std::int64_t row = first_row + i % kBlockRows;
    const std::int64_t column = chunk * kBlockColumns + i / kBlockRows * panels.group_columns;
    const std::int64_t at = row * weight.groups + column / weight.group_size;
    if (panels.scale != PanelScale::kNone)
      store_scale(block + kPanelCodeBytes, i, panels.scale, row < rows ? weight.scales[at] : 0.f);
    if (panels.has_zeros)
      reinterpret_cast<std::int8_t*>(block + panels.zero_offset)[i] = row < rows ? weight.zero_points[at] : 0;
  }
}

// Through shared memory, so that rows are written in whole vectors. Rounded once, as dequantize() does.
__global__ void __launch_bounds__(kThreads) dequantize_kernel(Weight weight, bf16* out) {
  __shared__ alignas(16) bf16 values[kBlockRows][kBlockColumns + 8];
  const Int4Panels& panels = weight.panels;
  const std::int64_t chunk = blockIdx.x, first_row = static_cast<std::int64_t>(blockIdx.y) * kBlockRows;
  const char* block = static_cast<const char*>(panels.data) +
                      (blockIdx.y * std::int64_t{gridDim.x} + chunk) * panels.block_bytes;
  const auto* zeros = reinterpret_cast<const std::int8_t*>(block + panels.zero_offset);
  for (int half = 0; half < 2; ++half) {
    const uint4 raw = reinterpret_cast<const uint4*>(block)[half * kThreads + threadIdx.x];
    const std::uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int step = 0; step < 4; ++step)
#pragma unroll
      for (int nibble = 0; nibble < 4; ++nibble) {
        const Origin to = origin_of(threadIdx.x, half * 4 + step, nibble, 0);
        const int index = to.column / panels.group_columns * kBlockRows + to.row;
        float scale = 1;
        if (panels.scale != PanelScale::kNone)
          scale = load_scale(block + kPanelCodeBytes, index, panels.scale);
        else if (first_row + to.row < weight.rows)
          scale = weight.scales[first_row + to.row];
        const int offset = 8 + (panels.has_zeros ? zeros[index] : 0);
        const auto code = [&](int high) {
          return static_cast<int>(words[step] >> (nibble * 4 + high * 16) & 15) - offset;
        };
        const __nv_bfloat162 pair =
            __floats2bfloat162_rn(static_cast<float>(code(0)) * scale, static_cast<float>(code(1)) * scale);
        *reinterpret_cast<__nv_bfloat162*>(&values[to.row][to.column]) = pair;
      }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kBlockRows * kBlockColumns / 8; i += kThreads) {
    const int row = i / (kBlockColumns / 8), column = i % (kBlockColumns / 8) * 8;
    if (first_row + row < weight.rows)
      *reinterpret_cast<uint4*>(out + (first_row + row) * weight.stride + chunk * kBlockColumns + column) =
          *reinterpret_cast<const uint4*>(&values[row][column]);
  }
}

// Bit 0: a scale is no bf16; bit 1: no f16.
__global__ void __launch_bounds__(kThreads)
    inexact_kernel(const float* scales, std::int64_t count, int* bits) {
  int mine = 0;
  for (std::int64_t i = blockIdx.x * std::int64_t{kThreads} + threadIdx.x; i < count;
       i += std::int64_t{gridDim.x} * kThreads) {
    const float scale = scales[i];
    mine |= (__bfloat162float(__float2bfloat16_rn(scale)) != scale) |
            (__half2float(__float2half_rn(scale)) != scale) << 1;
  }
  mine = __reduce_or_sync(~0u, mine);
  if (mine && threadIdx.x % 32 == 0) atomicOr(bits, mine);
}

bool has_one_scale_a_row(const Weight& weight) {
  return weight.group_size == weight.stride;
}

dim3 grid_of(const Weight& weight) {
  return {static_cast<unsigned>(weight.stride / kBlockColumns),
          static_cast<unsigned>((weight.rows + kBlockRows - 1) / kBlockRows)};
}

}  // namespace

bool supports_panels(const Weight& weight) {
  const std::int64_t size = weight.group_size;
  return weight.format == WeightFormat::kInt4 &&
         (size == 32 || size == 64 || size % kBlockColumns == 0 || has_one_scale_a_row(weight));
}

PanelScale exact_panel_scale(const Weight& weight, void* scratch, cudaStream_t stream) {
  if (has_one_scale_a_row(weight)) return PanelScale::kNone;
  const std::int64_t count = weight.rows * weight.groups;
  cudaMemsetAsync(scratch, 0, sizeof(int), stream);
  inexact_kernel<<<std::min(1024u, blocks_for(count, kThreads)), kThreads, 0, stream>>>(
      weight.scales, count, static_cast<int*>(scratch));
  int bits = 3;
  cudaMemcpyAsync(&bits, scratch, sizeof bits, cudaMemcpyDeviceToHost, stream);
  cudaStreamSynchronize(stream);
  return !(bits & 1) ? PanelScale::kBf16 : !(bits & 2) ? PanelScale::kF16 : PanelScale::kF32;
}

Int4Panels panels_of(const Weight& weight, PanelScale scale) {
  Int4Panels panels;
  panels.scale = scale;
  panels.group_columns = static_cast<int>(std::min<std::int64_t>(weight.group_size, kBlockColumns));
  const int scales = kBlockColumns / panels.group_columns * kBlockRows;
  const int scale_bytes = scale == PanelScale::kNone ? 0 : scale == PanelScale::kF32 ? 4 : 2;
  panels.has_zeros = weight.zero_points != nullptr;
  panels.zero_offset = kPanelCodeBytes + scales * scale_bytes;
  panels.block_bytes = panels.zero_offset + (panels.has_zeros ? scales : 0);
  return panels;
}

std::size_t panel_bytes(const Weight& weight, const Int4Panels& panels) {
  const dim3 grid = grid_of(weight);
  return static_cast<std::size_t>(grid.x) * grid.y * static_cast<std::size_t>(panels.block_bytes);
}

void make_panels(const Weight& weight, const Int4Panels& panels, void* out, cudaStream_t stream) {
  make_kernel<<<grid_of(weight), kThreads, 0, stream>>>(weight, panels, weight.rows, static_cast<char*>(out));
}

void dequantize_panels(const Weight& weight, void* out, cudaStream_t stream) {
  dequantize_kernel<<<grid_of(weight), kThreads, 0, stream>>>(weight, static_cast<bf16*>(out));
}

}  // namespace bise::cuda
