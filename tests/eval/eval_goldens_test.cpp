// Prompts and metrics of the tasks that shared data lack, on small sets of our own (tests/data/eval), against
// what lm-evaluation-harness's own task code gave with the same made-up answers
// (tools/peers/lm_eval_goldens.py).
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "base/digest.h"
#include "base/files.h"
#include "eval/evaluate.h"
#include "eval/task_registry.h"
#include "tests/test_support.h"

namespace bise {
namespace {

namespace fs = std::filesystem;

// Answers that depend on the request alone, as the generator's model gives them.
class MadeUpModel : public LanguageModel {
 public:
  explicit MadeUpModel(std::vector<std::string> answers) : answers_(std::move(answers)) {}

  void loglikelihood(std::span<const LikelihoodRequest> requests, const OnLikelihood& done) override {
    for (std::size_t i = 0; i < requests.size(); ++i) {
      const std::string text = std::string(requests[i].context) + std::string(requests[i].continuation);
      all += text;
      const auto number = std::stoul(sha256_hex(text).substr(0, 8), nullptr, 16);
      done(i, {-static_cast<double>(number % 10000) / 100, number % 2 == 1});
    }
  }
  void generate(std::span<const GenerateRequest> requests, const OnText& done) override {
    for (std::size_t i = 0; i < requests.size(); ++i) {
      all += requests[i].context;
      done(i, answers_[i % answers_.size()]);
    }
  }

  std::string all;

 private:
  std::vector<std::string> answers_;
};

// Our data with the exemplars that only the specification beside the checkout has. Returns whether it has.
bool make_data_folder(const fs::path& folder) {
  for (const auto& entry : fs::directory_iterator(test_data("eval/data")))
    fs::copy(entry.path(), folder / entry.path().filename(), fs::copy_options::recursive);
  const fs::path facts_path = shared_path("spec/evaluation_tasks.json");
  if (facts_path.empty()) return false;
  const Json facts = read_json_file(facts_path);
  const auto lines = [](const Json& rows) {
    std::string text;
    for (const Json& row : rows) text += json_text(row) + "\n";
    return text;
  };
  const std::string preamble = facts["truthfulqa_preamble"].get<std::string>();  // with a question's template
  write_file(folder / "truthfulqa" / "preamble.txt", preamble.substr(0, preamble.find("\n\nQ: {{")));
  write_file(folder / "math" / "fewshot_leaderboard.jsonl", lines(facts["math_fewshot_leaderboard"]));
  write_file(folder / "math" / "fewshot_minerva.jsonl", lines(facts["math_fewshot_minerva"]));
  return true;
}

bool needs_exemplars(const std::string& task) {
  return task.starts_with("truthfulqa") || task.find("math") != std::string::npos;
}

// A list of pairs or of flags, or a number, as numbers.
std::vector<double> numbers(const Json& value) {
  std::vector<double> result;
  if (value.is_boolean()) return {value.get<bool>() ? 1.0 : 0.0};
  if (!value.is_array()) return {value.get<double>()};
  for (const Json& entry : value) result.push_back(numbers(entry).at(0));
  return result;
}

void compare_metrics(const Json& golden, const TaskResult& task) {
  for (const MetricResult& metric : task.metrics) {
    const std::string where = task.config.task + " " + metric.metric + "," + metric.filter;
    const Json& expected = golden["metrics"];
    EXPECT_NEAR(metric.value, expected[metric.metric + "," + metric.filter].get<double>(), 1e-9) << where;
    const Json& error = expected[metric.metric + "_stderr," + metric.filter];
    ASSERT_EQ(metric.standard_error.has_value(), error.is_number()) << where;
    if (error.is_number()) {
      EXPECT_NEAR(*metric.standard_error, error.get<double>(), 1e-9) << where;
    }
    if (task.config.filters.size() > 1) continue;
    const Json& values = golden["values"][metric.metric];
    ASSERT_EQ(values.size(), metric.values.size()) << where;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::vector<double> wanted = numbers(values[i]);
      ASSERT_EQ(metric.values[i].size(), wanted.size()) << where;
      for (std::size_t k = 0; k < wanted.size(); ++k)
        EXPECT_NEAR(metric.values[i][k], wanted[k], 1e-9) << where << " document " << i << " entry " << k;
    }
  }
}

TEST(EvalGoldens, PromptsAndMetricsOfTheHarness) {
  const ScratchFolder scratch;
  const bool exemplars = make_data_folder(scratch.path());
  const Json goldens = read_json_file(test_data("eval/goldens.json"));
  const Json answers = read_json_file(test_data("eval/answers.json"));
  std::set<std::string> left_out;
  for (const Json& golden : goldens) {
    const std::string name = golden["task"].get<std::string>();
    if (!exemplars && needs_exemplars(name)) {
      left_out.insert(name);
      continue;
    }
    EvaluationOptions options;
    options.data_dir = scratch.path();
    if (golden["num_fewshot"].is_number()) options.num_fewshot = golden["num_fewshot"].get<std::int64_t>();
    if (golden["chat"].is_string()) {
      options.chat_template = std::make_shared<ChatTemplate>(ChatTemplate::from_source(
          "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}\n{% endfor %}"
          "{% if add_generation_prompt %}<|assistant|>{% endif %}",
          "made up", Json::object()));
      options.fewshot_as_multiturn = golden["chat"] == "multi";
    }
    if (golden["system_instruction"].is_string())
      options.system_instruction = golden["system_instruction"].get<std::string>();
    const std::string family = golden["answers"].get<std::string>();
    MadeUpModel model(family.empty() ? std::vector<std::string>{""}
                                     : answers[family].get<std::vector<std::string>>());
    std::vector<TaskResult> tasks = prepare_tasks(TaskRegistry().select({name}).tasks, options);
    answer_tasks(tasks, options, model);
    const TaskResult& task = tasks.front();
    EXPECT_EQ(task.samples.size(), golden["documents"].get<std::size_t>()) << name;
    EXPECT_EQ(sha256_hex(model.all).substr(0, 16), golden["all"].get<std::string>()) << name;
    EXPECT_EQ(sha256_hex(json_text(*task.samples[0].document.row, 2)), golden["doc_hash"].get<std::string>())
        << name;
    EXPECT_EQ(task.samples[0].document.target_text, golden["target"].get<std::string>()) << name;
    compare_metrics(golden, task);
  }
  EXPECT_LE(left_out.size(), 4u);
}

}  // namespace
}  // namespace bise
