#include "text/normalizer.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace bise {

TextPattern TextPattern::literal(std::string text) {
  return TextPattern(std::move(text));
}

TextPattern TextPattern::regex(const std::string& pattern, const std::string& where) {
  return TextPattern(Regex(pattern, where));
}

TextPattern TextPattern::from_json(const Json& json, const std::string& where) {
  if (json.is_object() && json.contains("Regex")) return regex(require_string(json, "Regex", where), where);
  std::string text = require_string(json, "String", where);
  if (text.empty()) throw Error("a pattern must not be empty").at(where);
  return literal(std::move(text));
}

std::optional<TextRange> TextPattern::find(std::string_view text, std::size_t from,
                                           RegexScratch& scratch) const {
  if (const Regex* regex = std::get_if<Regex>(&pattern_)) return regex->find(text, from, scratch);
  const std::string& wanted = std::get<std::string>(pattern_);
  const std::size_t at = text.find(wanted, from);
  if (at == std::string_view::npos) return std::nullopt;
  return TextRange{at, at + wanted.size()};
}

Normalizer::Normalizer(const Json& json, const std::string& where) {
  if (!json.is_null()) add(json, where, 0);
}

void Normalizer::add(const Json& json, const std::string& where, int depth) {
  const std::string type = require_string(json, "type", where);
  if (type == "Sequence") {
    if (depth >= 8) throw Error("sequences are nested too deeply").at(where);
    const Json& members = require(json, "normalizers", where);
    if (!members.is_array()) throw Error("wrong type").at(where + ".normalizers").expected("an array");
    for (const Json& member : members) add(member, where, depth + 1);
  } else if (type == "Prepend") {
    add_prepend(require_string(json, "prepend", where));
  } else if (type == "Replace") {
    add_replace(TextPattern::from_json(require(json, "pattern", where), where + ".pattern"),
                require_string(json, "content", where));
  } else if (type == "Strip") {
    add_strip(find_bool(json, "strip_left", true, where), find_bool(json, "strip_right", true, where));
  } else {
    throw Error("unsupported normalizer")
        .at(where + ".type")
        .expected("Sequence, Prepend, Replace or Strip")
        .got(type);
  }
}

void Normalizer::add_prepend(std::string text) {
  steps_.emplace_back(Prepend{std::move(text)});
}

void Normalizer::add_replace(TextPattern pattern, std::string with) {
  steps_.emplace_back(Replace{std::move(pattern), std::move(with)});
}

void Normalizer::add_strip(bool left, bool right) {
  steps_.emplace_back(Strip{left, right});
}

void Normalizer::add_collapse_spaces() {
  steps_.emplace_back(CollapseSpaces{});
}

std::string Normalizer::apply(std::string_view text, RegexScratch& scratch) const {
  std::string result(text);
  for (const Step& step : steps_)
    std::visit([&](const auto& kind) { apply_step(kind, result, scratch); }, step);
  return result;
}

void Normalizer::apply_step(const Prepend& step, std::string& text, RegexScratch&) {
  if (!text.empty()) text.insert(0, step.text);
}

void Normalizer::apply_step(const Replace& step, std::string& text, RegexScratch& scratch) {
  std::string result;
  std::size_t done = 0, from = 0;
  while (from <= text.size()) {
    const auto match = step.pattern.find(text, from, scratch);
    if (!match) break;
    result.append(text, done, match->begin - done).append(step.with);
    done = match->end;
    // After an empty match the search goes on behind the next character.
    from = match->end;
    if (match->begin == match->end)
      from += match->end < text.size() ? utf8_step(std::string_view(text).substr(match->end)).length : 1;
  }
  result.append(text, done);
  text = std::move(result);
}

void Normalizer::apply_step(const Strip& step, std::string& text, RegexScratch&) {
  std::string_view rest = text;
  while (step.left && !rest.empty() && is_white_space(utf8_step(rest).code))
    rest.remove_prefix(utf8_step(rest).length);
  while (step.right && !rest.empty() && is_white_space(last_character(rest)))
    rest.remove_suffix(last_character_length(rest));
  text = std::string(rest);
}

void Normalizer::apply_step(const CollapseSpaces&, std::string& text, RegexScratch&) {
  std::string result;
  for (const char byte : text)
    if (byte != ' ' || (!result.empty() && result.back() != ' ')) result.push_back(byte);
  if (!result.empty() && result.back() == ' ') result.pop_back();
  text = std::move(result);
}

}  // namespace bise
