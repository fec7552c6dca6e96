#include "eval/instructions.h"

#include <algorithm>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "eval/detected_language.h"
#include "eval/python_random.h"
#include "eval/python_regex.h"
#include "text/jinja/characters.h"

namespace bise {
namespace {

// The answer with what one instruction says.
struct Check {
  const std::string& text;
  const Json& arguments;  // an object without empty values
  const std::string& prompt;
  const std::string& where;

  std::string string(const char* key) const { return require_string(arguments, key, where); }
  std::int64_t number(const char* key) const {
    return static_cast<std::int64_t>(require_number(arguments, key, where));
  }
  std::vector<std::string> strings(const char* key) const {
    std::vector<std::string> result;
    for (const Json& entry : require(arguments, key, where)) {
      if (!entry.is_string()) throw Error("not a list of strings").at(where + ": " + key);
      result.push_back(entry.get<std::string>());
    }
    return result;
  }
  bool related(std::int64_t actual, std::int64_t wanted, const char* relation_key) const {
    const std::string relation = string(relation_key);
    if (relation == "less than") return actual < wanted;
    if (relation == "at least") return actual >= wanted;
    throw Error("unknown relation").at(where).expected("less than or at least").got(relation);
  }
};

std::int64_t matches(const std::string& pattern, std::string_view text) {
  return static_cast<std::int64_t>(python_find_all(pattern, text).size());
}

bool blank(std::string_view text) {
  return python_strip(text).empty();
}

std::string lowered(std::string_view text) {
  return python_lower(python_strip(text));
}

bool keywords_exist(const Check& check) {
  return std::ranges::all_of(check.strings("keywords"), [&](const std::string& keyword) {
    return python_search("(?i)" + keyword, check.text).has_value();
  });
}

bool keyword_frequency(const Check& check) {
  const std::string keyword(python_strip(check.string("keyword")));
  return check.related(matches("(?i)" + keyword, check.text), check.number("frequency"), "relation");
}

bool no_forbidden_words(const Check& check) {
  return std::ranges::none_of(check.strings("forbidden_words"), [&](const std::string& word) {
    return python_search("(?i)\\b" + word + "\\b", check.text).has_value();
  });
}

// Of anything but a letter, the harness takes a random letter instead; here it is always the same one.
bool letter_frequency(const Check& check) {
  std::string letter = lowered(check.string("letter"));
  if (letter.size() != 1 || letter[0] < 'a' || letter[0] > 'z')
    letter = std::string(1, static_cast<char>('a' + static_cast<int>(PythonRandom(0).below(26))));
  const std::string text = python_lower(check.text);
  return check.related(std::ranges::count(text, letter[0]), check.number("let_frequency"), "let_relation");
}

bool sentences(const Check& check) {
  return check.related(count_sentences(check.text), check.number("num_sentences"), "relation");
}

bool paragraphs(const Check& check) {
  const auto parts = python_split(R"(\s?\*\*\*\s?)", check.text);
  auto count = static_cast<std::int64_t>(parts.size());
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (!blank(parts[i])) continue;
    if (i != 0 && i + 1 != parts.size()) return false;
    --count;
  }
  return count == check.number("num_paragraphs");
}

bool words(const Check& check) {
  return check.related(matches(R"(\w+)", check.text), check.number("num_words"), "relation");
}

bool paragraph_first_word(const Check& check) {
  const auto parts = python_split(R"(\n\n)", check.text);
  const std::int64_t wanted = check.number("nth_paragraph");
  std::int64_t count = 0;
  for (const std::string& part : parts) count += !blank(part);
  if (wanted < 1 || wanted > count || wanted > static_cast<std::int64_t>(parts.size())) return false;
  const std::string& paragraph = parts[static_cast<std::size_t>(wanted - 1)];
  if (blank(paragraph)) return false;
  std::string word = (*python_search(R"(\S+)", paragraph))[0];
  for (const char quote : {'\'', '"'}) word.erase(0, word.find_first_not_of(quote));
  word = python_lower(word.substr(0, word.find_first_of(".,?!'\"")));
  return count == check.number("num_paragraphs") && word == python_lower(check.string("first_word"));
}

bool placeholders(const Check& check) {
  return matches(R"(\[.*?\])", check.text) >= check.number("num_placeholders");
}

bool postscript(const Check& check) {
  const std::string marker = std::string(python_strip(check.string("postscript_marker")));
  const std::string pattern = marker == "P.P.S"  ? R"((?m)\s*p\.\s?p\.\s?s.*$)"
                              : marker == "P.S." ? R"((?m)\s*p\.\s?s\..*$)"
                                                 : "(?m)\\s*" + python_lower(marker) + ".*$";
  return python_search(pattern, python_lower(check.text)).has_value();
}

bool bullets(const Check& check) {
  return matches(R"((?m)^\s*\*[^\*].*$)", check.text) + matches(R"((?m)^\s*-.*$)", check.text) ==
         check.number("num_bullets");
}

bool constrained(const Check& check) {
  return std::ranges::any_of(
      std::initializer_list<const char*>{"My answer is yes.", "My answer is no.", "My answer is maybe."},
      [&](const char* option) { return python_strip(check.text).find(option) != std::string_view::npos; });
}

bool highlights(const Check& check) {
  std::int64_t count = 0;
  for (const auto& match : python_find_all(R"(\*[^\n\*]*\*)", check.text))
    count += !blank(std::string_view(match[0]).substr(1, match[0].size() - 2));
  for (const auto& match : python_find_all(R"(\*\*[^\n\*]*\*\*)", check.text))
    count += !blank(std::string_view(match[0]).substr(2, match[0].size() - 4));
  return count >= check.number("num_highlights");
}

bool sections(const Check& check) {
  const std::string mark(python_strip(check.string("section_spliter")));
  const auto parts = python_split("\\s?" + mark + "\\s?\\d+\\s?", check.text);
  return static_cast<std::int64_t>(parts.size()) - 1 >= check.number("num_sections");
}

// Python's json.loads takes NaN and the infinities; the values of duplicate keys do not matter here.
bool is_json(const Check& check) {
  std::string_view text = python_strip(check.text);
  for (const std::string_view prefix : {"```json", "```Json", "```JSON", "```"})
    if (text.starts_with(prefix)) text.remove_prefix(prefix.size());
  if (text.ends_with("```")) text.remove_suffix(3);
  text = python_strip(text);
  if (Json::accept(text)) return true;
  // Outside of strings, the three names become numbers.
  const std::string numbers = python_sub(
      R"("(?:[^"\\]|\\.)*"|-?\bInfinity\b|\bNaN\b)", text, [](std::span<const std::string_view> groups) {
        return groups[0].starts_with('"') ? std::string(groups[0]) : std::string("0");
      });
  return Json::accept(numbers);
}

bool title(const Check& check) {
  for (const auto& match : python_find_all(R"(<<[^\n]+>>)", check.text)) {
    std::string_view inside = match[0];
    inside.remove_prefix(std::min(inside.find_first_not_of('<'), inside.size()));
    inside = inside.substr(0, inside.find_last_not_of('>') + 1);
    if (!blank(inside)) return true;
  }
  return false;
}

bool two_responses(const Check& check) {
  const auto parts = python_split(R"(\*\*\*\*\*\*)", check.text);
  std::vector<std::string> valid;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (!blank(parts[i])) {
      valid.emplace_back(python_strip(parts[i]));
    } else if (i != 0 && i + 1 != parts.size()) {
      return false;
    }
  }
  return valid.size() == 2 && valid[0] != valid[1];
}

