// The engine with a real decoder: what it does with the cache must not show in the tokens.
#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "engine/decoder_runner.h"
#include "engine/engine_core.h"
#include "tests/model/test_backends.h"
#include "tests/model/tiny_model.h"

namespace bise {
namespace {

constexpr std::int64_t kMaxModelLen = 300;

// Prompts with a common begin, that repeat themselves.
std::vector<GenerationRequest> requests(std::int64_t vocab_size) {
  const std::vector<std::int32_t> common = random_tokens(140, vocab_size, 1);
  std::vector<GenerationRequest> all;
  for (std::uint32_t i = 0; i < 10; ++i) {
    GenerationRequest request;
    request.prompt = common;
    const std::vector<std::int32_t> own = random_tokens(1 + i * 3, vocab_size, 2 + i);
    for (int repeat = 0; repeat < 2; ++repeat)
      request.prompt.insert(request.prompt.end(), own.begin(), own.end());
    request.sampling.temperature = i % 2 == 0 ? 0 : 0.7;
    request.sampling.top_p = 0.9;
    request.sampling.repetition_penalty = i % 3 == 0 ? 1.1 : 1;
    request.sampling.seed = i;
    request.sampling.max_tokens = 50;
    all.push_back(request);
  }
  return all;
}

std::vector<std::vector<std::int32_t>> run(Decoder& decoder, ThreadPool& pool, const EngineOptions& options,
                                           std::int64_t num_blocks, EngineStats& stats) {
  DecoderRunner runner(decoder, pool,
                       {.num_blocks = num_blocks,
                        .max_num_seqs = options.max_num_seqs,
                        .max_sequence_tokens = options.max_model_len,
                        .num_speculative_tokens = options.num_speculative_tokens});
  EngineCore core(runner, options);
  std::map<RequestId, std::vector<std::int32_t>> tokens;
  for (const GenerationRequest& request : requests(decoder.config().vocab_size)) {
    auto sequence = core.make_sequence(request);
    tokens[sequence->id];
    core.add(std::move(sequence));
  }
  while (core.has_work()) {
    core.step();
    for (const auto& each : core.outputs())
      tokens[each.output.id].insert(tokens[each.output.id].end(), each.output.token_ids.begin(),
                                    each.output.token_ids.end());
    core.clear_outputs();
  }
  stats = core.stats();
  std::vector<std::vector<std::int32_t>> result;
  for (auto& [id, each] : tokens) result.push_back(std::move(each));
  return result;
}

TEST(EngineDecoder, SameTokensHoweverTheCacheIsUsed) {
  ThreadPool pool(2);
  ModelConfig config = tiny_config();
  config.num_hidden_layers = 4;
  config.sliding_window = {0, 40, 40, 0};
  std::int64_t accepted = 0;
  for (const auto& backend : test_backends(pool)) {
    SCOPED_TRACE(backend->name());
    const TinyModel model = tiny_model(*backend, config);
    Decoder decoder(*backend, model.config, model.weights, {.max_tokens = 64, .max_logit_rows = 9});
    ASSERT_EQ(decoder.kv_layout().groups.size(), 2u);
    const std::int64_t block_size = backend->preferred_block_size();
    EngineStats stats;
    const auto alone = run(decoder, pool,
                           {.max_num_seqs = 1,
                            .max_num_batched_tokens = 64,
                            .max_model_len = kMaxModelLen,
                            .enable_prefix_caching = false},
                           1 + 2 * (kMaxModelLen / block_size + 1), stats);
    const auto together = run(decoder, pool,
                              {.max_num_seqs = 6,
                               .max_num_batched_tokens = 64,
                               .max_model_len = kMaxModelLen,
                               .num_speculative_tokens = 3,
                               .prompt_lookup_min = 1,
                               .prompt_lookup_max = 3},
                              1 + 2 * (kMaxModelLen / block_size + 5), stats);
    EXPECT_EQ(together, alone);
    EXPECT_GT(stats.preemptions, 0);
    EXPECT_GT(stats.prefix_cache_hits, 0);
    accepted += stats.accepted_tokens;
  }
  EXPECT_GT(accepted, 0);
}

}  // namespace
}  // namespace bise
