// Rotary embedding and the write into the paged cache: a block to each token.
#include "backend/cuda/device_math.cuh"

namespace bise::cuda {
namespace {

// A thread turns the pairs (i, i + head_dim / 2) of q and k heads; v heads are copied.
template <class T, class C>
__global__ void rope_kernel(T* qkv, int num_heads, const float* inv_freq, float attention_factor,
                            StepView step, std::int64_t group, CacheView cache) {
  const int head_dim = static_cast<int>(cache.head_dim), half = head_dim / 2;
  const int kv_heads = static_cast<int>(cache.num_kv_heads);
  const std::int64_t token = blockIdx.x;
  const std::int32_t position = step.positions[token];
  const std::int64_t sequence = step.token_sequence[token];
  const std::int64_t block = step.block_table[(sequence * step.groups + group) * step.blocks_per_sequence +
                                              position / cache.block_size];
  const std::int64_t slot = (block * cache.block_size + position % cache.block_size) * kv_heads * head_dim;
  T* row = qkv + token * (num_heads + 2 * kv_heads) * head_dim;
  C* keys = static_cast<C*>(cache.keys) + slot;
  C* values = static_cast<C*>(cache.values) + slot;

  for (int i = threadIdx.x; i < (num_heads + kv_heads) * half; i += blockDim.x) {
    const int head = i / half, pair = i % half;
    // The angle is the float32 product, as the reference has it.
    float sine, cosine;
    sincosf(static_cast<float>(position) * inv_freq[pair], &sine, &cosine);
    cosine *= attention_factor;
    sine *= attention_factor;
    T* at = row + head * head_dim + pair;
    const float x = load_value(at), y = load_value(at + half);
    const float a = x * cosine - y * sine, b = y * cosine + x * sine;
    store_value(at, a);
    store_value(at + half, b);
    if (head >= num_heads) {
      C* key = keys + (head - num_heads) * head_dim + pair;
      store_value(key, a);
      store_value(key + half, b);
    }
  }
  const T* v = row + (num_heads + kv_heads) * head_dim;
  for (int i = threadIdx.x; i < kv_heads * head_dim; i += blockDim.x)
    store_value(values + i, load_value(v + i));
}

}  // namespace

void rope_and_store(Values qkv, std::int64_t num_heads, const float* inv_freq, float attention_factor,
                    const StepView& step, std::int64_t group, const CacheView& cache, cudaStream_t stream) {
  with_type(qkv, [&](auto* rows) {
    with_type({nullptr, cache.type}, [&](auto* kind) {
      using C = std::remove_pointer_t<decltype(kind)>;
      using T = std::remove_pointer_t<decltype(rows)>;
      rope_kernel<T, C><<<static_cast<unsigned>(step.tokens), 256, 0, stream>>>(
          rows, static_cast<int>(num_heads), inv_freq, attention_factor, step, group, cache);
    });
  });
}

}  // namespace bise::cuda
