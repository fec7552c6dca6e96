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

std::vector<Json> load_split(const std::filesystem::path& data_dir, const TaskConfig& task,
                             const std::string& split) {
  const std::filesystem::path path = data_dir / task.dataset / (split + ".jsonl");
  if (std::filesystem::is_regular_file(path)) return load_rows(path);
  throw Error(
      "the task {} needs the split \"{}\" of {}; get it with: bise download --dataset {} --data-dir {}",
      task.task, split, task.hub_path, task.dataset, data_dir.string())
      .at(path.string());
}

void require_text_file(const std::filesystem::path& data_dir, const std::string& file,
                       const std::string& task) {
  if (!std::filesystem::is_regular_file(data_dir / file))
    throw Error(
        "the task {} needs texts that do not come with bise; docs/evaluation.md says where {} comes from",
        task, file)
        .at((data_dir / file).string());
}

std::string load_text(const std::filesystem::path& data_dir, const std::string& file,
                      const std::string& task) {
  require_text_file(data_dir, file, task);
  return read_file(data_dir / file, std::size_t{1} << 20);
}

}  // namespace bise
