// Drawing tokens: argmax of logits, or of logits with temperature and Gumbel noise (Gumbel 1954). The rule
// and its arithmetic are those of engine/sampler.cpp and engine/gumbel.h.
#include <climits>
#include <cmath>

#include "backend/cuda/device_math.cuh"

namespace bise::cuda {
namespace {

constexpr int kThreads = 256, kLogitsOfBlock = 4096;

// The best so far: the larger value, the smaller token of equals. A logit that is no number wins as token -1.
struct Best {
  double value;
  std::int32_t token;
};

__device__ inline Best better(Best a, Best b) {
  return b.value > a.value || (b.value == a.value && b.token < a.token) ? b : a;
}

// gumbel_bits() of engine/gumbel.h.
__device__ inline std::uint32_t noise_bits(const TokenDraw& draw, std::int32_t token) {
  std::uint32_t x = static_cast<std::uint32_t>(token) * 0x9e3779b9u + draw.key_low;
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15) ^ draw.key_high) * 0x846ca68bu;
  return x ^ (x >> 16);
}

__device__ inline Best candidate(float logit, std::int32_t token, const TokenDraw& draw, double to_beat) {
  if (isnan(logit)) return {INFINITY, -1};
  if (draw.factor == 0) return {static_cast<double>(logit), token};
  const std::uint32_t bits = noise_bits(draw, token);
  const auto scaled = static_cast<double>(__fmul_rn(logit, draw.factor));
  // The noise is at most -ln of the bits as a fraction: most lose without a logarithm.
  if (scaled + 0.6931471805599454 * (__clz(static_cast<int>(bits)) + 1) < to_beat) return {-INFINITY, token};
  return {scaled - log(-log1p(-(static_cast<double>(bits) + 0.5) * 0x1p-32)), token};
}

__device__ Best block_best(Best best) {
  __shared__ double values[32];
  __shared__ std::int32_t tokens[32];
  for (int offset = 16; offset > 0; offset /= 2)
    best = better(best, {__shfl_xor_sync(~0u, best.value, offset), __shfl_xor_sync(~0u, best.token, offset)});
  const int warp = threadIdx.x / 32, warps = blockDim.x / 32;
  if (threadIdx.x % 32 == 0) {
    values[warp] = best.value;
    tokens[warp] = best.token;
  }
  __syncthreads();
  best = {values[0], tokens[0]};
  for (int i = 1; i < warps; ++i) best = better(best, {values[i], tokens[i]});
  return best;
}

// A block looks at kLogitsOfBlock logits of a row.
__global__ void draw_part_kernel(const float* logits, std::int64_t columns, const TokenDraw* draws,
                                 Best* parts) {
  const TokenDraw draw = draws[blockIdx.y];
  const float* row = logits + blockIdx.y * columns;
  const std::int64_t first = blockIdx.x * std::int64_t{kLogitsOfBlock};
  const std::int64_t end = min(columns, first + kLogitsOfBlock);
  Best best = {-INFINITY, INT_MAX};
  for (std::int64_t i = first + threadIdx.x; i < end; i += kThreads)
    best = better(best, candidate(row[i], static_cast<std::int32_t>(i), draw, best.value));
  best = block_best(best);
  if (threadIdx.x == 0) parts[blockIdx.y * gridDim.x + blockIdx.x] = best;
}

__global__ void draw_join_kernel(const Best* parts, int count, std::int32_t* tokens) {
  Best best = {-INFINITY, INT_MAX};
  for (int i = threadIdx.x; i < count; i += kThreads) best = better(best, parts[blockIdx.x * count + i]);
  best = block_best(best);
  if (threadIdx.x == 0) tokens[blockIdx.x] = best.token;
}

int blocks_of_row(std::int64_t columns) {
  return static_cast<int>((columns + kLogitsOfBlock - 1) / kLogitsOfBlock);
}

}  // namespace

std::size_t draw_workspace(std::int64_t rows, std::int64_t columns) {
  return static_cast<std::size_t>(rows * blocks_of_row(columns)) * sizeof(Best);
}

void draw(const float* logits, std::int64_t rows, std::int64_t columns, const TokenDraw* draws,
          void* workspace, std::int32_t* tokens, cudaStream_t stream) {
  auto* parts = static_cast<Best*>(workspace);
  const int blocks = blocks_of_row(columns);
  draw_part_kernel<<<dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(rows)), kThreads, 0, stream>>>(
      logits, columns, draws, parts);
  draw_join_kernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(parts, blocks, tokens);
}

}  // namespace bise::cuda
