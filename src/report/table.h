// Tables for the terminal, for Markdown and for HTML, from the same cells.
#pragma once

#include <string>
#include <vector>

#include "report/result.h"

namespace bise {

struct Table {
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;
  // Columns from this one on hold numbers and are aligned to the right.
  std::size_t first_number_column = 1;
};

// Aligned columns, two spaces apart; widths count code points.
std::string terminal_table(const Table& table);
std::string markdown_table(const Table& table);

// One row a model: scheme, disk, memory, speed, perplexity, divergence, agreement; "-" where not measured.
Table comparison_table(const Comparison& comparison);

}  // namespace bise
