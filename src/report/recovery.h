// Recovery: how much of the original's scores a quantized model keeps. Recovery of a metric is 100 x
// quantized / original (original / quantized where lower is better); of an average, the quotient of the
// averages. Whether a difference is more than chance is tested on the same samples (report/paired_test.h).
// Plain values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "report/eval_results.h"
#include "report/paired_test.h"
#include "report/table.h"

namespace bise {

struct RecoveryCell {
  std::optional<double> value, standard_error;
  std::optional<double> recovery;  // percent; absent for the original and where it scored 0
  std::optional<PairedTest> test;  // absent for the original and without common samples
  std::string no_test;             // why, where a samples file was there
};

struct RecoveryRow {
  std::string task, alias, metric, filter;
  std::optional<std::int64_t> shots, documents;
  bool higher_is_better = true;
  bool primary = false;             // the metric that model cards print of the task
  bool averaged = false;            // counts in the average: primary, and not of a group's member
  std::vector<RecoveryCell> cells;  // a run each, the original first
};

struct RecoveryAverage {
  std::string name;                 // "average", "OpenLLM v1"
  std::vector<std::string> tasks;   // that it is over, each counting the same
  std::vector<RecoveryCell> cells;  // without standard_error
};

struct Recovery {
  std::vector<std::string> names;  // of the runs, all different
  std::vector<RecoveryRow> rows;   // tasks that all runs have
  std::vector<RecoveryAverage> averages;
  std::vector<std::string> left_out;  // tasks that some run lacks
};

// `runs`: the original first. Throws Error when they have no task in common, or scored another number of
// documents of one.
Recovery make_recovery(const std::vector<EvalRun>& runs);

Json to_json(const Recovery& recovery);

// The model cards' table: a row a model and below it its recovery; a column a task (its primary metric, in
// percent) and the averages.
Table recovery_table(const Recovery& recovery);
// A row a model, a column a task with all its metrics: "0.816 / 0.816".
Table metrics_table(const Recovery& recovery);
// A row a metric and model: score, standard error, recovery, difference, p.
Table detail_table(const Recovery& recovery);
// What the numbers mean, in sentences.
std::string recovery_notes(const Recovery& recovery);

std::string recovery_markdown(const Recovery& recovery);
std::string recovery_page(const Recovery& recovery);  // one HTML file
std::string recovery_svg(const Recovery& recovery);   // one SVG file: bars of the recovery by task

}  // namespace bise
