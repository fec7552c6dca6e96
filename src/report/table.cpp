#include "report/table.h"

#include <fmt/format.h>

#include <algorithm>

namespace bise {
namespace {

// Code points, which is what a terminal shows one cell each for the text in our tables.
std::size_t width_of(const std::string& text) {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

std::string padded(const std::string& text, std::size_t width, bool right) {
  const std::string space(width - std::min(width, width_of(text)), ' ');
  return right ? space + text : text + space;
}

std::vector<std::size_t> column_widths(const Table& table) {
  std::vector<std::size_t> widths;
  for (const std::string& cell : table.header) widths.push_back(width_of(cell));
  for (const auto& row : table.rows)
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width_of(row[i]));
  return widths;
}

template <class Number>
std::string cell(const std::optional<Number>& value, const char* format, double factor = 1) {
  return value ? fmt::format(fmt::runtime(format), static_cast<double>(*value) * factor) : "-";
}

}  // namespace

std::string terminal_table(const Table& table) {
  const std::vector<std::size_t> widths = column_widths(table);
  std::string text;
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string out;
    for (std::size_t i = 0; i < cells.size(); ++i)
      out += (i ? "  " : "") + padded(cells[i], widths[i], i >= table.first_number_column);
    out.erase(out.find_last_not_of(' ') + 1);
    text += out + "\n";
  };
  line(table.header);
  std::vector<std::string> rule;
  for (const std::size_t width : widths) rule.emplace_back(width, '-');
  line(rule);
  for (const auto& row : table.rows) line(row);
  return text;
}

std::string markdown_table(const Table& table) {
  std::string text = "|";
  for (const std::string& cell : table.header) text += " " + cell + " |";
  text += "\n|";
  for (std::size_t i = 0; i < table.header.size(); ++i)
    text += i >= table.first_number_column ? "---:|" : "---|";
  text += "\n";
  for (const auto& row : table.rows) {
    text += "|";
    for (const std::string& cell : row) text += " " + cell + " |";
    text += "\n";
  }
  return text;
}

Table comparison_table(const Comparison& comparison) {
  Table table;
  table.header = {"scheme",       "disk MB",    "memory MB",     "prefill tok/s",
                  "decode tok/s", "perplexity", "KL divergence", "same top-1 %"};
  for (const ModelResult& model : comparison.models) {
    table.rows.push_back({model.scheme, fmt::format("{:.1f}", static_cast<double>(model.disk_bytes) / 1e6),
                          cell(model.memory_bytes, "{:.1f}", 1e-6), cell(model.prefill_tok_s, "{:.0f}"),
                          cell(model.decode_tok_s, "{:.1f}"), cell(model.perplexity, "{:.3f}"),
                          cell(model.kl_divergence, "{:.4f}"), cell(model.top1_agreement, "{:.1f}", 100)});
  }
  return table;
}

}  // namespace bise
