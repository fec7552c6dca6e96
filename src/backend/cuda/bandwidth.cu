// How fast the device reads its memory.
#include "backend/cuda/device_math.cuh"

namespace bise::cuda {
namespace {

constexpr int kThreads = 512, kBlocks = 132 * 4, kAhead = 8;

// The sum makes the reads count; it is written only where it cannot be.
__global__ void read_kernel(const uint4* values, std::int64_t count, std::uint32_t* sum) {
  std::uint32_t mine = 0;
  const std::int64_t step = std::int64_t{kBlocks} * kThreads;
  for (std::int64_t i = blockIdx.x * std::int64_t{kThreads} + threadIdx.x; i < count; i += kAhead * step) {
    uint4 ahead[kAhead];
#pragma unroll
    for (int a = 0; a < kAhead; ++a)
      ahead[a] = i + a * step < count ? __ldcs(values + i + a * step) : uint4{0, 0, 0, 0};
#pragma unroll
    for (int a = 0; a < kAhead; ++a) mine += ahead[a].x ^ ahead[a].y ^ ahead[a].z ^ ahead[a].w;
  }
  if (mine == 0x12345u) atomicAdd(sum, mine);
}

}  // namespace

void read_all(const void* bytes, std::int64_t count, std::uint32_t* sum, cudaStream_t stream) {
  read_kernel<<<kBlocks, kThreads, 0, stream>>>(static_cast<const uint4*>(bytes), count / 16, sum);
}

}  // namespace bise::cuda
