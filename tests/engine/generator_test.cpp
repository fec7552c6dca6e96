#include "engine/generator.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <vector>

#include "base/json.h"
#include "model/loader.h"
#include "nlohmann/json.hpp"
#include "tests/model/test_backends.h"
#include "tests/model/tiny_model.h"
#include "tests/test_support.h"

namespace bise {
namespace {

std::vector<GenerationRequest> mixed_requests(std::size_t count) {
  std::vector<GenerationRequest> requests;
  for (std::size_t i = 0; i < count; ++i) {
    GenerationRequest request;
    request.prompt =
        random_tokens(1 + static_cast<std::int64_t>(i * 13 % 50), 320, static_cast<std::uint32_t>(i));
    request.sampling.temperature = i % 3 == 0 ? 0 : 1;
    request.sampling.top_p = i % 2 == 0 ? 1 : 0.9;
    request.sampling.repetition_penalty = i % 4 == 0 ? 1.1 : 1;
    request.sampling.seed = i;
    request.sampling.max_tokens = 3 + static_cast<std::int64_t>(i * 7 % 20);
    requests.push_back(request);
  }
  return requests;
}

TEST(Generator, ARequestGetsTheSameTokensInAnyBatch) {
  ThreadPool pool(2);
  for (const auto& backend : test_backends(pool)) {
    const TinyModel model = tiny_model(*backend, tiny_config());
    Decoder decoder(*backend, model.config, model.weights, {.max_tokens = 24, .max_logit_rows = 5});
    const std::vector<GenerationRequest> requests = mixed_requests(12);
    Generator together(decoder, pool, {.max_num_seqs = 7, .max_model_len = 80, .cache_tokens = 240});
    const std::vector<GenerationResult> results = together.generate(requests);
    Generator alone(decoder, pool, {.max_num_seqs = 1, .max_model_len = 80});
    for (std::size_t i = 0; i < requests.size(); ++i) {
      const auto single = alone.generate(std::span(requests).subspan(i, 1));
      EXPECT_EQ(results[i].token_ids, single[0].token_ids) << backend->name() << " request " << i;
      EXPECT_EQ(results[i].finish_reason, FinishReason::kLength);
      EXPECT_EQ(static_cast<std::int64_t>(results[i].token_ids.size()), requests[i].sampling.max_tokens);
    }
    // Again with the same cache: nothing is left of the first time.
    const auto again = together.generate(requests);
    for (std::size_t i = 0; i < requests.size(); ++i) EXPECT_EQ(again[i].token_ids, results[i].token_ids);
  }
}

class GeneratorCases : public testing::Test {
 protected:
  ThreadPool pool{1};
  std::unique_ptr<Backend> backend = make_reference_backend();
  TinyModel model = tiny_model(*backend, tiny_config());
  Decoder decoder{*backend, model.config, model.weights, {.max_tokens = 32, .max_logit_rows = 4}};
  Generator generator{decoder, pool, {.max_num_seqs = 4, .max_model_len = 40}};
};

TEST_F(GeneratorCases, StopTokensEndARequest) {
  GenerationRequest request{{5, 6, 7}, {.temperature = 0, .max_tokens = 8}};
  const GenerationResult free = generator.generate({&request, 1})[0];
  ASSERT_EQ(free.token_ids.size(), 8u);
  const std::int32_t third = free.token_ids[2];
  const auto first = std::find(free.token_ids.begin(), free.token_ids.end(), third) - free.token_ids.begin();
  request.sampling.stop_token_ids = {third};
  std::vector<std::int32_t> streamed;
  const GenerationResult stopped = generator.generate({&request, 1}, [&](std::size_t, std::int32_t token) {
    streamed.push_back(token);
    return true;
  })[0];
  EXPECT_EQ(stopped.finish_reason, FinishReason::kStop);
  EXPECT_EQ(stopped.stop_token_id, third);
  EXPECT_EQ(static_cast<std::ptrdiff_t>(stopped.token_ids.size()), first + 1);
  EXPECT_EQ(static_cast<std::ptrdiff_t>(streamed.size()), first);
}

TEST_F(GeneratorCases, TheCallerStopsARequestOrAll) {
  const std::vector<GenerationRequest> requests(6, {{1, 2}, {.temperature = 0, .max_tokens = 20}});
  const auto results = generator.generate(
      requests, [&, seen = std::vector<int>(6)](std::size_t request, std::int32_t) mutable {
        return ++seen[request] < static_cast<int>(request) + 2;
      });
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(results[i].finish_reason, FinishReason::kStop);
    EXPECT_EQ(results[i].token_ids.size(), i + 2);
  }
  std::atomic<bool> cancel = false;
  const auto cancelled = generator.generate(
      requests,
      [&](std::size_t, std::int32_t) {
        cancel = true;
        return true;
      },
      &cancel);
  EXPECT_EQ(cancelled[0].finish_reason, FinishReason::kAbort);
  EXPECT_EQ(cancelled[0].token_ids.size(), 1u);
  EXPECT_EQ(cancelled[5].token_ids.size(), 0u);
  // The blocks came back.
  EXPECT_EQ(generator.generate(requests)[5].token_ids.size(), 20u);
}

TEST_F(GeneratorCases, TheContextEndsARequest) {
  GenerationRequest request{random_tokens(35, 320, 1), {.temperature = 0, .max_tokens = 1'000'000'000'000}};
  const GenerationResult result = generator.generate({&request, 1})[0];
  EXPECT_EQ(result.token_ids.size(), 5u);
  EXPECT_EQ(result.finish_reason, FinishReason::kLength);
}

TEST_F(GeneratorCases, BadRequestsAreNotAdmitted) {
  const std::vector<GenerationRequest> requests = {{{}, {}},
                                                   {std::vector<std::int32_t>(40, 1), {}},
                                                   {{1, 320}, {}},
                                                   {{-1}, {}},
                                                   {{1}, {.top_p = 2}},
                                                   {{1}, {.temperature = 0, .max_tokens = 2}}};
  const std::vector<Admission> expected = {Admission::kEmptyPrompt,          Admission::kPromptTooLong,
                                           Admission::kTokenOutOfVocabulary, Admission::kTokenOutOfVocabulary,
                                           Admission::kBadSampling,          Admission::kAccepted};
  const auto results = generator.generate(requests);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(results[i].admission, expected[i]) << i;
    EXPECT_EQ(results[i].token_ids.size(), expected[i] == Admission::kAccepted ? 2u : 0u);
  }
}

