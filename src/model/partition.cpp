#include "model/partition.h"

#include <fmt/format.h>
#include <algorithm>

#include "base/check.h"
#include "base/error.h"
#include "tensor/slice_linear.h"

namespace bise {
namespace {

std::int64_t share(std::int64_t size, const Partition& partition, const char* what) {
  if (size % partition.ranks != 0)
    throw Error("a model cannot be divided among so many devices")
        .at(what)
        .expected(fmt::format("a multiple of {}", partition.ranks))
        .got(fmt::format("{}", size));
  return size / partition.ranks;
}

void slice(NamedLinear& linear, StoredLinear (*cut)(const StoredLinear&, Slice), Slice part) {
  try {
    linear.linear = cut(linear.linear, part);
  } catch (const Error& error) {
    rethrow_inside(error, linear.module);
  }
}

}  // namespace

ModelConfig share_of(const ModelConfig& config, const Partition& partition) {
  check(partition.ranks > 0 && partition.rank >= 0 && partition.rank < partition.ranks, "the rank exists");
  ModelConfig result = config;
  result.num_attention_heads = share(config.num_attention_heads, partition, "num_attention_heads");
  result.num_key_value_heads = partition.ranks % config.num_key_value_heads == 0
                                   ? 1
                                   : share(config.num_key_value_heads, partition, "num_key_value_heads");
  result.intermediate_size = share(config.intermediate_size, partition, "intermediate_size");
  return result;
}

LayerTensors share_of(LayerTensors tensors, const ModelConfig& config, const Partition& partition) {
  if (partition.ranks == 1) return tensors;
  const ModelConfig mine = share_of(config, partition);
  const auto part = [&](std::int64_t size) {
    return Slice{partition.rank * size, (partition.rank + 1) * size};
  };
  const Slice query = part(mine.num_attention_heads * config.head_dim), inner = part(mine.intermediate_size);
  // The key-value heads of this rank's query heads.
  const std::int64_t key = partition.rank * config.num_key_value_heads / partition.ranks * config.head_dim;
  const Slice keys{key, key + mine.num_key_value_heads * config.head_dim};
  slice(tensors.q_proj, slice_rows, query);
  slice(tensors.k_proj, slice_rows, keys);
  slice(tensors.v_proj, slice_rows, keys);
  slice(tensors.o_proj, slice_columns, query);
  if (tensors.experts.empty()) {
    slice(tensors.gate_proj, slice_rows, inner);
    slice(tensors.up_proj, slice_rows, inner);
    slice(tensors.down_proj, slice_columns, inner);
  }
  for (ExpertTensors& expert : tensors.experts) {
    slice(expert.w1, slice_rows, inner);
    slice(expert.w3, slice_rows, inner);
    slice(expert.w2, slice_columns, inner);
  }
  return tensors;
}

}  // namespace bise
