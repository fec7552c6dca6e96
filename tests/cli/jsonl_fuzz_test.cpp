// Mutated JSON lines through the reader and the request parser: only success or Error, in bounded time.
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "base/error.h"
#include "cli/jsonl.h"
#include "cli/text_request.h"
#include "tests/test_support.h"

namespace bise {
namespace {

const std::string kSeed =
    R"({"prompt": "Hello", "max_tokens": 5, "temperature": 0.5, "stop": ["a", "b"], "seed": 7})"
    "\n\n"
    R"({"messages": [{"role": "user", "content": "Hi \u00e9 \ud83d\ude00"}], "top_p": 0.9, "top_k": 4})"
    "\n"
    R"({"token_ids": [1, 2, 3], "stop_token_ids": [2], "ignore_eos": true, "min_p": 0.1, "stop": null})"
    "\n";

std::string mutated(std::mt19937& random) {
  std::string text = kSeed;
  const int edits = 1 + static_cast<int>(random() % 4);
  for (int i = 0; i < edits && !text.empty(); ++i) {
    const std::size_t at = random() % text.size();
    switch (random() % 5) {
      case 0: text[at] = static_cast<char>(text[at] ^ (1 << (random() % 8))); break;
      case 1: text.resize(at); break;
      case 2: text.insert(at, text.substr(random() % text.size(), random() % 20)); break;
      case 3: text.erase(at, random() % 10); break;
      case 4: text.insert(at, std::string(1 + random() % 300, "[{\"9-"[random() % 5])); break;
    }
  }
  return text;
}

TEST(JsonlFuzz, OnlySuccessOrError) {
  BISE_SKIP_IF_ABSENT(smollm2_path(), "build/models/smollm2");
  const auto tokenizer = Tokenizer::load(smollm2_path());
  MessageEncoder encoder(*tokenizer, smollm2_path());
  const ScratchFolder scratch;
  const std::string path = scratch.path() / "rows.jsonl";
  std::mt19937 random(1);
  int accepted = 0, refused = 0;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(3);
  for (int round = 0; round < 20'000 && std::chrono::steady_clock::now() < end; ++round) {
    std::ofstream(path, std::ios::binary) << (round == 0 ? kSeed : mutated(random));
    try {
      for_each_jsonl(path, [&](const Json& row, const std::string& where) {
        parse_text_request(row, where, {}, *tokenizer, encoder);
        ++accepted;
      });
    } catch (const Error& error) {
      EXPECT_STRNE(error.what(), "");
      ++refused;
    }
  }
  EXPECT_GE(accepted, 3);
  EXPECT_GT(refused, 10);
}

}  // namespace
}  // namespace bise
