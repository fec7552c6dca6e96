// The float8 KV cache: its scales from a checkpoint, and what it does to logits.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "model/loader.h"
#include "tests/model/test_backends.h"
#include "tests/model/tiny_model.h"
#include "tests/test_support.h"

namespace bise {
namespace {

TEST(KvScale, ComesFromTheCheckpoint) {
  const std::filesystem::path folder = shared_path("golden/quantization");
  if (folder.empty()) GTEST_SKIP() << "needs shared/golden/quantization";
  for (const char* name : {"autofp8_static_kv", "fp8_dynamic_kvfp8"}) {
    const ModelLoader loader(folder / name);
    for (std::int64_t layer = 0; layer < loader.config().num_hidden_layers; ++layer)
      for (const bool key : {true, false}) {
        const std::string tensor =
            "model.layers." + std::to_string(layer) + ".self_attn." + (key ? "k_scale" : "v_scale");
        SCOPED_TRACE(std::string(name) + " " + tensor);
        float stored = 0;
        to_float(loader.checkpoint().tensor(tensor), {&stored, 1});
        const LayerTensors tensors = loader.read_layer(layer);
        EXPECT_EQ(key ? tensors.k_scale : tensors.v_scale, stored);
        EXPECT_GT(stored, 0);
      }
    ThreadPool pool(1);
    const auto backend = make_reference_backend();
    const ModelWeights weights = loader.load_model(*backend);
    EXPECT_TRUE(Decoder(*backend, loader.config(), weights).has_kv_scales());
  }
}

// Root mean square of a - b, in units of that of b.
double relative_error(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    size += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(difference / size);
}

// Float8 has four bits of fraction less than bfloat16, so with fitting scales it loses 16 times as much; with
// scales that make codes subnormal, or saturate, more. A backend that computes with a relative error e of its
// own moves a value to the next code, a step of up to 1/8, where it is that near to the boundary: a share of
// 8 e of the values, in the mean square sqrt(8 e) / 8.
TEST(KvScale, DecidesWhatACacheOfFloat8Loses) {
  ThreadPool pool(2);
  const auto with_scales = [](Backend& backend, std::optional<float> scale, DType dtype) {
    TinyModel model = tiny_model(backend, tiny_config());
    for (LayerWeights& layer : model.weights.layers) layer.key_scale = layer.value_scale = scale;
    Decoder decoder(backend, model.config, model.weights, {.max_tokens = 64, .max_logit_rows = 64});
    return all_logits(decoder, random_tokens(60, model.config.vocab_size, 3), 20, dtype);
  };
  const auto reference = make_reference_backend();
  const auto exact = with_scales(*reference, std::nullopt, DType::kF32);
  const auto fitting = with_scales(*reference, 0.05f, DType::kF8E4M3);
  const auto bfloat16 = with_scales(*reference, std::nullopt, DType::kBF16);
  const double loss = relative_error(fitting, exact), bfloat16_loss = relative_error(bfloat16, exact);
  EXPECT_LT(loss, 2 * 16 * bfloat16_loss);
  EXPECT_GT(loss, 16 * bfloat16_loss / 2);
  EXPECT_EQ(with_scales(*reference, std::nullopt, DType::kF8E4M3),
            with_scales(*reference, 1.0f, DType::kF8E4M3));
  for (const float scale : {0.001f, 500.0f})
    EXPECT_GT(relative_error(with_scales(*reference, scale, DType::kF8E4M3), exact), 2 * loss) << scale;
  for (const auto& backend : cpu_backends(pool)) {
    const double own = relative_error(with_scales(*backend, std::nullopt, DType::kBF16), bfloat16);
    EXPECT_LT(relative_error(with_scales(*backend, 0.05f, DType::kF8E4M3), fitting),
              own + std::sqrt(8 * own) / 8)
        << backend->name();
  }
}

}  // namespace
}  // namespace bise
