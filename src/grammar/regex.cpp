#include "grammar/regex.h"

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"

namespace bise {
namespace {

struct Node {
  enum class Kind : std::uint8_t { kSet, kSequence, kChoice, kRepeat, kBegin, kEnd };
  Kind kind;
  UnicodeSet set = {};
  std::vector<Node> parts = {};  // kRepeat: one
  int min = 0, max = 0;
};
using Kind = Node::Kind;

const UnicodeSet& digits() {
  static const UnicodeSet set({{'0', '9'}});
  return set;
}
const UnicodeSet& word_characters() {
  static const UnicodeSet set({{'a', 'z'}, {'A', 'Z'}, {'0', '9'}, {'_', '_'}});
  return set;
}
const UnicodeSet& spaces() {
  static const UnicodeSet set({{'\t', '\r'}, {' ', ' '}});
  return set;
}

UnicodeSet one(char32_t code) {
  return UnicodeSet({{code, code}});
}

// \uHHHH after its "u", with the second half of a surrogate pair.
char32_t take_utf16(TextReader& reader) {
  const char32_t first = reader.take_hex(4);
  if (first < 0xD800 || first > 0xDFFF) return first;
  if (first > 0xDBFF || !reader.take("\\u")) reader.fail("half of a surrogate pair");
  const char32_t second = reader.take_hex(4);
  if (second < 0xDC00 || second > 0xDFFF) reader.fail("half of a surrogate pair");
  return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
}

// {H...} after \x or \u.
char32_t take_braced_hex(TextReader& reader) {
  reader.skip(1);
  const std::size_t length = reader.rest().find('}');
  if (length == std::string_view::npos || length == 0 || length > 6)
    reader.fail("expected {hexadecimal digits}");
  const char32_t code = reader.take_hex(static_cast<int>(length));
  reader.skip(1);
  return code;
}

// What follows a backslash, where it stands for characters; nothing when it is an assertion.
std::optional<UnicodeSet> take_escaped_set(TextReader& reader, bool in_class) {
  const char32_t c = reader.take_character();
  switch (c) {
    case 'd': return digits();
    case 'D': return digits().inverted();
    case 'w': return word_characters();
    case 'W': return word_characters().inverted();
    case 's': return spaces();
    case 'S': return spaces().inverted();
    case 't': return one('\t');
    case 'n': return one('\n');
    case 'r': return one('\r');
    case 'f': return one('\f');
    case 'v': return one('\v');
    case 'a': return one('\a');
    case 'e': return one(0x1B);
    case 'x': return one(reader.peek() == '{' ? take_braced_hex(reader) : reader.take_hex(2));
    case 'u': return one(reader.peek() == '{' ? take_braced_hex(reader) : take_utf16(reader));
    case 'U': return one(reader.take_hex(8));
    case 'c': return one(reader.take_character() & 0x1F);
    case '0':
      if (reader.at_digit()) reader.fail("octal escapes are not supported");
      return one(0);
    case 'b':
      if (in_class) return one('\b');
      reader.fail("word boundaries (\\b) are not supported");
    case 'B': reader.fail("word boundaries (\\B) are not supported");
    case 'p':
    case 'P': reader.fail("Unicode properties (\\p) are not supported");
    case 'k': reader.fail("back references are not supported");
    case 'A':
    case 'Z':
    case 'z':
      if (!in_class) return std::nullopt;
      break;
    default: break;
  }
  if (c >= '1' && c <= '9') reader.fail("back references are not supported");
  if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) reader.fail("an unknown escape");
  return one(c);
}

class Parser {
 public:
  Parser(std::string_view pattern, const RegexOptions& options)
      : reader_(pattern, "regular expression"),
        ignore_case_(options.ignore_case),
        dot_all_(options.dot_all) {}

  Node parse() {
    Node result = parse_choice();
    if (!reader_.at_end()) reader_.fail("unexpected ')'");
    return result;
  }

 private:
  Node parse_choice() {
    const NestingLevel level(depth_, reader_);
    Node result{Kind::kChoice};
    do {
      result.parts.push_back(parse_sequence());
    } while (reader_.take("|"));
    return result;
  }

