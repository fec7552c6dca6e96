// How a model's layers share the blocks of a KV cache: layers that see equally far back form groups of equal
// size, each with its own block table; all groups draw blocks from one pool, and a block holds one slot for
// each layer of the group that it serves. So a group with a sliding window can free the blocks behind it.
// (vLLM's hybrid KV cache, spec/serving.md section 3.4.) A model with one kind of layer has one group.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "formats/model_config.h"

namespace bise {

struct KvLayout {
  struct Group {
    std::int64_t sliding_window = 0;  // 0: all positions are seen
  };
  std::vector<Group> groups;
  std::vector<CacheLayer> layers;  // [num_hidden_layers]
  std::int64_t slots_per_block = 0;
};

// Groups have as many layers as the rarest kind, or as the most frequent one when it has under 25 % more;
// slots of groups that come out smaller stay unused. Without `hybrid` all layers are one group that frees
// nothing.
KvLayout make_kv_layout(const ModelConfig& config, bool hybrid = true);

}  // namespace bise
