// Hopper's own instructions: asynchronous barriers in shared memory, the copy engine, warpgroup products,
// kernels that begin before the one before them has ended (PTX ISA 8.0, sections "mbarrier",
// "cp.async.bulk", "wgmma", "griddepcontrol").
#pragma once

#include <cuda.h>

#include <cstdint>
#include <type_traits>

namespace bise::cuda {

__device__ inline std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

__device__ inline void barrier_init(std::uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals));
}
__device__ inline void barrier_init_visible() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ inline void barrier_arrive(std::uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
// By one thread of the warp, for all of them and what they did before.
__device__ inline void barrier_arrive_as_warp(std::uint64_t* barrier) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) barrier_arrive(barrier);
}
__device__ inline void barrier_expect_bytes(std::uint64_t* barrier, std::uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(bytes)
               : "memory");
}
// Waits until the phase of this parity is complete.
__device__ inline void barrier_wait(std::uint64_t* barrier, std::uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra.uni finished;\n"
      "bra.uni again;\n"
      "finished:\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

// Copies the tile at (column, row), in values, into shared memory; its bytes count for `barrier`.
__device__ inline void copy_tile(void* to, const CUtensorMap* map, int column, int row,
                                 std::uint64_t* barrier, std::uint64_t cache_policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%3, %4}], [%2], %5;" ::"r"(shared_address(to)),
      "l"(map), "r"(shared_address(barrier)), "r"(column), "r"(row), "l"(cache_policy)
      : "memory");
}
// The same of a map of four dimensions (gated_tile_map), of its first and last coordinate.
__device__ inline void copy_tile_of_halves(void* to, const CUtensorMap* map, int column, int eight_rows,
                                           std::uint64_t* barrier, std::uint64_t cache_policy) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%3, %5, %5, %4}], [%2], %6;" ::"r"(shared_address(to)),
      "l"(map), "r"(shared_address(barrier)), "r"(column), "r"(eight_rows), "r"(0), "l"(cache_policy)
      : "memory");
}
// A kernel's parameter.
__device__ inline void prefetch_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
__device__ inline std::uint64_t read_once_policy() {
  std::uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
__device__ inline std::uint64_t usual_policy() {
  std::uint64_t policy;
  asm("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
__device__ inline std::uint64_t read_often_policy() {
  std::uint64_t policy;
  asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// Copies `bytes`, a multiple of 16, that lie together.
__device__ inline void copy_bytes(void* to, const void* from, std::uint32_t bytes, std::uint64_t* barrier,
                                  std::uint64_t cache_policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, "
      "[%3], %4;" ::"r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(barrier)), "l"(cache_policy)
      : "memory");
}

// 16 bytes by the thread's own asynchronous copy, zeros where `bytes` is 0.
__device__ inline void copy_16(std::uint32_t to, const void* from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
__device__ inline void copies_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int kPending>
__device__ inline void copies_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}
// Clusters: blocks that run together and reach each other's shared memory, each block under its rank (PTX ISA
// 8.0, "mapa", "barrier.cluster", "st.async").
__device__ inline int cluster_rank() {
  int rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
// Of all threads of the cluster. Orders no memory but the start of barriers (barrier_init_visible).
__device__ inline void sync_cluster() {
  asm volatile("barrier.cluster.arrive.relaxed;\nbarrier.cluster.wait.acquire;" ::: "memory");
}
// The same, and each has seen what the others did before.
__device__ inline void sync_cluster_memory() {
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}
// Where the block of that rank has what stands at `p` in this one.
__device__ inline std::uint32_t address_in(const void* p, int rank) {
  std::uint32_t address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address(p)), "r"(rank));
  return address;
}
// Without a fence for what this thread has written: others learn that it has read.
__device__ inline void barrier_arrive_in(const std::uint64_t* barrier, int rank) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(address_in(barrier, rank)) : "memory");
}
// Stores 16 bytes in the block that has `to` and `barrier` (address_in); they count for the barrier.
__device__ inline void store_in(std::uint32_t to, const float* values, std::uint32_t barrier) {
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(to),
      "f"(values[0]), "f"(values[1]), "f"(values[2]), "f"(values[3]), "r"(barrier)
      : "memory");
}
// copy_tile() into the blocks of the ranks whose bits are set, at the same place in each.
__device__ inline void copy_tile_to(unsigned ranks, void* to, const CUtensorMap* map, int column, int row,
                                    std::uint64_t* barrier, std::uint64_t cache_policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::"
      "cache_hint [%0], [%1, {%3, %4}], [%2], %5, %6;" ::"r"(shared_address(to)),
      "l"(map), "r"(shared_address(barrier)), "r"(column), "r"(row), "h"(static_cast<std::uint16_t>(ranks)),
      "l"(cache_policy)
      : "memory");
}
// The same of copy_tile_of_halves().
__device__ inline void copy_tile_of_halves_to(unsigned ranks, void* to, const CUtensorMap* map, int column,
                                              int eight_rows, std::uint64_t* barrier,
                                              std::uint64_t cache_policy) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::"
      "cache_hint [%0], [%1, {%3, %5, %5, %4}], [%2], %6, %7;" ::"r"(shared_address(to)),
      "l"(map), "r"(shared_address(barrier)), "r"(column), "r"(eight_rows), "r"(0),
      "h"(static_cast<std::uint16_t>(ranks)), "l"(cache_policy)
      : "memory");
}

