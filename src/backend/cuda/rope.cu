// Rotary embedding and the write into the paged cache, a block to a token or to some of its heads: q and k
// heads turn, k and v heads are stored. A thread takes pairs of dimensions (i, i + head_dim / 2): eight where
// the heads' halves divide by it, else one.
#include <algorithm>

#include "backend/cuda/hopper.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/rotary.cuh"
#include "backend/cuda/row_vectors.cuh"

namespace bise::cuda {
namespace {

constexpr int kThreads = 256;

template <class C>
__device__ inline void store_cached(C* to, float value, float scale) {
  if constexpr (std::is_same_v<C, std::uint8_t>) value = __fdiv_rn(value, scale);
  store_value(to, value);
}

template <class T, class C>
__global__ void rope_kernel(T* qkv, int num_heads, const float* inv_freq, float attention_factor,
                            StepView step, std::int64_t group, CacheView cache) {
  let_next_kernel_begin();
  wait_for_earlier_kernels();
  const int head_dim = static_cast<int>(cache.head_dim), half = head_dim / 2;
  const int kv_heads = static_cast<int>(cache.num_kv_heads), together = kThreads / half;
  const int pair = threadIdx.x % half, first = threadIdx.x / half;
  if (first >= together) return;
  const std::int64_t token = blockIdx.x;
  const std::int32_t position = step.positions[token];
  const std::int64_t sequence = step.token_sequence[token];
  const std::int64_t block = step.block_table[(sequence * step.groups + group) * step.blocks_per_sequence +
                                              position / cache.block_size];
  const std::int64_t slot = (block * cache.block_size + position % cache.block_size) * kv_heads * head_dim;
  // The angle is the float32 product, as the reference has it.
  float sine, cosine;
  sincosf(static_cast<float>(position) * inv_freq[pair], &sine, &cosine);
  cosine *= attention_factor;
  sine *= attention_factor;

  for (int head = blockIdx.y * together + first; head < num_heads + 2 * kv_heads;
       head += gridDim.y * together) {
    T* at = qkv + (token * (num_heads + 2 * kv_heads) + head) * head_dim + pair;
    float x = load_value(at), y = load_value(at + half);
    if (head < num_heads + kv_heads) {
      const float2 both = turned(x, y, cosine, sine);
      x = both.x;
      y = both.y;
      store_value(at, x);
      store_value(at + half, y);
    }
    if (head < num_heads) continue;
    const bool is_key = head < num_heads + kv_heads;
    const int kv_head = is_key ? head - num_heads : head - num_heads - kv_heads;
    C* to = static_cast<C*>(is_key ? cache.keys : cache.values) + slot + kv_head * head_dim + pair;
    const float scale = is_key ? cache.key_scale : cache.value_scale;
    store_cached(to, x, scale);
    store_cached(to + half, y, scale);
  }
}

template <class C>
__device__ inline void store_cached_wide(C* to, const float (&values)[kWide], float) {
  store_wide(to, values);
}
__device__ inline void store_cached_wide(std::uint8_t* to, const float (&values)[kWide], float scale) {
  std::uint32_t words[2] = {0, 0};
#pragma unroll
  for (int i = 0; i < kWide; i += 2)
    words[i / 4] |= e4m3_pair(__fdiv_rn(values[i], scale), __fdiv_rn(values[i + 1], scale)) << (i % 4 * 8);
  *reinterpret_cast<uint2*>(to) = {words[0], words[1]};
}

constexpr int kMostPairs = 128;

template <class T, class C>
__global__ void __launch_bounds__(kMostRowThreads)
    rope_vectors_kernel(T* qkv, int num_heads, const float* inv_freq, float attention_factor, StepView step,
                        std::int64_t group, CacheView cache) {
  __shared__ float cosines[kMostPairs], sines[kMostPairs];
  let_next_kernel_begin();
  // The step's numbers were copied, no kernel made them: they are read while the product before still runs.
  const int head_dim = static_cast<int>(cache.head_dim), half = head_dim / 2, lanes = half / kWide;
  const int kv_heads = static_cast<int>(cache.num_kv_heads), heads = num_heads + 2 * kv_heads;
  const int lane = threadIdx.x % lanes, first = threadIdx.x / lanes;
  const int together = static_cast<int>(blockDim.x) / lanes;
  const std::int64_t token = blockIdx.x;
  const std::int32_t position = step.positions[token];
  const std::int64_t sequence = step.token_sequence[token];
  for (int pair = threadIdx.x; pair < half; pair += blockDim.x) {
    float sine, cosine;
    sincosf(static_cast<float>(position) * inv_freq[pair], &sine, &cosine);
    cosines[pair] = cosine * attention_factor;
    sines[pair] = sine * attention_factor;
  }
  const std::int64_t block = step.block_table[(sequence * step.groups + group) * step.blocks_per_sequence +
                                              position / cache.block_size];
  const std::int64_t slot = (block * cache.block_size + position % cache.block_size) * kv_heads * head_dim;
  __syncthreads();
  wait_for_earlier_kernels();
  if (first >= together) return;
  for (int head = blockIdx.y * together + first; head < heads; head += gridDim.y * together) {
    T* at = qkv + (token * heads + head) * head_dim + lane * kWide;
    float x[kWide], y[kWide];
    load_wide(at, x);
    load_wide(at + half, y);
    if (head < num_heads + kv_heads) {
#pragma unroll
      for (int i = 0; i < kWide; ++i) {
        const float2 both = turned(x[i], y[i], cosines[lane * kWide + i], sines[lane * kWide + i]);
        x[i] = both.x;
        y[i] = both.y;
      }
      store_wide(at, x);
      store_wide(at + half, y);
    }
    if (head < num_heads) continue;
    const bool is_key = head < num_heads + kv_heads;
    const int kv_head = is_key ? head - num_heads : head - num_heads - kv_heads;
    C* to = static_cast<C*>(is_key ? cache.keys : cache.values) + slot + kv_head * head_dim + lane * kWide;
    const float scale = is_key ? cache.key_scale : cache.value_scale;
    store_cached_wide(to, x, scale);
    store_cached_wide(to + half, y, scale);
  }
}

// A thread has eight pairs of a head's dimensions.
__global__ void __launch_bounds__(kThreads)
    turn_and_store_kernel(const bf16* qkv, int num_heads, const float2* angles, StepView step,
                          std::int64_t group, CacheView cache) {
  let_next_kernel_begin();
  const int head_dim = static_cast<int>(cache.head_dim), half = head_dim / 2, lanes = half / kWide;
  const int kv_heads = static_cast<int>(cache.num_kv_heads), of_token = 2 * kv_heads * lanes;
  const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x), token = i / of_token;
  if (token >= step.tokens) return;
  const int head = i % of_token / lanes, pair = i % lanes * kWide;  // keys before values
  const std::int32_t position = step.positions[token];
  const std::int64_t block =
      step.block_table[(step.token_sequence[token] * step.groups + group) * step.blocks_per_sequence +
                       position / cache.block_size];
  const std::int64_t slot = block * cache.block_size + position % cache.block_size;
  const bool is_key = head < kv_heads;
  wait_for_earlier_kernels();
  const bf16* from =
      qkv + (std::int64_t{token} * (num_heads + 2 * kv_heads) + num_heads + head) * head_dim + pair;
  float x[kWide], y[kWide];
  load_wide(from, x);
  load_wide(from + half, y);
  if (is_key) {
    const auto* angle = reinterpret_cast<const float4*>(angles + std::int64_t{token} * half + pair);
#pragma unroll
    for (int j = 0; j < kWide; j += 2) {
      const float4 two = angle[j / 2];
      const float2 a = turned(x[j], y[j], two.x, two.y), b = turned(x[j + 1], y[j + 1], two.z, two.w);
      x[j] = a.x, y[j] = a.y, x[j + 1] = b.x, y[j + 1] = b.y;
    }
  }
  bf16* to = static_cast<bf16*>(is_key ? cache.keys : cache.values) +
             (slot * kv_heads + head % kv_heads) * head_dim + pair;
  store_wide(to, x);
  store_wide(to + half, y);
}

__global__ void angles_kernel(const std::int32_t* positions, std::int64_t count, int half,
                              const float* inv_freq, float attention_factor, float2* angles) {
  let_next_kernel_begin();
  wait_for_earlier_kernels();
  const std::int64_t i = blockIdx.x * std::int64_t{kThreads} + threadIdx.x;
  if (i >= count) return;
  float sine, cosine;
  sincosf(static_cast<float>(positions[i / half]) * inv_freq[i % half], &sine, &cosine);
  angles[i] = {cosine * attention_factor, sine * attention_factor};
}

}  // namespace

