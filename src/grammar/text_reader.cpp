#include "grammar/text_reader.h"

#include <algorithm>

#include "base/error.h"
#include "grammar/expression.h"
#include "text/utf8.h"

namespace bise {
namespace {

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

TextReader::TextReader(std::string_view text, std::string name) : text_(text), name_(std::move(name)) {
  constexpr std::size_t kMaxBytes = std::size_t{1} << 20;
  if (text.size() > kMaxBytes) throw Error("the {} is longer than {} bytes", name_, kMaxBytes);
  if (const auto offset = find_invalid_utf8(text))
    throw Error("the {} is not valid UTF-8", name_).at(fmt::format("byte {}", *offset));
}

bool TextReader::take(std::string_view prefix) {
  if (!starts_with(prefix)) return false;
  position_ += prefix.size();
  return true;
}

char32_t TextReader::take_character() {
  if (at_end()) fail("unexpected end");
  const Utf8Step step = utf8_step(rest());
  position_ += step.length;
  return step.code;
}

char32_t TextReader::take_hex(int digits) {
  char32_t code = 0;
  for (int i = 0; i < digits; ++i) {
    const int value = hex_value(peek());
    if (value < 0) fail(fmt::format("expected {} hexadecimal digits", digits));
    code = code * 16 + static_cast<char32_t>(value);
    skip(1);
  }
  if (code > 0x10FFFF) fail("not a character");
  return code;
}

int TextReader::take_count() {
  if (!at_digit()) fail("expected a number");
  int count = 0;
  for (; at_digit(); skip(1)) {
    count = count * 10 + (peek() - '0');
    if (count > kMaxCount) fail(fmt::format("a count above {}", kMaxCount));
  }
  return count;
}

TextReader::Counts TextReader::take_counts() {
  if (!take("{")) fail("expected '{'");
  Counts counts{0, Expression::kUnbounded};
  const bool has_min = at_digit();
  if (has_min) counts.min = take_count();
  if (take(",")) {
    if (at_digit()) {
      counts.max = take_count();
    } else if (!has_min) {
      fail("expected a repetition count");
    }
  } else if (has_min) {
    counts.max = counts.min;
  } else {
    fail("expected a repetition count");
  }
  if (!take("}")) fail("expected '}'");
  if (counts.max != Expression::kUnbounded && counts.max < counts.min)
    fail("a repetition's maximum is below its minimum");
  return counts;
}

void TextReader::fail(const std::string& message) const {
  const std::string_view before = text_.substr(0, std::min(position_, text_.size()));
  const auto line = std::count(before.begin(), before.end(), '\n') + 1;
  const std::size_t line_start = before.rfind('\n') + 1;  // npos + 1 is 0
  throw Error("{}", message)
      .at(fmt::format("{} line {} column {}", name_, line, before.size() - line_start + 1));
}

}  // namespace bise
