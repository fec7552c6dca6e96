// The tables, charts and pages of a recovery.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "report/chart.h"
#include "report/html.h"
#include "report/recovery.h"

namespace bise {
namespace {

constexpr double kSignificant = 0.05;
constexpr const char* kNothing = "-";

// As model cards write them.
std::string title_of(const RecoveryRow& row) {
  static constexpr std::array kTitles = {std::pair{"gsm8k", "GSM8K"},
                                         std::pair{"gsm8k_cot", "GSM8K CoT"},
                                         std::pair{"hellaswag", "HellaSwag"},
                                         std::pair{"piqa", "PIQA"},
                                         std::pair{"arc_easy", "ARC-Easy"},
                                         std::pair{"arc_challenge", "ARC-C"},
                                         std::pair{"winogrande", "Winogrande"},
                                         std::pair{"truthfulqa_mc2", "TruthfulQA"},
                                         std::pair{"mmlu", "MMLU"},
                                         std::pair{"mmlu_pro", "MMLU-Pro"},
                                         std::pair{"humaneval", "HumanEval"},
                                         std::pair{"leaderboard_ifeval", "IFEval"},
                                         std::pair{"leaderboard_bbh", "BBH"},
                                         std::pair{"leaderboard_math_hard", "Math lvl 5"},
                                         std::pair{"leaderboard_gpqa", "GPQA"},
                                         std::pair{"leaderboard_musr", "MuSR"},
                                         std::pair{"leaderboard_mmlu_pro", "MMLU-Pro"}};
  for (const auto& [task, title] : kTitles)
    if (row.task == task) return title;
  return row.alias;
}

std::string metric_of(const RecoveryRow& row) {
  return row.filter == "none" || row.filter == "create_test" ? row.metric : row.filter;
}

std::string column_of(const RecoveryRow& row) {
  return title_of(row) + (row.shots ? fmt::format(" {}-shot", *row.shots) : "");
}

std::string number(const std::optional<double>& value, const char* format, double factor = 1) {
  return value ? fmt::format(fmt::runtime(format), *value * factor) : kNothing;
}

std::string percent_or_plain(const RecoveryRow& row, const std::optional<double>& value) {
  return row.higher_is_better ? number(value, "{:.2f}", 100) : number(value, "{:.4f}");
}

bool is_significant(const RecoveryCell& cell) {
  return cell.test && cell.test->p < kSignificant;
}

std::string p_text(const RecoveryCell& cell) {
  if (!cell.test) return kNothing;
  return cell.test->p < 0.0001 ? "< 0.0001" : fmt::format("{:.4f}", cell.test->p);
}

std::string recovery_text(const RecoveryCell& cell) {
  return number(cell.recovery, "{:.2f}") + (is_significant(cell) ? "*" : "");
}

// The columns of the cards' table: what is averaged, or all primary metrics where nothing is.
std::vector<const RecoveryRow*> card_rows(const Recovery& recovery) {
  std::vector<const RecoveryRow*> rows;
  for (const RecoveryRow& row : recovery.rows)
    if (row.averaged || (row.primary && !row.higher_is_better)) rows.push_back(&row);
  if (!rows.empty()) return rows;
  for (const RecoveryRow& row : recovery.rows)
    if (row.primary) rows.push_back(&row);
  return rows;
}

std::string methods_text(const Recovery& recovery) {
  std::vector<std::string> methods;
  for (const RecoveryRow& row : recovery.rows)
    for (const RecoveryCell& cell : row.cells)
      if (cell.test && std::ranges::find(methods, cell.test->method) == methods.end())
        methods.push_back(cell.test->method);
  return fmt::format("{}", fmt::join(methods, "; "));
}

std::vector<BarChart> recovery_charts(const Recovery& recovery) {
  std::vector<BarChart> charts;
  for (std::size_t run = 1; run < recovery.names.size(); ++run) {
    BarChart chart{"Recovery of " + recovery.names[run] + ", %", "100: as the original", 2, {}};
    for (const RecoveryAverage& average : recovery.averages)
      chart.bars.push_back({average.name, average.cells[run].recovery});
    for (const RecoveryRow* row : card_rows(recovery))
      chart.bars.push_back({title_of(*row), row->cells[run].recovery});
    charts.push_back(std::move(chart));
  }
  for (const RecoveryRow* row : card_rows(recovery)) {
    BarChart chart{column_of(*row) + " " + metric_of(*row),
                   row->higher_is_better ? "higher is better" : "lower is better",
                   row->higher_is_better ? 2 : 4,
                   {}};
    for (std::size_t run = 0; run < recovery.names.size(); ++run) {
      std::optional<double> value = row->cells[run].value;
      if (value && row->higher_is_better) *value *= 100;
      chart.bars.push_back({recovery.names[run], value});
    }
    charts.push_back(std::move(chart));
  }
  return charts;
}

}  // namespace

Table recovery_table(const Recovery& recovery) {
  Table table;
  table.header = {"model"};
  const auto rows = card_rows(recovery);
  for (const RecoveryRow* row : rows) table.header.push_back(column_of(*row) + " " + metric_of(*row));
  for (const RecoveryAverage& average : recovery.averages) table.header.push_back(average.name);
  for (std::size_t run = 0; run < recovery.names.size(); ++run) {
    std::vector<std::string> scores = {recovery.names[run]}, recoveries = {"recovery %"};
    for (const RecoveryRow* row : rows) {
      scores.push_back(percent_or_plain(*row, row->cells[run].value));
      recoveries.push_back(recovery_text(row->cells[run]));
    }
    for (const RecoveryAverage& average : recovery.averages) {
      scores.push_back(number(average.cells[run].value, "{:.2f}", 100));
      recoveries.push_back(recovery_text(average.cells[run]));
    }
    table.rows.push_back(std::move(scores));
    if (run > 0) table.rows.push_back(std::move(recoveries));
  }
  return table;
}

Table metrics_table(const Recovery& recovery) {
  Table table;
  table.header = {"model"};
  std::vector<std::vector<const RecoveryRow*>> tasks;
  for (const RecoveryRow& row : recovery.rows) {
    if (tasks.empty() || tasks.back().front()->task != row.task) tasks.emplace_back();
    tasks.back().push_back(&row);
  }
  for (const auto& rows : tasks) {
    std::vector<std::string> metrics;
    for (const RecoveryRow* row : rows) metrics.push_back(metric_of(*row));
    table.header.push_back(fmt::format("{} {}", column_of(*rows.front()), fmt::join(metrics, " / ")));
  }
  for (std::size_t run = 0; run < recovery.names.size(); ++run) {
    std::vector<std::string> cells = {recovery.names[run]};
    for (const auto& rows : tasks) {
      std::vector<std::string> values;
      for (const RecoveryRow* row : rows) values.push_back(number(row->cells[run].value, "{:.3f}"));
      cells.push_back(fmt::format("{}", fmt::join(values, " / ")));
    }
    table.rows.push_back(std::move(cells));
  }
  return table;
}

Table detail_table(const Recovery& recovery) {
  Table table;
  table.header = {"task",       "metric",     "model",         "score", "std. error",
                  "recovery %", "difference", "gained / lost", "p",     "documents"};
  table.first_number_column = 3;
  const auto add = [&](const std::string& task, const std::string& metric, std::size_t run,
                       const RecoveryCell& cell, const std::optional<std::int64_t>& documents) {
    const bool counts = cell.test && cell.test->method.starts_with("McNemar");
    table.rows.push_back(
        {run == 0 ? task : "", run == 0 ? metric : "", recovery.names[run], number(cell.value, "{:.4f}"),
         number(cell.standard_error, "{:.4f}"), recovery_text(cell),
         cell.test ? fmt::format("{:+.4f} ± {:.4f}", cell.test->difference, cell.test->standard_error)
                   : kNothing,
         counts ? fmt::format("{} / {}", cell.test->gained, cell.test->lost) : kNothing, p_text(cell),
         documents && run == 0 ? std::to_string(*documents) : ""});
  };
  for (const RecoveryRow& row : recovery.rows)
    for (std::size_t run = 0; run < row.cells.size(); ++run)
      add(column_of(row), metric_of(row), run, row.cells[run], row.documents);
  for (const RecoveryAverage& average : recovery.averages)
    for (std::size_t run = 0; run < average.cells.size(); ++run)
      add(average.name, fmt::format("{} tasks", average.tasks.size()), run, average.cells[run], std::nullopt);
  return table;
}

std::string recovery_notes(const Recovery& recovery) {
  std::string text = fmt::format(
      "Recovery is 100 x score / score of {} (the inverse where lower is better); that of an average is the "
      "quotient of the averages, in which each task counts the same.",
      recovery.names[0]);
  const std::string methods = methods_text(recovery);
  text += methods.empty()
              ? " No test: the runs have no samples files in common (--log-samples writes them)."
              : fmt::format(
                    " * marks differences with p < {}, two-sided, on the same samples ({}; averages: "
                    "normal, from the tasks' paired differences); p is not corrected for the number of "
                    "tasks. Gained / lost: answers right here only / in the original only.",
                    kSignificant, methods);
  for (const RecoveryRow& row : recovery.rows)
    for (std::size_t run = 0; run < row.cells.size(); ++run)
      if (!row.cells[run].no_test.empty() && row.primary)
        text +=
            fmt::format(" {}, {}: not tested, {}.", row.task, recovery.names[run], row.cells[run].no_test);
  if (!recovery.left_out.empty())
    text += fmt::format(" Left out, since not all runs have them: {}.", fmt::join(recovery.left_out, ", "));
  return text;
}

std::string recovery_markdown(const Recovery& recovery) {
  return fmt::format("# Recovery of {}\n\n{}\n{}\n\n## All metrics\n\n{}\n## Standard errors and tests\n\n{}",
                     recovery.names[0], markdown_table(recovery_table(recovery)), recovery_notes(recovery),
                     markdown_table(metrics_table(recovery)), markdown_table(detail_table(recovery)));
}

std::string recovery_page(const Recovery& recovery) {
  std::string body = "<h1>Recovery of " + escape_html(recovery.names[0]) + "</h1>\n";
  body += html_table(recovery_table(recovery));
  body += "<p class=\"soft\">" + escape_html(recovery_notes(recovery)) + "</p>\n<h2>Charts</h2>\n";
  body += "<div class=\"charts\">\n";
  for (const BarChart& chart : recovery_charts(recovery)) body += html_chart(chart);
  body += "</div>\n<h2>All metrics</h2>\n" + html_table(metrics_table(recovery));
  body += "<h2>Standard errors and tests</h2>\n" + html_table(detail_table(recovery));
  return html_page("recovery of " + recovery.names[0], body);
}

std::string recovery_svg(const Recovery& recovery) {
  return chart_file_svg(recovery_charts(recovery));
}

}  // namespace bise
