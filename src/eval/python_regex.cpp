#include "eval/python_regex.h"

#include <map>
#include <mutex>

#include "text/jinja/characters.h"
#include "text/regex.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace bise {
namespace {

using Groups = std::vector<TextRange>;

// Where a search goes on after a match, past an empty one by one character.
std::size_t after(std::string_view text, TextRange match) {
  if (match.end > match.begin) return match.end;
  std::size_t next = match.end + 1;
  while (next < text.size() && (static_cast<unsigned char>(text[next]) & 0xc0) == 0x80) ++next;
  return next;
}

// The same few patterns are applied to every sample.
const Regex& compiled(const std::string& pattern) {
  thread_local std::map<std::string, Regex> known;
  if (const auto found = known.find(pattern); found != known.end()) return found->second;
  if (known.size() > 1000) known.clear();
  return known.emplace(pattern, Regex(python_pattern(pattern), pattern)).first->second;
}

void for_matches(const std::string& pattern, std::string_view text,
                 const std::function<bool(const Groups&)>& found) {
  const Regex& regex = compiled(pattern);
  RegexScratch scratch;
  Groups groups;
  for (std::size_t from = 0; from <= text.size(); from = after(text, groups[0]))
    if (!regex.find_groups(text, from, scratch, groups) || !found(groups)) break;
}

}  // namespace

std::string python_pattern(const std::string& pattern) {
  const bool multiline = pattern.starts_with("(?m") || pattern.starts_with("(?im");
  std::string result;
  bool in_class = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      ++i;
      result += pattern[i] == 'Z' && !in_class ? std::string("\\z") : std::string{'\\', pattern[i]};
      continue;
    }
    if (c == '$' && !in_class && !multiline) {
      result += "(?=\\n?\\z)";
      continue;
    }
    if (c == '[' && !in_class) {
      in_class = true;
      result += c;
      // "]" is an ordinary character at the begin of a class.
      if (i + 1 < pattern.size() && pattern[i + 1] == '^') result += pattern[++i];
      if (i + 1 < pattern.size() && pattern[i + 1] == ']') result += pattern[++i];
      continue;
    }
    if (c == ']') in_class = false;
    result += c == '[' ? std::string("\\[") : std::string(1, c);
  }
  return result;
}

std::string python_escape(std::string_view text) {
  std::string result;
  for (const char c : text) {
    const bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
    if (!word && static_cast<unsigned char>(c) < 0x80) result += '\\';
    result += c;
  }
  return result;
}

std::vector<std::vector<std::string>> python_find_all(const std::string& pattern, std::string_view text) {
  std::vector<std::vector<std::string>> matches;
  for_matches(pattern, text, [&](const Groups& groups) {
    std::vector<std::string>& match = matches.emplace_back();
    for (const TextRange& group : groups)
      match.emplace_back(text.substr(group.begin, group.end - group.begin));
    return true;
  });
  return matches;
}

std::optional<std::vector<std::string>> python_search(const std::string& pattern, std::string_view text) {
  std::optional<std::vector<std::string>> result;
  for_matches(pattern, text, [&](const Groups& groups) {
    result.emplace();
    for (const TextRange& group : groups)
      result->emplace_back(text.substr(group.begin, group.end - group.begin));
    return false;
  });
  return result;
}

std::string python_sub(
    const std::string& pattern, std::string_view text,
    const std::function<std::string(std::span<const std::string_view> groups)>& replacement) {
  std::string result;
  std::size_t copied = 0;
  for_matches(pattern, text, [&](const Groups& groups) {
    std::vector<std::string_view> parts;
    for (const TextRange& group : groups) parts.push_back(text.substr(group.begin, group.end - group.begin));
    result.append(text.substr(copied, groups[0].begin - copied)).append(replacement(parts));
    copied = groups[0].end;
    return true;
  });
  return result.append(text.substr(copied));
}

std::vector<std::string> python_split(const std::string& pattern, std::string_view text) {
  std::vector<std::string> parts;
  std::size_t copied = 0;
  for_matches(pattern, text, [&](const Groups& groups) {
    parts.emplace_back(text.substr(copied, groups[0].begin - copied));
    copied = groups[0].end;
    return true;
  });
  parts.emplace_back(text.substr(copied));
  return parts;
}

std::string_view python_strip(std::string_view text) {
  while (!text.empty()) {
    const std::size_t length = jinja::character_length(text[0]);
    if (!is_white_space(jinja::character_at(text, 0))) break;
    text.remove_prefix(std::min(length, text.size()));
  }
  while (!text.empty() && is_white_space(last_character(text)))
    text.remove_suffix(last_character_length(text));
  return text;
}

std::string python_lower(std::string_view text) {
  std::string result;
  for (std::size_t at = 0; at < text.size(); at += jinja::character_length(text[at]))
    jinja::append_character(result, jinja::to_lower(jinja::character_at(text, at)));
  return result;
}

}  // namespace bise
