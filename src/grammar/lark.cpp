#include "grammar/lark.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "grammar/json_schema.h"
#include "grammar/named_rules.h"
#include "grammar/regex.h"
#include "grammar/text_reader.h"
#include "grammar/vocabulary.h"
#include "text/utf8.h"

namespace bise {
namespace {

// Lark's grammars/common.lark.
constexpr std::pair<std::string_view, std::string_view> kCommon[] = {
    {"DIGIT", "[0-9]"},
    {"HEXDIGIT", "[0-9A-Fa-f]"},
    {"INT", "[0-9]+"},
    {"SIGNED_INT", "[+-]?[0-9]+"},
    {"DECIMAL", "[0-9]+\\.[0-9]*|\\.[0-9]+"},
    {"FLOAT", "[0-9]+[eE][+-]?[0-9]+|(?:[0-9]+\\.[0-9]*|\\.[0-9]+)(?:[eE][+-]?[0-9]+)?"},
    {"SIGNED_FLOAT", "[+-]?(?:[0-9]+[eE][+-]?[0-9]+|(?:[0-9]+\\.[0-9]*|\\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"},
    {"NUMBER", "(?:[0-9]+\\.?[0-9]*|\\.[0-9]+)(?:[eE][+-]?[0-9]+)?"},
    {"SIGNED_NUMBER", "[+-]?(?:[0-9]+\\.?[0-9]*|\\.[0-9]+)(?:[eE][+-]?[0-9]+)?"},
    {"ESCAPED_STRING", "\"(?:[^\"\\\\\\n\\r]|\\\\.)*\""},
    {"LCASE_LETTER", "[a-z]"},
    {"UCASE_LETTER", "[A-Z]"},
    {"LETTER", "[A-Za-z]"},
    {"WORD", "[A-Za-z]+"},
    {"CNAME", "[_A-Za-z][_A-Za-z0-9]*"},
    {"WS_INLINE", "[ \\t]+"},
    {"WS", "[ \\t\\f\\r\\n]+"},
    {"CR", "\\r"},
    {"LF", "\\n"},
    {"NEWLINE", "(?:\\r?\\n)+"},
    {"SH_COMMENT", "#[^\\n]*"},
    {"CPP_COMMENT", "//[^\\n]*"},
};

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

bool is_terminal_name(std::string_view name) {
  const std::size_t first = name.find_first_not_of('_');
  return first != std::string_view::npos && name[first] >= 'A' && name[first] <= 'Z';
}

Expr control_token(std::string_view name) {
  return literal(kControlTokenBegin + std::string(name) + kControlTokenEnd);
}

class Parser {
 public:
  Parser(std::string_view text, Rules& rules, JsonSchemaOptions options)
      : reader_(text, "grammar"), rules_(rules), names_(rules), options_(options) {}

  std::uint32_t parse() {
    // What is ignored may stand anywhere, so it has to be known before the first rule is read.
    ignore_ = rules_.declare("%ignore");
    for (skip_blank(); !reader_.at_end(); skip_blank()) {
      if (reader_.peek() == '%') {
        parse_directive();
      } else {
        parse_definition();
      }
    }
    rules_.define(ignore_, repeat(choice(ignored_), 0, Expression::kUnbounded));
    return rules_.add("text", sequence({rule_call(ignore_), rule_call(names_.root("start"))}));
  }

 private:
  void parse_directive() {
    if (reader_.take("%ignore")) {
      reader_.skip_spaces();
      in_terminal_ = true;
      ignored_.push_back(parse_choice());
      in_terminal_ = false;
    } else if (reader_.take("%import")) {
      parse_import();
    } else {
      reader_.fail("an unsupported directive");
    }
  }

  // common.NAME, common.NAME -> OTHER or common (NAME, NAME).
  void parse_import() {
    reader_.skip_spaces();
    if (!reader_.take("common")) reader_.fail("only `common` can be imported");
    reader_.skip_spaces();
    if (reader_.take(".")) {
      const std::string_view name = take_name();
      reader_.skip_spaces();
      std::string_view alias = name;
      if (reader_.take("->")) {
        reader_.skip_spaces();
        alias = take_name();
      }
      import(name, alias);
      return;
    }
    if (!reader_.take("(")) reader_.fail("expected '.' or '('");
    do {
      reader_.skip_spaces();
      const std::string_view name = take_name();
      import(name, name);
      reader_.skip_spaces();
    } while (reader_.take(","));
    if (!reader_.take(")")) reader_.fail("expected ')'");
  }

  void import(std::string_view name, std::string_view alias) {
    const auto found = std::find_if(std::begin(kCommon), std::end(kCommon),
                                    [&](const auto& entry) { return entry.first == name; });
    if (found == std::end(kCommon)) reader_.fail("`common` has no " + std::string(name));
    names_.define(alias, parse_regex(found->second), reader_);
  }

