// Which tasks names stand for, groups, and a user's own files.
#include "eval/task_registry.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>

#include "base/clock.h"
#include "base/error.h"
#include "base/files.h"
#include "base/yaml.h"
#include "eval/evaluate.h"
#include "tests/test_support.h"

namespace bise {
namespace {

std::vector<std::string> task_names(const TaskSelection& selection) {
  std::vector<std::string> names;
  for (const TaskConfig& task : selection.tasks) names.push_back(task.task);
  return names;
}

const TaskConfig& find(const TaskSelection& selection, const std::string& name) {
  return *std::ranges::find(selection.tasks, name, &TaskConfig::task);
}

TEST(TaskRegistry, EveryBuiltInNameStandsForTasks) {
  const TaskRegistry registry;
  for (const std::string& name : registry.names())
    EXPECT_FALSE(registry.select({name}).tasks.empty()) << name;
  struct Case {
    const char* name;
    std::size_t tasks;
  };
  for (const Case& test :
       {Case{"mmlu", 57}, Case{"mmlu_stem", 19}, Case{"mmlu_other", 13}, Case{"mmlu_social_sciences", 12},
        Case{"mmlu_humanities", 13}, Case{"mmlu_flan_cot_zeroshot", 57}, Case{"mmlu_flan_cot_fewshot", 57},
        Case{"leaderboard_bbh", 24}, Case{"leaderboard_gpqa", 3}, Case{"leaderboard_musr", 3},
        Case{"leaderboard_math_hard", 7}, Case{"mmlu_pro", 14}, Case{"truthfulqa", 2}, Case{"seed", 4},
        Case{"openllm_v1", 63}, Case{"openllm_v2", 39}, Case{"mmlu_c*", 9}, Case{"math500", 1}})
    EXPECT_EQ(registry.select({test.name}).tasks.size(), test.tasks) << test.name;
}

TEST(TaskRegistry, GroupsSetKeysOfTheirTasks) {
  const TaskSelection v1 = TaskRegistry().select({"openllm_v1"});
  EXPECT_EQ(find(v1, "arc_challenge").num_fewshot, 25);
  EXPECT_EQ(find(v1, "hellaswag").fewshot_split, "train");
  EXPECT_EQ(find(v1, "mmlu_virology").num_fewshot, 5);
  EXPECT_EQ(find(v1, "truthfulqa_mc2").num_fewshot, 0);
  const TaskSelection seed = TaskRegistry().select({"seed"});
  for (const TaskConfig& task : seed.tasks) {
    EXPECT_EQ(task.num_fewshot, 5);
    EXPECT_EQ(task.limit, 250);
  }
  EXPECT_TRUE(find(seed, "hellaswag").fewshot_split.empty()) << "alone it draws one example more";
}

TEST(TaskRegistry, OwnTasksOfTheCommonKinds) {
  const ScratchFolder scratch;
  write_file(
      scratch.path() / "rows.jsonl",
      "{\"q\": \"Is snow white?\", \"options\": [\"yes\", \"no\"], \"right\": 0, \"next\": \"It is.\"}\n");
  const std::string data =
      "dataset_path: json\ndataset_kwargs: {data_files: {test: rows.jsonl}}\ntest_split: test\n";
  write_file(scratch.path() / "base.yaml", data + "doc_to_text: \"{{q}}\"\nmetric_list: [{metric: acc}]\n");
  write_file(scratch.path() / "choice.yaml",
             "include: base.yaml\ntask: own_choice\ntag: own\noutput_type: multiple_choice\ndoc_to_choice: "
             "\"{{options}}\"\ndoc_to_target: right\n");
  write_file(
      scratch.path() / "likelihood.yaml",
      "include: base.yaml\ntask: own_likelihood\ntag: own\noutput_type: loglikelihood\ndoc_to_target: next\n"
      "metric_list: [{metric: perplexity}, {metric: acc}]\n");
  write_file(
      scratch.path() / "text.yaml",
      "include: base.yaml\ntask: own_text\ntag: own\noutput_type: generate_until\ndoc_to_target: next\n"
      "generation_kwargs: {until: [\"\\n\"], max_gen_toks: 4}\nmetric_list: [{metric: exact_match}]\n");
  write_file(scratch.path() / "group.yaml", "group: own_group\ntask: [own]\n");
  TaskRegistry registry;
  registry.add_folder(scratch.path());
  EXPECT_EQ(task_names(registry.select({"own_group"})),
            (std::vector<std::string>{"own_choice", "own_likelihood", "own_text"}));
  EvaluationOptions options;
  const auto tasks = prepare_tasks(registry.select({"own"}).tasks, options);
  EXPECT_EQ(tasks[0].samples[0].continuations, (std::vector<std::string>{" yes", " no"}));
  EXPECT_EQ(tasks[1].samples[0].continuations, (std::vector<std::string>{" It is."}));
  EXPECT_EQ(tasks[2].samples[0].contexts, (std::vector<std::string>{"Is snow white?"}));
}

TEST(TaskRegistry, BadFilesAreErrorsThatNameThem) {
  struct Case {
    std::string yaml, message;
  };
  const Case cases[] = {
      {"task: t\ndataset_path: d\ntest_split: test\nmetric_list: [{metric: acc}]\nno_such_key: 1\n",
       "no_such_key"},
      {"task: t\ndataset_path: d\nmetric_list: [{metric: acc}]\n", "test_split"},
      {"task: t\ndataset_path: d\ntest_split: test\noutput_type: images\nmetric_list: []\n", "output_type"},
      {"task: t\ndataset_path: d\ntest_split: test\noutput_type: multiple_choice\nmetric_list: []\n",
       "doc_to_choice"},
      {"task: t\ndataset_path: d\ntest_split: test\nmetric_list: [{metric: m, aggregation: odd}]\n",
       "aggregation"},
      {"task: t\ninclude: absent.yaml\n", "absent.yaml"},
      {"task: t\ninclude: own.yaml\n", "without end"},
      {"task: [unclosed\n", "own.yaml"},
      {"group: g\ntask: [no_such_task]\n", "no_such_task"},
      {"group: g\ntask: [g]\n", "no tasks"},
  };
  for (const Case& test : cases) {
    const ScratchFolder scratch;
    write_file(scratch.path() / "own.yaml", test.yaml);
    std::string message = "no error";
    try {
      TaskRegistry registry;
      registry.add_folder(scratch.path());
      registry.select({test.yaml.starts_with("group") ? "g" : "t"});
    } catch (const Error& error) {
      message = error.what();
    }
    EXPECT_NE(message.find(test.message), std::string::npos) << test.yaml << "gave: " << message;
  }
}

TEST(TaskRegistryFuzz, AcceptsOrThrowsError) {
  std::vector<std::string> seeds;
  for (const auto& [name, text] : builtin_task_files()) seeds.push_back(text);
  std::mt19937 random(20261121);
  const Stopwatch watch;
  for (int i = 0; i < 500 && watch.seconds() < 2; ++i) {
    const ScratchFolder scratch;
    std::string text = seeds[random() % seeds.size()];
    for (unsigned edits = 1 + random() % 4; edits > 0 && !text.empty(); --edits) {
      const std::size_t at = random() % text.size();
      switch (random() % 3) {
        case 0: text.erase(at, 1 + random() % 8); break;
        case 1: text.insert(at, text.substr(random() % text.size(), random() % 16)); break;
        default: text[at] = static_cast<char>(random() % 256); break;
      }
    }
    write_file(scratch.path() / "own.yaml", text);
    try {
      TaskRegistry registry;
      registry.add_folder(scratch.path());
      registry.select(registry.names());
    } catch (const Error&) {
    }
  }
}

}  // namespace
}  // namespace bise
