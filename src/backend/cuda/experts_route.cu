// The experts of each row and the rows in the experts' order; see experts_route.h. Blocks count the pairs of
// their slices of rows, the last of them adds up the counts of the slices before each.
#include "backend/cuda/experts_route.h"

#include "backend/cuda/hopper.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/row_vectors.cuh"

namespace bise::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

// A bit for each chosen expert. Logits that are no numbers are never larger.
__device__ std::uint32_t chosen_experts(const float* logits, const Routing& routing) {
  std::uint32_t chosen = 0;
  for (int i = 0; i < routing.per_token; ++i) {
    int best = -1;
    for (int e = 0; e < routing.experts; ++e)
      if (!(chosen >> e & 1) && (best < 0 || logits[e] > logits[best])) best = e;
    chosen |= 1u << best;
  }
  return chosen;
}

__device__ void store_choices(const float* logits, std::uint32_t chosen, std::int64_t row,
                              const Routing& routing) {
  float largest = -INFINITY, sum = 0;
  for (int e = 0; e < routing.experts; ++e)
    if (chosen >> e & 1) largest = fmaxf(largest, logits[e]);
  for (int e = 0; e < routing.experts; ++e)
    if (chosen >> e & 1) sum += expf(logits[e] - largest);
  std::int64_t at = row * routing.per_token;
  for (int e = 0; e < routing.experts; ++e) {
    if (!(chosen >> e & 1)) continue;
    routing.choices[at] = e;
    routing.weights[at++] = expf(logits[e] - largest) / sum;
  }
}

// Makes counts, starts, and of each slice's own counts those of the slices before it. A warp has an expert.
__device__ void add_up_slices(int slices, const Routing& routing, std::int32_t* counts) {
  constexpr int kTogether = 8;
  const int lane = threadIdx.x % 32;
  for (int e = threadIdx.x / 32; e < routing.experts; e += kWarps) {
    int before = 0;
    for (int first = 0; first < slices; first += 32 * kTogether) {
      int own[kTogether];
#pragma unroll
      for (int k = 0; k < kTogether; ++k) {
        const int slice = first + 32 * k + lane;
        own[k] = slice < slices ? __ldcg(routing.slices + slice * routing.experts + e) : 0;
      }
#pragma unroll
      for (int k = 0; k < kTogether; ++k) {
        const int slice = first + 32 * k + lane;
        int sum = own[k];
#pragma unroll
        for (int offset = 1; offset < 32; offset *= 2) {
          const int other = __shfl_up_sync(~0u, sum, offset);
          if (lane >= offset) sum += other;
        }
        if (slice < slices) routing.slices[slice * routing.experts + e] = before + sum - own[k];
        before += __shfl_sync(~0u, sum, 31);
      }
    }
    if (lane == 0) counts[e] = routing.counts[e] = before;
  }
  __syncthreads();
  if (threadIdx.x > 0) return;
  int start = 0;
  for (int e = 0; e < routing.experts; ++e) {
    routing.starts[e] = start;
    start += (counts[e] + routing.alignment - 1) / routing.alignment * routing.alignment;
  }
}

// By all blocks, when their slices' counts are stored.
__device__ void finish_routing(int slices, const Routing& routing) {
  __shared__ std::int32_t counts[kMostExperts];
  __shared__ bool is_last;
  if (gridDim.x == 1) {
    __syncthreads();
    return add_up_slices(slices, routing, counts);
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) is_last = atomicAdd(routing.ticket, 1) == static_cast<std::int32_t>(gridDim.x) - 1;
  __syncthreads();
  if (!is_last) return;
  __threadfence();
  add_up_slices(slices, routing, counts);
  if (threadIdx.x == 0) *routing.ticket = 0;
}

