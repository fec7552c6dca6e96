#include "cli/jsonl.h"

#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace bise {
namespace {

constexpr std::size_t kMaxLine = std::size_t{64} << 20;

}  // namespace

void for_each_jsonl(const std::string& path,
                    const std::function<void(const Json&, const std::string&)>& row) {
  std::ifstream file;
  if (path != "-") {
    file.open(path);
    if (!file) throw Error("cannot open").at(path);
  }
  std::istream& in = path == "-" ? std::cin : file;
  const std::string name = path == "-" ? "standard input" : path;
  std::string line;
  for (std::int64_t number = 1; std::getline(in, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = name + ": line " + std::to_string(number);
    if (line.size() > kMaxLine) throw Error("line is longer than {} bytes", kMaxLine).at(where);
    const Json object = parse_json(line, where);
    if (!object.is_object()) throw Error("line is not a JSON object").at(where).got(object.type_name());
    row(object, where);
  }
}

std::vector<std::int32_t> read_token_ids(const Json& list, const std::string& where,
                                         std::int64_t vocab_size) {
  if (!list.is_array()) throw Error("wrong type").at(where).expected("a list of token ids");
  std::vector<std::int32_t> ids;
  for (const Json& id : list) {
    if (!id.is_number_integer() || id.get<std::int64_t>() < 0 || id.get<std::int64_t>() >= vocab_size)
      throw Error("not a token id")
          .at(where)
          .expected(fmt::format("0 to {}", vocab_size - 1))
          .got(id.dump().substr(0, 40));
    ids.push_back(id.get<std::int32_t>());
  }
  return ids;
}

void print_jsonl(const Json& object) {
  const std::string line = json_text(object) + "\n";
  std::fwrite(line.data(), 1, line.size(), stdout);
  std::fflush(stdout);
}

}  // namespace bise