// Follows the golden until a step where its two best are closer than `tie`, as golden/smollm2/README.md
// says: there another order of float operations may choose the other token.
void check_greedy(Decoder& decoder, ThreadPool& pool, const Json& prompts, std::size_t steps,
                  DType cache_dtype, double tie) {
  Generator generator(decoder, pool,
                      {.max_num_seqs = 8, .max_model_len = 160, .kv_cache_dtype = cache_dtype});
  std::vector<GenerationRequest> requests;
  for (const Json& prompt : prompts)
    requests.push_back({prompt["prompt_ids"].get<std::vector<std::int32_t>>(),
                        {.temperature = 0, .max_tokens = static_cast<std::int64_t>(steps)}});
  const auto results = generator.generate(requests);
  std::size_t compared = 0, total = 0;
  for (std::size_t i = 0; i < results.size(); ++i) {
    const auto golden = prompts[i]["greedy_ids"].get<std::vector<std::int32_t>>();
    const Json& top2 = prompts[i]["greedy_top2"];
    total += steps;
    for (std::size_t step = 0; step < steps; ++step, ++compared) {
      if (results[i].token_ids[step] == golden[step]) continue;
      EXPECT_LT(top2[step][0][1].get<double>() - top2[step][1][1].get<double>(), tie)
          << decoder.backend().name() << " " << prompts[i]["name"] << " step " << step;
      break;
    }
  }
  testing::Test::RecordProperty("greedy tokens equal, " + decoder.backend().name(),
                                std::to_string(compared) + " of " + std::to_string(total));
}

TEST(GoldenSmolLm2, GreedyContinuationsEqualTransformers) {
  const std::filesystem::path golden = shared_path("golden/smollm2/prompts.json"), folder = smollm2_path();
  BISE_SKIP_IF_ABSENT(golden, "golden/smollm2");
  BISE_SKIP_IF_ABSENT(folder, "the SmolLM2 checkpoint");
  const ModelLoader loader(folder);
  const Json prompts = read_json_file(golden)["prompts"];
  ThreadPool pool;
  for (const auto& backend : test_backends(pool)) {
    const bool slow = backend->name() == "reference" || backend->name() == "cpu scalar";
    const ModelWeights weights = loader.load_model(*backend);
    Decoder decoder(*backend, loader.config(), weights, {.max_tokens = 256, .max_logit_rows = 8});
    const Json some = slow ? Json::array({prompts[3]}) : prompts;
    check_greedy(decoder, pool, some, slow ? 16 : 48, slow ? DType::kF32 : DType::kBF16, 0.02);
  }
}

}  // namespace
}  // namespace bise
