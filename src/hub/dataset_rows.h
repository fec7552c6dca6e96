// The answers of the hub's rows API (datasets-server): which splits a data set has, and pages of their rows.
// Pure functions; everything malformed is an Error that names `where`.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bise {

struct DatasetSplit {
  std::string config, split;
};
std::vector<DatasetSplit> parse_splits(std::string_view json, const std::string& where);

struct RowsPage {
  std::vector<std::string> rows;  // each a JSON object on one line, with its fields in their order
  std::uint64_t total = 0;        // rows of the split
};
// `first` is the number of the row that was asked for. Cells that the server cut, and splits of which it has
// a part only, are errors too.
RowsPage parse_rows_page(std::string_view json, std::uint64_t first, const std::string& where);

}  // namespace bise
