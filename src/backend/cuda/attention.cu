// Causal attention over the paged cache: tile_attention.cu where it can, else the kernel of this file,
// without tensor cores, online softmax (Milakov and Gimelshein 2018). A block computes one token and one KV
// head with all query heads that share it.
//
// The context is cut at multiples of kSplit positions. Each part gives a maximum, a sum and a weighted value;
// they are joined from the first to the last, either by the block that computed them or, for few tokens with
// long contexts, by a second kernel. Both do the same arithmetic, so a token's result depends on nothing
// else.
#include <cfloat>

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/row_vectors.cuh"
#include "backend/cuda/tile_attention.h"

namespace bise::cuda {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * 32;
constexpr int kSplit = 512;        // positions
constexpr int kSplitTokens = 64;   // most tokens whose parts are computed by different blocks
constexpr int kLane = kWide;       // head dimensions of a thread
constexpr float kNone = -FLT_MAX;  // the maximum of no scores

struct Task {
  const void* qkv;
  int num_heads;
  StepView step;
  std::int64_t group, sliding_window;
  CacheView cache;
  float scale;
  Values out;  // rows of out_stride
  std::int64_t out_stride;
  float* partial;  // [tokens, num_heads, splits, head_dim + 2], or null when a block takes all parts
  int splits;
};

template <class T>
__device__ inline void load_lane(const T* p, float (&values)[kLane]) {
#pragma unroll
  for (int i = 0; i < kLane; ++i) values[i] = load_value(p + i);
}
template <>
__device__ inline void load_lane(const bf16* p, float (&values)[kLane]) {
  load_wide(p, values);
}

__device__ inline void store_out(const Task& task, std::int64_t token, std::int64_t column, float value) {
  const std::int64_t at = token * task.out_stride + column;
  value *= task.cache.value_scale;
  if (task.out.type == Float::kBf16)
    store_value(static_cast<bf16*>(task.out.data) + at, value);
  else
    store_value(static_cast<float*>(task.out.data) + at, value);
}

// Joins (m, l, a) with another part that comes after it.
__device__ inline void join(float& m, float& l, float m2, float l2, float& keep, float& add) {
  const float largest = fmaxf(m, m2);
  keep = exp2f(m - largest);
  add = exp2f(m2 - largest);
  l = l * keep + l2 * add;
  m = largest;
}

// kLanes threads share a key; kHeads bounds the query heads of a KV head.
template <int kLanes, int kHeads, class T, class C>
__global__ void __launch_bounds__(kThreads) attention_kernel(Task task) {
  constexpr int kKeys = 32 / kLanes;  // that a warp takes at once
  extern __shared__ float shared[];
  const CacheView& cache = task.cache;
  const int head_dim = static_cast<int>(cache.head_dim), kv_head = blockIdx.y;
  const int heads = task.num_heads / static_cast<int>(cache.num_kv_heads);
  const std::int64_t token = blockIdx.x;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int dim = lane % kLanes * kLane;
  const bool active = dim < head_dim;

  const int position = task.step.positions[token];
  const std::int64_t sequence = task.step.token_sequence[token];
  const std::int32_t* blocks =
      task.step.block_table + (sequence * task.step.groups + task.group) * task.step.blocks_per_sequence;
  const int visible =
      task.sliding_window > 0 ? max(0, position - static_cast<int>(task.sliding_window) + 1) : 0;
  const int block_size = static_cast<int>(cache.block_size);
  const std::int64_t key_stride = cache.num_kv_heads * head_dim;

  float q[kHeads][kLane];
  const std::int64_t columns = (task.num_heads + 2 * cache.num_kv_heads) * head_dim;
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    if (active && h < heads)
      load_lane(static_cast<const T*>(task.qkv) + token * columns + (kv_head * heads + h) * head_dim + dim,
                q[h]);
    else
      for (float& value : q[h]) value = 0;
  }

  // [kWarps, heads, head_dim + 2] parts of the warps, then [heads, head_dim + 2] joined so far.
  const int part = head_dim + 2;
  float* joined = shared + kWarps * heads * part;
  const int first_split = task.partial ? blockIdx.z : visible / kSplit;
  const int last_split = task.partial ? blockIdx.z : position / kSplit;

