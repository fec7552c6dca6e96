#include "eval/dataset.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string_view>

#include "base/error.h"
#include "base/files.h"

namespace bise {

std::vector<Json> load_rows(const std::filesystem::path& path) {
  const std::string text = read_file(path);
  std::vector<Json> rows;
  std::size_t number = 0;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = text.find('\n', at);
    if (end == std::string::npos) end = text.size();
    const std::string_view line = std::string_view(text).substr(at, end - at);
    ++number;
    at = end + 1;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = fmt::format("{}: line {}", path.string(), number);
    rows.push_back(parse_json(line, where));
    if (!rows.back().is_object()) throw Error("a row is not a JSON object").at(where);
  }
  if (rows.empty()) throw Error("the split has no rows").at(path.string());
  return rows;
}

std::vector<Json> load_split(const std::filesystem::path& data_dir, const std::string& dataset,
                             const std::string& split) {
  const std::filesystem::path path = data_dir / dataset / (split + ".jsonl");
  if (!std::filesystem::is_regular_file(path))
    throw Error("the data set \"{}\" has no split \"{}\" here; get it with: bise download --dataset {} -o {}",
                dataset, split, dataset, (data_dir / dataset).string())
        .at(path.string());
  return load_rows(path);
}

}  // namespace bise
