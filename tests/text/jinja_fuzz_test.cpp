// Mutated templates: whatever happens, it is a rendering or an Error, soon.
#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <random>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "tests/test_support.h"
#include "text/jinja/template.h"

namespace bise {
namespace {

std::string mutated(std::string text, const std::vector<std::string>& seeds, std::mt19937& random) {
  static constexpr std::string_view kPieces[] = {"{%",       "%}",
                                                 "{{",       "}}",
                                                 "{#",       "#}",
                                                 "-%}",      "(",
                                                 ")",        "[",
                                                 "]",        "|",
                                                 ".",        "'",
                                                 "\"",       "\\",
                                                 " if ",     " else ",
                                                 " for ",    " in ",
                                                 "range(9)", "**",
                                                 "//",       "~",
                                                 "loop",     "9999999999999999999",
                                                 "-1",       "\xff",
                                                 "é",        "\0x",
                                                 "endfor",   ":"};
  for (std::size_t count = 1 + random() % 4; count > 0 && !text.empty(); --count) {
    const std::size_t at = random() % text.size();
    switch (random() % 5) {
      case 0: text[at] = static_cast<char>(text[at] ^ (1 << random() % 8)); break;
      case 1: text.resize(at); break;
      case 2: text.erase(at, 1 + random() % 12); break;
      case 3: text.insert(at, kPieces[random() % std::size(kPieces)]); break;
      default: {
        const std::string& other = seeds[random() % seeds.size()];
        const std::size_t from = random() % other.size();
        text.insert(at, other, from, 1 + random() % 40);
      }
    }
  }
  return text;
}

TEST(JinjaFuzz, MutatedTemplatesRenderOrThrow) {
  const Json data = read_json_file(test_data("jinja/cases.json"));
  std::vector<std::string> seeds;
  for (const Json& entry : data["cases"]) {
    if (entry.contains("template")) seeds.push_back(entry["template"].get<std::string>());
  }
  for (const char* file : {"llama3_style", "mistral_style", "chatml_style"}) {
    seeds.push_back(read_file(test_data("jinja") / (std::string(file) + ".jinja")));
  }
  Json variables = data["variables"];
  variables.update(data["conversations"]["tools"]);
  std::vector<std::pair<std::string, jinja::Value>> values;
  for (const auto& [name, value] : variables.items())
    values.emplace_back(name, jinja::Value::from_json(value, false));

  std::mt19937 random(20261121);
  std::size_t rendered = 0, refused = 0;
  const auto stop = std::chrono::steady_clock::now() + std::chrono::seconds(2);
  for (int round = 0; round < 60000 && std::chrono::steady_clock::now() < stop; ++round) {
    const std::string source = mutated(seeds[random() % seeds.size()], seeds, random);
    try {
      jinja::Template(source, "fuzz").render(values, 0);
      ++rendered;
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(rendered, 0U);
  EXPECT_GT(refused, 0U);
}

}  // namespace
}  // namespace bise