  for (int split = first_split; split <= last_split; ++split) {
    const int low = max(split * kSplit, visible), high = min((split + 1) * kSplit, position + 1);
    float m[kHeads], l[kHeads], sums[kHeads][kLane] = {};
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      m[h] = kNone;
      l[h] = 0;
    }
    for (int first = low + warp * kKeys; first < high; first += kWarps * kKeys) {
      const int key = first + lane / kLanes;
      const bool valid = key < high;
      float k[kLane] = {}, v[kLane] = {};
      if (valid && active) {
        const std::int64_t at =
            (blocks[key / block_size] * std::int64_t{block_size} + key % block_size) * key_stride +
            kv_head * head_dim + dim;
        load_lane(static_cast<const C*>(cache.keys) + at, k);
        load_lane(static_cast<const C*>(cache.values) + at, v);
      }
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        float score = 0;
#pragma unroll
        for (int i = 0; i < kLane; ++i) score += q[h][i] * k[i];
#pragma unroll
        for (int offset = kLanes / 2; offset > 0; offset /= 2) score += __shfl_xor_sync(~0u, score, offset);
        score = valid ? score * task.scale : kNone;
        const float largest = fmaxf(m[h], score);
        const float keep = exp2f(m[h] - largest), weight = valid ? exp2f(score - largest) : 0.f;
        l[h] = l[h] * keep + weight;
        m[h] = largest;
#pragma unroll
        for (int i = 0; i < kLane; ++i) sums[h][i] = sums[h][i] * keep + weight * v[i];
      }
    }
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      for (int offset = kLanes; offset < 32; offset *= 2) {
        float keep, add;
        const float m2 = __shfl_xor_sync(~0u, m[h], offset), l2 = __shfl_xor_sync(~0u, l[h], offset);
        join(m[h], l[h], m2, l2, keep, add);
        for (int i = 0; i < kLane; ++i)
          sums[h][i] = sums[h][i] * keep + __shfl_xor_sync(~0u, sums[h][i], offset) * add;
      }
      float* mine = shared + (warp * heads + h) * part;
      if (h < heads && lane < kLanes && active) {
        for (int i = 0; i < kLane; ++i) mine[dim + i] = sums[h][i];
        if (lane == 0) {
          mine[head_dim] = m[h];
          mine[head_dim + 1] = l[h];
        }
      }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < heads * head_dim; i += kThreads) {
      const int h = i / head_dim, d = i % head_dim;
      float maximum = shared[h * part + head_dim], total = shared[h * part + head_dim + 1];
      float sum = shared[h * part + d], keep, add;
      for (int w = 1; w < kWarps; ++w) {
        const float* other = shared + (w * heads + h) * part;
        join(maximum, total, other[head_dim], other[head_dim + 1], keep, add);
        sum = sum * keep + other[d] * add;
      }
      float* so_far = joined + i * 3;  // each thread's own: (sum, maximum, total)
      if (split > first_split) {
        float before_m = so_far[1], before_l = so_far[2];
        join(before_m, before_l, maximum, total, keep, add);
        sum = so_far[0] * keep + sum * add;
        maximum = before_m;
        total = before_l;
      }
      so_far[0] = sum;
      so_far[1] = maximum;
      so_far[2] = total;
    }
    __syncthreads();
  }

  for (int i = threadIdx.x; i < heads * head_dim; i += kThreads) {
    const int h = kv_head * heads + i / head_dim, d = i % head_dim;
    const float* result = joined + i * 3;
    if (task.partial) {
      float* out = task.partial + ((token * task.num_heads + h) * task.splits + blockIdx.z) * part;
      const bool any = blockIdx.z >= visible / kSplit && static_cast<int>(blockIdx.z) <= position / kSplit;
      out[d] = any ? result[0] : 0;
      if (d == 0) {
        out[head_dim] = any ? result[1] : kNone;
        out[head_dim + 1] = any ? result[2] : 0;
      }
    } else {
      store_out(task, token, h * head_dim + d, result[0] / result[2]);
    }
  }
}

// Joins the parts of one token and head.
__global__ void join_kernel(Task task) {
  const std::int64_t head = blockIdx.x;
  const int d = threadIdx.x, splits = task.splits, head_dim = static_cast<int>(task.cache.head_dim);
  const float* parts = task.partial + head * splits * (head_dim + 2);
  float m = kNone, l = 0, sum = 0, keep, add;
  bool any = false;
  for (int split = 0; split < splits; ++split, parts += head_dim + 2) {
    if (parts[head_dim + 1] == 0) continue;  // behind the window or beyond the context
    if (!any) {
      m = parts[head_dim];
      l = parts[head_dim + 1];
      sum = parts[d];
      any = true;
      continue;
    }
    join(m, l, parts[head_dim], parts[head_dim + 1], keep, add);
    sum = sum * keep + parts[d] * add;
  }
  store_out(task, head / task.num_heads, head % task.num_heads * head_dim + d, sum / l);
}

