// The tables that lm-evaluation-harness prints (lm_eval/utils.py make_table, through pytablewriter).
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "eval/results.h"
#include "text/jinja/template.h"

namespace bise {
namespace {

using Row = std::vector<std::string>;

bool is_blank(const std::string& text) {
  return text.find_first_not_of(' ') == std::string::npos;
}

bool is_number(const std::string& text) {
  return !is_blank(text) && text.find_first_not_of("0123456789.-") == std::string::npos;
}

std::size_t width_of(const std::string& text) {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

// "0.7200" -> "0.72", "3.0" -> "3".
std::string trimmed(std::string number) {
  if (number.find('.') == std::string::npos) return number;
  while (number.back() == '0') number.pop_back();
  if (number.back() == '.') number.pop_back();
  return number;
}

std::size_t decimals(const std::string& number) {
  const std::size_t point = number.find('.');
  return point == std::string::npos ? 0 : number.size() - point - 1;
}

// All numbers of a column get the decimals that the longest needs. Returns whether it is one of numbers.
bool align_numbers(std::vector<Row>& rows, std::size_t column) {
  bool any = false;
  std::size_t most = 0;
  for (const Row& row : rows) {
    if (is_blank(row[column])) continue;
    if (!is_number(row[column])) return false;
    any = true;
    most = std::max(most, decimals(trimmed(row[column])));
  }
  for (Row& row : rows)
    if (!is_blank(row[column])) row[column] = fmt::format("{:.{}f}", std::stod(row[column]), most);
  return any;
}

std::string centered(const std::string& text, std::size_t width) {
  const std::size_t space = width - width_of(text), left = space / 2;
  return std::string(left, ' ') + text + std::string(space - left, ' ');
}

std::string markdown(const Row& header, std::vector<Row> rows) {
  std::string first = "|", rule = "|", text;
  std::vector<bool> numeric;
  std::vector<std::size_t> widths;
  for (std::size_t c = 0; c < header.size(); ++c) {
    numeric.push_back(align_numbers(rows, c));
    std::size_t width = std::max<std::size_t>(3, width_of(header[c]));
    for (const Row& row : rows) width = std::max(width, width_of(row[c]));
    widths.push_back(width);
    first += centered(header[c], width) + "|";
    rule += std::string(width - (numeric[c] ? 1 : 0), '-') + (numeric[c] ? ":|" : "|");
  }
  for (const Row& row : rows) {
    text += "|";
    for (std::size_t c = 0; c < row.size(); ++c) {
      const std::string space(widths[c] - width_of(row[c]), ' ');
      text += (numeric[c] ? space + row[c] : row[c] + space) + "|";
    }
    text += "\n";
  }
  return first + "\n" + rule + "\n" + text;
}

std::string cell_text(const Json& value) {
  if (value.is_number_float()) return fmt::format("{:.4f}", value.get<double>());
  return value.is_string() ? value.get<std::string>() : value.dump();
}

// One row a metric of `name`, in the order of the keys' text.
void add_rows(const Json& json, const std::string& column, const std::string& name, std::size_t depth,
              std::vector<Row>& rows) {
  const Json& results = json[column][name];
  std::string shown = results.value("alias", name);
  if (depth > 0) shown = std::string(depth, ' ') + "- " + shown;
  std::string version = json["versions"].contains(name) ? cell_text(json["versions"][name]) : "    N/A";
  const std::string shots = json["n-shot"].contains(name) ? json["n-shot"][name].dump() : " ";
  std::map<std::string, Json> metrics;
  for (const auto& [key, value] : results.items())
    if (key.find(',') != std::string::npos) metrics[key] = value;
  for (const auto& [key, value] : metrics) {
    const std::size_t comma = key.find(',');
    const std::string metric = key.substr(0, comma), filter = key.substr(comma + 1);
    if (metric.ends_with("_stderr")) continue;
    const auto higher = json["higher_is_better"].find(name);
    std::string arrow;
    if (higher != json["higher_is_better"].end() && higher->contains(metric) &&
        (*higher)[metric].is_boolean())
      arrow = (*higher)[metric] == true ? "↑" : "↓";
    const Json error =
        metrics.contains(metric + "_stderr," + filter) ? metrics[metric + "_stderr," + filter] : Json();
    rows.push_back({shown, version, filter, shots, metric, arrow, cell_text(value),
                    error.is_null() ? "" : "±",
                    error.is_null()  ? ""
                    : error == "N/A" ? "   N/A"
                                     : cell_text(error)});
    shown = version = "";
  }
}

// Groups from the outermost inwards, members by name; then tasks in no group.
std::string table(const Json& json, const std::string& column) {
  std::vector<Row> rows;
  std::set<std::string> shown, children;
  for (const auto& [group, members] : json["group_subtasks"].items())
    for (const Json& member : members) children.insert(member.get<std::string>());
  const auto visit = [&](const auto& self, const std::string& name, std::size_t depth) -> void {
    if (depth > 20) return;
    shown.insert(name);
    if (json[column].contains(name)) add_rows(json, column, name, depth, rows);
    if (!json["group_subtasks"].contains(name)) return;
    std::set<std::string> members;
    for (const Json& member : json["group_subtasks"][name]) members.insert(member.get<std::string>());
    for (const std::string& member : members) self(self, member, depth + 1);
  };
  std::set<std::string> roots, names;
  for (const auto& [group, members] : json["group_subtasks"].items())
    if (!children.contains(group)) roots.insert(group);
  for (const std::string& root : roots) visit(visit, root, 0);
  for (const auto& [name, results] : json[column].items()) names.insert(name);
  for (const std::string& name : names)
    if (!shown.contains(name)) add_rows(json, column, name, 0, rows);
  Row header = {column == "groups" ? "Groups" : "Tasks",
                "Version",
                "Filter",
                "n-shot",
                "Metric",
                "",
                "Value",
                "",
                "Stderr"};
  return rows.empty() ? "" : markdown(header, std::move(rows));
}

}  // namespace

std::string python_text(const Json& value) {
  return jinja::to_text(jinja::Value::from_json(value, true)).bytes();
}

std::string results_table(const Evaluation& evaluation) {
  const Json json = results_json(evaluation);
  const RunDescription& run = evaluation.run;
  const Json& config = json["config"];
  std::string text = fmt::format(
      "{} ({}), gen_kwargs: ({}), limit: {}, num_fewshot: {}, batch_size: {}\n", run.model,
      python_text(config["model_args"]), python_text(config["gen_kwargs"]), python_text(config["limit"]),
      evaluation.options.num_fewshot ? fmt::to_string(*evaluation.options.num_fewshot) : "None",
      run.batch_size);
  text += table(json, "results");
  if (json.contains("groups")) text += "\n" + table(json, "groups");
  return text;
}

}  // namespace bise
