#include "model/decoder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "tests/model/test_backends.h"
#include "tests/model/tiny_model.h"

namespace bise {
namespace {

struct Variant {
  std::string name;
  ModelConfig config;
};

std::vector<Variant> variants() {
  ModelConfig window = tiny_config(), experts = tiny_config();
  window.sliding_window = {0, 7};  // interleaved, as Ministral
  experts.architecture = "MixtralForCausalLM";
  experts.num_local_experts = 4;
  experts.num_experts_per_tok = 2;
  return {{"dense", tiny_config()}, {"window", window}, {"experts", experts}};
}

// What backend.h promises under "Determinism".
TEST(Decoder, PromptInPiecesEqualsWholePromptBitwise) {
  ThreadPool pool(2);
  for (const auto& backend : test_backends(pool)) {
    for (const Variant& variant : variants()) {
      const TinyModel model = tiny_model(*backend, variant.config);
      Decoder decoder(*backend, model.config, model.weights, {.max_tokens = 64, .max_logit_rows = 9});
      const auto tokens = random_tokens(45, model.config.vocab_size, 3);
      const std::vector<float> whole = all_logits(decoder, tokens, 45);
      for (const std::int64_t chunk : {1, 7, 16, 44})
        EXPECT_EQ(all_logits(decoder, tokens, chunk), whole)
            << backend->name() << " " << variant.name << " chunk " << chunk;
    }
  }
}

TEST(Decoder, BatchEqualsSingleBitwise) {
  ThreadPool pool(2);
  for (const auto& backend : test_backends(pool)) {
    for (const Variant& variant : variants()) {
      const TinyModel model = tiny_model(*backend, variant.config);
      Decoder decoder(*backend, model.config, model.weights, {.max_tokens = 128, .max_logit_rows = 128});
      const std::vector<std::int64_t> lengths = {5, 33, 1, 18, 40};
      const std::int64_t block_size = backend->preferred_block_size();
      const std::int64_t per_sequence = (40 + block_size - 1) / block_size;
      const auto groups = static_cast<std::int64_t>(decoder.kv_layout().groups.size());
      const auto cache = decoder.make_kv_cache(5 * groups * per_sequence);
      StepBatch batch(128, 5, per_sequence, groups);
      std::vector<std::vector<std::int32_t>> tokens;
      for (std::size_t s = 0; s < lengths.size(); ++s) {
        tokens.push_back(random_tokens(lengths[s], model.config.vocab_size, static_cast<std::uint32_t>(s)));
        std::vector<std::int32_t> blocks;
        for (std::int64_t b = 0; b < groups * per_sequence; ++b)
          blocks.push_back(static_cast<std::int32_t>(b * 5 + static_cast<std::int64_t>(s)));
        batch.add(tokens.back(), 0, blocks);
      }
      decoder.forward(batch.view(), *cache);
      std::vector<std::int32_t> rows(static_cast<std::size_t>(batch.tokens()));
      for (std::size_t row = 0; row < rows.size(); ++row) rows[row] = static_cast<std::int32_t>(row);
      const std::span<const float> view = decoder.logits(rows);
      const std::vector<float> together(view.begin(), view.end());
      std::size_t at = 0;
      for (std::size_t s = 0; s < lengths.size(); ++s) {
        const std::vector<float> alone = all_logits(decoder, tokens[s], lengths[s]);
        ASSERT_TRUE(
            std::equal(alone.begin(), alone.end(), together.begin() + static_cast<std::ptrdiff_t>(at)))
            << backend->name() << " " << variant.name << " sequence " << s;
        at += alone.size();
      }
    }
  }
}

TEST(Decoder, SlidingWindowForgetsWhatIsBehindIt) {
  ThreadPool pool(2);
  for (const auto& backend : test_backends(pool)) {
    // With a window of 6 in both layers, position p sees tokens (p - 11, p].
    ModelConfig config = tiny_config();
    config.sliding_window = {6, 6};
    const TinyModel model = tiny_model(*backend, config);
    Decoder decoder(*backend, model.config, model.weights, {.max_tokens = 64, .max_logit_rows = 64});
    auto tokens = random_tokens(30, config.vocab_size, 5);
    const std::vector<float> before = all_logits(decoder, tokens, 30);
    tokens[10] = (tokens[10] + 1) % 320;
    const std::vector<float> after = all_logits(decoder, tokens, 30);
    for (std::int64_t position = 0; position < 30; ++position) {
      const auto row = static_cast<std::ptrdiff_t>(position * config.vocab_size);
      const bool same =
          std::equal(before.begin() + row, before.begin() + row + config.vocab_size, after.begin() + row);
      EXPECT_EQ(same, position < 10 || position > 20) << backend->name() << " position " << position;
    }
  }
}

TEST(Decoder, LogitsOfAnyRowsInAnyPieces) {
  ThreadPool pool(1);
  const auto backend = make_reference_backend();
  const TinyModel model = tiny_model(*backend, tiny_config());
  Decoder decoder(*backend, model.config, model.weights, {.max_tokens = 32, .max_logit_rows = 4});
  const auto tokens = random_tokens(20, 320, 9);
  const std::vector<float> all = all_logits(decoder, tokens, 20);
  const std::vector<std::int32_t> rows = {17, 3};
  const std::span<const float> some = decoder.logits(rows);
  EXPECT_TRUE(std::equal(some.begin(), some.begin() + 320, all.begin() + 17 * 320));
  EXPECT_TRUE(std::equal(some.begin() + 320, some.end(), all.begin() + 3 * 320));
}

TEST(LayerRunner, OneLayerAtATimeEqualsTheDecoder) {
  const auto backend = make_reference_backend();
  for (const Variant& variant : variants()) {
    const TinyModel model = tiny_model(*backend, variant.config);
    Decoder decoder(*backend, model.config, model.weights, {.max_tokens = 32, .max_logit_rows = 32});
    const auto tokens = random_tokens(20, 320, 2);
    const std::vector<float> expected = all_logits(decoder, tokens, 20);

    // As quantizing does: hidden states on the host between layers, one cache layer for all.
    LayerRunner runner(*backend, model.config, 32);
    const auto cache = backend->make_kv_cache({1, 2, 16, 2, 32, DType::kBF16});
    StepBatch batch(32, 1, 2);
    const std::vector<std::int32_t> blocks = {0, 1};
    batch.add(tokens, 0, blocks);
    std::vector<float> hidden(20 * 128);
    std::map<InputSite, int> seen;
    const InputObserver observer = [&](InputSite site, std::int64_t expert, const LinearInput& input) {
      ++seen[site];
      EXPECT_EQ(input.rows(), 20);
      EXPECT_EQ(input.columns(), site == InputSite::kDown ? 192 : 128);
      EXPECT_EQ(expert >= 0, site == InputSite::kDown && model.config.num_local_experts > 0);
    };
    for (std::int64_t layer = 0; layer < 2; ++layer) {
      const LayerWeights& weights = model.weights.layers[static_cast<std::size_t>(layer)];
      runner.begin_step(batch.view(), *cache);
      if (layer == 0) runner.embed(*model.weights.embed_tokens);
      if (layer > 0) runner.write_hidden(hidden);
      runner.run_layer(weights, layer, {}, &observer);
      runner.read_hidden(*weights.input_layernorm, hidden);
    }
    const int downs = model.config.num_local_experts > 0 ? 2 * 4 : 2;
    EXPECT_EQ(seen, (std::map<InputSite, int>{{InputSite::kQkv, 2},
                                              {InputSite::kOutput, 2},
                                              {InputSite::kGateUp, 2},
                                              {InputSite::kDown, downs}}));
    runner.begin_step(batch.view(), *cache);
    runner.write_hidden(hidden);
    const auto head_input = backend->make_linear_input(32, 128);
    const auto logits = backend->make_matrix(32, 320);
    runner.norm(*model.weights.norm, {}, {}, *head_input);
    backend->linear(*head_input, *model.weights.lm_head, *logits);
    std::vector<float> result(20 * 320);
    backend->read(*logits, result);
    EXPECT_EQ(result, expected) << variant.name;
  }
}

TEST(LayerTensors, ListsItsLinearLayersBySite) {
  ModelConfig config = tiny_config();
  RandomTensors random(1);
  LayerTensors dense = tiny_layer(config, 0, random);
  EXPECT_EQ(dense.linears().size(), 7u);
  EXPECT_EQ(dense.linears_at(InputSite::kQkv)[1]->module, "model.layers.0.self_attn.k_proj");
  EXPECT_EQ(dense.linears_at(InputSite::kDown)[0]->module, "model.layers.0.mlp.down_proj");
  config.num_local_experts = 3;
  LayerTensors sparse = tiny_layer(config, 1, random);
  EXPECT_EQ(sparse.linears().size(), 4u + 1 + 3 * 3);
  EXPECT_EQ(sparse.linears_at(InputSite::kGateUp).size(), 1u + 2 * 3);
  EXPECT_EQ(sparse.linears_at(InputSite::kDown, 2)[0]->module,
            "model.layers.1.block_sparse_moe.experts.2.w2");
}

}  // namespace
}  // namespace bise
