#include "report/chart.h"

#include <fmt/format.h>

#include <algorithm>

#include "report/html.h"

namespace bise {
namespace {

constexpr int kWidth = 460, kLabelWidth = 110, kNumberWidth = 70, kBarHeight = 22, kGap = 8;
constexpr int kBarSpace = kWidth - kLabelWidth - kNumberWidth;

}  // namespace

std::string bar_chart_svg(const BarChart& chart) {
  double largest = 0;
  for (const Bar& bar : chart.bars) largest = std::max(largest, bar.value.value_or(0));
  const auto count = static_cast<int>(chart.bars.size());
  std::string svg = fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n", kWidth,
                                count * (kBarHeight + kGap), escape_html(chart.title));
  int y = 0;
  for (const Bar& bar : chart.bars) {
    const double share = bar.value && largest > 0 ? *bar.value / largest : 0;
    const double length = std::max(share * kBarSpace, bar.value ? 1.0 : 0.0);
    const int middle = y + kBarHeight / 2 + 4;
    svg += fmt::format("<text x=\"{}\" y=\"{}\" class=\"label\">{}</text>", kLabelWidth - 8, middle,
                       escape_html(bar.label));
    svg += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{:.1f}\" height=\"{}\" rx=\"3\" class=\"{}\"/>",
                       kLabelWidth, y, length, kBarHeight, &bar == &chart.bars.front() ? "first" : "bar");
    const std::string number = bar.value ? fmt::format("{:.{}f}", *bar.value, chart.decimals) : "-";
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{}\" class=\"number\">{}</text>\n", kLabelWidth + length + 6,
                       middle, number);
    y += kBarHeight + kGap;
  }
  return svg + "</svg>\n";
}

}  // namespace bise
