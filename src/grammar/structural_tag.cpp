#include "grammar/structural_tag.h"

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.h"
#include "grammar/ebnf.h"
#include "grammar/finite_automaton.h"
#include "grammar/json_schema.h"
#include "grammar/regex.h"
#include "grammar/unicode_set.h"

namespace bise {
namespace {

constexpr int kMaxDepth = 64;
constexpr std::size_t kMaxTags = 1000;

Expr only(Dfa dfa) {
  return dfa_expression(std::make_shared<const Dfa>(std::move(dfa)));
}

Expr any_text() {
  return repeat(utf8_character(UnicodeSet::all()), 0, Expression::kUnbounded);
}

Expr any_bytes(int min) {
  return repeat(byte_range(0, 255), min, Expression::kUnbounded);
}

Expr one_of(const std::vector<std::string>& texts) {
  std::vector<Expr> parts;
  for (const std::string& text : texts) parts.push_back(literal(text));
  return choice(std::move(parts));
}

// Text in which none of `parts` occurs.
Expr text_without(const std::vector<std::string>& parts) {
  if (parts.empty()) return any_text();
  return only(difference(determinize(*any_text()),
                         determinize(*sequence({any_bytes(0), one_of(parts), any_bytes(0)}))));
}

// Text that ends with `end`, before which none of `parts` (and `end` is one of them) is complete.
Expr text_up_to(const std::string& end, const std::vector<std::string>& parts) {
  return only(difference(determinize(*sequence({any_text(), literal(end)})),
                         determinize(*sequence({any_bytes(0), one_of(parts), any_bytes(1)}))));
}

std::vector<std::string> texts(const Json& value, const std::string& where) {
  std::vector<std::string> result;
  for (const Json& text : value.is_array() ? value : Json::array({value})) {
    if (!text.is_string() || text.get<std::string>().empty())
      throw Error("wrong type").at(where).expected("texts that are not empty").got(json_text(text));
    result.push_back(text.get<std::string>());
  }
  if (result.empty() || result.size() > kMaxTags)
    throw Error("wrong length").at(where).expected(fmt::format("1 to {} texts", kMaxTags));
  return result;
}

const Json& list(const Json& object, const char* key, const std::string& where) {
  const Json& value = require(object, key, where);
  if (!value.is_array() || value.empty() || value.size() > kMaxTags)
    throw Error("wrong type").at(where + "." + key).expected(fmt::format("a list of 1 to {}", kMaxTags));
  return value;
}

struct Tag {
  std::string begin;
  Expr rest;  // content and end
};

class FormatCompiler {
 public:
  FormatCompiler(Rules& rules, JsonSchemaOptions options) : rules_(rules), options_(options) {}

  Expr format(const Json& description, const std::string& where, int depth) {
    if (depth > kMaxDepth) throw Error("nested deeper than {}", kMaxDepth).at(where);
    const std::string type = require_string(description, "type", where);
    if (type == "const_string") return literal(require_string(description, "value", where));
    if (type == "json_schema") return schema(require(description, "json_schema", where));
    if (type == "regex") return parse_regex(require_string(description, "pattern", where));
    if (type == "grammar")
      return rule_call(add_ebnf(rules_, require_string(description, "grammar", where), options_));
    if (type == "any_text") return text_without(excludes(description, where));
    if (type == "sequence") return sequence(elements(description, where, depth));
    if (type == "or") return choice(elements(description, where, depth));
    if (type == "optional" || type == "star" || type == "plus") {
      Expr content = format(require(description, "content", where), where + ".content", depth + 1);
      return repeat(std::move(content), type == "plus", type == "optional" ? 1 : Expression::kUnbounded);
    }
    if (type == "tag") {
      const Tag result = tag(description, where, depth);
      return sequence({literal(result.begin), result.rest});
    }
    if (type == "triggered_tags") return triggered_tags(description, where, depth);
    if (type == "tags_with_separator") return tags_with_separator(description, where, depth);
    throw Error("an unsupported type").at(where).got(type);
  }

  // The older form: structures {begin, schema, end} and triggers.
  Expr structures(const Json& description, const std::string& where) {
    std::vector<Tag> tags;
    for (const Json& structure : list(description, "structures", where)) {
      const std::string end = require_string(structure, "end", where + ".structures");
      tags.push_back({require_string(structure, "begin", where + ".structures"),
                      sequence({schema(require(structure, "schema", where + ".structures")), literal(end)})});
    }
    const std::vector<std::string> triggers =
        texts(require(description, "triggers", where), where + ".triggers");
    return text_with_tags(tags, triggers, triggers, false, false, where);
  }

