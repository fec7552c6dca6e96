// Prompts on real data against the hashes lm-evaluation-harness 0.4.13 gave: spec/evaluation_golden.txt,
// section B, and the sample files of golden/lm_eval.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/digest.h"
#include "base/files.h"
#include "eval/evaluate.h"
#include "eval/task_registry.h"
#include "tests/test_support.h"

namespace bise {
namespace {

namespace fs = std::filesystem;

struct Golden {
  std::string task, limit, first, all;
  std::int64_t shots = 0;
};

// "gsm8k shots=5 limit=250 chat=- N=250 doc0=... last=... all=..." of the section on real files.
std::vector<Golden> read_goldens(const fs::path& path) {
  std::ifstream file(path);
  std::vector<Golden> goldens;
  bool in_section = false;
  for (std::string line; std::getline(file, line);) {
    if (line.size() > 4 && line.starts_with("## ") && line[4] == '.') in_section = line[3] == 'B';
    if (!in_section || line.empty() || line.starts_with("#")) continue;
    std::istringstream words(line);
    Golden golden;
    words >> golden.task;
    std::map<std::string, std::string> values;
    for (std::string word; words >> word;)
      if (const std::size_t equals = word.find('='); equals != std::string::npos)
        values[word.substr(0, equals)] = word.substr(equals + 1);
    golden.limit = values["limit"], golden.first = values["doc0"], golden.all = values["all"];
    golden.shots = std::stoll(values["shots"]);
    goldens.push_back(golden);
  }
  return goldens;
}

// A data folder that also has the examples of gsm8k_cot.
void make_data_folder(const fs::path& folder, const fs::path& data, const fs::path& facts) {
  for (const auto& entry : fs::directory_iterator(data))
    fs::create_symlink(entry.path(), folder / entry.path().filename());
  std::string lines;
  const Json examples = read_json_file(facts)["gsm8k_cot"]["fewshot"];
  for (const Json& example : examples) lines += json_text(example) + "\n";
  fs::create_directories(folder / "gsm8k_cot");
  write_file(folder / "gsm8k_cot" / "fewshot.jsonl", lines);
}

TEST(PromptGoldens, HashesOfAllPrompts) {
  const fs::path golden = shared_path("spec/evaluation_golden.txt"), data = shared_path("data");
  BISE_SKIP_IF_ABSENT(golden, "spec/evaluation_golden.txt");
  BISE_SKIP_IF_ABSENT(data, "the folder of data sets");
  const ScratchFolder scratch;
  make_data_folder(scratch.path(), data, shared_path("spec/evaluation_tasks.json"));
  const std::vector<Golden> goldens = read_goldens(golden);
  ASSERT_EQ(goldens.size(), 28u);
  for (const Golden& test : goldens) {
    EvaluationOptions options;
    options.data_dir = scratch.path();
    options.num_fewshot = test.shots;
    options.limit = test.limit == "None" ? 0 : std::stod(test.limit);
    const TaskResult task = prepare_tasks(TaskRegistry().select({test.task}).tasks, options).front();
    std::string all;
    for (const Sample& sample : task.samples) {
      if (sample.continuations.empty()) all += sample.contexts[0];
      for (std::size_t i = 0; i < sample.continuations.size(); ++i)
        all += sample.context(i) + sample.continuations[i];
    }
    EXPECT_EQ(sha256_hex(task.samples[0].contexts[0]).substr(0, 16), test.first) << test.task;
    EXPECT_EQ(sha256_hex(all).substr(0, 16), test.all) << test.task << " " << test.limit;
  }
}

TEST(PromptGoldens, EverySampleOfTheReferenceRuns) {
  struct Case {
    std::string task;
    std::int64_t shots;
  };
  for (const auto& [name, shots] : {Case{"arc_easy", 0}, Case{"arc_easy", 5}, Case{"piqa", 0},
                                    Case{"piqa", 5}, Case{"hellaswag", 0}, Case{"gsm8k", 5}}) {
    const fs::path golden =
        shared_path("golden/lm_eval/samples_" + name + "_" + std::to_string(shots) + "shot.jsonl");
    BISE_SKIP_IF_ABSENT(golden, "golden/lm_eval");
    EvaluationOptions options;
    options.data_dir = shared_path("data");
    options.num_fewshot = shots;
    options.limit = 200;
    const TaskResult task = prepare_tasks(TaskRegistry().select({name}).tasks, options).front();
    std::ifstream lines(golden);
    std::size_t seen = 0;
    for (std::string line; std::getline(lines, line); ++seen) {
      const Json expected = parse_json(line, golden.string());
      const Sample& sample = task.samples.at(expected["doc_id"].get<std::size_t>());
      const Json& arguments = expected["arguments"];
      for (std::size_t i = 0; i < arguments.size(); ++i) {
        ASSERT_EQ(sample.context(i), arguments[i][0].get<std::string>())
            << name << " document " << sample.doc_id;
        if (sample.continuations.empty()) continue;  // a generated answer
        ASSERT_EQ(sample.continuations.at(i), arguments[i][1].get<std::string>());
      }
      EXPECT_EQ(sha256_hex(json_text(*sample.document.row, 2)), expected["doc_hash"].get<std::string>())
          << name;
    }
    EXPECT_GE(seen, 80u);
  }
}

}  // namespace
}  // namespace bise
