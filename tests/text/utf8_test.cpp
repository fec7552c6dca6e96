#include "text/utf8.h"

#include <gtest/gtest.h>

#include "text/unicode.h"

namespace bise {
namespace {

TEST(Utf8Test, StepsAsTheUnicodeTableSays) {
  struct Case {
    std::string_view text;
    Utf8Status status;
    std::size_t length;
  };
  using enum Utf8Status;
  const Case cases[] = {
      {"a", kCharacter, 1},
      {"\xC3\xA9", kCharacter, 2},
      {"\xE2\x82\xAC", kCharacter, 3},
      {"\xF0\x9F\x98\x80", kCharacter, 4},
      {"\xF4\x8F\xBF\xBF", kCharacter, 4},
      {std::string_view("\0", 1), kCharacter, 1},
      {"\xC3", kIncomplete, 1},
      {"\xF0\x9F\x98", kIncomplete, 3},
      {"\x80", kInvalid, 1},
      {"\xC0\x80", kInvalid, 1},          // overlong
      {"\xE0\x80\x80", kInvalid, 1},      // overlong
      {"\xED\xA0\x80", kInvalid, 1},      // surrogate
      {"\xF4\x90\x80\x80", kInvalid, 1},  // above U+10FFFF
      {"\xF5", kInvalid, 1},
      {"\xE2\x82"
       "a",
       kInvalid, 2},
      {"\xF0\x9F\x98"
       "a",
       kInvalid, 3},
  };
  for (const Case& each : cases) {
    const Utf8Step step = utf8_step(each.text);
    EXPECT_EQ(step.status, each.status) << each.text;
    EXPECT_EQ(step.length, each.length) << each.text;
  }
}

TEST(Utf8Test, EveryCharacterSurvivesTheRoundTrip) {
  for (char32_t code = 0; code < 0x110000; code = code == 0xD7FF ? 0xE000 : code + 1) {
    std::string text;
    append_utf8(code, text);
    const Utf8Step step = utf8_step(text);
    ASSERT_EQ(step.status, Utf8Status::kCharacter);
    ASSERT_EQ(step.length, text.size());
    ASSERT_EQ(step.code, code);
    ASSERT_EQ(last_character_length("a" + text), text.size());
  }
}

TEST(Utf8Test, FindsTheFirstInvalidByte) {
  EXPECT_EQ(find_invalid_utf8(""), std::nullopt);
  EXPECT_EQ(find_invalid_utf8("plain text of sixteen and \xC3\xA9"), std::nullopt);
  EXPECT_EQ(find_invalid_utf8("12345678\xFF"), 8u);
  EXPECT_EQ(find_invalid_utf8("123456\xC3"), 6u);
}

TEST(UnicodeTest, KnowsWordCharactersAndSpaces) {
  for (const char32_t code : {U'a', U'_', U'9', U'é', U'中', U'\u0301'}) EXPECT_TRUE(is_word_character(code));
  for (const char32_t code : {U'-', U' ', U'<', U'\u3000'}) EXPECT_FALSE(is_word_character(code));
  for (const char32_t code : {U' ', U'\n', U'\u0085', U'\u3000', U'\u2028'})
    EXPECT_TRUE(is_white_space(code));
  for (const char32_t code : {U'a', U'\u180E', U'\u200B'}) EXPECT_FALSE(is_white_space(code));
}

}  // namespace
}  // namespace bise
