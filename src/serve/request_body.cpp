#include "serve/request_body.h"

#include <fmt/format.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <vector>

#include "serve/api_error.h"

namespace bise {
namespace {

// Building an object of n members compares n * n / 2 names (Json keeps their order): this many in one body
// take about a second.
constexpr std::uint64_t kMaxNameComparisons = 100'000'000;

constexpr std::size_t kMaxDetail = 300;  // of the parser's message, which quotes the text

// Looks at the brackets and commas outside strings; invalid JSON passes and fails in the parser.
void check_shape(std::string_view text) {
  std::vector<std::uint64_t> commas;  // of each open container; arrays count nothing
  std::vector<char> open;
  std::uint64_t comparisons = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    switch (text[i]) {
      case '"':
        for (++i; i < text.size() && text[i] != '"'; ++i)
          if (text[i] == '\\') ++i;
        break;
      case '{':
      case '[':
        if (open.size() >= kMaxBodyNesting)
          throw validation_error(fmt::format("JSON is nested deeper than {} levels", kMaxBodyNesting),
                                 "body");
        open.push_back(text[i]);
        commas.push_back(0);
        break;
      case ',':
        if (!open.empty() && open.back() == '{') comparisons += ++commas.back();
        if (comparisons > kMaxNameComparisons)
          throw validation_error("JSON has objects with too many members", "body");
        break;
      case '}':
      case ']':
        if (open.empty()) return;
        open.pop_back();
        commas.pop_back();
        break;
      default: break;
    }
  }
}

bool is_json_type(std::string_view type) {
  type = type.substr(0, type.find(';'));
  while (type.ends_with(' ')) type.remove_suffix(1);
  return equal_ignoring_case(type, "application/json") ||
         (type.size() > 5 && equal_ignoring_case(type.substr(type.size() - 5), "+json"));
}

}  // namespace

Json parse_request_body(const HttpRequest& request, std::string_view body) {
  const auto type = request.headers.find("content-type");
  if (!type || !is_json_type(*type))
    throw validation_error("Unsupported Media Type: only 'application/json' is allowed",
                           "header.content-type");
  check_shape(body);
  Json parsed;
  try {
    parsed = Json::parse(body.begin(), body.end());
  } catch (const Json::exception& problem) {
    // Without the "[json.exception.parse_error.101] " before it.
    std::string_view what = problem.what();
    if (const auto end = what.find("] "); end != std::string_view::npos) what.remove_prefix(end + 2);
    throw validation_error(fmt::format("JSON decode error: {}", what.substr(0, kMaxDetail)), "body");
  }
  if (!parsed.is_object())
    throw validation_error(fmt::format("Input should be an object (got {})", parsed.type_name()), "body");
  return parsed;
}

}  // namespace bise
