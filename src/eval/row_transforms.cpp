#include "eval/row_transforms.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "base/error.h"
#include "eval/math_answers.h"
#include "eval/python_regex.h"
#include "text/jinja/characters.h"

namespace bise {
namespace {

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
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

// What a transformation works on.
struct RowContext {
  Json& row;
  Json& extra;
  PythonRandom& random;
  const std::string& where;

  std::string text(const char* key) const { return require_string(row, key, where); }
};

void hellaswag(const RowContext& context) {
  const std::string sentence = context.text("ctx_a") + " " + python_capitalize(context.text("ctx_b"));
  Json choices = Json::array();
  for (const Json& ending : require(context.row, "endings", context.where)) {
    if (!ending.is_string()) throw Error("an ending is not a string").at(context.where);
    choices.push_back(hellaswag_clean(ending.get_ref<const std::string&>()));
  }
  context.row["query"] = hellaswag_clean(context.text("activity_label") + ": " + sentence);
  context.row["choices"] = std::move(choices);
  context.row["gold"] = label_number(context.row, "label", context.where);
}

// Each option put in the place of "_" begins the sentence; the rest follows all of them.
void winogrande(const RowContext& context) {
  const std::string sentence = context.text("sentence");
  const std::size_t gap = sentence.find('_');
  if (gap == std::string::npos) throw Error("the sentence has no \"_\"").at(context.where).got(sentence);
  const std::string start = sentence.substr(0, gap);
  context.extra["contexts"] = Json::array({start + context.text("option1"), start + context.text("option2")});
  context.extra["suffix"] = python_strip(std::string_view(sentence).substr(gap + 1));
  context.extra["gold"] = label_number(context.row, "answer", context.where) - 1;
}

void mmlu(const RowContext& context) {
  const Json& choices = require(context.row, "choices", context.where);
  if (!choices.is_array() || choices.size() != 4) throw Error("a question has 4 choices").at(context.where);
}

void mmlu_pro(const RowContext& context) {
  const Json& options = require(context.row, "options", context.where);
  if (!options.is_array() || options.empty() || options.size() > 26)
    throw Error("a question has a list of options").at(context.where);
  Json letters = Json::array();
  for (std::size_t i = 0; i < options.size(); ++i)
    letters.push_back(std::string(1, static_cast<char>('A' + static_cast<int>(i))));
  context.extra["letters"] = std::move(letters);
}

// AI2's own files have {"stem", "choices": [{"text", "label"}]} where the hub has lists.
void arc(const RowContext& context) {
  const Json question = require(context.row, "question", context.where);
  if (question.is_string()) return;
  const std::string place = context.where + ": key \"question\"";
  Json texts = Json::array(), labels = Json::array();
  for (const Json& choice : require(question, "choices", place)) {
    texts.push_back(require_string(choice, "text", place));
    labels.push_back(require_string(choice, "label", place));
  }
  const std::string stem = require_string(question, "stem", place);
  context.row["question"] = stem;
  context.row["choices"] = {{"text", std::move(texts)}, {"label", std::move(labels)}};
}

// The authors' own file has {choice: label} where the hub has two lists.
void truthfulqa(const RowContext& context) {
  for (const char* key : {"mc1_targets", "mc2_targets"}) {
    const Json targets = require(context.row, key, context.where);
    if (!targets.is_object()) throw Error("no choices").at(context.where + ": key \"" + key + "\"");
    if (targets.contains("choices")) continue;
    Json choices = Json::array(), labels = Json::array();
    for (const auto& [choice, label] : targets.items()) {
      choices.push_back(choice);
      labels.push_back(label);
    }
    context.row[key] = {{"choices", std::move(choices)}, {"labels", std::move(labels)}};
  }
}

std::string gpqa_choice(const RowContext& context, const char* key) {
  const bool is_null = context.row.contains(key) && context.row[key].is_null();
  return is_null ? " " : hellaswag_clean(context.text(key));
}

// The order of the answers is drawn anew for each row.
void gpqa(const RowContext& context) {
  const std::vector<std::string> answers = {
      gpqa_choice(context, "Incorrect Answer 1"), gpqa_choice(context, "Incorrect Answer 2"),
      gpqa_choice(context, "Incorrect Answer 3"), gpqa_choice(context, "Correct Answer")};
  std::vector<std::string> shuffled;
  for (const std::size_t i : context.random.shuffled(answers.size())) shuffled.push_back(answers[i]);
  for (std::size_t i = 0; i < shuffled.size(); ++i)
    context.row["choice" + std::to_string(i + 1)] = shuffled[i];
  const auto right = std::ranges::find(shuffled, answers.back()) - shuffled.begin();
  context.row["answer"] = std::string("(") + static_cast<char>('A' + right) + ")";
}

void musr(const RowContext& context) {
  context.extra["choice_list"] = python_string_list(context.text("choices"), context.where);
}

// The examples have a worked solution that ends in the phrase that answers are looked for behind.
void math(const RowContext& context) {
  const std::string answer = boxed_answer(context.text("solution")).value_or(kInvalidMathAnswer);
  context.row["answer"] = answer;
}

void minerva_math(const RowContext& context) {
  const auto answer = boxed_answer(context.text("solution"));
  if (!answer) throw Error("the solution has no \\boxed answer").at(context.where);
  context.row["answer"] = normalized_math_answer(*answer, MathRules::kMinerva);
}

void wikitext(const RowContext& context) {
  context.extra["detokenized"] = wikitext_detokenized(context.text("page"));
}

const std::map<std::string, void (*)(const RowContext&)> kTransforms = {
    {"arc", arc},
    {"gpqa", gpqa},
    {"hellaswag", hellaswag},
    {"math", math},
    {"minerva_math", minerva_math},
    {"mmlu", mmlu},
    {"mmlu_pro", mmlu_pro},
    {"musr", musr},
    {"truthfulqa", truthfulqa},
    {"wikitext", wikitext},
    {"winogrande", winogrande},
};

// The wikitext detokenizer's patterns between its plain replacements: what is between two marks loses its
// blanks at both ends.
std::string without_inner_blanks(std::string text, const std::string& pattern, const char* open,
                                 const char* close) {
  return python_sub(pattern, text, [&](std::span<const std::string_view> groups) {
    return open + std::string(groups[1]) + close;
  });
}

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
  std::string result(python_strip(text));
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

std::string wikitext_detokenized(const std::string& page) {
  std::string text = page;
  replace_all(text, "s '", "s'");
  text = python_sub("/' [0-9]/", text, [](auto) { return std::string("/'[0-9]/"); });
  for (const auto& [from, to] : {std::pair{" @-@ ", "-"},
                                 {" @,@ ", ","},
                                 {" @.@ ", "."},
                                 {" : ", ": "},
                                 {" ; ", "; "},
                                 {" . ", ". "},
                                 {" ! ", "! "},
                                 {" ? ", "? "},
                                 {" , ", ", "}})
    replace_all(text, from, to);
  text = without_inner_blanks(text, R"(\(\s*([^\)]*?)\s*\))", "(", ")");
  text = without_inner_blanks(text, R"(\[\s*([^\]]*?)\s*\])", "[", "]");
  text = without_inner_blanks(text, R"(\{\s*([^}]*?)\s*\})", "{", "}");
  text = without_inner_blanks(text, R"("\s*([^"]*?)\s*")", "\"", "\"");
  text = without_inner_blanks(text, R"('\s*([^']*?)\s*')", "'", "'");
  for (const auto& [from, to] : {std::pair{"= = = =", "===="},
                                 {"= = =", "==="},
                                 {"= =", "=="},
                                 {" \u00b0 ", "\u00b0"},
                                 {" \n", "\n"},
                                 {"\n ", "\n"},
                                 {" N ", " 1 "},
                                 {" 's", "'s"}})
    replace_all(text, from, to);
  return text;
}

std::vector<std::string> python_string_list(std::string_view text, const std::string& where) {
  const auto fail = [&] { return Error("not a Python list of strings").at(where).got(std::string(text)); };
  std::vector<std::string> list;
  std::size_t at = 0;
  const auto skip = [&] { at = std::min(text.find_first_not_of(" \t\n\r", at), text.size()); };
  const auto next = [&] { return at < text.size() ? text[at++] : '\0'; };
  skip();
  if (next() != '[') throw fail();
  for (skip(); at < text.size() && text[at] != ']'; skip()) {
    const char quote = next();
    if (quote != '\'' && quote != '"') throw fail();
    std::string entry;
    for (char c = next(); c != quote; c = next()) {
      if (c == '\0') throw fail();
      if (c != '\\') {
        entry += c;
        continue;
      }
      switch (const char escape = next()) {
        case 'n': entry += '\n'; break;
        case 't': entry += '\t'; break;
        case 'r': entry += '\r'; break;
        case '\\':
        case '\'':
        case '"': entry += escape; break;
        default: throw fail();
      }
    }
    list.push_back(std::move(entry));
    skip();
    if (at < text.size() && text[at] == ',') ++at;
  }
  if (next() != ']') throw fail();
  skip();
  if (at != text.size() || list.empty()) throw fail();
  return list;
}

void transform_row(const std::string& name, Json& row, Json& extra, PythonRandom& random,
                   const std::string& where) {
  if (name.empty()) return;
  const auto found = kTransforms.find(name);
  if (found == kTransforms.end()) throw Error("unknown process_docs \"{}\"", name).at(where);
  found->second({row, extra, random, where});
}

}  // namespace bise
