#include "backend/cpu/attention.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numbers>

#include "backend/cpu/simd.h"
#include "base/check.h"

namespace bise {
namespace {

// With fewer tiles than this for each thread, tiles are split at chunks.
constexpr std::int64_t kTilesPerThread = 4;
// Merging fewer parts than this is not worth waking threads.
constexpr std::size_t kSerialParts = 48;
// Nor is visiting fewer keys, summed over the tiles.
constexpr std::int64_t kSerialKeys = 256;

}  // namespace

void Attention::begin_step(const Batch& batch, CpuKvCache& cache) {
  batch_ = batch;
  cache_ = &cache;
  const KvCacheShape& shape = cache.shape();
  if (!kernel_ || kernel_layout_ != cache.layout() || kernel_dtype_ != shape.dtype) {
    kernel_ = make_attention_kernel(isa_, cache.layout(), shape.dtype);
    kernel_layout_ = cache.layout();
    kernel_dtype_ = shape.dtype;
  }
  state_floats_ = kernel_->state_floats(shape);
  scratch_floats_ = kernel_->scratch_floats(shape) + 2 * state_floats_;
  if (scratch_.size() < scratch_floats_ * pool_.threads())
    scratch_ = AlignedBuffer<float>(scratch_floats_ * pool_.threads());
  std::int64_t context = 0;
  for (const std::int32_t length : batch.context_lengths) context = std::max<std::int64_t>(context, length);
  const auto chunks =
      static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(context / kChunkKeys + 1)));
  const std::int64_t parts = kTilesPerThread * pool_.threads() * chunks;
  if (states_.size() < parts * state_floats_) states_ = AlignedBuffer<float>(parts * state_floats_);
}

void Attention::list_tiles(const AttentionShape& shape, CacheLayer layer, std::int64_t sliding_window,
                           const float* qkv, const AttentionRows& out) {
  const std::int64_t group = shape.num_heads / shape.num_kv_heads;
  const bool scaled = cache_->shape().dtype == DType::kF8E4M3;
  tiles_.clear();
  for (std::int64_t s = 0; s < batch_.sequences(); ++s) {
    const auto at = static_cast<std::size_t>(s);
    const std::int64_t first = batch_.query_starts[at], tokens = batch_.query_starts[at + 1] - first;
    if (tokens == 0) continue;
    for (std::int64_t head = 0; head < shape.num_kv_heads; ++head) {
      QueryTile tile{};
      tile.row_stride = shape.qkv_columns();
      tile.queries = qkv + first * tile.row_stride + head * group * shape.head_dim;
      tile.out_stride = out.stride;
      const std::int64_t result = first * out.stride + head * group * shape.head_dim;
      if (out.floats) tile.out = out.floats + result;
      if (out.rounded) tile.rounded_out = out.rounded + result;
      tile.group = group;
      tile.head_dim = shape.head_dim;
      tile.first_position = batch_.context_lengths[at] - tokens;
      tile.value_scale = scaled ? layer.value_scale / kLoadedE4M3 : 1;
      tile.window = sliding_window > 0 ? sliding_window : std::numeric_limits<std::int64_t>::max();
      const CachedKeys keys{cache_->keys(layer.slot, head), cache_->values(layer.slot, head),
                            cache_->block_bytes(),          batch_.blocks(s, layer.group).data(),
                            cache_->shape().block_size,     cache_->dim_stride(),
                            cache_->slot_stride()};
      const std::int64_t columns = tokens * group;
      for (tile.first_column = 0; tile.first_column < columns; tile.first_column += kernel_->max_columns()) {
        tile.columns = std::min(kernel_->max_columns(), columns - tile.first_column);
        tiles_.push_back(
            {tile, keys, tile.first_key() / kChunkKeys, (tile.end_key() - 1) / kChunkKeys + 1, 0});
      }
    }
  }
}

void Attention::attend_chunk(const Item& item, std::int64_t chunk, float* scratch, float* state) const {
  kernel_->reset(item.tile, state);
  kernel_->attend(item.tile, item.keys, item.first_key(chunk), item.end_key(chunk), scratch, state);
}

