// A cluster of blocks that share a row: what each thread found is joined over the whole cluster, through
// the blocks' shared memory (PTX ISA 8.0, sections "barrier.cluster", "mapa").
#pragma once

#include <cstdint>

namespace bise::cuda {

// A barrier of all threads of the cluster, in two halves: what they wrote before the first is seen after the
// second, in the shared memory of other blocks too.
__device__ inline void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
__device__ inline void cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// Where what stands at `shared` in this block stands in block `rank` of the cluster.
template <class T>
__device__ inline T* in_block_of_cluster(T* shared, int rank) {
  T* result;
  asm("mapa.u64 %0, %1, %2;" : "=l"(result) : "l"(shared), "r"(rank));
  return result;
}

template <class T>
__device__ inline T from_lane_across(const T& value, int distance) {
  static_assert(sizeof(T) % sizeof(int) == 0);
  T result;
  const int* from = reinterpret_cast<const int*>(&value);
  int* to = reinterpret_cast<int*>(&result);
#pragma unroll
  for (unsigned i = 0; i < sizeof(T) / sizeof(int); ++i) to[i] = __shfl_xor_sync(~0u, from[i], distance);
  return result;
}

// Made by all threads of all blocks; `rank` is the block's. wait_for_blocks() comes before the first join(),
// and one join() at least after it.
template <int kBlocks, int kThreads>
class RowCluster {
 public:
  static constexpr int kWarps = kThreads / 32, kMostBytes = 16;
  static_assert(kBlocks <= 32 && kWarps <= 32 && (kWarps & (kWarps - 1)) == 0);
  struct Shared {
    alignas(16) unsigned char warps[kWarps][kMostBytes];
    // Taken in turn: a block that is one join ahead writes beside what another still reads.
    alignas(16) unsigned char blocks[2][kBlocks][kMostBytes];
  };

  __device__ RowCluster(Shared& shared, int rank) : shared_(shared), rank_(rank) { cluster_arrive(); }
  // No block writes into another before that has begun.
  __device__ void wait_for_blocks() { cluster_wait(); }

  // The same result in every thread; join_two is commutative and associative. What threads wrote to shared
  // memory before is there afterwards.
  template <class T, class JoinTwo>
  __device__ T join(T value, JoinTwo join_two) {
    static_assert(sizeof(T) <= kMostBytes);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
      value = join_two(value, from_lane_across(value, distance));
    if (lane == 0) *reinterpret_cast<T*>(shared_.warps[warp]) = value;
    __syncthreads();
    if (warp == 0) {
      value = *reinterpret_cast<T*>(shared_.warps[lane % kWarps]);
#pragma unroll
      for (int distance = kWarps / 2; distance > 0; distance /= 2)
        value = join_two(value, from_lane_across(value, distance));
      if (lane < kBlocks)
        *reinterpret_cast<T*>(in_block_of_cluster(shared_.blocks[turn_][rank_], lane)) = value;
    }
    cluster_arrive();
    cluster_wait();
    value = *reinterpret_cast<T*>(shared_.blocks[turn_][0]);
#pragma unroll
    for (int block = 1; block < kBlocks; ++block)
      value = join_two(value, *reinterpret_cast<T*>(shared_.blocks[turn_][block]));
    turn_ ^= 1;
    return value;
  }

 private:
  Shared& shared_;
  int rank_, turn_ = 0;
};

}  // namespace bise::cuda
