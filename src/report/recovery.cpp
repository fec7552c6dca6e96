#include "report/recovery.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"

namespace bise {
namespace {

constexpr int kSchemaVersion = 1;
constexpr int kDeepestGroup = 8;

// What model cards print of a task, best first (spec/evaluation.md section 3, groups).
constexpr std::array kPrimary = {"acc_norm,none",
                                 "exact_match,strict-match",
                                 "acc,none",
                                 "prompt_level_strict_acc,none",
                                 "pass@1,create_test",
                                 "exact_match,none",
                                 "exact_match,custom-extract"};

struct NamedAverage {
  const char* name;
  std::vector<std::vector<std::string>> tasks;  // each the first of these that is there
};
const std::vector<NamedAverage> kAverages = {
    {"seed", {{"gsm8k"}, {"hellaswag"}, {"piqa"}, {"arc_easy"}}},
    {"OpenLLM v1",
     {{"mmlu"}, {"arc_challenge"}, {"gsm8k"}, {"hellaswag"}, {"winogrande"}, {"truthfulqa_mc2"}}},
    {"OpenLLM v2",
     {{"leaderboard_ifeval", "ifeval"},
      {"leaderboard_bbh"},
      {"leaderboard_math_hard", "math_hard"},
      {"leaderboard_gpqa", "gpqa"},
      {"leaderboard_musr", "musr"},
      {"leaderboard_mmlu_pro", "mmlu_pro"}}},
};

std::string primary_metric(const TaskScore& task) {
  for (const char* key : kPrimary)
    if (task.find(key)) return key;
  for (const MetricScore& metric : task.metrics)
    if (metric.higher_is_better) return metric.key();
  return task.metrics.empty() ? "" : task.metrics.front().key();
}

std::optional<double> recovery_of(double original, double value, bool higher_is_better) {
  if (!higher_is_better) std::swap(original, value);
  return original > 0 ? std::optional(100 * value / original) : std::nullopt;
}

// The original's and another run's values of the same samples.
struct Pairs {
  std::vector<double> original, other;
  std::string problem;
};

void add_pairs(const MetricScore& original, const MetricScore& other, Pairs& pairs) {
  for (const auto& [doc_id, sample] : original.samples) {
    const auto found = other.samples.find(doc_id);
    if (found == other.samples.end()) {
      pairs.problem = fmt::format("document {} is scored in one run only", doc_id);
      return;
    }
    if (!sample.doc_hash.empty() && !found->second.doc_hash.empty() &&
        sample.doc_hash != found->second.doc_hash) {
      pairs.problem = fmt::format("document {} is not the same in both runs", doc_id);
      return;
    }
    pairs.original.push_back(sample.value);
    pairs.other.push_back(found->second.value);
  }
  if (other.samples.size() > original.samples.size()) pairs.problem = "one run scored more documents";
}

// The samples of a task, or of all members of a group.
void collect_pairs(const EvalRun& original, const EvalRun& other, const std::string& task,
                   const std::string& key, int depth, Pairs& pairs) {
  const TaskScore* first = original.find(task);
  const TaskScore* second = other.find(task);
  if (!first || !second || depth > kDeepestGroup) {
    pairs.problem = "a member of the group is missing: " + task;
    return;
  }
  if (first->subtasks.empty()) {
    const MetricScore *a = first->find(key), *b = second->find(key);
    if (!a || !b || a->samples.empty() || b->samples.empty()) {
      pairs.problem =
          a && b && a->samples.empty() && b->samples.empty() ? "-" : "samples of " + task + " are missing";
      return;
    }
    return add_pairs(*a, *b, pairs);
  }
  for (const std::string& subtask : first->subtasks)
    if (pairs.problem.empty()) collect_pairs(original, other, subtask, key, depth + 1, pairs);
}

RecoveryCell original_cell(const MetricScore& metric) {
  return {metric.value, metric.standard_error, std::nullopt, std::nullopt, ""};
}

RecoveryCell make_cell(const std::vector<EvalRun>& runs, std::size_t run, const TaskScore& task,
                       const MetricScore& original) {
  RecoveryCell cell;
  const MetricScore* metric = runs[run].find(task.name)->find(original.key());
  if (!metric) return cell;
  cell = original_cell(*metric);
  cell.recovery = recovery_of(original.value, metric->value, original.higher_is_better);
  Pairs pairs;
  collect_pairs(runs[0], runs[run], task.name, original.key(), 0, pairs);
  if (!pairs.problem.empty()) {
    cell.no_test = pairs.problem == "-" ? "" : pairs.problem;
  } else if (!pairs.original.empty()) {
    cell.test = paired_test(pairs.original, pairs.other);
  }
  return cell;
}

void require_same_documents(const std::vector<EvalRun>& runs, const TaskScore& task) {
  for (const EvalRun& run : runs) {
    const TaskScore& other = *run.find(task.name);
    if (task.documents && other.documents && *task.documents != *other.documents)
      throw Error("the runs scored different numbers of documents of {}", task.name)
          .at(run.name)
          .expected(fmt::format("{} as in {}", *task.documents, runs[0].name))
          .got(std::to_string(*other.documents));
    if (task.shots && other.shots && *task.shots != *other.shots)
      throw Error("the runs had different numbers of examples for {}", task.name)
          .at(run.name)
          .expected(fmt::format("{} as in {}", *task.shots, runs[0].name))
          .got(std::to_string(*other.shots));
  }
}

const RecoveryRow* averaged_row(const Recovery& recovery, const std::string& task) {
  const auto found = std::ranges::find_if(
      recovery.rows, [&](const RecoveryRow& row) { return row.task == task && row.primary; });
  return found == recovery.rows.end() ? nullptr : &*found;
}

RecoveryAverage make_average(const std::string& name, const std::vector<const RecoveryRow*>& rows) {
  RecoveryAverage average;
  average.name = name;
  for (const RecoveryRow* row : rows) average.tasks.push_back(row->task);
  average.cells.resize(rows.front()->cells.size());
  for (std::size_t run = 0; run < average.cells.size(); ++run) {
    RecoveryCell& cell = average.cells[run];
    double sum = 0;
    std::vector<PairedTest> tests;
    bool all = true;
    for (const RecoveryRow* row : rows) {
      all &= row->cells[run].value.has_value();
      sum += row->cells[run].value.value_or(0);
      if (row->cells[run].test) tests.push_back(*row->cells[run].test);
    }
    if (!all) continue;
    cell.value = sum / static_cast<double>(rows.size());
    if (run == 0) continue;
    if (average.cells[0].value) cell.recovery = recovery_of(*average.cells[0].value, *cell.value, true);
    if (tests.size() == rows.size()) cell.test = mean_test(tests);
  }
  return average;
}

void add_averages(Recovery& recovery) {
  std::vector<const RecoveryRow*> all;
  for (const RecoveryRow& row : recovery.rows)
    if (row.averaged) all.push_back(&row);
  for (const NamedAverage& named : kAverages) {
    std::vector<const RecoveryRow*> rows;
    for (const auto& names : named.tasks) {
      const RecoveryRow* found = nullptr;
      for (const std::string& name : names)
        if (!found) found = averaged_row(recovery, name);
      if (found) rows.push_back(found);
    }
    // The average of everything would say the same once more.
    if (rows.size() == named.tasks.size() && rows.size() < all.size())
      recovery.averages.push_back(make_average(named.name, rows));
  }
  if (all.size() > 1) recovery.averages.push_back(make_average("average", all));
}

// The last part of a path or repository's name; with more of it where two runs would have the same.
std::vector<std::string> short_names(const std::vector<EvalRun>& runs) {
  std::vector<std::string> names;
  for (const EvalRun& run : runs) {
    std::string name = run.name;
    while (name.ends_with('/')) name.pop_back();
    names.push_back(name.substr(name.rfind('/') + 1));
  }
  for (std::size_t i = 0; i < names.size(); ++i)
    if (std::ranges::count(names, names[i]) > 1) names[i] = fmt::format("{} ({})", names[i], i + 1);
  return names;
}

Json cell_json(const RecoveryCell& cell) {
  Json json = Json::object();
  if (cell.value) json["value"] = *cell.value;
  if (cell.standard_error) json["standard_error"] = *cell.standard_error;
  if (cell.recovery) json["recovery_percent"] = *cell.recovery;
  if (cell.test)
    json["test"] = {{"method", cell.test->method},
                    {"samples", cell.test->samples},
                    {"difference", cell.test->difference},
                    {"standard_error", cell.test->standard_error},
                    {"p", cell.test->p}};
  if (cell.test && cell.test->method.starts_with("McNemar")) {
    json["test"]["gained"] = cell.test->gained;
    json["test"]["lost"] = cell.test->lost;
  }
  if (!cell.no_test.empty()) json["no_test"] = cell.no_test;
  return json;
}

Json cells_json(const std::vector<RecoveryCell>& cells) {
  Json json = Json::array();
  for (const RecoveryCell& cell : cells) json.push_back(cell_json(cell));
  return json;
}

}  // namespace

Recovery make_recovery(const std::vector<EvalRun>& runs) {
  Recovery recovery;
  recovery.names = short_names(runs);
  std::set<std::string> members, named;
  for (const TaskScore& task : runs[0].tasks) members.insert(task.subtasks.begin(), task.subtasks.end());
  for (const TaskScore& task : runs[0].tasks) {
    if (!std::ranges::all_of(runs, [&](const EvalRun& run) { return run.find(task.name); })) continue;
    require_same_documents(runs, task);
    named.insert(task.name);
    const std::string primary = primary_metric(task);
    for (const MetricScore& metric : task.metrics) {
      RecoveryRow row{task.name,
                      task.alias,
                      metric.metric,
                      metric.filter,
                      task.shots,
                      task.documents,
                      metric.higher_is_better,
                      metric.key() == primary,
                      false,
                      {}};
      row.averaged = row.primary && row.higher_is_better && !members.contains(task.name);
      row.cells.push_back(original_cell(metric));
      for (std::size_t run = 1; run < runs.size(); ++run)
        row.cells.push_back(make_cell(runs, run, task, metric));
      recovery.rows.push_back(std::move(row));
    }
  }
  for (const EvalRun& run : runs)
    for (const TaskScore& task : run.tasks)
      if (!named.contains(task.name) &&
          std::ranges::find(recovery.left_out, task.name) == recovery.left_out.end())
        recovery.left_out.push_back(task.name);
  if (recovery.rows.empty())
    throw Error("the runs have no task in common")
        .at(runs.back().name)
        .expected("tasks of " + runs[0].name)
        .got(fmt::format("{}", fmt::join(recovery.left_out, ", ")));
  add_averages(recovery);
  return recovery;
}

Json to_json(const Recovery& recovery) {
  Json json = {{"schema_version", kSchemaVersion}, {"kind", "recovery"},
               {"runs", recovery.names},           {"tasks", Json::array()},
               {"averages", Json::array()},        {"left_out", recovery.left_out}};
  for (const RecoveryRow& row : recovery.rows) {
    Json entry = {{"task", row.task}, {"alias", row.alias}, {"metric", row.metric}, {"filter", row.filter}};
    if (row.shots) entry["num_fewshot"] = *row.shots;
    if (row.documents) entry["documents"] = *row.documents;
    entry["higher_is_better"] = row.higher_is_better;
    entry["primary"] = row.primary;
    entry["averaged"] = row.averaged;
    entry["scores"] = cells_json(row.cells);
    json["tasks"].push_back(std::move(entry));
  }
  for (const RecoveryAverage& average : recovery.averages)
    json["averages"].push_back(
        {{"name", average.name}, {"tasks", average.tasks}, {"scores", cells_json(average.cells)}});
  return json;
}

}  // namespace bise
