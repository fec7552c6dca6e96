#include "text/jinja/lexer.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "text/jinja/characters.h"
#include "text/utf8.h"

namespace bise::jinja {
namespace {

// Newlines become "\n"; one at the very end is dropped.
std::string normalized(std::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      text += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      text += source[i];
    }
  }
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool starts_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}
bool continues_name(char c) {
  return starts_name(c) || is_digit(c);
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalized(source)) {}

  std::vector<Token> run() {
    while (position_ < source_.size()) data_until_tag();
    add(Token::Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(const std::string& message) const {
    throw Error("{}", message).at(fmt::format("line {}", line_));
  }
  bool at(std::string_view what) const {
    return std::string_view(source_).substr(position_).starts_with(what);
  }
  char peek(std::size_t ahead = 0) const {
    return position_ + ahead < source_.size() ? source_[position_ + ahead] : '\0';
  }
  void add(Token::Kind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }
  // Moves past `count` bytes, counting lines; `line_starting_` is what lstrip_blocks asks of the next tag.
  void advance(std::size_t count) {
    line_ +=
        static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(position_),
                                    source_.begin() + static_cast<std::ptrdiff_t>(position_ + count), '\n'));
    position_ += count;
    line_starting_ = count > 0 ? source_[position_ - 1] == '\n' : line_starting_;
  }
  void advance_spaces() { advance(skip_spaces(source_, position_) - position_); }

  void data_until_tag();
  void emit_data(std::size_t end, char sign, bool is_variable);
  // The byte length of a raw tag's opening "{% raw %}" at the present place, 0 when there is none.
  std::size_t raw_tag_length(std::string_view name) const;
  void raw_block();
  void comment();
  void tag(std::string_view close, Token::Kind begin, Token::Kind end);
  bool close_tag(std::string_view close);
  void tag_token(std::vector<char>& open_brackets);
  void string_token();
  void number_token();
  void operator_token(std::vector<char>& open_brackets);
  void escape_sequence(std::string& text);

  std::string source_;
  std::size_t position_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

void Lexer::emit_data(std::size_t end, char sign, bool is_variable) {
  std::string_view text = std::string_view(source_).substr(position_, end - position_);
  if (sign == '-') {
    text = text.substr(0, end_without_spaces(text));
  } else if (sign != '+' && !is_variable) {
    const std::size_t newline = text.rfind('\n');
    const std::size_t line_begin = newline == std::string_view::npos ? 0 : newline + 1;
    if ((line_begin > 0 || line_starting_) && skip_spaces(text, line_begin) == text.size()) {
      text = text.substr(0, line_begin);
    }
  }
  if (!text.empty()) add(Token::Kind::kData, std::string(text));
  advance(end - position_);
}

std::size_t Lexer::raw_tag_length(std::string_view name) const {
  std::size_t i = position_ + 2;
  if (i < source_.size() && (source_[i] == '-' || source_[i] == '+')) ++i;
  i = skip_spaces(source_, i);
  const std::string_view rest = std::string_view(source_).substr(std::min(i, source_.size()));
  if (!rest.starts_with(name)) return 0;
  i = skip_spaces(source_, i + name.size());
  for (std::string_view close : {"-%}", "+%}", "%}"}) {
    // "+%}" may end endraw but not raw
    if (close == "+%}" && name == "raw") continue;
    if (std::string_view(source_).substr(i).starts_with(close)) return i + close.size() - position_;
  }
  return 0;
}

void Lexer::data_until_tag() {
  std::size_t begin = position_;
  std::size_t tag_at = source_.size();
  for (std::size_t i = begin; i + 1 < source_.size(); ++i) {
    if (source_[i] == '{' && (source_[i + 1] == '{' || source_[i + 1] == '%' || source_[i + 1] == '#')) {
      tag_at = i;
      break;
    }
  }
  if (tag_at == source_.size()) {
    add(Token::Kind::kData, source_.substr(begin));
    advance(tag_at - begin);
    return;
  }
  const char kind = source_[tag_at + 1];
  char sign = tag_at + 2 < source_.size() ? source_[tag_at + 2] : '\0';
  if (sign != '-' && sign != '+') sign = '\0';
  emit_data(tag_at, sign, kind == '{');
  if (kind == '%' && raw_tag_length("raw") > 0) {
    raw_block();
  } else if (kind == '#') {
    advance(sign ? 3 : 2);
    comment();
  } else {
    const bool is_block = kind == '%';
    advance(sign ? 3 : 2);
    tag(is_block ? "%}" : "}}", is_block ? Token::Kind::kBlockBegin : Token::Kind::kVariableBegin,
        is_block ? Token::Kind::kBlockEnd : Token::Kind::kVariableEnd);
  }
}

