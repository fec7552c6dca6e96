#include "backend/cpu/rope.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>

#include "backend/cpu/row_share.h"
#include "backend/cpu/value_tile.h"
#include "base/check.h"

namespace bise {
namespace {

constexpr std::int64_t kMinPositions = 512;
// Runs of fewer tokens in all are not worth waking threads.
constexpr std::int64_t kSerialTokens = 4;
constexpr std::int64_t kMaxHeadDim = 256;

// out[i * stride] = values[i]
template <class Element>
void scatter(const Element* values, std::int64_t n, std::int64_t stride, Element* out) {
  for (std::int64_t i = 0; i < n; ++i) out[i * stride] = values[i];
}

}  // namespace

// The angle is the float32 product, as transformers computes it.
void Rope::grow(Table& table, std::int64_t positions) {
  if (positions <= table.positions) return;
  const auto half = static_cast<std::int64_t>(table.rope.inv_freq.size());
  const auto grown = static_cast<std::int64_t>(
      std::bit_ceil(static_cast<std::uint64_t>(std::max(positions, kMinPositions))));
  AlignedBuffer<float> cosine(grown * half), sine(grown * half);
  std::copy_n(table.cosine.data(), table.positions * half, cosine.data());
  std::copy_n(table.sine.data(), table.positions * half, sine.data());
  for (std::int64_t i = table.positions * half; i < grown * half; ++i) {
    const float angle =
        static_cast<float>(i / half) * table.rope.inv_freq[static_cast<std::size_t>(i % half)];
    cosine[i] = static_cast<float>(std::cos(static_cast<double>(angle)) * table.rope.attention_factor);
    sine[i] = static_cast<float>(std::sin(static_cast<double>(angle)) * table.rope.attention_factor);
  }
  table.cosine = std::move(cosine);
  table.sine = std::move(sine);
  table.positions = grown;
}

const Rope::Table& Rope::find(const RopeTable& rope) {
  for (const auto& table : tables_)
    if (table->rope.attention_factor == rope.attention_factor && table->rope.inv_freq == rope.inv_freq)
      return *table;
  tables_.push_back(std::make_unique<Table>());
  tables_.back()->rope = rope;
  grow(*tables_.back(), positions_);
  return *tables_.back();
}

void Rope::begin_step(const Batch& batch, CpuKvCache& cache) {
  batch_ = batch;
  cache_ = &cache;
  runs_.clear();
  positions_ = 0;
  for (std::int64_t s = 0; s < batch.sequences(); ++s) {
    const auto at = static_cast<std::size_t>(s);
    std::int64_t token = batch.query_starts[at];
    const std::int64_t end = batch.query_starts[at + 1], context = batch.context_lengths[at];
    positions_ = std::max(positions_, context);
    while (token < end) {
      const std::int64_t position = context - (end - token);
      // A run ends with its 32 positions, its block or its tokens.
      const std::int64_t slot = position % cache.shape().block_size;
      const std::int64_t room =
          std::min(cache.shape().block_size - slot, kRunPositions - slot % kRunPositions);
      const std::int64_t tokens = std::min(room, end - token);
      runs_.push_back({s, token, tokens});
      token += tokens;
    }
  }
  for (const auto& table : tables_) grow(*table, positions_);
}

void Rope::rotate(const AttentionShape& shape, const Table& table, const Run& run, float* qkv) const {
  const std::int64_t half = shape.head_dim / 2;
  for (std::int64_t t = run.first_token; t < run.first_token + run.tokens; ++t) {
    const std::int64_t position = batch_.positions[static_cast<std::size_t>(t)];
    const float* cosine = table.cosine.data() + position * half;
    const float* sine = table.sine.data() + position * half;
    float* row = qkv + t * shape.qkv_columns();
    for (std::int64_t head = 0; head < shape.num_heads + shape.num_kv_heads; ++head)
      kernels_.rotate_head(row + head * shape.head_dim, cosine, sine, half);
  }
}

void Rope::store(const AttentionShape& shape, CacheLayer layer, const Run& run, const float* qkv) const {
  const KvCacheShape& cache = cache_->shape();
  const std::int64_t position = batch_.positions[static_cast<std::size_t>(run.first_token)];
  const std::int64_t block =
      batch_.blocks(run.sequence, layer.group)[static_cast<std::size_t>(position / cache.block_size)];
  const std::int64_t head_dim = shape.head_dim;
  const bool tiles = cache_->layout() == BlockLayout::kTiles;
  alignas(64) bf16 rounded[kMaxHeadDim];
  alignas(64) e4m3 codes[kMaxHeadDim];
  // A matrix with a row per slot, and one with a column per slot.
  const auto store_row = [&](const float* head, std::byte* matrix, std::int64_t stride, std::int64_t slot,
                             float scale) {
    if (cache.dtype == DType::kBF16) {
      kernels_.to_bf16(head, reinterpret_cast<bf16*>(matrix) + slot * stride, head_dim);
    } else if (cache.dtype == DType::kF8E4M3) {
      kernels_.to_e4m3(head, scale, reinterpret_cast<e4m3*>(matrix) + slot * stride, head_dim);
    } else {
      std::copy_n(head, head_dim, reinterpret_cast<float*>(matrix) + slot * stride);
    }
  };
  const auto store_column = [&](const float* head, std::byte* matrix, std::int64_t stride, std::int64_t slot,
                                float scale) {
    if (cache.dtype == DType::kBF16) {
      kernels_.to_bf16(head, rounded, head_dim);
      scatter(rounded, head_dim, stride, reinterpret_cast<bf16*>(matrix) + slot);
    } else if (cache.dtype == DType::kF8E4M3) {
      kernels_.to_e4m3(head, scale, codes, head_dim);
      scatter(codes, head_dim, stride, reinterpret_cast<e4m3*>(matrix) + slot);
    } else {
      scatter(head, head_dim, stride, reinterpret_cast<float*>(matrix) + slot);
    }
  };
  const std::int64_t first_slot = position % cache.block_size;
  for (std::int64_t h = 0; h < shape.num_kv_heads; ++h) {
    std::byte* keys = cache_->keys(layer.slot, h) + block * cache_->block_bytes();
    std::byte* values = cache_->values(layer.slot, h) + block * cache_->block_bytes();
    const float* key = qkv + run.first_token * shape.qkv_columns() + (shape.num_heads + h) * head_dim;
    const float* value = key + shape.num_kv_heads * head_dim;
    // The first token of a tile of values clears the slots after it of what another sequence left there: an
    // infinite value would not vanish with its weight. Codes of e4m3 read as finite values.
    const bool fresh_tile = tiles && cache.dtype == DType::kBF16 && first_slot % kRunPositions == 0;
    if (fresh_tile)
      store_value_tile(value, shape.qkv_columns(), run.tokens, head_dim, cache.block_size,
                       reinterpret_cast<bf16*>(values) + first_slot);
    for (std::int64_t t = 0; t < run.tokens; ++t) {
      const std::int64_t slot = first_slot + t, row = t * shape.qkv_columns();
      if (tiles) {
        store_row(key + row, keys, cache_->dim_stride(), slot, layer.key_scale);
        if (!fresh_tile) store_column(value + row, values, cache.block_size, slot, layer.value_scale);
      } else {
        store_column(key + row, keys, cache_->slot_stride(), slot, layer.key_scale);
        store_row(value + row, values, head_dim, slot, layer.value_scale);
      }
    }
  }
}

void Rope::run(const AttentionShape& shape, const RopeTable& rope, CacheLayer layer, float* qkv) {
  const Table& table = find(rope);
  const auto body = [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = begin; r < end; ++r) {
      const Run& run = runs_[static_cast<std::size_t>(r)];
      rotate(shape, table, run, qkv);
      store(shape, layer, run, qkv);
    }
  };
  const auto runs = static_cast<std::int64_t>(runs_.size());
  if (batch_.tokens() <= kSerialTokens) return body(0, runs, 0);
  if (rows_are_shared(batch_.tokens(), pool_.threads())) {
    const auto share = [&](int thread) {
      const RowShare mine = share_of_rows(batch_.tokens(), thread, pool_.threads());
      const auto before = [](const Run& run, std::int64_t token) { return run.first_token < token; };
      const auto run_of = [&](std::int64_t token) {
        return std::lower_bound(runs_.begin(), runs_.end(), token, before) - runs_.begin();
      };
      body(run_of(mine.begin), run_of(mine.end), thread);
    };
    return pool_.run(std::ref(share));
  }
  pool_.parallel_for(runs, 1, body);
}

}  // namespace bise
