#include "model/kv_layout.h"

#include <algorithm>
#include <map>

namespace bise {

KvLayout make_kv_layout(const ModelConfig& config, bool hybrid) {
  std::map<std::int64_t, std::vector<std::size_t>> kinds;  // layers by sliding window
  for (std::size_t layer = 0; layer < config.sliding_window.size(); ++layer)
    kinds[hybrid ? config.sliding_window[layer] : 0].push_back(layer);
  std::size_t fewest = config.sliding_window.size(), most = 0;
  for (const auto& [window, layers] : kinds) {
    fewest = std::min(fewest, layers.size());
    most = std::max(most, layers.size());
  }
  const std::size_t group_size = most * 4 < fewest * 5 ? most : fewest;

  KvLayout layout;
  layout.layers.resize(config.sliding_window.size());
  layout.slots_per_block = static_cast<std::int64_t>(group_size);
  for (const auto& [window, layers] : kinds) {
    const std::size_t groups = (layers.size() + group_size - 1) / group_size;
    const auto first = static_cast<std::int64_t>(layout.groups.size());
    // Neighbours go to different groups, which fills them evenly.
    for (std::size_t i = 0; i < layers.size(); ++i)
      layout.layers[layers[i]] = {first + static_cast<std::int64_t>(i % groups),
                                  static_cast<std::int64_t>(i / groups)};
    layout.groups.insert(layout.groups.end(), groups, {window});
  }
  return layout;
}

}  // namespace bise
