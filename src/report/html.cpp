#include "report/html.h"

#include <fmt/format.h>

namespace bise {
namespace {

constexpr std::string_view kStyle = R"css(
:root { --ground: #ffffff; --ink: #1d2733; --soft: #5b6b7c; --line: #dde3ea; --bar: #2f7fb8; --first: #9aa8b6; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #141a21; --ink: #e6ebf0; --soft: #97a6b5; --line: #2b3642; --bar: #58a6dd; --first: #5d6c7b; }
}
body { background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; margin: 2.5rem auto;
       max-width: 62rem; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: .95rem; margin: 0; } p.soft, small { color: var(--soft); margin: 0 0 .6rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .4rem .6rem; text-align: right; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; } th:first-child, td:first-child, .words { text-align: left; }
.charts { display: grid; gap: 1.6rem 2.4rem; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); }
svg { display: block; width: 100%; } svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
svg .label { text-anchor: end; } svg .bar { fill: var(--bar); } svg .first { fill: var(--first); }
dt { font-weight: 600; margin-top: .8rem; } dd { margin: .1rem 0 0 1rem; white-space: pre-wrap; }
)css";

template <class Value>
std::string chart(const Comparison& comparison, std::string title, std::string hint, int decimals,
                  Value value) {
  BarChart chart{std::move(title), std::move(hint), decimals, {}};
  for (const ModelResult& model : comparison.models) chart.bars.push_back({model.scheme, value(model)});
  return html_chart(chart);
}

std::string charts(const Comparison& comparison) {
  const auto scaled = [](const auto& value, double factor) {
    return value ? std::optional<double>(static_cast<double>(*value) * factor) : std::nullopt;
  };
  std::string html = "<div class=\"charts\">\n";
  html += chart(comparison, "Size on disk, MB", "lower is better", 1,
                [](const ModelResult& m) { return std::optional(static_cast<double>(m.disk_bytes) / 1e6); });
  html += chart(comparison, "Peak memory, MB", "lower is better", 1,
                [&](const ModelResult& m) { return scaled(m.memory_bytes, 1e-6); });
  html += chart(comparison, "Prefill, tokens per second", "higher is better", 0,
                [](const ModelResult& m) { return m.prefill_tok_s; });
  html += chart(comparison, "Decode, tokens per second", "higher is better", 1,
                [](const ModelResult& m) { return m.decode_tok_s; });
  html += chart(comparison, "Perplexity", "lower is better", 3,
                [](const ModelResult& m) { return m.perplexity; });
  html += chart(comparison, "KL divergence to the original, nats per token", "lower is better", 4,
                [](const ModelResult& m) { return m.kl_divergence; });
  html += chart(comparison, "Same most likely token as the original, %", "higher is better", 1,
                [&](const ModelResult& m) { return scaled(m.top1_agreement, 100); });
  return html + "</div>\n";
}

std::string answers(const Comparison& comparison) {
  std::string html =
      "<h2>Answers</h2>\n<p class=\"soft\">Prompt: " + escape_html(comparison.prompt) + "</p>\n<dl>\n";
  for (const ModelResult& model : comparison.models)
    html += "<dt>" + escape_html(model.scheme) + "</dt><dd>" + escape_html(model.answer) + "</dd>\n";
  return html + "</dl>\n";
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string html_table(const Table& table) {
  const auto cell = [&](const char* tag, std::size_t column, const std::string& text) {
    const bool words = column > 0 && column < table.first_number_column;
    return fmt::format("<{0}{1}>{2}</{0}>", tag, words ? " class=\"words\"" : "", escape_html(text));
  };
  std::string html = "<div class=\"scroll\"><table><thead><tr>";
  for (std::size_t i = 0; i < table.header.size(); ++i) html += cell("th", i, table.header[i]);
  html += "</tr></thead><tbody>\n";
  for (const auto& row : table.rows) {
    html += "<tr>";
    for (std::size_t i = 0; i < row.size(); ++i) html += cell("td", i, row[i]);
    html += "</tr>\n";
  }
  return html + "</tbody></table></div>\n";
}

std::string html_chart(const BarChart& chart) {
  return fmt::format("<div><h3>{}</h3><small>{}</small>{}</div>\n", escape_html(chart.title),
                     escape_html(chart.hint), bar_chart_svg(chart));
}

std::string html_page(const std::string& title, const std::string& body) {
  return "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>bise: " +
         escape_html(title) + "</title>\n<style>" + std::string(kStyle) + "</style></head><body>\n" + body +
         "</body></html>\n";
}

std::string comparison_page(const Comparison& comparison) {
  const std::string name = comparison.models.empty() ? "no models" : comparison.models.front().name;
  std::string html;
  html += "<h1>" + escape_html(name) + " and its quantizations</h1>\n";
  if (!comparison.models.empty()) {
    const Environment& where = comparison.models.front().environment;
    html += fmt::format("<p class=\"soft\">{}; {}; bise {}</p>\n", escape_html(where.device),
                        escape_html(where.date), escape_html(where.commit));
  }
  html += html_table(comparison_table(comparison));
  html += fmt::format(
      "<p class=\"soft\">Speed: one sequence, {} prompt tokens and {} generated. Perplexity, divergence and "
      "agreement on {}. Memory is the peak resident memory of the process.</p>\n",
      comparison.prompt_tokens, comparison.output_tokens, escape_html(comparison.text));
  html += "<h2>Charts</h2>\n" + charts(comparison);
  if (!comparison.prompt.empty()) html += answers(comparison);
  return html_page(name, html);
}

}  // namespace bise
