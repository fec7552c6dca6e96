// How warpgroups of streamed_kernel.cuh scale the sums of a tile, join gate and up, and write what comes out.
#pragma once

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/hopper.cuh"
#include "backend/cuda/streamed_task.cuh"

namespace bise::cuda {

__device__ inline void store_out(const StreamedTask& task, int row, int column, float value) {
  const std::int64_t at = row * task.out_stride + column;
  if (task.out.type == Float::kBf16)
    store_value(static_cast<bf16*>(task.out.data) + at, value);
  else
    store_value(static_cast<float*>(task.out.data) + at, value);
}

// Where a thread's sum stands in the output; column counts within the half.
struct Position {
  int row, column;
  bool is_there;
};
template <class L>
__device__ inline Position position_of(int sum, int thread, int tile, const StreamedTask& task) {
  const int column = group_row<L>(tile / task.row_tiles, thread / 128, task) + thread / 32 % 4 * 16 +
                     thread % 32 / 4 + sum / 2 % 2 * 8;
  const int row = tile % task.row_tiles * L::kSums * 2 + sum / 4 * 8 + thread % 4 * 2 + sum % 2;
  return {row, column, column < task.half_rows && row < task.rows};
}

// `weight_row` counts through both halves.
template <class Sum>
__device__ inline float scaled(Sum sum, int row, int weight_row, const StreamedTask& task) {
  float value = static_cast<float>(sum);
  if (task.weight_scales) value *= task.weight_scales[weight_row];
  if (task.in_scales) value *= task.in_scales[row];
  if (task.bias) value += task.bias[weight_row];
  return value;
}

__device__ inline float gated(float gate, float up) {
  return gate / (1.f + expf(-gate)) * up;
}

// The scales and biases of a thread's sums, all loaded before the first result is stored: sum i is scaled
// with weight[i / 2 % 2] and in[i / 4 * 2 + i % 2].
template <class L>
struct Scales {
  float weight[2], bias[2], in[L::kHasInputScales ? L::kSums / 2 : 1];
};
// `first_row` of the weight's half.
template <class L>
__device__ inline Scales<L> load_scales(int tile, int first_row, const StreamedTask& task) {
  Scales<L> scales;
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    const Position at = position_of<L>(2 * k, threadIdx.x, tile, task);
    const int row = first_row + min(at.column, task.half_rows - 1);
    scales.weight[k] = task.weight_scales ? task.weight_scales[row] : 1.f;
    scales.bias[k] = task.bias ? task.bias[row] : 0.f;
  }
  if constexpr (L::kHasInputScales)
#pragma unroll
    for (int k = 0; k < L::kSums / 2; ++k) {
      const Position at = position_of<L>(k / 2 * 4 + k % 2, threadIdx.x, tile, task);
      scales.in[k] = task.in_scales ? task.in_scales[min(at.row, task.rows - 1)] : 1.f;
    }
  return scales;
}
template <class L, class Sum>
__device__ inline float scaled(Sum sum, int i, const Scales<L>& scales) {
  float value = static_cast<float>(sum) * scales.weight[i / 2 % 2];
  if constexpr (L::kHasInputScales) value *= scales.in[i / 4 * 2 + i % 2];
  return value + scales.bias[i / 2 % 2];
}

template <class L, class Sum>
__device__ void write_tile(const Sum (&sums)[L::kSums], int tile, const StreamedTask& task) {
  const Scales<L> scales = load_scales<L>(tile, 0, task);
#pragma unroll
  for (int i = 0; i < L::kSums; ++i) {
    const Position at = position_of<L>(i, threadIdx.x, tile, task);
    if (at.is_there) store_out(task, at.row, at.column, scaled<L>(sums[i], i, scales));
  }
}

// The warpgroups with up's rows hand their values to those with gate's.
template <class L, class Sum>
__device__ void write_gated(const Sum (&sums)[L::kSums], int tile, const StreamedTask& task,
                            float* exchange) {
  constexpr int kHalf = L::kConsumers / 2;
  float* mine = exchange + threadIdx.x % kHalf;
  const bool is_up = threadIdx.x >= kHalf;
  const Scales<L> scales = load_scales<L>(tile, is_up ? task.half_rows : 0, task);
  if (is_up)
#pragma unroll
    for (int i = 0; i < L::kSums; ++i) mine[i * kHalf] = scaled<L>(sums[i], i, scales);
  sync_threads_of(1, L::kConsumers);
  if (!is_up)
#pragma unroll
    for (int i = 0; i < L::kSums; ++i) {
      const Position at = position_of<L>(i, threadIdx.x, tile, task);
      const float value = gated(scaled<L>(sums[i], i, scales), mine[i * kHalf]);
      if (at.is_there) store_out(task, at.row, at.column, value);
    }
  sync_threads_of(1, L::kConsumers);
}

}  // namespace bise::cuda
