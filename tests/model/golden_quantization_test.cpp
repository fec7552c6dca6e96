// Tiny Mistral and Mixtral checkpoints quantized by the reference tools (golden/quantization/README.md): our
// forward over each folder against the float32 forward recorded beside it.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

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
    {"fp8_block", "calib_mistral.json", "logits_fp32"},
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

class GoldenQuantization : public testing::TestWithParam<Golden> {};

TEST_P(GoldenQuantization, LogitsEqualTheRecordedForward) {
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
  double error = 0, norm = 0, worst = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double difference = static_cast<double>(logits[i]) - static_cast<double>(expected[i]);
    error += difference * difference;
    norm += static_cast<double>(expected[i]) * static_cast<double>(expected[i]);
    worst = std::max(worst, std::abs(difference));
  }
  RecordProperty("relative", std::to_string(std::sqrt(error / norm)));
  EXPECT_LT(std::sqrt(error / norm), 1e-4) << "largest difference " << worst;
}

INSTANTIATE_TEST_SUITE_P(Folders, GoldenQuantization, testing::ValuesIn(kGoldens),
                         [](const auto& info) { return std::string(info.param.folder); });

}  // namespace
}  // namespace bise
