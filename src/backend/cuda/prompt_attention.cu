// Attention of prompts (Dao 2022; Shah et al. 2024): two warpgroups hold 64 rows each, a row being one query
// of one of the heads that share a KV head, and take tiles of 128 keys, each weighing a tile while the values
// of the tile before it are multiplied. One work follows another without a pause: the first scores of the
// next are computed beside the last values of this one, whose rows are written beside the products after
// those.
//
// Four more warps: one takes works from a counter that all blocks share, longest first in a prompt, and
// brings their queries, which it turns where they are still to be; two bring keys, and values, into rings of
// shared memory by the copy engine; one makes rows of values that no query sees zeros: unwritten memory may
// hold anything, and zero weights would not hide it.
//
// Its sums are not those of tile_attention.cu, which cuts contexts at fixed positions: it takes the steps
// whose linear layers depend on the number of rows as well.
#include <algorithm>

#include "backend/cuda/attention_product.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/prompt_attention_fetch.cuh"
#include "backend/cuda/prompt_attention_find.cuh"
#include "backend/cuda/prompt_attention_rows.cuh"
#include "backend/cuda/warpgroup_product.cuh"

namespace bise::cuda {
namespace {

constexpr int kThreads = kPromptConsumers + 128;
constexpr int kConsumerRegisters = 224, kProducerRegisters = 56;
// Warps share what the block begins with, in eights a thread; if it were less, some would wait for ever.
static_assert(kPromptConsumers * kConsumerRegisters + 128 * kProducerRegisters <=
              65536 / kThreads / 8 * 8 * kThreads);

// Two warpgroups.
template <int kDim>
__device__ void consume(const AttentionTask& task, PromptTiles<kDim> tiles, PromptRings& rings) {
  using L = PromptLayout<kDim>;
  const int group = threadIdx.x / 128;
  const bool signals = threadIdx.x % 128 == 0;
  float scores[kPromptKeys / 2], sums[kDim / 2] = {};
  std::uint32_t weights[kPromptKeys / 4] = {};
  const auto multiply_keys = [&](const char* queries, const char* keys) {
    const std::uint32_t q = tile_descriptor(queries) + group * (64 * 128 >> 4), k = tile_descriptor(keys);
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step) {
      const int at = step / 4 * (L::kHalfBytes >> 4) + step % 4 * 2;
      WarpgroupProduct<Operand::kBf16, kPromptKeys>::add(scores, q + at, k + at, step > 0);
    }
    products_commit();
  };
  const auto multiply_values = [&](const char* values) {
#pragma unroll
    for (int step = 0; step < kPromptKeys / 16; ++step) {
      const std::uint32_t* rows = weights + 4 * step;
      if constexpr (kDim == 128)
        add_product_of_128(sums, rows, transposed_halves_descriptor(values + step * 2048, L::kHalfBytes));
      else
        RegisterProduct<kDim, true>::add(sums, rows, transposed_tile_descriptor(values + step * 2048), 1);
    }
    products_commit();
  };

