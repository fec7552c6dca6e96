// Tokens that a GPU draws by itself, in recorded steps: those that the sampler draws from the same logits.
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "base/error.h"
#include "engine/generator.h"
#include "engine/sampler.h"
#include "tests/model/tiny_model.h"

namespace bise {
namespace {

std::unique_ptr<Backend> cuda_backend() {
  try {
    return make_cuda_backend(0);
  } catch (const Error&) {
    return nullptr;
  }
}

const std::vector<SamplingParams>& kinds_of_sampling() {
  static const std::vector<SamplingParams> kinds = {
      {.temperature = 0},
      {.temperature = 1, .seed = 5},
      {.temperature = 0.8, .top_p = 0.9, .top_k = 20, .seed = 6},  // on the host
      {.temperature = 1.7, .seed = 7},
      {.temperature = 0, .repetition_penalty = 1.3},  // on the host
      {.temperature = 0.3, .seed = 8},
  };
  return kinds;
}

// One token at a time, from logits on the host: the definition.
std::vector<std::int32_t> expected_output(Decoder& decoder, const GenerationRequest& request) {
  const std::int64_t vocabulary = decoder.config().vocab_size;
  Sampler sampler(request.sampling, 0, request.prompt, vocabulary);
  Sampler::Scratch scratch(vocabulary);
  std::vector<std::int32_t> tokens = request.prompt, output;
  for (std::int64_t i = 0; i < request.sampling.max_tokens; ++i) {
    const auto logits = all_logits(decoder, tokens, 32);
    output.push_back(sampler.sample(std::span(logits).last(static_cast<std::size_t>(vocabulary)), scratch));
    sampler.accept(output.back());
    tokens.push_back(output.back());
  }
  return output;
}

std::vector<ModelConfig> models() {
  ModelConfig windows = tiny_config(), experts = tiny_config();
  windows.sliding_window = {0, 7};  // two block tables
  experts.architecture = "MixtralForCausalLM";
  experts.num_local_experts = 4;
  experts.num_experts_per_tok = 2;
  return {windows, experts};
}

class DeviceDraw : public testing::TestWithParam<ModelConfig> {};

TEST_P(DeviceDraw, EqualsTheSamplersInBatchesOfEverySize) {
  const auto backend = cuda_backend();
  if (!backend) GTEST_SKIP() << "no GPU, or built without CUDA";
  const ModelConfig& config = GetParam();
  const TinyModel model = tiny_model(*backend, config);
  // Up to 32 rows in a step a row's result depends on that row alone.
  Decoder decoder(*backend, model.config, model.weights, {.max_tokens = 32, .max_logit_rows = 16});
  ThreadPool pool(2);
  Generator generator(decoder, pool,
                      {.max_num_seqs = 13, .max_model_len = 64, .enable_prefix_caching = false});
  std::vector<GenerationRequest> requests;
  std::vector<std::vector<std::int32_t>> expected;
  for (std::size_t i = 0; i < 13; ++i) {
    GenerationRequest request;
    request.prompt =
        random_tokens(4 + 2 * static_cast<std::int64_t>(i), config.vocab_size, static_cast<std::uint32_t>(i));
    request.sampling = kinds_of_sampling()[i % kinds_of_sampling().size()];
    // They end one after the other: steps of 13, 12, ... sequences.
    request.sampling.max_tokens = 6 + static_cast<std::int64_t>(i);
    requests.push_back(request);
    expected.push_back(expected_output(decoder, request));
  }
  // The first time steps are run and captured, later they are replayed.
  for (int time = 0; time < 3; ++time) {
    const auto results = generator.generate(requests);
    for (std::size_t i = 0; i < requests.size(); ++i)
      EXPECT_EQ(results[i].token_ids, expected[i]) << "request " << i << ", time " << time;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, DeviceDraw, testing::ValuesIn(models()),
                         [](const auto& each) { return each.param.architecture; });

}  // namespace
}  // namespace bise
