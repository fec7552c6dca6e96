// SmolLM2-135M-Instruct (bf16) against transformers in float32: golden/smollm2/README.md.
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

// The goldens are written with five digits.
void check_prompt(Decoder& decoder, const Json& prompt, double tolerance, DType cache_dtype) {
  const auto tokens = prompt["prompt_ids"].get<std::vector<std::int32_t>>();
  const auto count = static_cast<std::int64_t>(tokens.size());
  const std::vector<float> logits = all_logits(decoder, tokens, count, cache_dtype);
  const auto vocabulary = static_cast<std::size_t>(decoder.config().vocab_size);
  const std::string place = decoder.backend().name() + " " + prompt["name"].get<std::string>();
  double worst = 0;
  for (std::size_t position = 0; position < tokens.size(); ++position) {
    const std::vector<double> logprobs =
        log_softmax(std::span(logits).subspan(position * vocabulary, vocabulary));
    if (position + 1 < tokens.size()) {
      const double golden = prompt["prompt_token_logprobs"][position + 1].get<double>();
      worst = std::max(worst, std::abs(logprobs[static_cast<std::size_t>(tokens[position + 1])] - golden));
      continue;
    }
    for (const Json& each : prompt["next_top10"])
      worst = std::max(worst, std::abs(logprobs[each[0].get<std::size_t>()] - each[1].get<double>()));
  }
  EXPECT_LT(worst, tolerance) << place;
  testing::Test::RecordProperty("worst_" + prompt["name"].get<std::string>(), std::to_string(worst));
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
  for (const std::size_t index : {1u, 3u, 5u}) check_prompt(decoder, prompts[index], 2e-3, DType::kF32);
}

}  // namespace
}  // namespace bise