// The first chunk's state is the total so far: merging it into an empty one would not change a bit.
void Attention::run_item(const Item& item, float scale, int thread) {
  float* scratch = scratch_.data() + thread * scratch_floats_;
  float* total = scratch + scratch_floats_ - state_floats_;
  float* part = total - state_floats_;
  kernel_->pack(item.tile, scale, item.keys, scratch);
  attend_chunk(item, item.first_chunk, scratch, total);
  for (std::int64_t chunk = item.first_chunk + 1; chunk < item.end_chunk; ++chunk) {
    attend_chunk(item, chunk, scratch, part);
    kernel_->merge(item.tile, part, total);
  }
  kernel_->finish(item.tile, total);
}

// Few tiles, long contexts: every chunk is a part of its own, whose state waits in states_.
void Attention::run_split(float scale) {
  parts_.clear();
  for (Item& tile : tiles_) {
    tile.first_state = static_cast<std::int64_t>(parts_.size());
    for (std::int64_t chunk = tile.first_chunk; chunk < tile.end_chunk; ++chunk)
      parts_.push_back({tile.tile, tile.keys, chunk, chunk + 1, static_cast<std::int64_t>(parts_.size())});
  }
  check(static_cast<std::int64_t>(parts_.size()) * state_floats_ <= states_.size(), "every part has a state");
  const auto state = [&](std::int64_t index) { return states_.data() + index * state_floats_; };
  // The largest first, so that the threads end together.
  std::sort(parts_.begin(), parts_.end(), [](const Item& a, const Item& b) {
    return a.keys_of_chunk(a.first_chunk) > b.keys_of_chunk(b.first_chunk);
  });
  pool_.parallel_for(static_cast<std::int64_t>(parts_.size()), 1, [&](auto begin, auto end, int thread) {
    float* scratch = scratch_.data() + thread * scratch_floats_;
    for (auto p = begin; p < end; ++p) {
      const Item& part = parts_[static_cast<std::size_t>(p)];
      kernel_->pack(part.tile, scale, part.keys, scratch);
      attend_chunk(part, part.first_chunk, scratch, state(part.first_state));
    }
  });
  const auto merge = [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      const Item& tile = tiles_[static_cast<std::size_t>(t)];
      float* total = state(tile.first_state);
      for (std::int64_t i = 1; i < tile.end_chunk - tile.first_chunk; ++i)
        kernel_->merge(tile.tile, state(tile.first_state + i), total);
      kernel_->finish(tile.tile, total);
    }
  };
  const auto tiles = static_cast<std::int64_t>(tiles_.size());
  if (parts_.size() <= kSerialParts) return merge(0, tiles, 0);
  pool_.parallel_for(tiles, 1, merge);
}

void Attention::run(const AttentionShape& shape, CacheLayer layer, std::int64_t sliding_window,
                    const float* qkv, const AttentionRows& out) {
  float scale = std::numbers::log2e_v<float> / std::sqrt(static_cast<float>(shape.head_dim));
  if (cache_->shape().dtype == DType::kF8E4M3) scale *= layer.key_scale / kLoadedE4M3;
  list_tiles(shape, layer, sliding_window, qkv, out);
  const auto tiles = static_cast<std::int64_t>(tiles_.size());
  std::int64_t keys = 0;
  for (const Item& item : tiles_) keys += item.tile.end_key() - item.tile.first_key();
  const bool several_chunks = std::any_of(
      tiles_.begin(), tiles_.end(), [](const Item& item) { return item.end_chunk - item.first_chunk > 1; });
  if (several_chunks && tiles < kTilesPerThread * pool_.threads()) return run_split(scale);
  // A prompt's last tiles see the most keys: they go first, so that the threads end together.
  const auto body = [&](std::int64_t begin, std::int64_t end, int thread) {
    for (auto i = begin; i < end; ++i)
      run_item(tiles_[static_cast<std::size_t>(tiles - 1 - i)], scale, thread);
  };
  if (keys <= kSerialKeys) return body(0, tiles, 0);
  pool_.parallel_for(tiles, 1, body);
}

}  // namespace bise
