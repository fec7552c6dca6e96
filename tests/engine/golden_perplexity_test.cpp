// Perplexity of SmolLM2 on wikitext2 against transformers in float32: golden/smollm2/ppl_wikitext2.json.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/json.h"
#include "engine/perplexity.h"
#include "model/loader.h"
#include "nlohmann/json.hpp"
#include "tests/model/test_backends.h"
#include "tests/test_support.h"
#include "text/tokenizer.h"

namespace bise {
namespace {

void compare_with_golden(std::int64_t windows, bool only_widest) {
  const std::filesystem::path golden_path = shared_path("golden/smollm2/ppl_wikitext2.json");
  const std::filesystem::path text_path = shared_path("data/wikitext2/test.txt"), folder = smollm2_path();
  BISE_SKIP_IF_ABSENT(golden_path, "golden/smollm2");
  BISE_SKIP_IF_ABSENT(text_path, "data/wikitext2");
  BISE_SKIP_IF_ABSENT(folder, "the SmolLM2 checkpoint");
  const Json golden = read_json_file(golden_path);
  const std::string text = read_file(text_path).substr(0, golden["meta"]["byte_range"][1].get<std::size_t>());
  const auto tokenizer = Tokenizer::load(folder);
  const std::vector<std::int32_t> tokens =
      tokenizer->encode(text, {.add_special_tokens = false, .parse_special = false});
  ASSERT_EQ(tokens.size(), golden["meta"]["tokens"].get<std::size_t>());

  const ModelLoader loader(folder);
  ThreadPool pool;
  for (const auto& backend : cpu_backends(pool)) {
    if (backend->name() == "cpu scalar") continue;  // a minute a window
    if (only_widest && backend->name() != "cpu " + std::string(isa_name(available_isas().back()))) continue;
    const ModelWeights weights = loader.load_model(*backend);
    Decoder decoder(*backend, loader.config(), weights, {.max_tokens = 1024});
    const PerplexityResult result = perplexity(decoder, pool, tokens, {.max_windows = windows});
    double worst = 0, sum = 0;
    for (std::size_t w = 0; w < result.window_nll_sums.size(); ++w) {
      const double expected = golden["float32"]["window_nll_sums"][w].get<double>();
      worst = std::max(worst, std::abs(result.window_nll_sums[w] / expected - 1));
      sum += expected;
    }
    const double expected_ppl = std::exp(sum / (255.0 * static_cast<double>(result.windows)));
    testing::Test::RecordProperty(
        backend->name(),
        fmt::format("{} windows: ppl {:.4f} (float32 {:.4f}), ppl_all {:.4f}, worst window {:.5f}",
                    result.windows, result.ppl, expected_ppl, result.ppl_all, worst));
    // The bfloat16 run of transformers is up to 0.0025 (a window) and 0.0009 (the whole text) off float32.
    EXPECT_LT(worst, 0.0025) << backend->name();
    // A window's noise of 0.0025 is averaged out only over many.
    if (windows == 0) {
      EXPECT_NEAR(result.ppl / expected_ppl, 1, 0.001) << backend->name();
    }
  }
}

TEST(GoldenPerplexity, FirstWindowsEqualTransformers) {
  compare_with_golden(2, false);
}

// The whole text takes a minute: run with --gtest_also_run_disabled_tests.
TEST(GoldenPerplexity, DISABLED_WholeTextEqualsTransformers) {
  compare_with_golden(0, true);
}

}  // namespace
}  // namespace bise