bool repeats_prompt(const Check& check) {
  return lowered(check.text).starts_with(lowered(check.string("prompt_to_repeat")));
}

bool ends_with(const Check& check) {
  std::string_view text = python_strip(check.text);
  while (text.starts_with('"')) text.remove_prefix(1);
  while (text.ends_with('"')) text.remove_suffix(1);
  return python_lower(text).ends_with(lowered(check.string("end_phrase")));
}

bool quoted(const Check& check) {
  const std::string_view text = python_strip(check.text);
  return text.size() > 1 && text.starts_with('"') && text.ends_with('"');
}

bool in_case(std::string_view text, jinja::Property wanted, jinja::Property other) {
  bool any = false;
  for (std::size_t at = 0; at < text.size(); at += jinja::character_length(text[at])) {
    const std::uint32_t character = jinja::character_at(text, at);
    if (jinja::has_property(character, other)) return false;
    any |= jinja::has_property(character, wanted);
  }
  return any;
}

bool is_upper(std::string_view text) {
  return in_case(text, jinja::Property::kUpper, jinja::Property::kLower);
}

bool english(std::string_view text) {
  const std::string language = detected_language(text);
  return language.empty() || language == "en";
}

bool capital_words(const Check& check) {
  std::int64_t count = 0;
  for (const auto& match : python_find_all(R"(\w+(?:[-./]\w+)*)", check.text)) count += is_upper(match[0]);
  return check.related(count, check.number("capital_frequency"), "capital_relation");
}

bool language(const Check& check) {
  const std::string found = detected_language(check.text);
  return found.empty() || found == check.string("language");
}