void Lexer::comment() {
  const std::size_t end = source_.find("#}", position_);
  if (end == std::string::npos) fail("Missing end of comment tag");
  const char sign = end > position_ ? source_[end - 1] : '\0';
  advance(end + 2 - position_);
  if (sign == '-') {
    advance_spaces();
  } else if (sign != '+' && peek() == '\n') {
    advance(1);
  }
}

void Lexer::raw_block() {
  const std::size_t length = raw_tag_length("raw");
  const bool strips = source_[position_ + length - 3] == '-';
  advance(length);
  if (strips) advance_spaces();
  const std::size_t begin = position_;
  for (std::size_t i = source_.find("{%", begin); i != std::string::npos; i = source_.find("{%", i + 1)) {
    const std::size_t saved = position_;
    position_ = i;
    const std::size_t end_length = raw_tag_length("endraw");
    position_ = saved;
    if (end_length == 0) continue;
    emit_data(i, source_[i + 2], false);
    const char sign = source_[i + end_length - 3];
    advance(end_length);
    if (sign == '-') {
      advance_spaces();
    } else if (sign != '+' && peek() == '\n') {
      advance(1);
    }
    return;
  }
  fail("Missing end of raw directive");
}

bool Lexer::close_tag(std::string_view close) {
  if (peek() == '-' && std::string_view(source_).substr(position_ + 1).starts_with(close)) {
    advance(3);
    advance_spaces();
    return true;
  }
  const bool is_block = close == "%}";
  if (is_block && peek() == '+' && std::string_view(source_).substr(position_ + 1).starts_with(close)) {
    advance(3);
    return true;
  }
  if (!at(close)) return false;
  advance(2);
  if (is_block && peek() == '\n') advance(1);
  return true;
}

void Lexer::tag(std::string_view close, Token::Kind begin, Token::Kind end) {
  add(begin, "");
  std::vector<char> open_brackets;
  while (position_ < source_.size()) {
    if (open_brackets.empty()) {
      const int line = line_;
      if (close_tag(close)) {
        tokens_.push_back({end, "", line});
        return;
      }
    }
    tag_token(open_brackets);
  }
  fail(fmt::format("unexpected end of template, expected '{}'", close));
}

void Lexer::tag_token(std::vector<char>& open_brackets) {
  const char c = peek();
  if (is_space(character_at(source_, position_))) {
    advance_spaces();
  } else if (is_digit(c)) {
    number_token();
  } else if (starts_name(c)) {
    std::size_t end = position_;
    while (end < source_.size() && continues_name(source_[end])) ++end;
    add(Token::Kind::kName, source_.substr(position_, end - position_));
    advance(end - position_);
  } else if (c == '"' || c == '\'') {
    string_token();
  } else {
    operator_token(open_brackets);
  }
}

void Lexer::number_token() {
  std::size_t end = position_;
  const auto take_digits = [&](auto accepts) {
    while (end < source_.size() &&
           (accepts(source_[end]) ||
            (source_[end] == '_' && end + 1 < source_.size() && accepts(source_[end + 1])))) {
      ++end;
    }
  };
  const auto is_hex = [](char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); };
  const char radix = peek() == '0' ? static_cast<char>(peek(1) | 0x20) : '\0';
  bool is_float = false;
  if ((radix == 'x' && is_hex(peek(2))) || ((radix == 'o' || radix == 'b') && is_digit(peek(2)))) {
    end += 2;
    take_digits(is_hex);
  } else {
    take_digits(is_digit);
    // "1.5" is a float; in "x.0.1" each part after a dot is an index
    const bool after_dot = position_ > 0 && source_[position_ - 1] == '.';
    if (!after_dot && end + 1 < source_.size() && source_[end] == '.' && is_digit(source_[end + 1])) {
      is_float = true;
      ++end;
      take_digits(is_digit);
    }
    if (!after_dot && end < source_.size() && (source_[end] | 0x20) == 'e') {
      std::size_t exponent = end + 1;
      if (exponent < source_.size() && (source_[exponent] == '+' || source_[exponent] == '-')) ++exponent;
      if (exponent < source_.size() && is_digit(source_[exponent])) {
        is_float = true;
        end = exponent;
        take_digits(is_digit);
      }
    }
  }
  std::string digits = source_.substr(position_, end - position_);
  std::erase(digits, '_');
  add(is_float ? Token::Kind::kFloat : Token::Kind::kInteger, std::move(digits));
  advance(end - position_);
}