// A block has a row, which is a slice; its warps share the experts.
__global__ void __launch_bounds__(kThreads)
    choose_by_product_kernel(Encoded in, const bf16* router, Routing routing) {
  __shared__ float logits[kMostExperts];
  let_next_kernel_begin();
  // The router comes from memory, while the kernel before, which makes the rows, still runs.
  if (blockIdx.x == 0)
    for (std::int64_t at = threadIdx.x * 64; at < routing.experts * in.stride; at += kThreads * 64)
      asm volatile("prefetch.global.L2 [%0];" ::"l"(router + at));
  wait_for_earlier_kernels();
  const bf16* row = static_cast<const bf16*>(in.codes) + blockIdx.x * in.stride;
  const int lane = threadIdx.x % 32;
  for (int e = threadIdx.x / 32; e < routing.experts; e += kWarps) {
    float sum = 0;
#pragma unroll 16
    for (std::int64_t c = lane * kWide; c < in.stride; c += 32 * kWide) {
      float x[kWide], w[kWide];
      load_wide(row + c, x);
      load_wide(router + e * in.stride + c, w);
#pragma unroll
      for (int i = 0; i < kWide; ++i) sum = __fmaf_rn(x[i], w[i], sum);
    }
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(~0u, sum, offset);
    if (lane == 0) logits[e] = sum;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    const std::uint32_t chosen = chosen_experts(logits, routing);
    store_choices(logits, chosen, blockIdx.x, routing);
    for (int i = 0; i < routing.per_token; ++i) routing.ranks[blockIdx.x * routing.per_token + i] = 0;
    for (int e = 0; e < routing.experts; ++e)
      routing.slices[blockIdx.x * routing.experts + e] = chosen >> e & 1;
  }
  finish_routing(static_cast<int>(gridDim.x), routing);
}

// A thread has a row, a warp a slice.
__global__ void __launch_bounds__(kThreads)
    choose_by_logits_kernel(const float* logits, std::int64_t rows, Routing routing) {
  let_next_kernel_begin();
  wait_for_earlier_kernels();
  const std::int64_t row = blockIdx.x * std::int64_t{kThreads} + threadIdx.x;
  const int slice = static_cast<int>(row / 32), slices = static_cast<int>((rows + 31) / 32);
  const int lane = threadIdx.x % 32;
  std::uint32_t chosen = 0;
  if (row < rows) {
    const float* mine = logits + row * routing.experts;
    chosen = chosen_experts(mine, routing);
    store_choices(mine, chosen, row, routing);
  }
  std::int64_t at = row * routing.per_token;
  for (int e = 0; e < routing.experts; ++e) {
    const bool has = chosen >> e & 1;
    const std::uint32_t all = __ballot_sync(~0u, has);
    if (has) routing.ranks[at++] = __popc(all & ((1u << lane) - 1));
    if (lane == 0 && slice < slices) routing.slices[slice * routing.experts + e] = __popc(all);
  }
  finish_routing(slices, routing);
}

// Of the expert whose pairs `pair` is one of.
__device__ float scale_of_pair(std::int64_t pair, const Routing& routing, const ExpertScales& scales) {
  int expert = 0;
  for (int e = 0; e < routing.experts; ++e)
    if (routing.counts[e] > 0 && routing.starts[e] <= pair) expert = e;
  return scales.of[expert];
}

__device__ std::int64_t place_of(std::int64_t row, int choice, const Routing& routing) {
  const std::int64_t at = row * routing.per_token + choice;
  const int expert = routing.choices[at];
  return routing.starts[expert] + routing.slices[row / routing.slice_rows * routing.experts + expert] +
         routing.ranks[at];
}

// kVectors 0: of any width.
template <int kVectors>
__global__ void __launch_bounds__(kMostRowThreads)
    place_kernel(Encoded in, Routing routing, const __grid_constant__ ExpertScales scales, Encoded out) {
  __shared__ float scratch[32];
  wait_for_earlier_kernels();
  let_next_kernel_begin();
  const std::int64_t row = blockIdx.x;
  const bf16* from = static_cast<const bf16*>(in.codes) + row * in.stride;
  float values[kVectors > 0 ? kVectors : 1][kWide] = {};
#pragma unroll
  for (int v = 0; v < kVectors; ++v)
    if (wide_column(v) < out.columns) load_wide(from + wide_column(v), values[v]);
  for (int i = 0; i < routing.per_token; ++i) {
    const std::int64_t place = place_of(row, i, routing);
    const float scale = scales.of[routing.choices[row * routing.per_token + i]];
    if (threadIdx.x == 0) routing.places[row * routing.per_token + i] = static_cast<std::int32_t>(place);
    if constexpr (kVectors > 0)
      encode_vectors(place, out, scale, scratch, values);
    else
      encode_row(place, out, scale, scratch, [&](std::int64_t c) { return load_value(from + c); });
  }
}

