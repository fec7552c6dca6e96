// Tiny Mistral and Mixtral checkpoints quantized by the reference tools (golden/quantization/README.md): our
// forward over each folder against the float32 forward recorded beside it.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "formats/safetensors.h"
#include "model/decoder.h"
#include "model/loader.h"
#include "nlohmann/json.hpp"
#include "tests/model/test_backends.h"
#include "tests/model/tiny_model.h"
#include "tests/test_support.h"

namespace bise {
namespace {

struct Golden {
  const char* folder;
  const char* prompt;
  const char* logits;
};

const Golden kGoldens[] = {
    {"base_mistral", "calib_mistral.json", "logits_fp32"},
    {"fp8_dynamic", "calib_mistral.json", "logits_fp32"},
    {"fp8_static", "calib_mistral.json", "logits_fp32"},
    {"fp8_dynamic_kvfp8", "calib_mistral.json", "logits_fp32"},
    {"w8a8_rtn_smooth", "calib_mistral.json", "logits_fp32_vllm127"},
    {"w8a8_gptq_smooth", "calib_mistral.json", "logits_fp32_vllm127"},
    {"w4a16_gptq", "calib_mistral.json", "logits_fp32"},
    {"w4a16_gptq_noact", "calib_mistral.json", "logits_fp32"},
    {"w4a16_gptq_actgroup", "calib_mistral.json", "logits_fp32"},
    {"w4a16_asym_rtn", "calib_mistral.json", "logits_fp32"},
    {"w4a16_mse_rtn", "calib_mistral.json", "logits_fp32"},
    {"w4a16_asym_awq", "calib_mistral.json", "logits_fp32"},
    {"w8a16_group_rtn", "calib_mistral.json", "logits_fp32"},
    {"bnb_nf4", "calib_mistral.json", "logits_fp32"},
    {"bnb_nf4_double", "calib_mistral.json", "logits_fp32"},
    {"autofp8_static_kv", "calib_mistral.json", "logits_fp32"},
    {"base_mixtral", "calib_mixtral.json", "logits_fp32"},
    {"mixtral_fp8_static", "calib_mixtral.json", "logits_fp32"},
    {"mixtral_w4a16_gptq", "calib_mixtral.json", "logits_fp32"},
    {"mixtral_autofp8_static", "calib_mixtral.json", "logits_fp32"},
};

double relative_error(std::span<const float> values, std::span<const float> expected) {
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double difference = static_cast<double>(values[i]) - static_cast<double>(expected[i]);
    error += difference * difference;
    norm += static_cast<double>(expected[i]) * static_cast<double>(expected[i]);
  }
  return std::sqrt(error / norm);
}

bool quantized_inputs(const ModelLoader& loader) {
  return loader.read_layer(0).o_proj.linear.scheme.input != InputType::kNone;
}

class GoldenForward : public testing::TestWithParam<Golden> {};

TEST_P(GoldenForward, LogitsEqualTheRecordedForward) {
  const std::filesystem::path root = shared_path("golden/quantization");
  BISE_SKIP_IF_ABSENT(root, "golden/quantization");
  const std::filesystem::path folder = root / GetParam().folder;
  const auto tokens =
      read_json_file(root / GetParam().prompt)["prompt_input_ids"][0].get<std::vector<std::int32_t>>();
  const Tensor golden = SafetensorsFile::open(folder / "logits.safetensors").tensor(GetParam().logits);
  std::vector<float> expected(static_cast<std::size_t>(golden.elements()));
  to_float(golden, expected);

  const ModelLoader loader(folder);
  const auto backend = make_reference_backend();
  const ModelWeights weights = loader.load_model(*backend);
  Decoder decoder(*backend, loader.config(), weights, {.max_tokens = 64, .max_logit_rows = 64});
  const std::vector<float> logits =
      all_logits(decoder, tokens, static_cast<std::int64_t>(tokens.size()), DType::kF32);
  ASSERT_EQ(logits.size(), expected.size());
  const std::size_t vocabulary = logits.size() / tokens.size();
  std::size_t exact_rows = 0;
  while (exact_rows < tokens.size() &&
         relative_error(std::span(logits).subspan(exact_rows * vocabulary, vocabulary),
                        std::span(expected).subspan(exact_rows * vocabulary, vocabulary)) < 1e-5)
    ++exact_rows;
  if (!quantized_inputs(loader)) {
    EXPECT_EQ(exact_rows, tokens.size());
    return;
  }
  // The golden divides by the scale, kernels (and so we) multiply by its inverse: sooner or later a value on
  // the edge between two codes falls to the other side, which later tokens see through attention. Until then
  // all is equal, and afterwards still much nearer than the unquantized model is.
  const double all = relative_error(logits, expected);
  EXPECT_TRUE(exact_rows == tokens.size() || (exact_rows >= 3 && all < 0.012))
      << exact_rows << " rows equal, relative error " << all;
}

TEST(GoldenQuantization, GroupwiseInputsAreRefused) {
  const std::filesystem::path folder = shared_path("golden/quantization/fp8_block");
  BISE_SKIP_IF_ABSENT(folder, "golden/quantization");
  EXPECT_THROW(ModelLoader{folder}, Error);
}

INSTANTIATE_TEST_SUITE_P(Folders, GoldenForward, testing::ValuesIn(kGoldens),
                         [](const auto& info) { return std::string(info.param.folder); });

}  // namespace
}  // namespace bise
