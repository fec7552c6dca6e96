// Generated answers of gsm8k on SmolLM2 against those of lm-evaluation-harness with transformers in float32
// (golden/lm_eval): texts, and what the filters take out of them.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "tests/eval/smollm2_answers.h"
#include "tests/test_support.h"

namespace bise {
namespace {

constexpr double kDocuments = 6;

// The golden's lines by document; each filter has a line of its own.
std::map<std::int64_t, std::map<std::string, Json>> read_golden(const std::filesystem::path& path) {
  std::map<std::int64_t, std::map<std::string, Json>> lines;
  std::ifstream file(path);
  for (std::string text; std::getline(file, text);) {
    const Json line = parse_json(text, path.string());
    lines[line["doc_id"].get<std::int64_t>()][line["filter"].get<std::string>()] = line;
  }
  return lines;
}

TEST(AnswerGoldens, FirstDocumentsOfGsm8k) {
  const std::filesystem::path folder = smollm2_path(), goldens = shared_path("golden/lm_eval");
  BISE_SKIP_IF_ABSENT(folder, "the SmolLM2 checkpoint");
  BISE_SKIP_IF_ABSENT(goldens, "golden/lm_eval");
  EvaluationOptions options;
  options.limit = kDocuments;
  const std::vector<TaskResult> tasks = smollm2_answers(folder, {"gsm8k"}, options);

  const auto expected = read_golden(goldens / "samples_gsm8k_5shot.jsonl");
  const TaskResult& task = tasks.front();
  ASSERT_EQ(task.samples.size(), static_cast<std::size_t>(kDocuments));
  for (const Sample& sample : task.samples) {
    const auto& filters = expected.at(sample.doc_id);
    for (std::size_t f = 0; f < task.config.filters.size(); ++f) {
      const Json& golden = filters.at(task.config.filters[f].name);
      EXPECT_EQ(sample.response, golden["resps"][0][0].get<std::string>()) << "document " << sample.doc_id;
      EXPECT_EQ(sample.filtered[f], golden["filtered_resps"][0].get<std::string>());
      EXPECT_EQ(task.metrics[f].values[static_cast<std::size_t>(sample.doc_id)].at(0),
                golden["exact_match"].get<double>());
    }
  }
}

}  // namespace
}  // namespace bise
