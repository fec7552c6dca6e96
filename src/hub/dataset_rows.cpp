#include "hub/dataset_rows.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "hub/names.h"

namespace bise {
namespace {

constexpr std::int64_t kMostRows = std::int64_t{1} << 32;

const Json& require_list(const Json& object, const char* key, const std::string& where) {
  const Json& list = require(object, key, where);
  if (!list.is_array())
    throw Error("wrong type")
        .at(fmt::format("{}: key \"{}\"", where, key))
        .expected("a list")
        .got(list.type_name());
  return list;
}

}  // namespace

std::vector<DatasetSplit> parse_splits(std::string_view json, const std::string& where) {
  const Json answer = parse_json(json, where);
  std::vector<DatasetSplit> splits;
  for (const Json& entry : require_list(answer, "splits", where)) {
    splits.push_back({require_string(entry, "config", where), require_string(entry, "split", where)});
    // Both become names of files.
    require_safe_path(splits.back().split, where);
    require_safe_path(splits.back().config, where);
  }
  if (splits.empty()) throw Error("the data set has no splits").at(where);
  return splits;
}

RowsPage parse_rows_page(std::string_view json, std::uint64_t first, const std::string& where) {
  const Json answer = parse_json(json, where);
  RowsPage page;
  const std::int64_t total = require_int(answer, "num_rows_total", where);
  if (total < 0 || total > kMostRows)
    throw Error("the number of rows cannot be").at(where).got(std::to_string(total));
  page.total = static_cast<std::uint64_t>(total);
  if (find_bool(answer, "partial", false, where))
    throw Error("the rows API has only a part of this split").at(where).got(fmt::format("{} rows", total));
  for (const Json& entry : require_list(answer, "rows", where)) {
    const std::uint64_t expected = first + page.rows.size();
    const std::int64_t index = require_int(entry, "row_idx", where);
    const std::string place = fmt::format("{}: row {}", where, index);
    if (index < 0 || static_cast<std::uint64_t>(index) != expected || expected >= page.total)
      throw Error("another row than was asked for").at(place).expected(fmt::format("row {}", expected));
    const Json& row = require(entry, "row", place);
    if (!row.is_object()) throw Error("a row is not a JSON object").at(place).got(row.type_name());
    if (const auto cut = entry.find("truncated_cells"); cut != entry.end() && !cut->empty())
      throw Error("the rows API cut cells that are too long for it").at(place).got(cut->dump());
    page.rows.push_back(json_text(row));
  }
  return page;
}

}  // namespace bise