template <int kVectors>
__global__ void __launch_bounds__(kMostRowThreads)
    encode_pairs_kernel(const bf16* in, std::int64_t stride, Routing routing,
                        const __grid_constant__ ExpertScales scales, Encoded out) {
  __shared__ float scratch[32];
  let_next_kernel_begin();
  wait_for_earlier_kernels();
  const bf16* from = in + blockIdx.x * stride;
  const float scale = out.encoding == Encoding::kFp8Tensor ? scale_of_pair(blockIdx.x, routing, scales) : 0;
  if constexpr (kVectors > 0) {
    float values[kVectors][kWide] = {};
#pragma unroll
    for (int v = 0; v < kVectors; ++v)
      if (wide_column(v) < out.columns) load_wide(from + wide_column(v), values[v]);
    encode_vectors(blockIdx.x, out, scale, scratch, values);
  } else {
    encode_row(blockIdx.x, out, scale, scratch, [&](std::int64_t c) { return load_value(from + c); });
  }
}

// A thread has kColumns columns of a row.
template <int kColumns, class In, class Out>
__global__ void __launch_bounds__(kThreads)
    combine_kernel(const In* in, std::int64_t columns, Routing routing, Out* out) {
  let_next_kernel_begin();
  wait_for_earlier_kernels();
  const std::int64_t row = blockIdx.x,
                     column = (blockIdx.y * std::int64_t{kThreads} + threadIdx.x) * kColumns;
  if (column >= columns) return;
  float sums[kColumns] = {};
#pragma unroll 2
  for (int i = 0; i < routing.per_token; ++i) {
    const std::int64_t at = row * routing.per_token + i;
    const In* from = in + routing.places[at] * columns + column;
    const float weight = routing.weights[at];
    float values[kColumns];
    if constexpr (kColumns == kWide)
      load_wide(from, values);
    else
      values[0] = load_value(from);
#pragma unroll
    for (int k = 0; k < kColumns; ++k) sums[k] = __fmaf_rn(weight, values[k], sums[k]);
  }
  if constexpr (kColumns == kWide)
    store_wide(out + row * columns + column, sums);
  else
    store_value(out + row * columns + column, sums[0]);
}

// Calls body with the vectors of a row as a constant, 0 where it takes the loop over columns.
template <class Body>
void with_row_vectors(RowShape shape, Body body) {
  if (shape.vectors == 0) return body(std::integral_constant<int, 0>());
  with_vectors(shape.vectors, body);
}

}  // namespace

void choose_by_product(Encoded in, std::int64_t rows, const void* router, const Routing& routing,
                       cudaStream_t stream) {
  launch(choose_by_product_kernel, static_cast<unsigned>(rows), kThreads, 0, stream, in,
         static_cast<const bf16*>(router), routing);
}

void choose_by_logits(const float* logits, std::int64_t rows, const Routing& routing, cudaStream_t stream) {
  launch(choose_by_logits_kernel, blocks_for(rows, kThreads), kThreads, 0, stream, logits, rows, routing);
}

void place_rows(Encoded in, std::int64_t rows, const Routing& routing, ExpertScales scales, Encoded out,
                cudaStream_t stream) {
  const RowShape shape = row_shape(out.columns, out.stride);
  with_row_vectors(shape, [&](auto vectors) {
    launch(place_kernel<decltype(vectors)::value>, static_cast<unsigned>(rows),
           shape.vectors > 0 ? shape.threads : threads_for(out.columns), 0, stream, in, routing, scales, out);
  });
}

void encode_pairs(const void* in, std::int64_t stride, std::int64_t pairs, const Routing& routing,
                  ExpertScales scales, Encoded out, cudaStream_t stream) {
  const RowShape shape = row_shape(out.columns, out.stride);
  with_row_vectors(shape, [&](auto vectors) {
    launch(encode_pairs_kernel<decltype(vectors)::value>, static_cast<unsigned>(pairs),
           shape.vectors > 0 ? shape.threads : threads_for(out.columns), 0, stream,
           static_cast<const bf16*>(in), stride, routing, scales, out);
  });
}

void combine_pairs(Values in, std::int64_t rows, std::int64_t columns, const Routing& routing, Values out,
                   cudaStream_t stream) {
  with_type(in, [&](auto* from) {
    with_type(out, [&](auto* to) {
      using In = std::remove_pointer_t<decltype(from)>;
      using Out = std::remove_pointer_t<decltype(to)>;
      const bool wide = columns % kWide == 0;
      const dim3 grid(static_cast<unsigned>(rows), blocks_for(columns, kThreads * (wide ? kWide : 1)));
      launch(wide ? combine_kernel<kWide, In, Out> : combine_kernel<1, In, Out>, grid, kThreads, 0, stream,
             from, columns, routing, to);
    });
  });
}

}  // namespace bise::cuda
