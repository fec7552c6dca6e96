// Metrics of groups, the printed tables, and runs that go on where they were interrupted.
#include "eval/results.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "base/clock.h"
#include "base/error.h"
#include "base/files.h"
#include "eval/metrics.h"
#include "tests/test_support.h"

namespace bise {
namespace {

// A task with `right` of `count` documents right.
TaskResult task_with(const std::string& name, int right, int count, const std::string& filter = "none") {
  TaskResult task;
  task.config.task = name;
  task.config.alias = name;
  task.config.version = std::make_shared<Json>(1.0);
  task.config.filters = {{filter, {}}};
  task.samples.resize(static_cast<std::size_t>(count));
  MetricResult metric;
  metric.metric = "acc";
  metric.filter = filter;
  for (int i = 0; i < count; ++i) metric.values.push_back({i < right ? 1.0 : 0.0});
  aggregate(metric, Aggregation::kMean, 1);
  task.metrics.push_back(metric);
  return task;
}

// The example of spec/evaluation.md section 4.
TEST(Groups, PooledAndPlainMeans) {
  const std::vector<TaskResult> tasks = {task_with("a", 60, 100), task_with("b", 20, 50)};
  EXPECT_NEAR(*tasks[0].metrics[0].standard_error, 0.0492366, 1e-7);
  TaskGroup group{"both", "both", "1", {"a", "b"}, {{"acc", true, {}}}};
  const GroupValue pooled = group_values(group, {group}, tasks).at(0);
  EXPECT_NEAR(pooled.value, 0.5333333, 1e-7);
  EXPECT_NEAR(*pooled.standard_error, 0.0402694, 1e-7);
  EXPECT_EQ(pooled.samples, 150);
  group.metrics[0].weight_by_size = false;
  const GroupValue plain = group_values(group, {group}, tasks).at(0);
  EXPECT_NEAR(plain.value, 0.5, 1e-12);
  EXPECT_NEAR(*plain.standard_error, std::hypot(0.0492366, 0.0699854) / 2, 1e-7);
}

TEST(Groups, TasksInInnerGroupsCount) {
  const std::vector<TaskResult> tasks = {task_with("a", 60, 100), task_with("b", 20, 50)};
  const TaskGroup inner{"inner", "inner", "1", {"b"}, {}},
      outer{"outer", "outer", "1", {"a", "inner"}, {{"acc", true, {}}}};
  EXPECT_NEAR(group_values(outer, {inner, outer}, tasks).at(0).value, 0.5333333, 1e-7);
}

// std::random.Random(0).choices and so on: lm_eval.api.metrics.bootstrap_stderr(perplexity, [-1, -2, -3.5,
// -0.25], 2000) gave this.
TEST(Metrics, BootstrappedErrorOfAPerplexity) {
  MetricResult metric;
  metric.values = {{-1}, {-2}, {-3.5}, {-0.25}};
  aggregate(metric, Aggregation::kPerplexity, 2000);
  EXPECT_NEAR(metric.value, 5.405948925141167, 1e-12);
  ASSERT_TRUE(metric.standard_error.has_value());
  EXPECT_NEAR(*metric.standard_error, 4.367668275382715, 1e-9);
}

TEST(ResultsTable, LooksAsTheHarnessPrintsIt) {
  Evaluation evaluation;
  TaskResult task = task_with("gsm8k", 182, 250, "flexible-extract");
  task.config.version = std::make_shared<Json>(3.0);
  task.num_fewshot = 5;
  MetricResult strict = task.metrics[0];
  task.metrics[0].metric = strict.metric = "exact_match";
  strict.filter = "strict-match";
  for (int i = 180; i < 182; ++i) strict.values[static_cast<std::size_t>(i)] = {0};
  aggregate(strict, Aggregation::kMean, 1);
  task.metrics.push_back(strict);
  const ScratchFolder scratch;
  write_file(scratch.path() / "rows", "{}\n");
  task.data_file = scratch.path() / "rows";
  task.config.test_split = "test";
  task.generation_kwargs = std::make_shared<Json>(Json::object());
  for (Sample& sample : task.samples) {
    sample.contexts = {""};
    sample.document.row = std::make_shared<Json>(Json::object());
  }
  evaluation.tasks.push_back(task);
  evaluation.options.limit = 250;
  evaluation.options.num_fewshot = 5;
  evaluation.run.model = "bise";
  evaluation.run.model_args = std::make_shared<Json>(Json{{"pretrained", "m"}});
  EXPECT_EQ(results_table(evaluation),
            "bise ({'pretrained': 'm'}), gen_kwargs: ({}), limit: 250.0, num_fewshot: 5, batch_size: auto\n"
            "|Tasks|Version|     Filter     |n-shot|  Metric   |   |Value|   |Stderr|\n"
            "|-----|------:|----------------|-----:|-----------|---|----:|---|-----:|\n"
            "|gsm8k|      3|flexible-extract|     5|exact_match|↑  |0.728|±  |0.0282|\n"
            "|     |       |strict-match    |     5|exact_match|↑  |0.720|±  |0.0285|\n");
}

TEST(AnswerJournal, KeepsAnswersAndDropsATornEnd) {
  const ScratchFolder scratch;
  const std::filesystem::path file = scratch.path() / "folder" / "answers.jsonl";
  const LikelihoodRequest first{"a", "b"}, second{"a", "c"};
  const GenerateRequest text{"p", {"\n"}, 8, 0, 1};
  {
    AnswerJournal journal(file, "run");
    EXPECT_FALSE(journal.find(first));
    journal.add(first, {-1.25, true});
    journal.add(text, "an answer\nof two lines");
  }
  write_file(file, read_file(file) + "{\"key\": \"torn");
  {
    AnswerJournal journal(file, "run");
    EXPECT_EQ(journal.size(), 2u);
    EXPECT_EQ(journal.find(first)->logprob, -1.25);
    EXPECT_TRUE(journal.find(first)->greedy);
    EXPECT_FALSE(journal.find(second));
    EXPECT_EQ(journal.find(text), "an answer\nof two lines");
    journal.add(second, {-2, false});
  }
  EXPECT_EQ(AnswerJournal(file, "run").size(), 3u);
  EXPECT_EQ(AnswerJournal(file, "another run").size(), 0u);
  AnswerJournal journal(file, "run");
  journal.remove();
  EXPECT_FALSE(std::filesystem::exists(file));
}

TEST(AnswerJournalFuzz, ReadsOrThrowsError) {
  const ScratchFolder scratch;
  const std::filesystem::path file = scratch.path() / "answers.jsonl";
  {
    AnswerJournal journal(file, "run");
    journal.add(LikelihoodRequest{"a", "b"}, {-1.25, true});
    journal.add(GenerateRequest{"p", {}, 8, 0, 1}, "text");
  }
  const std::string seed = read_file(file);
  std::mt19937 random(20261121);
  const Stopwatch watch;
  for (int i = 0; i < 3000 && watch.seconds() < 2; ++i) {
    std::string text = seed;
    for (unsigned edits = 1 + random() % 3; edits > 0; --edits) {
      const std::size_t at = random() % text.size();
      random() % 2 ? text.erase(at, 1 + random() % 5) : text.insert(at, 1, static_cast<char>(random() % 256));
      if (text.empty()) text = "x";
    }
    write_file(file, text);
    try {
      AnswerJournal journal(file, "run");
    } catch (const Error&) {
    }
  }
}

}  // namespace
}  // namespace bise
