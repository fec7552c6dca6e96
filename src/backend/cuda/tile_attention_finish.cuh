// The warps of a block of tile_attention.cu that make tiles which have landed what products take, and that
// turn the keys of a step's single queries and store these with their values in the cache.
#pragma once

#include "backend/cuda/rotary.cuh"
#include "backend/cuda/tile_attention_operands.cuh"

namespace bise::cuda {

// The key and value of the work's one query, which qkv has: the key turned, both in their row of the tile and
// in the cache, with the bits that rope_and_store() leaves there. By one warp, of which a lane has pairs
// (i, i + head_dim / 2) of dimensions.
template <class L, class C>
class OwnKey {
 public:
  __device__ OwnKey(const AttentionTask& task, const TileWork& work)
      : task_(task), row_(work.last_position % kTileKeys) {
    if (!has_pairs()) return;
    const int shift = task.block_shift, position = work.last_position;
    const std::int32_t* blocks =
        task.step.block_table +
        (work.span.sequence * task.step.groups + task.group) * task.step.blocks_per_sequence;
    const std::int64_t slot =
        (std::int64_t{blocks[position >> shift]} << shift) + (position & ((1 << shift) - 1));
    const int kv_heads = static_cast<int>(task.cache.num_kv_heads), heads = task.num_heads + 2 * kv_heads;
    cached_ = (slot * kv_heads + work.kv_head) * L::kHeadDim + pair();
    const bf16* key = static_cast<const bf16*>(task.qkv) +
                      (std::int64_t{work.span.first} * heads + task.num_heads + work.kv_head) * L::kHeadDim +
                      pair();
    const bf16* value = key + kv_heads * L::kHeadDim;
    wait_for_earlier_kernels();
    const float2 x = load_two(key), y = load_two(key + kHalf);
    value_[0] = load_two(value);
    value_[1] = load_two(value + kHalf);
    const float4 angle = *reinterpret_cast<const float4*>(task.angles + work.span.first * kHalf + pair());
    const float2 one = turned(x.x, y.x, angle.x, angle.y), two = turned(x.y, y.y, angle.z, angle.w);
    key_[0] = {one.x, two.x};
    key_[1] = {one.y, two.y};
  }
  __device__ void store_key(char* tile) const {
    store(key_, static_cast<C*>(task_.cache.keys), task_.cache.key_scale, tile);
  }
  __device__ void store_value(char* tile) const {
    store(value_, static_cast<C*>(task_.cache.values), task_.cache.value_scale, tile);
  }

 private:
  static constexpr int kHalf = L::kHeadDim / 2;
  static __device__ int pair() { return threadIdx.x % 32 * 2; }
  static __device__ bool has_pairs() { return pair() < kHalf; }

  __device__ void store(const float2 (&two)[2], C* cache, float scale, char* tile) const {
    if (!has_pairs()) return;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int column = pair() + i * kHalf;
      auto* in_tile = reinterpret_cast<std::uint32_t*>(tile + swizzled(row_, column / 8) + column % 8 * 2);
      if constexpr (L::kConverts) {
        const __nv_fp8x2_storage_t codes = __nv_cvt_float2_to_fp8x2(
            make_float2(__fdiv_rn(two[i].x, scale), __fdiv_rn(two[i].y, scale)), __NV_SATFINITE, __NV_E4M3);
        *reinterpret_cast<__nv_fp8x2_storage_t*>(cache + cached_ + i * kHalf) = codes;
        const __half2_raw halves = __nv_cvt_fp8x2_to_halfraw2(codes, __NV_E4M3);
        *in_tile = reinterpret_cast<const std::uint32_t&>(halves);
      } else {
        *in_tile = pair_of(two[i].x, two[i].y);
        *reinterpret_cast<std::uint32_t*>(cache + cached_ + i * kHalf) = *in_tile;
      }
    }
  }

  const AttentionTask& task_;
  int row_;
  std::int64_t cached_ = 0;
  float2 key_[2] = {}, value_[2] = {};
};

// L::kFinishers warps, of which this is the `warp`-th, make tiles that have landed what products take: codes
// become float16, values that no row sees zeros. Unwritten memory may hold anything, and zero weights would
// not hide it.
template <class L, class C>
__device__ void finish_tiles(const AttentionTask& task, TileRings<L>& rings, char* ring, const char* landings,
                             int warp) {
  constexpr int kChunks = L::kHeadDim / 8;
  const int lane = threadIdx.x % 32, chunk = lane % kChunks;
  RingPlace works_at, landing, at;
  for (;;) {
    const TileWork work = next_tile_work(rings, works_at);
    if (work.span.count == 0) return;
    for (int tile = work.first_tile; tile <= work.last_tile;
         ++tile, landing.advance(L::kLandings), at.advance(L::kStages)) {
      const int begin = max(work.visible - tile * kTileKeys, 0);
      const int end = min(work.last_position + 1 - tile * kTileKeys, kTileKeys);
      const bool has_own = task.stores_keys && tile == work.last_position / kTileKeys;
      char *keys = ring + at.stage * 2 * L::kTileBytes, *values = keys + L::kTileBytes;
      barrier_wait(rings.landed + landing.stage, landing.parity);
      if constexpr (L::kConverts) {
        barrier_wait(rings.empty + at.stage, at.parity ^ 1);
        const char* codes = landings + landing.stage * 2 * L::kLandedBytes;
        // Eight rows at a time, so that where they stand repeats.
        for (int first = warp * 8; first < 2 * kTileKeys; first += L::kFinishers * 8) {
          constexpr int kRows = 32 / kChunks, kSteps = 8 / kRows;
          uint2 eight[kSteps];
#pragma unroll
          for (int i = 0; i < kSteps; ++i)
            eight[i] = *reinterpret_cast<const uint2*>(codes + first * L::kHeadDim + i * 256 + lane * 8);
          char* to = first < kTileKeys ? keys : values;
#pragma unroll
          for (int i = 0; i < kSteps; ++i) {
            const int key = first % kTileKeys + i * kRows + lane / kChunks;
            if (key < begin || key >= end) eight[i] = {0, 0};
            *reinterpret_cast<uint4*>(to + first % kTileKeys * 128 +
                                      swizzled(i * kRows + lane / kChunks, chunk)) = eight_values(eight[i]);
          }
          if (has_own && first % kTileKeys == (end - 1) / 8 * 8) {
            __syncwarp();
            const OwnKey<L, C> own(task, work);
            if (first < kTileKeys)
              own.store_key(keys);
            else
              own.store_value(values);
          }
        }
      } else if (begin > 0 || end < kTileKeys) {
        for (int row = lane / kChunks; row < kTileKeys; row += 32 / kChunks)
          if (row < begin || row >= end)
            *reinterpret_cast<uint4*>(values + swizzled(row, chunk)) = {0, 0, 0, 0};
      }
      if constexpr (!L::kConverts) {
        if (has_own) {
          const OwnKey<L, C> own(task, work);
          own.store_key(keys);
          own.store_value(values);
        }
      }
      writes_visible_to_products();
      __syncwarp();
      if (threadIdx.x % 32 == 0) {
        barrier_arrive(rings.full + at.stage);
        if (L::kConverts) barrier_arrive(rings.taken + landing.stage);
      }
    }
  }
}

}  // namespace bise::cuda