void Lexer::string_token() {
  const char quote = peek();
  const int line = line_;
  std::string text;
  advance(1);
  while (position_ < source_.size() && peek() != quote) {
    if (peek() == '\\') {
      advance(1);
      escape_sequence(text);
    } else {
      text += peek();
      advance(1);
    }
  }
  if (position_ >= source_.size()) fail(fmt::format("unclosed string that starts on line {}", line));
  advance(1);
  tokens_.push_back({Token::Kind::kString, std::move(text), line});
}

// Python's escapes; an unknown one stays as written. The backslash is already read.
void Lexer::escape_sequence(std::string& text) {
  const char c = peek();
  constexpr std::string_view kLetters = "abfnrtv\\'\"\n";
  constexpr std::array<std::string_view, 11> kMeanings = {"\a", "\b", "\f", "\n", "\r", "\t",
                                                          "\v", "\\", "'",  "\"", ""};
  if (const std::size_t simple = kLetters.find(c); c != '\0' && simple != std::string_view::npos) {
    text += kMeanings[simple];
    advance(1);
    return;
  }
  const std::size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
  const auto digit_value = [&](std::size_t i, int base) {
    const char d = peek(i);
    const int value = is_digit(d)                              ? d - '0'
                      : (d | 0x20) >= 'a' && (d | 0x20) <= 'f' ? (d | 0x20) - 'a' + 10
                                                               : 99;
    return value < base ? value : -1;
  };
  std::uint64_t character = 0;
  if (digits > 0) {
    for (std::size_t i = 1; i <= digits; ++i) {
      if (digit_value(i, 16) < 0) fail("truncated \\x, \\u or \\U escape");
      character = character * 16 + static_cast<std::uint64_t>(digit_value(i, 16));
    }
    advance(1 + digits);
  } else if (digit_value(0, 8) >= 0) {
    std::size_t count = 0;
    for (; count < 3 && digit_value(count, 8) >= 0; ++count) {
      character = character * 8 + static_cast<std::uint64_t>(digit_value(count, 8));
    }
    advance(count);
  } else {
    text += '\\';
    return;
  }
  if (character > 0x10ffff || (character >= 0xd800 && character < 0xe000))
    fail("escape is no Unicode character");
  append_character(text, static_cast<std::uint32_t>(character));
}

void Lexer::operator_token(std::vector<char>& open_brackets) {
  static constexpr std::array<std::string_view, 25> kOperators = {
      "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
      "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ","};
  const auto found =
      std::find_if(kOperators.begin(), kOperators.end(), [&](auto symbol) { return at(symbol); });
  if (found == kOperators.end()) {
    fail(fmt::format("unexpected char '{}'", source_.substr(position_, character_length(peek()))));
  }
  const char c = peek();
  if (c == '(' || c == '[' || c == '{') {
    open_brackets.push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
  } else if (c == ')' || c == ']' || c == '}') {
    if (open_brackets.empty()) fail(fmt::format("unexpected '{}'", c));
    if (open_brackets.back() != c)
      fail(fmt::format("unexpected '{}', expected '{}'", c, open_brackets.back()));
    open_brackets.pop_back();
  }
  add(Token::Kind::kOperator, std::string(*found));
  advance(found->size());
}

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  if (find_invalid_utf8(source)) throw Error("the template is not valid UTF-8");
  return Lexer(source).run();
}

}  // namespace bise::jinja
