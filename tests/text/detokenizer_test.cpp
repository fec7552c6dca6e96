#include "text/detokenizer.h"

#include <gtest/gtest.h>

#include <random>

#include "base/files.h"
#include "tests/test_support.h"
#include "tests/text/tiny_tokenizers.h"
#include "text/utf8.h"

namespace bise {
namespace {

using Ids = std::vector<std::int32_t>;

std::unique_ptr<Tokenizer> load_as(const std::string& name, const std::string& content) {
  const ScratchFolder folder;
  write_file(folder.path() / name, content);
  return Tokenizer::load_file(folder.path() / name);
}
std::unique_ptr<Tokenizer> byte_level() {
  return load_as("tokenizer.json", json_text(tiny::byte_level_json()));
}
std::unique_ptr<Tokenizer> metaspace() {
  return load_as("tokenizer.json", json_text(tiny::metaspace_json()));
}
std::unique_ptr<Tokenizer> tekken() {
  return load_as("tekken.json", json_text(tiny::tekken_json()));
}
std::unique_ptr<Tokenizer> sentencepiece() {
  return load_as("tokenizer.model", tiny::sentencepiece_model());
}

struct StreamCase {
  const char* name;
  std::unique_ptr<Tokenizer> (*tokenizer)();
  Ids ids;
  std::vector<std::string> texts;  // after each push, then after flush
  bool skip_special_tokens = true;
};

TEST(StreamDetokenizerTest, GivesWholeCharactersOnly) {
  const StreamCase cases[] = {
      {"plain", byte_level, {17, 13, 17}, {"ab", " ", "ab", ""}},
      {"a character in two tokens", byte_level, {15, 16, 2}, {"", "\xC3\xA9", "a", ""}},
      {"half a character, then a letter", byte_level, {15, 2}, {"", "\uFFFDa", ""}},
      {"half a character at the end", byte_level, {2, 15}, {"a", "", "\uFFFD"}},
      {"a lone tail", byte_level, {16, 2}, {"\uFFFD", "a", ""}},
      {"control tokens dropped", byte_level, {0, 2, 1}, {"", "a", "", ""}},
      {"control tokens kept", byte_level, {0, 2, 1}, {"<s>", "a", "<|end|>", ""}, false},
      {"ids outside the vocabulary", byte_level, {-1, 2, 24, 1 << 30}, {"", "a", "", "", ""}},
      {"the first space dropped", metaspace, {263, 263}, {"a", " a", ""}},
      {"one of two first spaces", metaspace, {266, 263}, {" ", " a", ""}},
      {"a dropped control token before it", metaspace, {1, 263}, {"", "a", ""}},
      {"bytes", metaspace, {259, 3 + 0xF0, 3 + 0x9F, 3 + 0x98, 3 + 0x80}, {"", "", "", "", "\U0001F600", ""}},
      {"bytes cut off by text",
       metaspace,
       {260, 3 + 0xE2, 3 + 0x82, 261},
       {"a", "", "", "\uFFFD\uFFFDb", ""}},
      {"bytes of an overlong form", metaspace, {3 + 0xC0, 3 + 0x80}, {"\uFFFD", "\uFFFD", ""}},
      {"tekken replaces maximal parts", tekken, {20 + 0xE2, 20 + 0x82, 20 + 'a'}, {"", "", "\uFFFDa", ""}},
      {"tekken control tokens end a character",
       tekken,
       {20 + 0xC3, 3, 20 + 0xA9},
       {"", "\uFFFD[INST]", "\uFFFD", ""},
       false},
      {"dropped ones too", tekken, {20 + 0xC3, 3, 20 + 0xA9}, {"", "\uFFFD", "\uFFFD", ""}},
      {"but not in tokenizer.json", byte_level, {15, 0, 16}, {"", "", "\xC3\xA9", ""}},
      {"sentencepiece", sentencepiece, {1, 265, 264, 3, 260}, {"", "ab", " a", "", " ", ""}},
      {"sentencepiece's space as a byte", sentencepiece, {4 + ' ', 264}, {" ", " a", ""}},
      {"a space as a byte elsewhere", metaspace, {3 + ' ', 263}, {"", " a", ""}},
      {"sentencepiece's unknown token", sentencepiece, {265, 0}, {"ab", " \u2047 ", ""}},
  };
  for (const StreamCase& each : cases) {
    SCOPED_TRACE(each.name);
    const auto tokenizer = each.tokenizer();
    StreamDetokenizer stream(*tokenizer, each.skip_special_tokens);
    // Twice: flush starts anew.
    for (int round = 0; round < 2; ++round) {
      std::vector<std::string> texts;
      for (const std::int32_t id : each.ids) texts.push_back(stream.push(id));
      texts.push_back(stream.flush());
      EXPECT_EQ(texts, each.texts);
    }
    std::string whole;
    for (const std::string& text : each.texts) whole += text;
    EXPECT_EQ(tokenizer->decode(each.ids, each.skip_special_tokens), whole);
  }
}

TEST(StreamDetokenizerTest, AnyIdsGiveValidUtf8) {
  std::mt19937 random(5);
  for (const auto make : {byte_level, metaspace, tekken, sentencepiece}) {
    const auto tokenizer = make();
    StreamDetokenizer stream(*tokenizer, false);
    for (int i = 0; i < 20000; ++i) {
      const auto id = static_cast<std::int32_t>(random() % (tokenizer->vocab_size() + 2));
      EXPECT_FALSE(find_invalid_utf8(stream.push(id)).has_value());
    }
    EXPECT_FALSE(find_invalid_utf8(stream.flush()).has_value());
  }
}

TEST(StreamDetokenizerTest, JoinsTokensWithSpacesWhenTheFileHasNoDecoder) {
  Json json = tiny::byte_level_json();
  json["decoder"] = nullptr;
  EXPECT_EQ(load_as("tokenizer.json", json_text(json))->decode(Ids{17, 2, 3}), "ab a b");
}

}  // namespace
}  // namespace bise