 private:
  Expr schema(const Json& value) { return rule_call(add_json_schema(rules_, value, options_)); }

  std::vector<Expr> elements(const Json& description, const std::string& where, int depth) {
    std::vector<Expr> parts;
    for (const Json& element : list(description, "elements", where))
      parts.push_back(format(element, where + ".elements", depth + 1));
    return parts;
  }

  static std::vector<std::string> excludes(const Json& description, const std::string& where) {
    const auto found = description.find("excludes");
    if (found == description.end() || found->empty()) return {};
    return texts(*found, where + ".excludes");
  }

  Tag tag(const Json& description, const std::string& where, int depth) {
    const Json& content = require(description, "content", where);
    const Json& end = require(description, "end", where);
    Tag result{require_string(description, "begin", where), nullptr};
    if (end == "") {
      result.rest = format(content, where + ".content", depth + 1);
      return result;
    }
    const std::vector<std::string> ends = texts(end, where + ".end");
    if (find_string(content, "type", "", where) == "any_text") {
      std::vector<std::string> never = excludes(content, where);
      never.insert(never.end(), ends.begin(), ends.end());
      std::vector<Expr> parts;
      for (const std::string& text : ends) parts.push_back(text_up_to(text, never));
      result.rest = choice(std::move(parts));
    } else {
      result.rest = sequence({format(content, where + ".content", depth + 1), one_of(ends)});
    }
    return result;
  }

  std::vector<Tag> tags(const Json& description, const std::string& where, int depth) {
    std::vector<Tag> result;
    for (const Json& element : list(description, "tags", where))
      result.push_back(tag(element, where + ".tags", depth + 1));
    return result;
  }

  Expr triggered_tags(const Json& description, const std::string& where, int depth) {
    const std::vector<std::string> triggers =
        texts(require(description, "triggers", where), where + ".triggers");
    std::vector<std::string> never = excludes(description, where);
    never.insert(never.end(), triggers.begin(), triggers.end());
    return text_with_tags(tags(description, where, depth), triggers, never,
                          find_bool(description, "at_least_one", false, where),
                          find_bool(description, "stop_after_first", false, where), where);
  }

  // Free text, in which a trigger is always the beginning of a tag.
  Expr text_with_tags(const std::vector<Tag>& tags, const std::vector<std::string>& triggers,
                      const std::vector<std::string>& never, bool at_least_one, bool only_one,
                      const std::string& where) {
    std::vector<Expr> parts;
    std::vector<char> used(tags.size(), 0);
    for (const std::string& trigger : triggers) {
      std::vector<Expr> rests;
      for (std::size_t i = 0; i < tags.size(); ++i) {
        if (!tags[i].begin.starts_with(trigger)) continue;
        used[i] = 1;
        rests.push_back(
            sequence({literal(std::string_view(tags[i].begin).substr(trigger.size())), tags[i].rest}));
      }
      if (rests.empty()) throw Error("no tag begins with the trigger '{}'", trigger).at(where);
      parts.push_back(sequence({text_up_to(trigger, never), choice(std::move(rests))}));
    }
    for (std::size_t i = 0; i < tags.size(); ++i)
      if (!used[i]) throw Error("no trigger begins the tag '{}'", tags[i].begin).at(where);
    const Expr part = rule_call(rules_.add("text and tag", choice(std::move(parts))));
    const Expr tail = text_without(never);
    if (only_one) return at_least_one ? part : choice({part, tail});
    return sequence({repeat(part, at_least_one, Expression::kUnbounded), tail});
  }

  Expr tags_with_separator(const Json& description, const std::string& where, int depth) {
    std::vector<Expr> parts;
    for (const Tag& each : tags(description, where, depth))
      parts.push_back(sequence({literal(each.begin), each.rest}));
    const Expr one = rule_call(rules_.add("tag", choice(std::move(parts))));
    Expr result = one;
    if (!find_bool(description, "stop_after_first", false, where)) {
      const Expr separator = literal(require_string(description, "separator", where));
      result = sequence({one, repeat(sequence({separator, one}), 0, Expression::kUnbounded)});
    }
    return find_bool(description, "at_least_one", false, where) ? result : optional(result);
  }

  Rules& rules_;
  JsonSchemaOptions options_;
};

}  // namespace

Expr structural_tag(Rules& rules, const Json& description, JsonSchemaOptions options) {
  const std::string where = "structural_tag";
  if (!description.is_object()) throw Error("wrong type").at(where).expected("an object");
  FormatCompiler compiler(rules, options);
  if (description.contains("structures")) return compiler.structures(description, where);
  return compiler.format(require(description, "format", where), where + ".format", 0);
}

}  // namespace bise