// What this thread wrote to shared memory by other means than the copy engine becomes visible to products.
__device__ inline void writes_visible_to_products() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// A barrier of `threads` threads of the block; 0 is __syncthreads' own.
__device__ inline void sync_threads_of(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// The thread counts for the barrier and goes on.
__device__ inline void arrive_at(int barrier, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// Every kernel started by launch.cuh calls both. The next kernel's blocks may take their places once all
// blocks of this one have called the first; nothing an earlier kernel wrote, or may still read, is touched
// before the second, which waits until all earlier kernels are complete.
__device__ inline void let_next_kernel_begin() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}
__device__ inline void wait_for_earlier_kernels() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}

// Describes, for warpgroup_product.cuh, rows of 128 bytes, swizzled by the copy engine, 8 rows to 1024 bytes;
// `tile` is so aligned. Counts in units of 16 bytes.
__device__ inline std::uint32_t tile_descriptor(const void* tile) {
  return (shared_address(tile) & 0x3ffff) >> 4 | 1u << 16;
}
// The same rows as an operand whose rows are the product's inner dimension. A product of 64 columns finds
// its second 8 rows 1024 bytes behind the first.
__device__ inline std::uint32_t transposed_tile_descriptor(const void* tile) {
  return (shared_address(tile) & 0x3ffff) >> 4 | (1024u >> 4) << 16;
}

// Orders the compiler's use of registers that products read or write after the wait before it.
template <int kCount, class T>
__device__ inline void hold(T (&registers)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if constexpr (std::is_same_v<T, float>)
      asm volatile("" : "+f"(registers[i])::"memory");
    else
      asm volatile("" : "+r"(registers[i])::"memory");
  }
}

__device__ inline void products_begin() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void products_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ inline void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// True in one thread of the warp. Unlike with a comparison of threadIdx.x the compiler knows that it is but
// one, and gives the copy engine its operands without a loop over the warp's threads.
__device__ inline bool elected() {
  std::uint32_t is_elected;
  asm volatile(
      "{\n"
      ".reg .pred one;\n"
      "elect.sync _|one, 0xffffffff;\n"
      "selp.b32 %0, 1, 0, one;\n"
      "}"
      : "=r"(is_elected));
  return is_elected != 0;
}

// A place in a ring of shared memory, and whether its barriers' present phase is odd.
struct RingPlace {
  int stage = 0;
  std::uint32_t parity = 0;
  __device__ void advance(int stages) {
    if (++stage < stages) return;
    stage = 0;
    parity ^= 1;
  }
  __device__ void advance(int count, int stages) {
    for (stage += count; stage >= stages; stage -= stages) parity ^= 1;
  }
};

}  // namespace bise::cuda
