// The report page: one HTML file without any outside reference, with the comparison's table, charts and
// answers.
#pragma once

#include <string>
#include <string_view>

#include "report/chart.h"
#include "report/result.h"
#include "report/table.h"

namespace bise {

// `text` with & < > " ' replaced, for element content and attribute values.
std::string escape_html(std::string_view text);

// The parts of a page: a whole file around `body`; a table; a chart with its title.
std::string html_page(const std::string& title, const std::string& body);
std::string html_table(const Table& table);
std::string html_chart(const BarChart& chart);

std::string comparison_page(const Comparison& comparison);

}  // namespace bise