  Node parse_sequence() {
    Node result{Kind::kSequence};
    while (!reader_.at_end() && reader_.peek() != '|' && reader_.peek() != ')') {
      Node part = parse_atom();
      if (part.kind == Kind::kSequence) continue;  // flags
      if (is_assertion(part) && at_quantifier()) reader_.fail("a repeated anchor");
      parse_quantifier(part);
      result.parts.push_back(std::move(part));
    }
    return result;
  }

  static bool is_assertion(const Node& node) { return node.kind == Kind::kBegin || node.kind == Kind::kEnd; }

  bool at_quantifier() {
    const char c = reader_.peek();
    return c == '*' || c == '+' || c == '?' || (c == '{' && at_counts());
  }

  // Whether "{" begins a count; otherwise it stands for itself.
  bool at_counts() const {
    std::size_t i = 1;
    bool digit = false;
    for (char c; c = reader_.peek(i), (c >= '0' && c <= '9') || c == ','; ++i) digit |= c != ',';
    return digit && reader_.peek(i) == '}';
  }

  void parse_quantifier(Node& part) {
    if (!at_quantifier()) return;
    TextReader::Counts counts{0, Expression::kUnbounded};
    if (reader_.peek() == '{') {
      counts = reader_.take_counts();
    } else if (reader_.take("+")) {
      counts.min = 1;
    } else if (reader_.take("?")) {
      counts.max = 1;
    } else {
      reader_.skip(1);
    }
    reader_.take("?");  // lazy
    if (reader_.peek() == '+') reader_.fail("possessive quantifiers are not supported");
    if (at_quantifier()) reader_.fail("a quantifier after a quantifier");
    Node repeated{Kind::kRepeat, {}, {}, counts.min, counts.max};
    repeated.parts.push_back(std::move(part));
    part = std::move(repeated);
  }

  Node parse_atom() {
    if (at_quantifier()) reader_.fail("a quantifier without anything to repeat");
    const char c = reader_.peek();
    if (c == '(') return parse_group();
    if (reader_.take("[")) return set_node(take_character_class(reader_));
    if (reader_.take("^")) return {Kind::kBegin};
    if (reader_.take("$")) return {Kind::kEnd};
    if (reader_.take(".")) return set_node(dot_all_ ? UnicodeSet::all() : any_but_line_breaks());
    if (reader_.take("\\")) {
      const bool begin = reader_.peek() == 'A';
      if (const auto set = take_escaped_set(reader_, false)) return set_node(*set);
      return {begin ? Kind::kBegin : Kind::kEnd};
    }
    return set_node(one(reader_.take_character()));
  }

  static UnicodeSet any_but_line_breaks() {
    return UnicodeSet::all().without(UnicodeSet({{'\n', '\n'}, {'\r', '\r'}}));
  }

  Node set_node(const UnicodeSet& set) const { return {Kind::kSet, ignore_case_ ? set.folded() : set}; }

  Node parse_group() {
    reader_.skip(1);
    const bool ignore_case = ignore_case_, dot_all = dot_all_;
    if (reader_.take("?")) {
      if (parse_group_kind()) return {Kind::kSequence};  // flags for what follows
    }
    Node result = parse_choice();
    if (!reader_.take(")")) reader_.fail("a group without ')'");
    ignore_case_ = ignore_case;
    dot_all_ = dot_all;
    return result;
  }

  // What follows "(?". True when the group was only flags and is over.
  bool parse_group_kind() {
    if (reader_.take(":")) return false;
    if (reader_.starts_with("=") || reader_.starts_with("!") || reader_.starts_with("<=") ||
        reader_.starts_with("<!"))
      reader_.fail("look-around is not supported");
    if (reader_.starts_with("P=") || reader_.starts_with("P>"))
      reader_.fail("back references are not supported");
    if (reader_.take("P<") || reader_.take("<")) {
      const std::size_t length = reader_.rest().find('>');
      if (length == std::string_view::npos || length == 0) reader_.fail("a group name without '>'");
      reader_.skip(length + 1);
      return false;
    }
    for (;; reader_.skip(1)) {
      switch (reader_.peek()) {
        case 'i': ignore_case_ = true; break;
        case 's': dot_all_ = true; break;
        case 'u': break;
        case ':': reader_.skip(1); return false;
        case ')': reader_.skip(1); return true;
        default: reader_.fail("an unsupported kind of group");
      }
    }
  }

