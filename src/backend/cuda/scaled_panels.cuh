// Products of int4 panels (int4_panels.h) for many rows, where products and not memory are the limit: weights
// are scaled, and rounded to bf16, before they are multiplied, so that one product follows another without a
// wait for its sums. For streamed_kernel.cuh and wide_panels.cu.
#pragma once

#include "backend/cuda/hopper.cuh"
#include "backend/cuda/panel_codes.cuh"
#include "backend/cuda/warpgroup_product.cuh"

namespace bise::cuda {

// Codes, zero points and scales are read by each warp itself: a stage of the ring is free once all warps have
// arrived.
constexpr int kPanelArrivals = 4;  // of a warpgroup

// The scale of one row of panels, to multiply pairs of bf16 or, where it is no bf16, floats.
template <bool kBf16Scales>
struct RowScale {
  std::uint32_t pair;
  float value;

  __device__ void read(const char* scales, int index, PanelScale type) {
    if constexpr (!kBf16Scales)
      value = panel_scale(scales, index, type);
    else if (type == PanelScale::kBf16)
      pair = reinterpret_cast<const std::uint16_t*>(scales)[index] * 0x10001u;
    else
      pair = 0x3f803f80;  // 1
  }
  // A pair of codes less zero points, times the scale, rounded as dequantize_panels() does.
  __device__ std::uint32_t of(std::uint32_t codes) const {
    std::uint32_t scaled;
    if constexpr (kBf16Scales) {
      asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(scaled) : "r"(codes), "r"(pair));
    } else {
      const float low = __uint_as_float(codes << 16) * value;
      const float high = __uint_as_float(codes & 0xffff0000u) * value;
      asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(scaled) : "f"(high), "f"(low));
    }
    return scaled;
  }
};
// Whether RowScale<true> is right.
__host__ __device__ inline bool has_bf16_scales(const Int4Panels& panels) {
  return panels.scale == PanelScale::kBf16 || panels.scale == PanelScale::kNone;
}

// A ring whose stages hold 128 columns each: two boxes of kN rows of the input, then the warpgroups' blocks.
struct PanelRing {
  const char* stages;
  int stage_bytes, count;
  std::uint64_t* full;
};

// Adds the products of `chunks` stages; kSteps * 16 columns share a scale and a zero point. All threads call
// release(stage) when products of a stage are complete; a thread of each warp arrives, for what all have
// read.
//
// release() has one branch and no more, nor a barrier: with either the compiler waits for each product before
// it makes the operands of the next (ptxas warns of it, C7513).
template <int kN, int kSteps, bool kBf16Scales, class Release>
__device__ void add_scaled_panels(const Int4Panels& panels, const PanelRing& ring, RingPlace& place,
                                  int chunks, float (&sums)[kN / 2], Release release) {
  constexpr int kPending = 3, kBoxBytes = kN * 128;
  const int thread = static_cast<int>(threadIdx.x) % 128, row = thread / 32 * 16 + thread % 32 / 4;
  std::uint32_t pairs[kPending + 1][4] = {};
  int before = -1;  // the stage whose products may still be under way
  for (; chunks > 0; --chunks, place.advance(ring.count)) {
    barrier_wait(ring.full + place.stage, place.parity);
    const char* inputs = ring.stages + place.stage * ring.stage_bytes;
    const char* block = inputs + 2 * kBoxBytes + static_cast<int>(threadIdx.x) / 128 * panels.block_bytes;
    const uint4 raw[2] = {*reinterpret_cast<const uint4*>(block + thread * 16),
                          *reinterpret_cast<const uint4*>(block + 2048 + thread * 16)};
    const auto* words = reinterpret_cast<const std::uint32_t*>(raw);
    constexpr int kGroups = 8 / kSteps;  // of columns
    std::uint32_t zeros[kGroups][2];
    RowScale<kBf16Scales> scales[kGroups][2];
#pragma unroll
    for (int i = 0; i < 2 * kGroups; ++i) {
      const int index = i / 2 * 64 + row + i % 2 * 8;
      zeros[i / 2][i % 2] = 0x43084308;  // 136, see expand_codes()
      if (panels.has_zeros)
        zeros[i / 2][i % 2] += static_cast<std::uint32_t>(
                                   reinterpret_cast<const std::int8_t*>(block + panels.zero_offset)[index]) *
                               0x10001u;
      scales[i / 2][i % 2].read(block + kPanelCodeBytes, index, panels.scale);
    }
    // The warp has read what it reads of the stage, for the thread that will arrive. Later, among products,
    // this would keep them from following one another (see below).
    __syncwarp();
#pragma unroll
    for (int step = 0; step < 8; ++step) {
      const int group = step / kSteps;
      auto& now = pairs[step % (kPending + 1)];
      products_wait<kPending>();
      hold(now);
      // Those of the chunk before are complete.
      if (step == kPending && before >= 0) release(before);
      expand_codes(words[step], zeros[group][0], zeros[group][1], now);
#pragma unroll
      for (int k = 0; k < 4; ++k) now[k] = scales[group][k % 2].of(now[k]);
      hold(now);
      products_begin();
      RegisterProduct<kN, false>::add(sums, now,
                                      tile_descriptor(inputs + step / 4 * kBoxBytes) + step % 4 * 2, 1);
      products_commit();
    }
    before = place.stage;
  }
  products_wait<0>();
#pragma unroll
  for (int i = 0; i <= kPending; ++i) hold(pairs[i]);
  hold(sums);
  release(before);
}

}  // namespace bise::cuda
