#include "grammar/gbnf.h"

#include <string>

#include "base/error.h"
#include "grammar/named_rules.h"
#include "grammar/regex.h"
#include "grammar/text_reader.h"
#include "text/utf8.h"

namespace bise {
namespace {

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

class Parser {
 public:
  Parser(std::string_view text, Rules& rules) : reader_(text, "grammar"), names_(rules) {}

  std::uint32_t parse() {
    for (skip_blank(); !reader_.at_end(); skip_blank()) parse_rule();
    return names_.root("root");
  }

 private:
  void parse_rule() {
    const std::string_view name = take_name();
    skip_blank();
    if (!reader_.take("::=")) reader_.fail("expected '::='");
    names_.define(name, parse_choice(), reader_);
    if (!reader_.at_end() && !at_rule()) reader_.fail("expected a rule or an operand");
  }

  Expr parse_choice() {
    const NestingLevel level(depth_, reader_);
    std::vector<Expr> parts;
    do {
      parts.push_back(parse_sequence());
    } while (reader_.take("|"));
    return choice(std::move(parts));
  }

  Expr parse_sequence() {
    std::vector<Expr> parts;
    for (skip_blank(); !reader_.at_end() && reader_.peek() != '|' && reader_.peek() != ')' && !at_rule();
         skip_blank())
      parts.push_back(parse_quantifiers(parse_operand()));
    return sequence(std::move(parts));
  }

  Expr parse_quantifiers(Expr operand) {
    for (int count = 0;; ++count) {
      if (count > 8) reader_.fail("too many quantifiers in a row");
      reader_.skip_spaces();
      if (reader_.take("*")) {
        operand = repeat(operand, 0, Expression::kUnbounded);
      } else if (reader_.take("+")) {
        operand = repeat(operand, 1, Expression::kUnbounded);
      } else if (reader_.take("?")) {
        operand = optional(operand);
      } else if (reader_.peek() == '{') {
        const TextReader::Counts counts = reader_.take_counts();
        operand = repeat(operand, counts.min, counts.max);
      } else {
        return operand;
      }
    }
  }

  Expr parse_operand() {
    if (reader_.take("\"")) return parse_literal();
    if (reader_.take("[")) return utf8_character(take_character_class(reader_));
    if (reader_.take(".")) return utf8_character(UnicodeSet::all());
    if (reader_.take("(")) {
      if (reader_.peek() == '=') reader_.fail("look-ahead is not supported");
      const Expr group = parse_choice();
      if (!reader_.take(")")) reader_.fail("a group without ')'");
      return group;
    }
    if (!is_name_character(reader_.peek())) reader_.fail("expected an operand");
    return rule_call(names_.number_of(take_name()));
  }

  Expr parse_literal() {
    std::string bytes;
    while (!reader_.take("\"")) {
      if (reader_.at_end() || reader_.peek() == '\n') reader_.fail("a literal without '\"'");
      append_utf8(reader_.take("\\") ? take_escape() : reader_.take_character(), bytes);
    }
    return literal(bytes);
  }

  char32_t take_escape() {
    const char32_t c = reader_.take_character();
    char32_t code = c;
    switch (c) {
      case 'n': return '\n';
      case 'r': return '\r';
      case 't': return '\t';
      case 'b': return '\b';
      case 'f': return '\f';
      case '0': return 0;
      case 'x': code = reader_.take_hex(2); break;
      case 'u': code = reader_.take_hex(4); break;
      case 'U': code = reader_.take_hex(8); break;
      default:
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '1' && c <= '9'))
          reader_.fail("an unknown escape");
    }
    if (code >= 0xD800 && code <= 0xDFFF) reader_.fail("half of a surrogate pair");
    return code;
  }

  std::string_view take_name() {
    std::size_t length = 0;
    while (is_name_character(reader_.peek(length))) ++length;
    if (length == 0) reader_.fail("expected a rule name");
    const std::string_view name = reader_.rest().substr(0, length);
    reader_.skip(length);
    return name;
  }

  // Whether a new rule begins here: a name and "::=".
  bool at_rule() {
    std::size_t i = 0;
    while (is_name_character(reader_.peek(i))) ++i;
    if (i == 0) return false;
    while (reader_.peek(i) == ' ' || reader_.peek(i) == '\t') ++i;
    return reader_.rest().substr(i).starts_with("::=");
  }

  void skip_blank() {
    for (;; reader_.skip(1)) {
      const char c = reader_.peek();
      if (c == '#') {
        while (!reader_.at_end() && reader_.peek() != '\n') reader_.skip(1);
        if (reader_.at_end()) return;
      } else if (c != ' ' && c != '\t' && c != '\r' && c != '\n') {
        return;
      }
    }
  }

  TextReader reader_;
  NamedRules names_;
  int depth_ = 0;
};

}  // namespace

std::uint32_t add_gbnf(Rules& rules, std::string_view text) {
  return Parser(text, rules).parse();
}

}  // namespace bise