  wait_for_earlier_kernels();
  PromptOutput<kDim> out = {};
  Span span = {};  // of the rows whose sums are computed
  int kv_head = 0;
  float l[2] = {1, 1};
  bool has_before = false, has_output = false;
  RingPlace at, key_at, value_at, value_before;  // value_before: of the tile whose values are multiplied next
  for (;; at.advance(kPromptWorks)) {
    const PromptWork work = next_prompt_work(rings, at);
    if (work.span.count == 0) break;
    PromptWeighing rows;
    const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, last = work.span.count - 1;
#pragma unroll
    for (int half = 0; half < 2; ++half)
      rows.position[half] = work.first_position + min((row + half * 8) / task.heads, last);
    barrier_wait(rings.queries.full + at.stage, at.parity);
    const char* queries = tiles.queries(at.stage);
    for (int tile = work.first_tile; tile <= work.last_tile; ++tile) {
      barrier_wait(rings.keys.full + key_at.stage, key_at.parity);
      hold(weights);
      hold(scores);
      hold(sums);
      products_begin();
      multiply_keys(queries, tiles.keys(key_at.stage));
      // Before there are values, any numbers do: their sums are not looked at.
      multiply_values(has_before ? tiles.values(value_before.stage) : queries);
      if (has_output) write_rows<kDim>(task, out);
      has_output = false;
      products_wait<1>();
      hold(scores);
      if (signals) {
        barrier_arrive(rings.keys.empty + key_at.stage);
        if (tile == work.last_tile) barrier_arrive(rings.queries.empty + at.stage);
      }
      const bool hides_later = (tile + 1) * kPromptKeys - 1 > work.first_position;
      const bool hides_earlier =
          task.sliding_window > 0 && tile * kPromptKeys <= work.last_position - task.sliding_window;
      weigh(scores, task, tile * kPromptKeys, hides_later, hides_earlier, rows);
      // Without this wait between them the assembler moves the next one before the weighing.
      barrier_wait(rings.values.full + value_at.stage, value_at.parity);
      products_wait<0>();
      hold(sums);
      hold(weights);
      if (signals && has_before) barrier_arrive(rings.values.empty + value_before.stage);
      if (tile == work.first_tile) {
        out.span = span;
        out.kv_head = kv_head;
        divide<kDim>(sums, l, out);
        has_output = has_before;
#pragma unroll
        for (float& sum : sums) sum = 0;
      } else if (__any_sync(~0u, rows.keep[0] != 1 || rows.keep[1] != 1)) {
#pragma unroll
        for (int i = 0; i < kDim / 2; ++i) sums[i] *= rows.keep[i / 2 % 2];
      }
#pragma unroll
      for (int i = 0; i < kPromptKeys / 4; ++i) weights[i] = pair_of(scores[2 * i], scores[2 * i + 1]);
      value_before = value_at;
      has_before = true;
      key_at.advance(kPromptKeyTiles);
      value_at.advance(kPromptValueTiles);
    }
    span = work.span;
    kv_head = work.kv_head;
    l[0] = rows.l[0];
    l[1] = rows.l[1];
  }
  if (!has_before) return;
  hold(weights);
  hold(sums);
  products_begin();
  multiply_values(tiles.values(value_before.stage));
  if (has_output) write_rows<kDim>(task, out);
  products_wait<0>();
  hold(sums);
  out.span = span;
  out.kv_head = kv_head;
  divide<kDim>(sums, l, out);
  write_rows<kDim>(task, out);
}

template <int kDim>
__global__ void __launch_bounds__(kThreads, 1)
    prompt_attention_kernel(const __grid_constant__ AttentionTask task) {
  extern __shared__ char memory[];
  __shared__ PromptRings rings;
  const PromptTiles<kDim> tiles = {memory + (1024 - shared_address(memory) % 1024) % 1024};
  const int warp = threadIdx.x / 32;
  let_next_kernel_begin();
  if (threadIdx.x == 0) {
    const auto init = [](auto& ring, int takers) {
      for (std::uint64_t& barrier : ring.full) barrier_init(&barrier, 1);
      for (std::uint64_t& barrier : ring.empty) barrier_init(&barrier, takers);
    };
    init(rings.works, kPromptConsumers / 32 + 3);
    init(rings.queries, 2);
    init(rings.keys, 2);
    init(rings.values, 2);
    for (std::uint64_t& barrier : rings.landed_queries) barrier_init(&barrier, 1);
    for (std::uint64_t& barrier : rings.landed_values) barrier_init(&barrier, 1);
    barrier_init_visible();
  }
  __syncthreads();
  // The step's numbers were there before its first kernel; all else waits for the kernels before this one.
  if (warp >= kPromptConsumers / 32) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kProducerRegisters));
    switch (warp - kPromptConsumers / 32) {
      case 0:
        produce_tiles<kDim>(task, task.key_tiles, kPromptKeyTiles, tiles.keys(0), rings.keys.full,
                            rings.keys.empty, rings);
        break;
      case 1:
        produce_tiles<kDim>(task, task.value_tiles, kPromptValueTiles, tiles.values(0), rings.landed_values,
                            rings.values.empty, rings);
        break;
      case 2: clear_values<kDim>(tiles, rings); break;
      default: find_works<kDim>(task, tiles, rings);
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kConsumerRegisters));
    consume<kDim>(task, tiles, rings);
  }
}

template <int kDim>
void start(const AttentionTask& task, cudaStream_t stream) {
  const auto kernel = prompt_attention_kernel<kDim>;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, PromptLayout<kDim>::kBytes);
  (void)allowed;  // the launch fails if this did
  launch(kernel, std::min(static_cast<unsigned>(task.works), multiprocessors()), kThreads,
         PromptLayout<kDim>::kBytes, stream, task);
}

}  // namespace

void prompt_attention(const AttentionTask& task, cudaStream_t stream) {
  if (task.cache.head_dim == 64)
    start<64>(task, stream);
  else
    start<128>(task, stream);
}

}  // namespace bise::cuda
