// Whole models on a GPU against reference/.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "tests/model/tiny_model.h"

namespace bise {
namespace {

struct Case {
  std::string name;
  ModelConfig config;
};

std::vector<Case> cases() {
  ModelConfig window = tiny_config(), experts = tiny_config(), wide = tiny_config();
  window.sliding_window = {0, 7};
  experts.architecture = "MixtralForCausalLM";
  experts.num_local_experts = 4;
  experts.num_experts_per_tok = 2;
  wide.hidden_size = 576;  // no multiple of what kernels pad to
  wide.intermediate_size = 1536;
  wide.num_attention_heads = 9;
  wide.num_key_value_heads = 3;
  wide.head_dim = 64;
  return {{"dense", tiny_config()}, {"window", window}, {"experts", experts}, {"SmolLM2's widths", wide}};
}

// ||a - b|| / ||b|| of each row, ascending.
std::vector<double> relative_errors(const std::vector<float>& a, const std::vector<float>& b,
                                    std::int64_t columns) {
  std::vector<double> errors;
  for (std::size_t first = 0; first < b.size(); first += static_cast<std::size_t>(columns)) {
    double difference = 0, length = 0;
    for (std::size_t i = first; i < first + static_cast<std::size_t>(columns); ++i) {
      difference += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
      length += std::pow(static_cast<double>(b[i]), 2);
    }
    errors.push_back(std::sqrt(difference / length));
  }
  std::ranges::sort(errors);
  return errors;
}

// Inputs of linear layers, products between operations and cached keys and values are rounded to bf16, each a
// relative error of up to 2^-9; two layers of random weights with their residuals let that grow to a percent.
// Where a router finds two experts nearly equal, such an error changes its choice, that token's logits and a
// little of those after it: with experts, half of the rows are held to the bound.
TEST(CudaDecoder, LogitsAgreeWithReference) {
  std::unique_ptr<Backend> cuda;
  try {
    cuda = make_cuda_backend(0);
  } catch (const Error&) {
    GTEST_SKIP() << "no GPU, or built without CUDA";
  }
  const auto reference = make_reference_backend();
  for (const Case& each : cases()) {
    SCOPED_TRACE(each.name);
    const TinyModel expected_model = tiny_model(*reference, each.config),
                    model = tiny_model(*cuda, each.config);
    const DecoderLimits limits{.max_tokens = 128, .max_logit_rows = 128};
    Decoder expected_decoder(*reference, each.config, expected_model.weights, limits);
    Decoder decoder(*cuda, each.config, model.weights, limits);
    const auto tokens = random_tokens(100, each.config.vocab_size, 3);
    const auto expected = all_logits(expected_decoder, tokens, 100);
    for (const std::int64_t chunk : {100, 37, 1}) {
      const auto errors =
          relative_errors(all_logits(decoder, tokens, chunk), expected, each.config.vocab_size);
      EXPECT_LT(each.config.num_local_experts > 0 ? errors[errors.size() / 2] : errors.back(), 0.02)
          << each.name << ", " << chunk << " tokens a step";
      RecordProperty(each.name + ", " + std::to_string(chunk), std::to_string(errors[errors.size() / 2]));
    }
  }
}

}  // namespace
}  // namespace bise
