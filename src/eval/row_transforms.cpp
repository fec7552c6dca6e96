#include "eval/row_transforms.h"

#include <charconv>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/jinja/characters.h"

namespace bise {
namespace {

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
}

std::string stripped(std::string_view text) {
  constexpr std::string_view kBlank = " \t\n\r\v\f";
  const std::size_t first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return "";
  return std::string(text.substr(first, text.find_last_not_of(kBlank) - first + 1));
}

// A label that the hub has as text and the source as a number.
std::int64_t label_number(const Json& row, const char* key, const std::string& where) {
  const Json& value = require(row, key, where);
  if (value.is_number_integer()) return value.get<std::int64_t>();
  if (value.is_string()) {
    const std::string& text = value.get_ref<const std::string&>();
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error == std::errc() && end == text.data() + text.size()) return number;
  }
  throw Error("not a number").at(where + ": key \"" + key + "\"").got(value.dump());
}

void hellaswag(Json& row, const std::string& where) {
  const std::string context =
      require_string(row, "ctx_a", where) + " " + python_capitalize(require_string(row, "ctx_b", where));
  Json choices = Json::array();
  for (const Json& ending : require(row, "endings", where)) {
    if (!ending.is_string()) throw Error("an ending is not a string").at(where);
    choices.push_back(hellaswag_clean(ending.get_ref<const std::string&>()));
  }
  row["query"] = hellaswag_clean(require_string(row, "activity_label", where) + ": " + context);
  row["choices"] = std::move(choices);
  row["gold"] = label_number(row, "label", where);
}

// Each option put in the place of "_" begins the sentence; the rest follows all of them.
void winogrande(Json& row, const std::string& where) {
  const std::string sentence = require_string(row, "sentence", where);
  const std::size_t gap = sentence.find('_');
  if (gap == std::string::npos) throw Error("the sentence has no \"_\"").at(where).got(sentence);
  const std::string start = sentence.substr(0, gap);
  row["contexts"] = Json::array(
      {start + require_string(row, "option1", where), start + require_string(row, "option2", where)});
  row["suffix"] = stripped(std::string_view(sentence).substr(gap + 1));
  row["gold"] = label_number(row, "answer", where) - 1;
}

void mmlu(Json& row, const std::string& where) {
  const Json& choices = require(row, "choices", where);
  if (!choices.is_array() || choices.size() != 4) throw Error("a question has 4 choices").at(where);
}

const std::map<std::string, void (*)(Json&, const std::string&)> kTransforms = {
    {"hellaswag", hellaswag}, {"winogrande", winogrande}, {"mmlu", mmlu}};

}  // namespace

std::string python_capitalize(std::string_view text) {
  std::string result;
  for (std::size_t at = 0; at < text.size(); at += jinja::character_length(text[at])) {
    const std::uint32_t character = jinja::character_at(text, at);
    jinja::append_character(result, at == 0 ? jinja::to_upper(character) : jinja::to_lower(character));
  }
  return result;
}

std::string hellaswag_clean(std::string_view text) {
  std::string result = stripped(text);
  replace_all(result, " [title]", ". ");
  for (std::size_t open = 0; (open = result.find('[', open)) != std::string::npos;) {
    const std::size_t close = result.find_first_of("]\n", open + 1);
    if (close != std::string::npos && result[close] == ']') {
      result.erase(open, close - open + 1);
    } else {
      ++open;
    }
  }
  replace_all(result, "  ", " ");
  return result;
}

void transform_row(const std::string& name, Json& row, const std::string& where) {
  if (name.empty()) return;
  const auto found = kTransforms.find(name);
  if (found == kTransforms.end()) throw Error("unknown process_docs \"{}\"", name).at(where);
  found->second(row, where);
}

}  // namespace bise