  void parse_definition() {
    if (reader_.peek() == '?' || reader_.peek() == '!') reader_.skip(1);
    const std::string_view name = take_name();
    reader_.skip_spaces();
    if (reader_.take(".")) {  // a priority
      reader_.take("-");
      reader_.take_count();
      reader_.skip_spaces();
    }
    if (reader_.peek() == '{') reader_.fail("templates are not supported");
    if (!reader_.take(":")) reader_.fail("expected ':'");
    in_terminal_ = is_terminal_name(name);
    names_.define(name, parse_choice(), reader_);
    in_terminal_ = false;
    if (!reader_.at_end() && !at_definition() && reader_.peek() != '%') reader_.fail("expected a rule");
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
    for (skip_blank(); !at_sequence_end(); skip_blank()) parts.push_back(parse_quantifiers(parse_operand()));
    if (reader_.take("->")) {
      reader_.skip_spaces();
      take_name();
      skip_blank();
    }
    return sequence(std::move(parts));
  }

  bool at_sequence_end() const {
    const char c = reader_.peek();
    return reader_.at_end() || c == '|' || c == ')' || c == ']' ||
           (c == '%' && !reader_.starts_with("%json")) || reader_.starts_with("->") || at_definition();
  }

  Expr parse_quantifiers(Expr operand) {
    for (int count = 0;; ++count) {
      if (count > 8) reader_.fail("too many quantifiers in a row");
      reader_.skip_spaces();
      if (reader_.take("*")) {
        operand = repeat(operand, 0, Expression::kUnbounded);
      } else if (reader_.take("+")) {
        operand = repeat(operand, 1, Expression::kUnbounded);
      } else if (reader_.peek() == '?' && !at_definition()) {
        reader_.skip(1);
        operand = optional(operand);
      } else if (reader_.peek() == '{') {
        const TextReader::Counts counts = reader_.take_counts();
        operand = repeat(operand, counts.min, counts.max);
      } else if (reader_.take("~")) {
        reader_.skip_spaces();
        const int min = reader_.take_count();
        reader_.skip_spaces();
        int max = min;
        if (reader_.take("..")) {
          reader_.skip_spaces();
          max = reader_.take_count();
        }
        if (max < min) reader_.fail("a repetition's maximum is below its minimum");
        operand = repeat(operand, min, max);
      } else {
        return operand;
      }
    }
  }

  // A terminal inside a rule may be followed by what is ignored.
  Expr token(Expr expression) const {
    if (in_terminal_) return expression;
    return sequence({std::move(expression), rule_call(ignore_)});
  }

  Expr parse_operand() {
    if (reader_.take("(")) return parse_group(")");
    if (reader_.take("[")) return optional(parse_group("]"));
    if (reader_.peek() == '"') return token(parse_string());
    if (reader_.peek() == '/') return token(parse_pattern());
    if (reader_.peek() == '<') return token(parse_control_token());
    if (reader_.take("%json")) return token(parse_schema());
    if (!is_name_character(reader_.peek())) reader_.fail("expected an operand");
    const std::string_view name = take_name();
    const Expr call = rule_call(names_.number_of(name));
    return is_terminal_name(name) ? token(call) : call;
  }

  Expr parse_group(std::string_view close) {
    Expr group = parse_choice();
    if (!reader_.take(close)) reader_.fail("a group without '" + std::string(close) + "'");
    return group;
  }

  // "text", "text"i or "a".."z".
  Expr parse_string() {
    const std::string text = take_string();
    if (reader_.starts_with("..") && reader_.peek(2) == '"') {
      reader_.skip(2);
      const std::string last = take_string();
      const auto code_of = [&](const std::string& s) {
        const Utf8Step step = s.empty() ? Utf8Step{Utf8Status::kInvalid, 0, 0} : utf8_step(s);
        if (step.status != Utf8Status::kCharacter || step.length != s.size())
          reader_.fail("a range of something else than characters");
        return step.code;
      };
      return utf8_character(UnicodeSet({{code_of(text), code_of(last)}}));
    }
    if (!reader_.take("i")) return literal(text);
    std::vector<Expr> parts;
    for (std::string_view rest = text; !rest.empty();) {
      const Utf8Step step = utf8_step(rest);
      parts.push_back(utf8_character(UnicodeSet({{step.code, step.code}}).folded()));
      rest.remove_prefix(step.length);
    }
    return sequence(std::move(parts));
  }

