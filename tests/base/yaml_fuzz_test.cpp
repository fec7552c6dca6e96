// parse_yaml on mutated documents: a value or Error, nothing else, in bounded time.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "base/yaml.h"

namespace bise {
namespace {

std::string mutated(std::string text, std::mt19937& random) {
  static constexpr std::string_view kPieces[] = {"\n", "  ", ": ", "- ", "&a ", "*a", "[", "]", "{",  "}",
                                                 "'",  "\"", "|",  ">",  "!!",  "#",  "?", "%", "\t", "---"};
  for (unsigned edits = 1 + random() % 4; edits > 0; --edits) {
    const std::size_t at = text.empty() ? 0 : random() % text.size();
    switch (random() % 4) {
      case 0: text.insert(at, kPieces[random() % std::size(kPieces)]); break;
      case 1: text.erase(at, 1 + random() % 5); break;
      case 2:
        if (!text.empty()) text[at] = static_cast<char>(random() % 256);
        break;
      default: text += text.substr(at, random() % 30); break;
    }
  }
  return text;
}

TEST(YamlFuzz, AcceptsOrThrowsError) {
  const std::string seed =
      "model: m\nport: 8001\napi-key: [a, &k b]\nspeculative-config:\n  method: ngram\n  n: 0x5\n"
      "text: |\n  two\n  lines\nlist:\n- 1.5\n- *k\n- 'it''s'\n";
  ASSERT_NO_THROW(parse_yaml(seed, "seed"));
  std::mt19937 random(20261121);
  const Stopwatch watch;
  int accepted = 0, refused = 0;
  for (int i = 0; i < 20'000 && watch.seconds() < 2; ++i) {
    try {
      parse_yaml(mutated(seed, random), "fuzz");
      ++accepted;
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(accepted, 50);
  EXPECT_GT(refused, 50);
}

}  // namespace
}  // namespace bise