using Rule = bool (*)(const Check&);
const std::map<std::string, Rule> kRules = {
    {"keywords:existence", keywords_exist},
    {"keywords:frequency", keyword_frequency},
    {"keywords:forbidden_words", no_forbidden_words},
    {"keywords:letter_frequency", letter_frequency},
    {"language:response_language", language},
    {"length_constraints:number_sentences", sentences},
    {"length_constraints:number_paragraphs", paragraphs},
    {"length_constraints:number_words", words},
    {"length_constraints:nth_paragraph_first_word", paragraph_first_word},
    {"detectable_content:number_placeholders", placeholders},
    {"detectable_content:postscript", postscript},
    {"detectable_format:number_bullet_lists", bullets},
    {"detectable_format:constrained_response", constrained},
    {"detectable_format:number_highlighted_sections", highlights},
    {"detectable_format:multiple_sections", sections},
    {"detectable_format:json_format", is_json},
    {"detectable_format:title", title},
    {"combination:two_responses", two_responses},
    {"combination:repeat_prompt", repeats_prompt},
    {"startend:end_checker", ends_with},
    {"startend:quotation", quoted},
    {"change_case:capital_word_frequency", capital_words},
    {"change_case:english_capital",
     [](const Check& check) { return is_upper(check.text) && english(check.text); }},
    {"change_case:english_lowercase",
     [](const Check& check) {
       return in_case(check.text, jinja::Property::kLower, jinja::Property::kUpper) && english(check.text);
     }},
    {"punctuation:no_comma", [](const Check& check) { return check.text.find(',') == std::string::npos; }},
};

// The answer as it is, and without its first line, its last, and both; each also without asterisks.
std::vector<std::string> variants_of(const std::string& response) {
  const auto lines = python_split(R"(\n)", response);
  const auto joined = [&](std::size_t begin, std::size_t end) {
    std::string text;
    for (std::size_t i = begin; i < end; ++i) text += (i > begin ? "\n" : "") + lines[i];
    return std::string(python_strip(text));
  };
  const std::size_t count = lines.size();
  std::vector<std::string> variants = {response, joined(1, count), joined(0, count - 1),
                                       count > 1 ? joined(1, count - 1) : ""};
  for (std::size_t i = 0; i < 4; ++i) {
    std::string plain = variants[i];
    std::erase(plain, '*');
    variants.push_back(std::move(plain));
  }
  return variants;
}

// The hub pads the arguments of one instruction with nulls for those of all others. (The harness drops zeros
// as well and draws a random number instead; here a zero counts as written.)
Json given_arguments(const Json& arguments) {
  Json given = Json::object();
  for (const auto& [key, value] : arguments.items())
    if (!value.is_null()) given[key] = value;
  return given;
}

}  // namespace

std::vector<bool> followed_instructions(const Json& row, const std::string& response, bool loose,
                                        const std::string& where) {
  const Json& ids = require(row, "instruction_id_list", where);
  const Json& arguments = require(row, "kwargs", where);
  const std::string prompt = require_string(row, "prompt", where);
  if (!ids.is_array() || !arguments.is_array() || ids.size() != arguments.size())
    throw Error("instruction_id_list and kwargs are not lists of equal length").at(where);
  const std::vector<std::string> variants = loose ? variants_of(response) : std::vector{response};
  std::vector<bool> followed;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const std::string id = ids[i].is_string() ? ids[i].get<std::string>() : ids[i].dump();
    const auto rule = kRules.find(id);
    if (rule == kRules.end()) throw Error("unknown instruction \"{}\"", id).at(where);
    if (!arguments[i].is_object()) throw Error("an entry of kwargs is not a mapping").at(where);
    const Json given = given_arguments(arguments[i]);
    const std::string place = where + ": " + id;
    followed.push_back(std::ranges::any_of(variants, [&](const std::string& text) {
      return !blank(text) && rule->second({text, given, prompt, place});
    }));
  }
  return followed;
}

std::int64_t count_sentences(std::string_view text) {
  static const std::set<std::string> kAbbreviations = {"mr", "mrs", "ms",  "dr",  "prof", "st",  "vs",
                                                       "jr", "sr",  "e.g", "i.e", "etc",  "inc", "no"};
  std::int64_t count = 0;
  std::size_t open = 0;  // where the sentence begins
  for (const auto& match : python_find_all(R"((?s)(.*?)([.!?]+["')\]]*)(?=\s|\z))", text.substr(open))) {
    const auto words = python_find_all(R"(\S+\z)", match[1]);
    const std::string last = words.empty() ? "" : python_lower(words.back()[0]);
    open += match[0].size();
    if (match[2] == "." && (kAbbreviations.contains(last) || python_search(R"(\A[A-Za-z]\z)", last)))
      continue;
    ++count;
  }
  if (!blank(text.substr(open))) ++count;
  return count;
}

}  // namespace bise
