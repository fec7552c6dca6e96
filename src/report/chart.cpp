#include "report/chart.h"

#include <fmt/format.h>

#include <algorithm>

#include "report/html.h"

namespace bise {
namespace {

constexpr int kWidth = 460, kNumberWidth = 70, kBarHeight = 22, kGap = 8;
constexpr int kLeastLabelWidth = 110, kMostLabelWidth = 220, kCharacterWidth = 7;

std::size_t characters(const std::string& text) {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

// Long names end in what tells them apart: the beginning gives way.
std::string fitted(std::string text) {
  const std::size_t most = (kMostLabelWidth - 8) / kCharacterWidth;
  if (characters(text) <= most) return text;
  while (characters(text) >= most) {
    text.erase(0, 1);
    while (!text.empty() && (static_cast<unsigned char>(text[0]) & 0xc0) == 0x80) text.erase(0, 1);
  }
  return "…" + text;
}

int label_width(const BarChart& chart) {
  std::size_t longest = 0;
  for (const Bar& bar : chart.bars) longest = std::max(longest, characters(bar.label));
  return std::clamp(static_cast<int>(longest) * kCharacterWidth + 8, kLeastLabelWidth, kMostLabelWidth);
}

}  // namespace

std::string bar_chart_svg(const BarChart& chart) {
  double largest = 0;
  for (const Bar& bar : chart.bars) largest = std::max(largest, bar.value.value_or(0));
  const auto count = static_cast<int>(chart.bars.size());
  std::string svg = fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n", kWidth,
                                count * (kBarHeight + kGap), escape_html(chart.title));
  const int label = label_width(chart), space = kWidth - label - kNumberWidth;
  int y = 0;
  for (const Bar& bar : chart.bars) {
    const double share = bar.value && largest > 0 ? *bar.value / largest : 0;
    const double length = std::max(share * space, bar.value ? 1.0 : 0.0);
    const int middle = y + kBarHeight / 2 + 4;
    svg += fmt::format("<text x=\"{}\" y=\"{}\" class=\"label\">{}</text>", label - 8, middle,
                       escape_html(fitted(bar.label)));
    svg += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{:.1f}\" height=\"{}\" rx=\"3\" class=\"{}\"/>",
                       label, y, length, kBarHeight, &bar == &chart.bars.front() ? "first" : "bar");
    const std::string number = bar.value ? fmt::format("{:.{}f}", *bar.value, chart.decimals) : "-";
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{}\" class=\"number\">{}</text>\n", label + length + 6, middle,
                       number);
    y += kBarHeight + kGap;
  }
  return svg + "</svg>\n";
}

std::string chart_file_svg(const std::vector<BarChart>& charts) {
  constexpr int kMargin = 16, kTitle = 40;
  int y = kMargin;
  std::string body;
  for (const BarChart& chart : charts) {
    const int height = static_cast<int>(chart.bars.size()) * (kBarHeight + kGap);
    body += fmt::format(
        "<text x=\"{0}\" y=\"{1}\" class=\"title\">{2}</text><text x=\"{0}\" y=\"{3}\" "
        "class=\"hint\">{4}</text>\n",
        kMargin, y + 13, escape_html(chart.title), y + 30, escape_html(chart.hint));
    y += kTitle;
    // A chart inside keeps its own coordinates.
    body += fmt::format("<svg x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"{}", kMargin, y, kWidth, height,
                        bar_chart_svg(chart).substr(4));
    y += height + kMargin;
  }
  return fmt::format(
             "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} "
             "{1}\">\n"
             "<style>text {{ fill: #1d2733; font: 12px sans-serif; }} .title {{ font-weight: bold; }} .hint "
             "{{ fill: "
             "#5b6b7c; }} .label {{ text-anchor: end; }} .bar {{ fill: #2f7fb8; }} .first {{ fill: #9aa8b6; "
             "}}"
             "</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
             kWidth + 2 * kMargin, y) +
         body + "</svg>\n";
}

}  // namespace bise
