// A cursor over the text of a grammar or a regular expression, with what their syntaxes share.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace bise {

class TextReader {
 public:
  // Throws Error when `text` is not valid UTF-8. `name` says what it is in errors.
  TextReader(std::string_view text, std::string name);

  bool at_end() const { return position_ >= text_.size(); }
  // The next byte, or NUL at the end.
  char peek(std::size_t ahead = 0) const {
    return position_ + ahead < text_.size() ? text_[position_ + ahead] : '\0';
  }
  std::string_view rest() const { return text_.substr(position_); }
  bool starts_with(std::string_view prefix) const { return rest().starts_with(prefix); }
  bool take(std::string_view prefix);
  void skip(std::size_t bytes) { position_ += bytes; }
  // Past blanks and tabs.
  void skip_spaces() {
    while (peek() == ' ' || peek() == '\t') skip(1);
  }
  std::size_t position() const { return position_; }
  void go_to(std::size_t position) { position_ = position; }

  // The next whole character. Throws Error at the end.
  char32_t take_character();
  // `digits` hexadecimal digits, as a Unicode scalar value. Throws Error.
  char32_t take_hex(int digits);
  // Decimal digits, at most kMaxCount. Throws Error when there are none.
  int take_count();
  bool at_digit() const { return peek() >= '0' && peek() <= '9'; }
  static constexpr int kMaxCount = 1'000'000;

  // "{m}", "{m,}", "{m,n}", "{,n}" with the reader on "{". Throws Error when it is none of them.
  struct Counts {
    int min, max;  // max may be Expression::kUnbounded
  };
  Counts take_counts();

  // Throws Error naming the place: the line and the column of the cursor.
  [[noreturn]] void fail(const std::string& message) const;

 private:
  std::string_view text_;
  std::string name_;
  std::size_t position_ = 0;
};

// Throws Error when the nesting of a parsed text is too deep; lives as long as one level.
class NestingLevel {
 public:
  static constexpr int kMaxDepth = 64;
  NestingLevel(int& depth, const TextReader& reader) : depth_(depth) {
    if (++depth_ > kMaxDepth) {
      --depth_;
      reader.fail("nesting deeper than 64");
    }
  }
  ~NestingLevel() { --depth_; }
  NestingLevel(const NestingLevel&) = delete;
  NestingLevel& operator=(const NestingLevel&) = delete;

 private:
  int& depth_;
};

}  // namespace bise
