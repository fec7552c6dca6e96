#include "base/yaml.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "base/error.h"
#include "base/files.h"

namespace bise {
namespace {

constexpr int kMaxDepth = 64;
constexpr std::size_t kMaxValues = 100'000;
constexpr std::size_t kMaxFileBytes = std::size_t{4} << 20;

// true for "true", "True" and "TRUE", as YAML 1.1 spells its words.
bool is_word(const std::string& text, std::string_view lower) {
  if (text.size() != lower.size()) return false;
  std::string upper(lower), title(lower);
  for (char& c : upper) c = static_cast<char>(c - 'a' + 'A');
  title[0] = upper[0];
  return text == lower || text == upper || text == title;
}

std::optional<Json> as_integer(const std::string& text) {
  std::string digits;
  std::ranges::copy_if(text, std::back_inserter(digits), [](char c) { return c != '_'; });
  const bool negative = digits.starts_with('-');
  std::string_view rest = digits;
  if (negative || rest.starts_with('+')) rest.remove_prefix(1);
  if (rest.empty() || rest[0] < '0' || rest[0] > '9') return std::nullopt;
  int base = 10;
  if (rest.starts_with("0x")) base = 16;
  if (rest.starts_with("0b")) base = 2;
  if (base != 10) {
    rest.remove_prefix(2);
  } else if (rest.size() > 1 && rest[0] == '0') {
    base = 8;  // YAML 1.1
  }
  std::int64_t value = 0;
  const auto [end, problem] = std::from_chars(rest.data(), rest.data() + rest.size(), value, base);
  if (problem != std::errc() || end != rest.data() + rest.size()) return std::nullopt;
  return Json(negative ? -value : value);
}

// YAML 1.1's floats have a point: "1e5" is a string there, which nobody means, so it counts as a number here.
std::optional<Json> as_float(const std::string& text) {
  std::string_view rest = text;
  const bool negative = rest.starts_with('-');
  if (negative || rest.starts_with('+')) rest.remove_prefix(1);
  if (is_word(std::string(rest.starts_with('.') ? rest.substr(1) : ""), "inf"))
    return Json(negative ? -std::numeric_limits<double>::infinity()
                         : std::numeric_limits<double>::infinity());
  if (rest.empty() || !((rest[0] >= '0' && rest[0] <= '9') || rest[0] == '.')) return std::nullopt;
  double value = 0;
  const auto [end, problem] = std::from_chars(rest.data(), rest.data() + rest.size(), value);
  if (problem != std::errc() || end != rest.data() + rest.size()) return std::nullopt;
  return Json(negative ? -value : value);
}

Json plain_scalar(const std::string& text) {
  if (text.empty() || text == "~" || is_word(text, "null")) return nullptr;
  for (const char* word : {"true", "yes", "on"})
    if (is_word(text, word)) return true;
  for (const char* word : {"false", "no", "off"})
    if (is_word(text, word)) return false;
  if (const auto integer = as_integer(text)) return *integer;
  if (const auto number = as_float(text)) return *number;
  return text;
}

class Converter {
 public:
  explicit Converter(std::string where) : where_(std::move(where)) {}

  Json convert(const YAML::Node& node, int depth) {
    // Aliases share nodes: a few lines can stand for billions of values.
    if (++values_ > kMaxValues) throw Error("YAML holds more than {} values", kMaxValues).at(where_);
    if (depth > kMaxDepth) throw Error("YAML is nested deeper than {} levels", kMaxDepth).at(where_);
    switch (node.Type()) {
      case YAML::NodeType::Undefined:
      case YAML::NodeType::Null: return nullptr;
      case YAML::NodeType::Scalar: return scalar(node);
      case YAML::NodeType::Sequence: {
        Json list = Json::array();
        for (const YAML::Node& item : node) list.push_back(convert(item, depth + 1));
        return list;
      }
      case YAML::NodeType::Map: return map(node, depth);
    }
    return nullptr;
  }

 private:
  // The parser tags plain scalars "?" and quoted ones "!".
  static Json scalar(const YAML::Node& node) {
    if (node.Tag() == "?" || node.Tag().empty()) return plain_scalar(node.Scalar());
    return node.Scalar();
  }

  Json map(const YAML::Node& node, int depth) {
    Json object = Json::object();
    for (const auto& entry : node) {
      if (!entry.first.IsScalar() && !entry.first.IsNull())
        throw Error("a key is neither a word nor a number").at(line(entry.first));
      const std::string key = entry.first.IsNull() ? "null" : entry.first.Scalar();
      if (object.contains(key)) throw Error("key \"{}\" stands twice", key).at(line(entry.first));
      object[key] = convert(entry.second, depth + 1);
    }
    return object;
  }

  std::string line(const YAML::Node& node) const {
    return fmt::format("{}: line {}", where_, node.Mark().line + 1);
  }

  std::string where_;
  std::size_t values_ = 0;
};

}  // namespace

Json parse_yaml(std::string_view text, const std::string& where) {
  try {
    return Converter(where).convert(YAML::Load(std::string(text)), 0);
  } catch (const YAML::Exception& problem) {
    throw Error("invalid YAML: {}", problem.what()).at(where);
  }
}

Json read_yaml_file(const std::filesystem::path& path) {
  return parse_yaml(read_file(path, kMaxFileBytes), path.string());
}

}  // namespace bise
