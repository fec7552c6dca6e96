// Damaged data and task files are errors that say where; so are unknown names.
#include "eval/dataset.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "base/clock.h"
#include "base/error.h"
#include "base/files.h"
#include "base/yaml.h"
#include "eval/evaluate.h"
#include "eval/task_registry.h"
#include "tests/test_support.h"

namespace bise {
namespace {

std::string error_of(const auto& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Dataset, DamagedOrMissingFiles) {
  const ScratchFolder scratch;
  std::filesystem::create_directories(scratch.path() / "set");
  struct Case {
    std::string content, message;
  };
  const Case cases[] = {{"{\"a\": 1}\n{\"a\": \n", "line 2"},
                        {"{\"a\": 1}\n[1]\n", "not a JSON object"},
                        {"\n\n", "no rows"},
                        {"{\"a\": \"\xff\"}\n", "line 1"}};
  for (const Case& test : cases) {
    write_file(scratch.path() / "set" / "test.jsonl", test.content);
    EXPECT_NE(error_of([&] { load_rows(scratch.path() / "set" / "test.jsonl"); }).find(test.message),
              std::string::npos)
        << test.message;
  }
  EXPECT_NE(error_of([&] {
              load_split(scratch.path(), TaskRegistry().select({"piqa"}).tasks.front(), "train");
            }).find("bise download --dataset piqa --data-dir " + scratch.path().string()),
            std::string::npos);
  EXPECT_NE(error_of([] {
              TaskRegistry().select({"piqa", "no_such_task"});
            }).find("no_such_task"),
            std::string::npos);
}

TEST(Dataset, RowsWithoutTheTasksFields) {
  const ScratchFolder scratch;
  struct Case {
    std::string task, split, row, message;
  };
  const Case cases[] = {
      {"winogrande", "validation", R"({"sentence": "no gap", "option1": "a", "option2": "b", "answer": "1"})",
       "document 0"},
      {"winogrande", "validation", R"({"sentence": "a _ gap", "option1": "a", "answer": "1"})", "option2"},
      {"hellaswag", "validation",
       R"({"ctx_a": "a", "ctx_b": "b", "activity_label": "c", "endings": [1], "label": "x"})", "ending"},
      {"mmlu_anatomy", "test", R"({"question": "q", "choices": ["a"], "answer": 0})", "4 choices"},
      {"arc_easy", "test", R"({"question": "q", "choices": 3, "answerKey": "A"})", "document 0"},
  };
  for (const Case& test : cases) {
    const TaskConfig task = TaskRegistry().select({test.task}).tasks.front();
    std::filesystem::create_directories(scratch.path() / task.dataset);
    write_file(scratch.path() / task.dataset / (test.split + ".jsonl"), test.row + "\n");
    EvaluationOptions options;
    options.data_dir = scratch.path();
    const std::string message = error_of([&] { prepare_tasks({task}, options); });
    EXPECT_NE(message.find(test.message), std::string::npos) << test.row << " gave: " << message;
  }
}

TEST(TaskFuzz, AcceptsOrThrowsError) {
  const std::string seed =
      "task: t\ndataset_path: d\ntest_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{q}} A:'\n"
      "doc_to_choice: [A, B]\ndoc_to_target: '{{gold}}'\nfewshot_config: {sampler: first_n, samples: [{q: "
      "1}]}\n"
      "metric_list: [{metric: acc, regexes_to_ignore: ['a']}]\nmetadata: {version: 1.0}\n"
      "filter_list: [{name: f, filter: [{function: regex, regex_pattern: 'x'}]}]\n";
  ASSERT_NO_THROW(parse_task(parse_yaml(seed, "seed"), "seed"));
  std::mt19937 random(20261121);
  const Stopwatch watch;
  for (int i = 0; i < 5000 && watch.seconds() < 2; ++i) {
    std::string text = seed;
    for (unsigned edits = 1 + random() % 3; edits > 0; --edits) {
      const std::size_t at = random() % text.size();
      switch (random() % 3) {
        case 0: text.erase(at, 1 + random() % 6); break;
        case 1: text.insert(at, text.substr(random() % text.size(), random() % 12)); break;
        default: text[at] = static_cast<char>(random() % 256); break;
      }
    }
    try {
      parse_task(parse_yaml(text, "mutated"), "mutated");
    } catch (const Error&) {
    }
  }
}

}  // namespace
}  // namespace bise
