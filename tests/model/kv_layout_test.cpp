#include "model/kv_layout.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "tests/model/test_backends.h"
#include "tests/model/tiny_model.h"

namespace bise {
namespace {

ModelConfig config_of(const std::vector<std::int64_t>& sliding_window) {
  ModelConfig config = tiny_config();
  config.sliding_window = sliding_window;
  config.num_hidden_layers = static_cast<std::int64_t>(sliding_window.size());
  return config;
}

TEST(KvLayout, GroupsLayersOfOneKind) {
  const auto repeated = [](std::vector<std::int64_t> pattern, std::size_t times) {
    std::vector<std::int64_t> all;
    for (std::size_t i = 0; i < times; ++i) all.insert(all.end(), pattern.begin(), pattern.end());
    return all;
  };
  struct Case {
    std::string name;
    std::vector<std::int64_t> sliding_window;
    std::vector<std::int64_t> groups;  // their windows
    std::int64_t slots;
  };
  const std::vector<Case> cases = {
      {"all full", repeated({0}, 12), {0}, 12},
      {"all sliding", repeated({4096}, 32), {4096}, 32},
      {"Ministral 8B, one full of four", repeated({0, 8, 8, 8}, 9), {0, 8, 8, 8}, 9},
      {"one to one", repeated({0, 8}, 13), {0, 8}, 13},
      {"five full, six sliding: under 25 % more", {0, 8, 0, 8, 0, 8, 0, 8, 0, 8, 8}, {0, 8}, 6},
      {"four full, five sliding: 25 % more", {0, 8, 0, 8, 0, 8, 0, 8, 8}, {0, 8, 8}, 4},
      {"two and five: the last group is padded", {0, 8, 8, 8, 0, 8, 8}, {0, 8, 8, 8}, 2},
      {"three kinds", {0, 8, 16, 8}, {0, 8, 8, 16}, 1},
  };
  for (const Case& one : cases) {
    SCOPED_TRACE(one.name);
    const ModelConfig config = config_of(one.sliding_window);
    const KvLayout layout = make_kv_layout(config);
    std::vector<std::int64_t> groups;
    for (const KvLayout::Group& group : layout.groups) groups.push_back(group.sliding_window);
    EXPECT_EQ(groups, one.groups);
    EXPECT_EQ(layout.slots_per_block, one.slots);
    ASSERT_EQ(layout.layers.size(), one.sliding_window.size());
    std::set<std::pair<std::int64_t, std::int64_t>> places;
    for (std::size_t layer = 0; layer < layout.layers.size(); ++layer) {
      const std::int64_t group = layout.layers[layer].group, slot = layout.layers[layer].slot;
      EXPECT_TRUE(places.emplace(group, slot).second) << "layer " << layer;
      EXPECT_LT(slot, one.slots);
      EXPECT_EQ(groups.at(static_cast<std::size_t>(group)), one.sliding_window[layer]) << "layer " << layer;
    }
    const KvLayout plain = make_kv_layout(config, false);
    EXPECT_EQ(plain.groups.size(), 1u);
    EXPECT_EQ(plain.groups[0].sliding_window, 0);
    EXPECT_EQ(plain.slots_per_block, config.num_hidden_layers);
  }
}

// A token at a time, each group's blocks behind its window given back and used again by whichever group
// needs one: the logits of the plain layout, in which nothing is freed.
std::vector<float> logits_with_freed_blocks(Decoder& decoder, std::span<const std::int32_t> tokens,
                                            std::int64_t chunk, std::int64_t& most_used) {
  const KvLayout& layout = decoder.kv_layout();
  const std::int64_t block_size = decoder.backend().preferred_block_size();
  const auto count = static_cast<std::int64_t>(tokens.size());
  const std::int64_t per_group = (count + block_size - 1) / block_size;
  const auto cache = decoder.make_kv_cache(static_cast<std::int64_t>(layout.groups.size()) * per_group);
  std::vector<std::int32_t> free;
  for (std::int64_t b = 0; b < cache->shape().num_blocks; ++b) free.push_back(static_cast<std::int32_t>(b));
  std::vector<std::vector<std::int32_t>> tables(layout.groups.size());
  StepBatch batch(decoder.limits().max_tokens, 1, per_group, static_cast<std::int64_t>(layout.groups.size()));
  std::vector<float> result;
  std::int64_t used = 0;
  for (std::int64_t done = 0; done < count; done += chunk) {
    const std::int64_t now = std::min(chunk, count - done);
    std::vector<std::span<const std::int32_t>> views;
    for (std::size_t g = 0; g < tables.size(); ++g) {
      const std::int64_t window = layout.groups[g].sliding_window;
      for (std::int64_t i = 0; window > 0 && (i + 1) * block_size - 1 <= done - window; ++i) {
        std::int32_t& block = tables[g][static_cast<std::size_t>(i)];
        if (block < 0) continue;
        free.push_back(block);
        block = -1;
        --used;
      }
      while (static_cast<std::int64_t>(tables[g].size()) * block_size < done + now) {
        tables[g].push_back(free.back());
        free.pop_back();
        ++used;
      }
      views.emplace_back(tables[g]);
    }
    most_used = std::max(most_used, used);
    batch.clear();
    batch.add(tokens.subspan(static_cast<std::size_t>(done), static_cast<std::size_t>(now)), done, views);
    decoder.forward(batch.view(), *cache);
    std::vector<std::int32_t> rows(static_cast<std::size_t>(now));
    for (std::size_t row = 0; row < rows.size(); ++row) rows[row] = static_cast<std::int32_t>(row);
    const std::span<const float> logits = decoder.logits(rows);
    result.insert(result.end(), logits.begin(), logits.end());
  }
  return result;
}

TEST(KvLayout, InterleavedGroupsEqualThePlainLayoutBitwise) {
  ThreadPool pool(2);
  for (const auto& backend : test_backends(pool)) {
    const std::int64_t block_size = backend->preferred_block_size();
    ModelConfig config = config_of({0, block_size + 5, 9, 9, 9});
    const TinyModel model = tiny_model(*backend, config);
    const DecoderLimits limits{.max_tokens = 64, .max_logit_rows = 64};
    Decoder grouped(*backend, model.config, model.weights, limits);
    Decoder plain(*backend, model.config, model.weights, limits, make_kv_layout(config, false));
    ASSERT_EQ(grouped.kv_layout().groups.size(), 5u);
    const auto tokens = random_tokens(4 * block_size + 10, config.vocab_size, 7);
    const std::vector<float> expected = all_logits(plain, tokens, 50);
    EXPECT_EQ(all_logits(grouped, tokens, 50), expected) << backend->name();
    for (const std::int64_t chunk : {1, 11}) {
      std::int64_t most_used = 0;
      EXPECT_EQ(logits_with_freed_blocks(grouped, tokens, chunk, most_used), expected)
          << backend->name() << " chunk " << chunk;
      // spec/serving.md section 3.4.
      std::int64_t bound = 0;
      for (const KvLayout::Group& group : grouped.kv_layout().groups)
        bound += group.sliding_window > 0
                     ? (group.sliding_window - 1 + chunk + block_size - 1) / block_size + 1
                     : 5;
      EXPECT_LE(most_used, bound) << backend->name() << " chunk " << chunk;
    }
  }
}

}  // namespace
}  // namespace bise
