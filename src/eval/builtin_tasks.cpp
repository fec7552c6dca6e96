#include "eval/builtin_tasks.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "base/error.h"
#include "base/files.h"
#include "base/yaml.h"
#include "eval/dataset.h"
#include "eval/task_sources.h"

namespace bise {
namespace {

Json bbh_choices(const BbhTask& task) {
  Json choices = Json::array();
  for (int i = 0; i < task.letters; ++i) choices.push_back(fmt::format("({})", static_cast<char>('A' + i)));
  std::string_view rest = task.choices;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('|'), rest.size());
    choices.push_back(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return choices;
}

// The paper's prompt file: a mark line, the description, then three questions with their reasoning; an
// example is the question and what follows "So the answer is " (spec/evaluation.md section 3.1).
void read_bbh_prompt(const std::filesystem::path& path, Json& yaml) {
  const std::string text = read_file(path, std::size_t{1} << 20);
  const std::size_t mark = text.find("-----\n");
  std::size_t at = text.find("\n\nQ:");
  if (mark == std::string::npos || at == std::string::npos || at < mark + 6)
    throw Error("not a BIG-Bench-Hard prompt file").at(path.string());
  yaml["description"] = text.substr(mark + 6, at - mark - 6);
  Json samples = Json::array();
  while (at != std::string::npos) {
    const std::size_t next = text.find("\n\nQ:", at + 4);
    const std::string part = text.substr(at + 4, next == std::string::npos ? next : next - at - 4);
    const std::size_t answer = part.find("\nA:");
    constexpr std::string_view kMark = "So the answer is ";
    const std::size_t target = part.find(kMark);
    if (answer == std::string::npos || target == std::string::npos)
      throw Error("an example has no answer").at(path.string());
    std::string word = part.substr(target + kMark.size());
    while (!word.empty() && (word.back() == '\n' || word.back() == ' ')) word.pop_back();
    if (word.ends_with('.')) word.pop_back();
    samples.push_back(
        {{"input", part.substr(part.starts_with(' ') ? 1 : 0, answer - (part.starts_with(' ') ? 1 : 0))},
         {"target", word}});
    at = next;
  }
  yaml["fewshot_config"]["samples"] = std::move(samples);
}

std::string with_spaces(std::string_view name) {
  std::string text(name);
  std::ranges::replace(text, '_', ' ');
  return text;
}

TaskConfig mmlu_task(std::string_view subject) {
  Json yaml = parse_yaml(task_source("mmlu"), "mmlu");
  yaml["task"] = fmt::format("mmlu_{}", subject);
  yaml["task_alias"] = subject;
  yaml["dataset_path"] = "mmlu";
  yaml["dataset_name"] = subject;
  yaml["description"] = fmt::format(
      "The following are multiple choice questions (with answers) about {}.\n\n", with_spaces(subject));
  return parse_task(yaml, yaml["task"].get<std::string>());
}

TaskConfig bbh_task(const BbhTask& task, const std::filesystem::path& data_dir) {
  Json yaml = parse_yaml(task_source("bbh"), "bbh");
  yaml["task"] = fmt::format("leaderboard_bbh_{}", task.name);
  yaml["task_alias"] = fmt::format("leaderboard_bbh_{}", task.name);
  yaml["dataset_path"] = "bbh";
  yaml["dataset_name"] = task.name;
  yaml["doc_to_choice"] = bbh_choices(task);
  read_bbh_prompt(data_dir / "bbh" / "cot-prompts" / fmt::format("{}.txt", task.name), yaml);
  return parse_task(yaml, yaml["task"].get<std::string>());
}

TaskConfig plain_task(std::string_view source) {
  const Json yaml = parse_yaml(source, "built-in task");
  return parse_task(yaml, yaml["task"].get<std::string>());
}

// The eight worked examples of the paper stand in DATA/gsm8k_cot/fewshot.jsonl: {"question", "target"}.
TaskConfig gsm8k_cot_task(const std::filesystem::path& data_dir) {
  Json yaml = parse_yaml(task_source("gsm8k_cot"), "gsm8k_cot");
  yaml["fewshot_config"]["samples"] = load_split(data_dir, "gsm8k_cot", "fewshot");
  return parse_task(yaml, "gsm8k_cot");
}

TaskConfig arc_task(std::string_view name) {
  Json yaml = parse_yaml(task_source("arc"), "arc");
  yaml["task"] = name;
  yaml["dataset_path"] = name;
  return parse_task(yaml, std::string(name));
}

constexpr std::array<std::string_view, 4> kPlainTasks = {"gsm8k", "hellaswag", "piqa", "winogrande"};

bool is_plain(std::string_view name) {
  return std::ranges::find(kPlainTasks, name) != kPlainTasks.end();
}

// Names that stand for several tasks.
using TaskGroups = std::map<std::string, std::vector<std::string>>;

const TaskGroups& groups() {
  static const TaskGroups all = [] {
    TaskGroups groups;
    groups["seed"] = {"gsm8k", "hellaswag", "piqa", "arc_easy"};
    for (const std::string_view subject : mmlu_subjects())
      groups["mmlu"].push_back(fmt::format("mmlu_{}", subject));
    for (const BbhTask& task : bbh_tasks())
      groups["leaderboard_bbh"].push_back(fmt::format("leaderboard_bbh_{}", task.name));
    return groups;
  }();
  return all;
}

bool is_single(const std::string& name) {
  if (is_plain(name) || name == "arc_easy" || name == "arc_challenge" || name == "gsm8k_cot") return true;
  for (const auto& [group, members] : groups())
    if (std::ranges::find(members, name) != members.end()) return true;
  return false;
}

TaskConfig make_task(const std::string& name, const std::filesystem::path& data_dir) {
  if (is_plain(name)) return plain_task(task_source(name));
  if (name == "gsm8k_cot") return gsm8k_cot_task(data_dir);
  if (name.starts_with("arc_")) return arc_task(name);
  if (name.starts_with("mmlu_")) return mmlu_task(std::string_view(name).substr(5));
  const std::string_view subtask = std::string_view(name).substr(std::string_view("leaderboard_bbh_").size());
  return bbh_task(*std::ranges::find(bbh_tasks(), subtask, &BbhTask::name), data_dir);
}

}  // namespace

std::vector<std::string> builtin_task_names() {
  std::set<std::string> names = {"arc_easy", "arc_challenge", "gsm8k_cot"};
  for (const std::string_view name : kPlainTasks) names.emplace(name);
  for (const auto& [group, members] : groups()) {
    names.insert(group);
    names.insert(members.begin(), members.end());
  }
  return {names.begin(), names.end()};
}

std::vector<TaskConfig> find_tasks(const std::vector<std::string>& names,
                                   const std::filesystem::path& data_dir,
                                   const std::vector<TaskConfig>& own) {
  std::vector<std::string> singles, unknown;
  const auto is_own = [&](const std::string& name) {
    return std::ranges::find(own, name, &TaskConfig::task) != own.end();
  };
  const auto add = [&](const std::string& name) {
    if (std::ranges::find(singles, name) == singles.end()) singles.push_back(name);
  };
  for (const std::string& name : names) {
    if (is_own(name) || is_single(name)) {
      add(name);
    } else if (const auto group = groups().find(name); group != groups().end()) {
      for (const std::string& member : group->second) add(member);
    } else {
      unknown.push_back(name);
    }
  }
  if (!unknown.empty())
    throw Error("Tasks not found: {}", fmt::join(unknown, ", "))
        .expected("a name that `bise eval --list-tasks` prints");
  std::vector<TaskConfig> tasks;
  for (const std::string& name : singles)
    tasks.push_back(is_own(name) ? *std::ranges::find(own, name, &TaskConfig::task)
                                 : make_task(name, data_dir));
  return tasks;
}

}  // namespace bise
