// The report page: one HTML file without any outside reference, with the comparison's table, charts and
// answers.
#pragma once

#include <string>
#include <string_view>

#include "report/result.h"

namespace bise {

// `text` with & < > " ' replaced, for element content and attribute values.
std::string escape_html(std::string_view text);

std::string comparison_page(const Comparison& comparison);

}  // namespace bise
