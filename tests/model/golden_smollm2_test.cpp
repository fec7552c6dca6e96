// SmolLM2-135M-Instruct (bf16) against transformers in float32: golden/smollm2/README.md.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "base/json.h"
#include "model/decoder.h"
#include "model/loader.h"
#include "nlohmann/json.hpp"
#include "tests/model/test_backends.h"
#include "tests/model/tiny_model.h"
#include "tests/test_support.h"

namespace bise {
namespace {

std::vector<double> log_softmax(std::span<const float> logits) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit - largest));
  std::vector<double> result;
  for (const float logit : logits) result.push_back(static_cast<double>(logit - largest) - std::log(sum));
  return result;
}

// Largest differences to one golden prompt (written with five digits).
struct Differences {
  double next_top10 = 0;       // of the ten likeliest next tokens
  double prompt_logprobs = 0;  // of the prompt's own tokens, unlikely ones included
};

Differences compare_prompt(Decoder& decoder, const Json& prompt, DType cache_dtype) {
  const auto tokens = prompt["prompt_ids"].get<std::vector<std::int32_t>>();
  const auto count = static_cast<std::int64_t>(tokens.size());
  const std::vector<float> logits = all_logits(decoder, tokens, count, cache_dtype);
  const auto vocabulary = static_cast<std::size_t>(decoder.config().vocab_size);
  Differences worst;
  for (std::size_t position = 0; position < tokens.size(); ++position) {
    const std::vector<double> logprobs =
        log_softmax(std::span(logits).subspan(position * vocabulary, vocabulary));
    if (position + 1 < tokens.size()) {
      const double golden = prompt["prompt_token_logprobs"][position + 1].get<double>();
      const double ours = logprobs[static_cast<std::size_t>(tokens[position + 1])];
      worst.prompt_logprobs = std::max(worst.prompt_logprobs, std::abs(ours - golden));
      continue;
    }
    for (const Json& each : prompt["next_top10"])
      worst.next_top10 =
          std::max(worst.next_top10, std::abs(logprobs[each[0].get<std::size_t>()] - each[1].get<double>()));
  }
  testing::Test::RecordProperty(
      fmt::format("{}, cache {}, {}", decoder.backend().name(), dtype_name(cache_dtype),
                  prompt["name"].get<std::string>()),
      fmt::format("top10 {:.6f} prompt {:.6f}", worst.next_top10, worst.prompt_logprobs));
  return worst;
}

TEST(GoldenSmolLm2, ReferenceLogprobsEqualTransformers) {
  const std::filesystem::path golden = shared_path("golden/smollm2/prompts.json"), folder = smollm2_path();
  BISE_SKIP_IF_ABSENT(golden, "golden/smollm2");
  BISE_SKIP_IF_ABSENT(folder, "the SmolLM2 checkpoint");
  const ModelLoader loader(folder);
  const auto backend = make_reference_backend();
  const ModelWeights weights = loader.load_model(*backend);
  Decoder decoder(*backend, loader.config(), weights, {.max_tokens = 64, .max_logit_rows = 64});
  const Json prompts = read_json_file(golden)["prompts"];
  // Three of the eight: this backend is slow.
  for (const std::size_t index : {1u, 3u, 5u}) {
    const Differences worst = compare_prompt(decoder, prompts[index], DType::kF32);
    EXPECT_LT(worst.next_top10, 2e-3) << prompts[index]["name"];
    EXPECT_LT(worst.prompt_logprobs, 2e-3) << prompts[index]["name"];
  }
}

// How far transformers 5.23 in bfloat16 is from the goldens: the largest difference over these prompts. What
// rounds as it does, inputs of linear layers or the cache, must stay nearer.
constexpr Differences kBfloat16Run = {.next_top10 = 0.2278, .prompt_logprobs = 0.3769};

// AMX multiplies bfloat16 by bfloat16: it rounds the inputs of linear layers, unless told not to ("cpu amx
// float32").
bool computes_in_float32(const Backend& backend) {
  return backend.name() != "cpu amx";
}

TEST(GoldenSmolLm2, CpuLogprobsEqualTransformers) {
  const std::filesystem::path golden = shared_path("golden/smollm2/prompts.json"), folder = smollm2_path();
  BISE_SKIP_IF_ABSENT(golden, "golden/smollm2");
  BISE_SKIP_IF_ABSENT(folder, "the SmolLM2 checkpoint");
  const ModelLoader loader(folder);
  const Json prompts = read_json_file(golden)["prompts"];
  ThreadPool pool;
  for (const auto& backend : cpu_backends(pool)) {
    const ModelWeights weights = loader.load_model(*backend);
    Decoder decoder(*backend, loader.config(), weights, {.max_tokens = 64, .max_logit_rows = 64});
    for (const DType cache : {DType::kF32, DType::kBF16})
      for (const Json& prompt : prompts) {
        const Differences worst = compare_prompt(decoder, prompt, cache);
        const bool exact = computes_in_float32(*backend) && cache == DType::kF32;
        EXPECT_LT(worst.next_top10, exact ? 0.03 : kBfloat16Run.next_top10)
            << backend->name() << " " << prompt["name"];
        EXPECT_LT(worst.prompt_logprobs, exact ? 0.03 : kBfloat16Run.prompt_logprobs)
            << backend->name() << " " << prompt["name"];
      }
  }
}

}  // namespace
}  // namespace bise