  TextReader reader_;
  bool ignore_case_, dot_all_;
  int depth_ = 0;
};

// Whether every text of `node` is empty, so that what stands behind it is still at the start.
bool zero_width(const Node& node) {
  if (node.kind == Kind::kBegin || node.kind == Kind::kEnd) return true;
  if (node.kind == Kind::kSet || node.kind == Kind::kRepeat) return false;
  for (const Node& part : node.parts)
    if (!zero_width(part)) return false;
  return true;
}

// Makes room for other text before (or behind) every alternative that is not anchored there.
Node opened(Node node, Kind anchor) {
  if (node.kind == anchor) return node;
  if (node.kind == Kind::kChoice) {
    for (Node& part : node.parts) part = opened(std::move(part), anchor);
    return node;
  }
  if (node.kind == Kind::kSequence && !node.parts.empty()) {
    Node& edge = anchor == Kind::kBegin ? node.parts.front() : node.parts.back();
    if (edge.kind == anchor || edge.kind == Kind::kChoice || edge.kind == Kind::kSequence) {
      edge = opened(std::move(edge), anchor);
      return node;
    }
  }
  Node anything{Kind::kRepeat, {}, {{Kind::kSet, UnicodeSet::all()}}, 0, Expression::kUnbounded};
  Node result{Kind::kSequence};
  result.parts.push_back(std::move(node));
  result.parts.insert(anchor == Kind::kBegin ? result.parts.begin() : result.parts.end(),
                      std::move(anything));
  return result;
}

Expr lower(const Node& node, const RegexOptions& options, bool at_start, bool at_end) {
  switch (node.kind) {
    case Kind::kSet:
      if (node.set.empty()) return choice({});
      return options.encode(node.set);
    case Kind::kBegin:
      if (!at_start) throw Error("'^' is supported at the start only").at("regular expression");
      return literal("");
    case Kind::kEnd:
      if (!at_end) throw Error("'$' is supported at the end only").at("regular expression");
      return literal("");
    case Kind::kRepeat: return repeat(lower(node.parts[0], options, false, false), node.min, node.max);
    case Kind::kChoice: {
      std::vector<Expr> parts;
      for (const Node& part : node.parts) parts.push_back(lower(part, options, at_start, at_end));
      return choice(std::move(parts));
    }
    case Kind::kSequence: break;
  }
  const std::size_t count = node.parts.size();
  std::size_t last_wide = 0;  // one past the last part that is not empty
  for (std::size_t i = 0; i < count; ++i)
    if (!zero_width(node.parts[i])) last_wide = i + 1;
  std::vector<Expr> parts;
  for (std::size_t i = 0; i < count; ++i) {
    parts.push_back(lower(node.parts[i], options, at_start, at_end && i + 1 >= last_wide));
    at_start = at_start && zero_width(node.parts[i]);
  }
  return sequence(std::move(parts));
}

}  // namespace

UnicodeSet take_character_class(TextReader& reader) {
  const bool inverted = reader.take("^");
  std::vector<UnicodeSet::Range> ranges;
  const auto take_item = [&] {
    return reader.take("\\") ? *take_escaped_set(reader, true) : one(reader.take_character());
  };
  const auto single = [](const UnicodeSet& set) {
    return set.ranges().size() == 1 && set.ranges()[0].low == set.ranges()[0].high;
  };
  for (bool first = true; first || reader.peek() != ']'; first = false) {
    if (reader.at_end()) reader.fail("a character class without ']'");
    const UnicodeSet low = take_item();
    ranges.insert(ranges.end(), low.ranges().begin(), low.ranges().end());
    if (reader.peek() != '-' || reader.peek(1) == ']' || reader.peek(1) == '\0') continue;
    reader.skip(1);
    const UnicodeSet high = take_item();
    if (!single(low) || !single(high) || high.ranges()[0].low < low.ranges()[0].low)
      reader.fail("a bad range in a character class");
    ranges.push_back({low.ranges()[0].low, high.ranges()[0].low});
  }
  reader.skip(1);
  const UnicodeSet set(std::move(ranges));
  return inverted ? set.inverted() : set;
}

Expr parse_regex(std::string_view pattern, const RegexOptions& options) {
  Node node = Parser(pattern, options).parse();
  if (options.search) node = opened(opened(std::move(node), Kind::kBegin), Kind::kEnd);
  return lower(node, options, true, true);
}

}  // namespace bise
