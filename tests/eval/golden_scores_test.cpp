// SmolLM2's log-likelihoods on the first documents of the reference runs against those of
// lm-evaluation-harness with transformers in float32 (golden/lm_eval).
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/eval/smollm2_answers.h"
#include "tests/test_support.h"

namespace bise {
namespace {

constexpr double kTolerance = 0.02;  // issue 5
constexpr double kDocuments = 8;

TEST(ScoreGoldens, FirstDocuments) {
  const std::filesystem::path folder = smollm2_path(), goldens = shared_path("golden/lm_eval");
  BISE_SKIP_IF_ABSENT(folder, "the SmolLM2 checkpoint");
  BISE_SKIP_IF_ABSENT(goldens, "golden/lm_eval");
  EvaluationOptions options;
  options.num_fewshot = 0;
  options.limit = kDocuments;
  const std::vector<TaskResult> tasks = smollm2_answers(folder, {"arc_easy", "piqa", "hellaswag"}, options);

  for (const TaskResult& task : tasks) {
    std::ifstream lines(goldens / ("samples_" + task.config.task + "_0shot.jsonl"));
    std::size_t seen = 0;
    for (std::string line; std::getline(lines, line) && seen < task.samples.size(); ++seen) {
      const Json expected = parse_json(line, "golden");
      const Sample& sample = task.samples[seen];
      for (std::size_t i = 0; i < sample.likelihoods.size(); ++i) {
        const Json& answer = expected["filtered_resps"][i];
        EXPECT_NEAR(sample.likelihoods[i].logprob, answer[0].get<double>(), kTolerance)
            << task.config.task << " document " << seen << " choice " << i;
        EXPECT_EQ(sample.likelihoods[i].greedy, answer[1].get<bool>());
      }
      for (const MetricResult& metric : task.metrics)
        EXPECT_EQ(metric.values[seen].at(0), expected[metric.metric].get<double>())
            << task.config.task << " " << metric.metric << " document " << seen;
    }
    EXPECT_EQ(seen, task.samples.size());
  }
}

}  // namespace
}  // namespace bise
