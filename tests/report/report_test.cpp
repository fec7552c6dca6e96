#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "report/chart.h"
#include "report/html.h"
#include "report/result.h"
#include "report/table.h"

namespace bise {
namespace {

Comparison sample() {
  Comparison comparison;
  comparison.prompt = "Is 1 < 2 & \"so on\"?";
  comparison.text = "a text";
  comparison.prompt_tokens = 512;
  comparison.output_tokens = 128;
  ModelResult base;
  base.name = "model";
  base.scheme = "BF16";
  base.environment = {"a machine", "abc", "2026-01-01T00:00:00Z", "bise compare"};
  base.disk_bytes = 272'600'000;
  base.memory_bytes = 327'400'000;
  base.prefill_tok_s = 5520.4;
  base.decode_tok_s = 143.61;
  base.perplexity = 18.3013;
  base.answer = "<b>Yes</b>";
  ModelResult quantized = base;
  quantized.scheme = "W4A16 g64";
  quantized.memory_bytes.reset();
  quantized.kl_divergence = 0.04321;
  quantized.top1_agreement = 0.8768;
  comparison.models = {base, quantized};
  return comparison;
}

TEST(Report, JsonKeepsEverything) {
  const Json json = to_json(sample());
  EXPECT_EQ(to_json(comparison_from_json(json, "x")), json);
  EXPECT_FALSE(json["models"][1].contains("memory_bytes"));
}

TEST(Report, DamagedJsonIsAnErrorThatNamesThePlace) {
  for (const char* key : {"name", "scheme", "disk_bytes", "environment"}) {
    Json json = to_json(sample());
    json["models"][1].erase(key);
    try {
      comparison_from_json(json, "f");
      FAIL() << "accepted without " << key;
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()), std::string("f: models[1]: key \"") + key + "\" is missing");
    }
  }
  Json newer = to_json(sample());
  newer["schema_version"] = 99;
  EXPECT_THROW(comparison_from_json(newer, "f"), Error);
}

TEST(Report, TableAlignsNumbersAndMarksWhatIsMissing) {
  EXPECT_EQ(
      terminal_table(comparison_table(sample())),
      "scheme     disk MB  memory MB  prefill tok/s  decode tok/s  perplexity  KL divergence  same top-1 %\n"
      "---------  -------  ---------  -------------  ------------  ----------  -------------  ------------\n"
      "BF16         272.6      327.4           5520         143.6      18.301              -             -\n"
      "W4A16 g64    272.6          -           5520         143.6      18.301         0.0432          "
      "87.7\n");
  EXPECT_EQ(markdown_table({{"a", "n"}, {{"x", "1"}}, 1}), "| a | n |\n|---|---:|\n| x | 1 |\n");
}

TEST(Report, WidthsCountCharactersNotBytes) {
  EXPECT_EQ(terminal_table({{"é", "n"}, {{"xy", "1"}}, 1}), "é   n\n--  -\nxy  1\n");
}

TEST(Report, ThePageIsSelfContainedAndEscapesWhatModelsSay) {
  const std::string page = comparison_page(sample());
  EXPECT_EQ(page.find("http"), std::string::npos);
  EXPECT_EQ(page.find("<b>Yes"), std::string::npos);
  EXPECT_NE(page.find("&lt;b&gt;Yes&lt;/b&gt;"), std::string::npos);
  EXPECT_NE(page.find("Is 1 &lt; 2 &amp; &quot;so on&quot;?"), std::string::npos);
  EXPECT_NE(page.find("<td>0.0432</td>"), std::string::npos);
}

TEST(Report, BarsAreInProportionAndAMissingOneHasNone) {
  const std::string svg = bar_chart_svg({"t", "h", 1, {{"a", 100.0}, {"b", 50.0}, {"c", std::nullopt}}});
  EXPECT_NE(svg.find("width=\"280.0\""), std::string::npos) << svg;
  EXPECT_NE(svg.find("width=\"140.0\""), std::string::npos) << svg;
  EXPECT_NE(svg.find("width=\"0.0\""), std::string::npos) << svg;
  EXPECT_NE(svg.find(">100.0<"), std::string::npos) << svg;
  EXPECT_NE(svg.find(">-<"), std::string::npos) << svg;
}

}  // namespace
}  // namespace bise
