// Rotary embedding (Su et al. 2021) and causal attention over the paged cache.
#include <algorithm>
#include <cmath>

#include "backend/reference/reference_backend.h"
#include "base/check.h"
#include "tensor/float_types.h"

namespace bise {
namespace {

// The angle is the float32 product, as transformers computes it: at long positions its rounding is visible.
void rotate(std::span<float> head, const RopeTable& rope, std::int32_t position) {
  const std::size_t half = head.size() / 2;
  for (std::size_t i = 0; i < half; ++i) {
    const float angle = static_cast<float>(position) * rope.inv_freq[i];
    const double cosine = std::cos(static_cast<double>(angle)) * rope.attention_factor;
    const double sine = std::sin(static_cast<double>(angle)) * rope.attention_factor;
    const double x = head[i], y = head[i + half];
    head[i] = static_cast<float>(x * cosine - y * sine);
    head[i + half] = static_cast<float>(y * cosine + x * sine);
  }
}

void store(std::span<const float> head, DType dtype, float scale, float* out) {
  std::transform(head.begin(), head.end(), out, [&](float value) {
    if (dtype == DType::kF8E4M3) return e4m3_to_float(float_to_e4m3(value / scale));
    return dtype == DType::kBF16 ? round_to_bf16(value) : value;
  });
}

double dot(std::span<const float> x, const float* y) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += static_cast<double>(x[i]) * static_cast<double>(y[i]);
  return sum;
}

// scores[i] = exp(scores[i]) / sum of exp(scores)
void softmax(std::vector<double>& scores) {
  const double largest = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (double& score : scores) sum += score = std::exp(score - largest);
  for (double& score : scores) score /= sum;
}

void check_shapes(const AttentionShape& shape, const KvCacheShape& cache, const Batch& batch,
                  CacheLayer layer, const Matrix& qkv) {
  check(layer.slot >= 0 && layer.slot < cache.layers && layer.group >= 0 && layer.group < batch.groups,
        "the layer is in the cache and has a table");
  check(shape.num_kv_heads == cache.num_kv_heads && shape.head_dim == cache.head_dim,
        "the cache has the attention's heads");
  check(shape.num_heads % shape.num_kv_heads == 0, "heads are shared evenly");
  check(qkv.columns() == shape.qkv_columns() && qkv.rows() == batch.tokens(), "qkv has a row per token");
}

}  // namespace

ReferenceBackend::Slot ReferenceBackend::slot_of(std::int64_t sequence, std::int64_t group,
                                                 std::int64_t position) const {
  const std::int64_t block_size = cache_->shape().block_size;
  const std::int64_t block = batch_.blocks(sequence, group)[static_cast<std::size_t>(position / block_size)];
  check(block >= 0, "a position in use has a block");
  return {block, position % block_size};
}

void ReferenceBackend::rope_and_store(const AttentionShape& shape, const RopeTable& rope, CacheLayer layer,
                                      Matrix& qkv) {
  check(cache_ != nullptr, "begin_step came first");
  check_shapes(shape, cache_->shape(), batch_, layer, qkv);
  check(static_cast<std::int64_t>(rope.inv_freq.size()) * 2 == shape.head_dim, "a frequency per pair");
  auto& matrix = dynamic_cast<ReferenceMatrix&>(qkv);
  const auto head_dim = static_cast<std::size_t>(shape.head_dim);
  const auto rotated = static_cast<std::size_t>(shape.num_heads + shape.num_kv_heads);
  for (std::int64_t s = 0; s < batch_.sequences(); ++s) {
    for (std::int64_t t = batch_.query_starts[static_cast<std::size_t>(s)];
         t < batch_.query_starts[static_cast<std::size_t>(s + 1)]; ++t) {
      const std::int32_t position = batch_.positions[static_cast<std::size_t>(t)];
      const Slot slot = slot_of(s, layer.group, position);
      const std::span<float> row = matrix.row(t);
      for (std::size_t head = 0; head < rotated; ++head)
        rotate(row.subspan(head * head_dim, head_dim), rope, position);
      for (std::int64_t head = 0; head < shape.num_kv_heads; ++head) {
        const std::size_t offset = cache_->offset(layer.slot, slot.block, slot.slot, head);
        const auto key = static_cast<std::size_t>(shape.num_heads + head) * head_dim;
        const auto value = static_cast<std::size_t>(shape.num_heads + shape.num_kv_heads + head) * head_dim;
        store(row.subspan(key, head_dim), cache_->shape().dtype, layer.key_scale,
              cache_->keys.data() + offset);
        store(row.subspan(value, head_dim), cache_->shape().dtype, layer.value_scale,
              cache_->values.data() + offset);
      }
    }
  }
}

void ReferenceBackend::attention(const AttentionShape& shape, CacheLayer layer, std::int64_t sliding_window,
                                 const Matrix& qkv, InputEncoding encoding, LinearInput& out) {
  check(cache_ != nullptr, "begin_step came first");
  check_shapes(shape, cache_->shape(), batch_, layer, qkv);
  check(out.columns() == shape.num_heads * shape.head_dim, "the output has a column per head and dimension");
  const auto& matrix = dynamic_cast<const ReferenceMatrix&>(qkv);
  auto& encoded = dynamic_cast<ReferenceLinearInput&>(out);
  encoded.resize(batch_.tokens(), encoding.type);
  const auto head_dim = static_cast<std::size_t>(shape.head_dim);
  const bool scaled = cache_->shape().dtype == DType::kF8E4M3;
  const double key_scale = scaled ? layer.key_scale : 1, value_scale = scaled ? layer.value_scale : 1;
  const double scale = key_scale / std::sqrt(static_cast<double>(shape.head_dim));
  std::vector<float> row(static_cast<std::size_t>(out.columns()));
  for (std::int64_t s = 0; s < batch_.sequences(); ++s) {
    for (std::int64_t t = batch_.query_starts[static_cast<std::size_t>(s)];
         t < batch_.query_starts[static_cast<std::size_t>(s + 1)]; ++t) {
      const std::int64_t last = batch_.positions[static_cast<std::size_t>(t)];
      const std::int64_t first =
          sliding_window > 0 ? std::max<std::int64_t>(0, last - sliding_window + 1) : 0;
      for (std::int64_t head = 0; head < shape.num_heads; ++head) {
        const std::int64_t kv_head = head / (shape.num_heads / shape.num_kv_heads);
        const auto column = static_cast<std::size_t>(head) * head_dim;
        const std::span<const float> query = matrix.row(t).subspan(column, head_dim);
        std::vector<std::size_t> offsets;
        std::vector<double> weights;
        for (std::int64_t position = first; position <= last; ++position) {
          const Slot slot = slot_of(s, layer.group, position);
          offsets.push_back(cache_->offset(layer.slot, slot.block, slot.slot, kv_head));
          weights.push_back(dot(query, cache_->keys.data() + offsets.back()) * scale);
        }
        softmax(weights);
        for (std::size_t d = 0; d < head_dim; ++d) {
          double sum = 0;
          for (std::size_t i = 0; i < offsets.size(); ++i)
            sum += weights[i] * static_cast<double>(cache_->values[offsets[i] + d]);
          row[column + d] = static_cast<float>(sum * value_scale);
        }
      }
      encoded.encode_row(t, row, encoding);
    }
  }
}

}  // namespace bise