  std::string take_string() {
    reader_.skip(1);
    std::string text;
    while (!reader_.take("\"")) {
      if (reader_.at_end() || reader_.peek() == '\n') reader_.fail("a string without '\"'");
      char32_t code = reader_.take_character();
      if (code == '\\') code = take_escape();
      if (code >= 0xD800 && code <= 0xDFFF) reader_.fail("half of a surrogate pair");
      append_utf8(code, text);
    }
    return text;
  }

  char32_t take_escape() {
    const char32_t c = reader_.take_character();
    switch (c) {
      case 'n': return '\n';
      case 'r': return '\r';
      case 't': return '\t';
      case 'f': return '\f';
      case 'x': return reader_.take_hex(2);
      case 'u': return reader_.take_hex(4);
      case 'U': return reader_.take_hex(8);
      case '"':
      case '\\':
      case '/': return c;
      default: reader_.fail("an unknown escape");
    }
  }

  Expr parse_pattern() {
    reader_.skip(1);
    std::string pattern;
    while (!reader_.take("/")) {
      if (reader_.at_end() || reader_.peek() == '\n') reader_.fail("a regular expression without '/'");
      if (reader_.take("\\/")) {
        pattern += '/';
        continue;
      }
      if (reader_.peek() == '\\') append_utf8(reader_.take_character(), pattern);
      append_utf8(reader_.take_character(), pattern);
    }
    RegexOptions options;
    for (;; reader_.skip(1)) {
      const char flag = reader_.peek();
      if (flag == 'i') {
        options.ignore_case = true;
      } else if (flag == 's') {
        options.dot_all = true;
      } else if (flag != 'u') {
        break;
      }
    }
    return parse_regex(pattern, options);
  }

  Expr parse_control_token() {
    const std::size_t length = reader_.rest().find('>');
    if (length == std::string_view::npos || length < 2) reader_.fail("a control token without '>'");
    const std::string_view name = reader_.rest().substr(0, length + 1);
    if (name.find('\n') != std::string_view::npos) reader_.fail("a control token without '>'");
    reader_.skip(length + 1);
    return choice({control_token(name), control_token(name.substr(1, name.size() - 2))});
  }

  // A JSON object in the grammar's text.
  Expr parse_schema() {
    skip_blank();
    if (reader_.peek() != '{') reader_.fail("expected a JSON schema");
    std::size_t length = 0;
    int open = 0;
    bool in_string = false;
    do {
      const char c = reader_.peek(length);
      if (length >= reader_.rest().size()) reader_.fail("a JSON schema without its end");
      if (in_string) {
        if (c == '\\') ++length;
        if (c == '"') in_string = false;
      } else if (c == '"') {
        in_string = true;
      } else if (c == '{' || c == '}') {
        open += c == '{' ? 1 : -1;
      }
      ++length;
    } while (open > 0);
    const Json schema = parse_json(reader_.rest().substr(0, length), "JSON schema in the grammar");
    reader_.skip(length);
    return rule_call(add_json_schema(rules_, schema, options_));
  }

  std::string_view take_name() {
    std::size_t length = 0;
    while (is_name_character(reader_.peek(length))) ++length;
    if (length == 0) reader_.fail("expected a name");
    const std::string_view name = reader_.rest().substr(0, length);
    reader_.skip(length);
    return name;
  }

  // Whether a definition begins here: a name, perhaps a priority, and ":".
  bool at_definition() const {
    std::size_t i = reader_.peek() == '?' || reader_.peek() == '!' ? 1 : 0;
    const std::size_t begin = i;
    const auto skip_blanks = [&] {
      while (reader_.peek(i) == ' ' || reader_.peek(i) == '\t') ++i;
    };
    while (is_name_character(reader_.peek(i))) ++i;
    if (i == begin) return false;
    skip_blanks();
    if (reader_.peek(i) == '.' && reader_.peek(i + 1) != '.') {
      ++i;
      if (reader_.peek(i) == '-') ++i;
      while (reader_.peek(i) >= '0' && reader_.peek(i) <= '9') ++i;
      skip_blanks();
    }
    return reader_.peek(i) == ':';
  }

  void skip_blank() {
    for (;;) {
      const char c = reader_.peek();
      if (reader_.starts_with("//") || c == '#') {
        while (!reader_.at_end() && reader_.peek() != '\n') reader_.skip(1);
      } else if (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
        reader_.skip(1);
      } else {
        return;
      }
    }
  }

  TextReader reader_;
  Rules& rules_;
  NamedRules names_;
  JsonSchemaOptions options_;
  std::uint32_t ignore_ = 0;
  std::vector<Expr> ignored_;
  bool in_terminal_ = false;
  int depth_ = 0;
};

}  // namespace

std::uint32_t add_lark(Rules& rules, std::string_view text, JsonSchemaOptions options) {
  return Parser(text, rules, options).parse();
}

}  // namespace bise