void rope_angles(const float* inv_freq, std::int64_t half, float attention_factor, const StepView& step,
                 float* angles, cudaStream_t stream) {
  const std::int64_t count = step.tokens * half;
  launch(angles_kernel, blocks_for(count, kThreads), kThreads, 0, stream, step.positions, count,
         static_cast<int>(half), inv_freq, attention_factor, reinterpret_cast<float2*>(angles));
}

void turn_and_store(const void* qkv, std::int64_t num_heads, const float* angles, const StepView& step,
                    std::int64_t group, const CacheView& cache, cudaStream_t stream) {
  const std::int64_t threads = step.tokens * cache.num_kv_heads * cache.head_dim / kWide;
  launch(turn_and_store_kernel, blocks_for(threads, kThreads), kThreads, 0, stream,
         static_cast<const bf16*>(qkv), static_cast<int>(num_heads), reinterpret_cast<const float2*>(angles),
         step, group, cache);
}

void rope_and_store(Values qkv, std::int64_t num_heads, const float* inv_freq, float attention_factor,
                    const StepView& step, std::int64_t group, const CacheView& cache, cudaStream_t stream) {
  // Few tokens spread their heads over more blocks; many share the sines.
  const auto together = kThreads / (cache.head_dim / 2);
  const auto spread = (num_heads + 2 * cache.num_kv_heads + together - 1) / together;
  const dim3 grid(static_cast<unsigned>(step.tokens), static_cast<unsigned>(step.tokens <= 64 ? spread : 1));
  const std::int64_t half = cache.head_dim / 2, heads = num_heads + 2 * cache.num_kv_heads;
  const std::int64_t lanes = half % kWide == 0 && half <= kMostPairs ? half / kWide : 0;
  const auto wide_threads = static_cast<unsigned>(
      step.tokens <= 64 ? 128 : std::min<std::int64_t>(512, (heads * lanes + 31) / 32 * 32));
  const auto of_block = lanes > 0 ? wide_threads / lanes : 1;
  const dim3 wide_grid(static_cast<unsigned>(step.tokens),
                       static_cast<unsigned>(step.tokens <= 64 ? (heads + of_block - 1) / of_block : 1));
  with_type(qkv, [&](auto* rows) {
    with_cache_type(cache.type, [&](auto* kind) {
      using C = std::remove_pointer_t<decltype(kind)>;
      using T = std::remove_pointer_t<decltype(rows)>;
      if (lanes > 0)
        return launch(rope_vectors_kernel<T, C>, wide_grid, wide_threads, 0, stream, rows,
                      static_cast<int>(num_heads), inv_freq, attention_factor, step, group, cache);
      launch(rope_kernel<T, C>, grid, kThreads, 0, stream, rows, static_cast<int>(num_heads), inv_freq,
             attention_factor, step, group, cache);
    });
  });
}

}  // namespace bise::cuda