template <int kLanes, int kHeads, class T, class C>
void start(const Task& task, dim3 grid, std::size_t shared, cudaStream_t stream) {
  const auto kernel = attention_kernel<kLanes, kHeads, T, C>;
  if (shared > 48 * 1024)
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
  kernel<<<grid, kThreads, shared, stream>>>(task);
}

template <int kLanes, class T, class C>
void with_heads(int heads, const Task& task, dim3 grid, std::size_t shared, cudaStream_t stream) {
  if (heads <= 1)
    start<kLanes, 1, T, C>(task, grid, shared, stream);
  else if (heads <= 4)
    start<kLanes, 4, T, C>(task, grid, shared, stream);
  else
    start<kLanes, 8, T, C>(task, grid, shared, stream);
}

template <class T, class C>
void with_lanes(int heads, const Task& task, dim3 grid, std::size_t shared, cudaStream_t stream) {
  if (task.cache.head_dim <= 64)
    with_heads<8, T, C>(heads, task, grid, shared, stream);
  else if (task.cache.head_dim <= 128)
    with_heads<16, T, C>(heads, task, grid, shared, stream);
  else
    with_heads<32, T, C>(heads, task, grid, shared, stream);
}

}  // namespace

std::size_t attention_workspace(const StepView& step, std::int64_t num_heads, const CacheView& cache) {
  if (supports_tile_attention(num_heads, step, cache))
    return tile_attention_workspace(step, num_heads, cache);
  const std::int64_t splits = (step.longest_context + kSplit - 1) / kSplit;
  return kAttentionCounterBytes +
         static_cast<std::size_t>(kSplitTokens * num_heads * splits * (cache.head_dim + 2)) * sizeof(float);
}

void attention(Values qkv, const float* angles, std::int64_t num_heads, const StepView& step,
               std::int64_t group, std::int64_t sliding_window, const CacheView& cache, Values out,
               std::int64_t out_stride, void* workspace, cudaStream_t stream) {
  if (supports_tile_attention(num_heads, step, cache))
    return tile_attention(qkv, angles, num_heads, step, group, sliding_window, cache, out, out_stride,
                          workspace, stream);
  const int splits = static_cast<int>((step.longest_context + kSplit - 1) / kSplit);
  const bool divided = step.tokens <= kSplitTokens && splits > 1;
  const int heads = static_cast<int>(num_heads / cache.num_kv_heads);
  const Task task{
      .qkv = qkv.data,
      .num_heads = static_cast<int>(num_heads),
      .step = step,
      .group = group,
      .sliding_window = sliding_window,
      .cache = cache,
      // Exponentials are of base 2.
      .scale = 1.44269504f / sqrtf(static_cast<float>(cache.head_dim)) * cache.key_scale,
      .out = out,
      .out_stride = out_stride,
      .partial = divided ? reinterpret_cast<float*>(static_cast<char*>(workspace) + kAttentionCounterBytes)
                         : nullptr,
      .splits = splits};
  const dim3 grid(static_cast<unsigned>(step.tokens), static_cast<unsigned>(cache.num_kv_heads),
                  divided ? static_cast<unsigned>(splits) : 1);
  const std::size_t shared = static_cast<std::size_t>(heads) *
                             static_cast<std::size_t>(kWarps * (cache.head_dim + 2) + 3 * cache.head_dim) *
                             sizeof(float);
  with_type(qkv, [&](auto* rows) {
    with_cache_type(cache.type, [&](auto* kind) {
      using T = std::remove_pointer_t<decltype(rows)>;
      using C = std::remove_pointer_t<decltype(kind)>;
      with_lanes<T, C>(heads, task, grid, shared, stream);
    });
  });
  if (divided)
    join_kernel<<<static_cast<unsigned>(step.tokens * num_heads), static_cast<unsigned>(cache.head_dim), 0,
                  stream>>>(task);
}

}  // namespace bise::cuda
