// The products of streamed_kernel.cuh: what a warpgroup adds to its sums, chunk after chunk of the ring.
#pragma once

#include "backend/cuda/scaled_panels.cuh"
#include "backend/cuda/streamed_task.cuh"
#include "backend/cuda/warpgroup_product.cuh"

namespace bise::cuda {

// Adds the products of chunk after chunk until `end`.
template <Operand kOperand, int kN, class Sum>
__device__ void add_products(const StreamedTask& task, const char* ring, Barriers& barriers, RingPlace& place,
                             int count, Sum (&sums)[kN / 2]) {
  using L = StreamedLayout<false, kN>;
  int before = -1;  // the stage whose products may still be under way
  for (; count > 0; --count, place.advance(task.stages)) {
    barrier_wait(barriers.full + place.stage, place.parity);
    const char* at = ring + place.stage * task.stage_bytes;
    const std::uint32_t a = tile_descriptor(at + L::kInputBytes + threadIdx.x / 128 * 64 * 128);
    const std::uint32_t b = tile_descriptor(at);
    if constexpr (kOperand == Operand::kE4M3) {
      // The tensor cores' own sums of e4m3 products keep few bits (DeepSeek-V3, 2024, section 3.3.2): they
      // hold one chunk, and float32 registers the rest.
      Sum chunk[kN / 2];
      products_begin();
#pragma unroll
      for (int step = 0; step < 4; ++step)
        WarpgroupProduct<kOperand, kN>::add(chunk, a + 2 * step, b + 2 * step, step > 0);
      products_commit();
      products_wait<0>();
      hold(chunk);
      if (threadIdx.x % 128 == 0) barrier_arrive(barriers.empty + place.stage);
#pragma unroll
      for (int i = 0; i < kN / 2; ++i) sums[i] += chunk[i];
    } else {
      hold(sums);
      products_begin();
#pragma unroll
      for (int step = 0; step < 4; ++step)
        WarpgroupProduct<kOperand, kN>::add(sums, a + 2 * step, b + 2 * step, 1);
      products_commit();
      products_wait<1>();
      if (before >= 0 && threadIdx.x % 128 == 0) barrier_arrive(barriers.empty + before);
      before = place.stage;
    }
  }
  if constexpr (kOperand != Operand::kE4M3) {
    products_wait<0>();
    hold(sums);
    if (threadIdx.x % 128 == 0) barrier_arrive(barriers.empty + before);
  }
}

// The same with int4 panels: codes less zero points, exact in bf16, are multiplied from registers; the sums
// of kSteps * 16 columns, which lie in one group, are scaled.
template <int kN, int kSteps>
__device__ void add_panels(const StreamedTask& task, const char* ring, Barriers& barriers, RingPlace& place,
                           int count, float (&sums)[kN / 2]) {
  using L = StreamedLayout<true, kN>;
  const Int4Panels& panels = task.panels;
  const int thread = threadIdx.x % 128, row = thread / 32 * 16 + thread % 32 / 4;
  for (; count > 0; --count, place.advance(task.stages)) {
    barrier_wait(barriers.full + place.stage, place.parity);
    const char* inputs = ring + place.stage * task.stage_bytes;
    const char* block = inputs + L::kInputBytes + threadIdx.x / 128 * panels.block_bytes;
    const char* scales = block + kPanelCodeBytes;
    const auto* zeros = reinterpret_cast<const std::int8_t*>(block + panels.zero_offset);
#pragma unroll
    for (int unit = 0; unit < 8 / kSteps; ++unit) {
      std::uint32_t pairs[kSteps * 4];
      expand_unit<kSteps>(block, unit, thread, panels.has_zeros, zeros + unit * 64 + row, pairs);
      float chunk[kN / 2];
      start_unit<kN, kSteps>(pairs, unit, inputs, L::kInputBoxBytes, chunk);
      const float scale[2] = {panel_scale(scales, unit * 64 + row, panels.scale),
                              panel_scale(scales, unit * 64 + row + 8, panels.scale)};
      products_wait<0>();
      hold(chunk);
      hold(pairs);
#pragma unroll
      for (int i = 0; i < kN / 2; ++i) sums[i] = __fmaf_rn(chunk[i], scale[i / 2 % 2], sums[i]);
    }
    barrier_arrive_as_warp(barriers.empty + place.stage);
  }
}

}  // namespace bise::cuda
