#include "grammar/json_rules.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "grammar/json_numbers.h"
#include "grammar/unicode_set.h"

namespace bise {
namespace {

// Long strings are counted in chunks of this many characters, by calls of shared rules, so that `maxLength`
// does not multiply the states of a character.
constexpr int kChunk = 64;
constexpr int kMaxConstantDepth = 64;

// The language as a deterministic automaton, which is smaller when it is repeated.
Expr reduced(const Expr& expression) {
  return dfa_expression(std::make_shared<const Dfa>(determinize(*expression)));
}

const UnicodeSet& plain_characters() {
  static const UnicodeSet set = UnicodeSet({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}}).inverted();
  return set;
}

Expr one_of(std::string_view bytes) {
  std::vector<Expr> parts;
  for (const char c : bytes) parts.push_back(literal(std::string_view(&c, 1)));
  return choice(std::move(parts));
}

Expr quote_after(Expr content) {
  return sequence({std::move(content), literal("\"")});
}

Expr hex(int digits) {
  return repeat(one_of("0123456789abcdefABCDEF"), digits, digits);
}

}  // namespace

Expr json_character() {
  static const Expr character = [] {
    const Expr pair = sequence(
        {one_of("dD"), one_of("89abAB"), hex(2), literal("\\u"), one_of("dD"), one_of("cdefCDEF"), hex(2)});
    const Expr single = choice({sequence({one_of("0123456789abcefABCEF"), hex(3)}),
                                sequence({one_of("dD"), one_of("01234567"), hex(2)})});
    return reduced(
        choice({utf8_character(plain_characters()), sequence({literal("\\"), one_of("\"\\/bfnrt")}),
                sequence({literal("\\u"), choice({single, pair})})}));
  }();
  return character;
}

Expr json_canonical_character() {
  static const Expr character =
      reduced(choice({utf8_character(plain_characters()), sequence({literal("\\"), one_of("\"\\bfnrt")})}));
  return character;
}

Expr quoted(Expr content) {
  return sequence({literal("\""), std::move(content), literal("\"")});
}

Expr json_string_constant(std::string_view text) {
  return literal(Json(text).dump());
}

Expr JsonRules::blank() {
  if (!options_.any_whitespace) return literal("");
  if (!blank_) blank_ = rules_.add("blank", repeat(one_of(" \t\n\r"), 0, kMaxJsonWhitespace));
  return rule_call(*blank_);
}

Expr JsonRules::comma() {
  if (!options_.any_whitespace) return literal(", ");
  return sequence({blank(), literal(","), blank()});
}

Expr JsonRules::colon() {
  if (!options_.any_whitespace) return literal(": ");
  return sequence({blank(), literal(":"), blank()});
}

Expr JsonRules::bracketed(char open, int nodes, std::vector<GraphEdge> edges, char close) {
  return sequence({literal(std::string_view(&open, 1)), blank(), graph(nodes, std::move(edges)),
                   literal(std::string_view(&close, 1))});
}

Expr JsonRules::string() {
  if (!string_) string_ = rules_.add("string", quoted(repeat(json_character(), 0, Expression::kUnbounded)));
  return rule_call(*string_);
}

Expr JsonRules::number() {
  if (!number_) number_ = rules_.add("number", json_number());
  return rule_call(*number_);
}

Expr JsonRules::integer() {
  if (!integer_) integer_ = rules_.add("integer", json_integer());
  return rule_call(*integer_);
}

// Zero or more members between brackets.
Expr JsonRules::members(Expr member, char open, char close) {
  return bracketed(
      open, 3, {{0, 2, literal("")}, {0, 1, member}, {1, 1, sequence({comma(), member})}, {1, 2, blank()}},
      close);
}

Expr JsonRules::object() {
  if (!object_) {
    object_ = rules_.declare("object");
    rules_.define(*object_, members(sequence({string(), colon(), value()}), '{', '}'));
  }
  return rule_call(*object_);
}

Expr JsonRules::array() {
  if (!array_) {
    array_ = rules_.declare("array");
    rules_.define(*array_, members(value(), '[', ']'));
  }
  return rule_call(*array_);
}

Expr JsonRules::value() {
  if (!value_) {
    value_ = rules_.declare("value");
    rules_.define(*value_, choice({object(), array(), string(), number(), literal("true"), literal("false"),
                                   literal("null")}));
  }
  return rule_call(*value_);
}

namespace {

Expr constant_at(JsonRules& rules, const Json& value, int depth) {
  if (depth > kMaxConstantDepth) throw Error("a constant is nested deeper than {}", kMaxConstantDepth);
  if (!value.is_structured()) return literal(json_text(value));
  const bool is_object = value.is_object();
  std::vector<GraphEdge> edges;
  int node = 0;
  for (const auto& [key, member] : value.items()) {
    std::vector<Expr> parts;
    if (node > 0) parts.push_back(rules.comma());
    if (is_object) parts.insert(parts.end(), {json_string_constant(key), rules.colon()});
    parts.push_back(constant_at(rules, member, depth + 1));
    edges.push_back({node, node + 1, sequence(std::move(parts))});
    ++node;
  }
  edges.push_back({node, node + 1, node == 0 ? literal("") : rules.blank()});
  return rules.bracketed(is_object ? '{' : '[', node + 2, std::move(edges), is_object ? '}' : ']');
}

}  // namespace

Expr JsonRules::constant(const Json& value) {
  return constant_at(*this, value, 0);
}

// kChunk characters.
Expr JsonRules::chunk() {
  if (!chunk_) chunk_ = rules_.add("characters", repeat(json_character(), kChunk, kChunk));
  return rule_call(*chunk_);
}

// Fewer than two chunks, and the closing quote. Most of the way into a chunk the next one is thus not far
// ahead of it, and nearly every token fits (see plain_run).
Expr JsonRules::partial_chunks() {
  if (!partial_)
    partial_ =
        rules_.add("some characters", sequence({repeat(json_character(), 0, 2 * kChunk - 1), literal("\"")}));
  return rule_call(*partial_);
}

Expr JsonRules::string_of_length(int min, int max) {
  const Expr character = json_character();
  std::vector<Expr> parts = {literal("\"")};
  if (min >= kChunk) parts.push_back(repeat(chunk(), min / kChunk, min / kChunk));
  parts.push_back(repeat(character, min % kChunk, min % kChunk));
  // Up to `more` further ones: less than all whole chunks, or those and up to the rest.
  const int more = max - min, chunks = more / kChunk;
  if (max == Expression::kUnbounded) {
    parts.push_back(quote_after(repeat(character, 0, max)));
  } else if (chunks < 2) {
    parts.push_back(quote_after(repeat(character, 0, more)));
  } else {
    parts.push_back(choice(
        {sequence({repeat(chunk(), 0, chunks - 2), partial_chunks()}),
         sequence({repeat(chunk(), chunks, chunks), quote_after(repeat(character, 0, more % kChunk))})}));
  }
  return sequence(std::move(parts));
}

}  // namespace bise
