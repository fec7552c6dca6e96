// Bar charts as SVG text, for the HTML report. Colours come from the page's CSS variables.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace bise {

struct Bar {
  std::string label;
  std::optional<double> value;  // no bar, and "-" instead of a number, when absent
};

struct BarChart {
  std::string title;  // with the unit: "Decode, tokens per second"
  std::string hint;   // "higher is better"
  int decimals = 0;
  std::vector<Bar> bars;  // the first is the original and is drawn in another colour
};

// One SVG file with charts below each other, readable by itself on a white ground.
std::string chart_file_svg(const std::vector<BarChart>& charts);

// Horizontal bars from zero, each with its label and its number.
std::string bar_chart_svg(const BarChart& chart);

}  // namespace bise
