#include "eval/document.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "eval/row_transforms.h"

namespace bise {
namespace {

// str(value) in Python, for what rows hold.
std::string python_text(const Json& value) {
  return jinja::to_text(jinja::Value::from_json(value, true)).bytes();
}

bool is_digits(std::string_view text) {
  return !text.empty() && text.size() < 10 && text.find_first_not_of("0123456789") == std::string_view::npos;
}

// The expression of "{{ expression }}", or "" when the template is anything else.
std::string only_expression(std::string_view source) {
  const std::size_t first = source.find_first_not_of(" \n"), last = source.find_last_not_of(" \n");
  if (first == std::string_view::npos) return "";
  source = source.substr(first, last - first + 1);
  if (source.size() < 4 || !source.starts_with("{{") || !source.ends_with("}}")) return "";
  source = source.substr(2, source.size() - 4);
  if (source.find("}}") != std::string_view::npos || source.find("{{") != std::string_view::npos) return "";
  return std::string(source);
}

}  // namespace

// jinja2 keeps a template's last newline here; Template drops it.
TemplateField::TemplateField(const std::string& source, const std::string& where)
    : source_(source), where_(where) {
  const std::size_t end = source.find_last_not_of('\n') + 1;
  trailing_newlines_ = source.substr(end);
  template_ = std::make_shared<jinja::Template>(source.substr(0, end), where);
  if (const std::string expression = only_expression(source); !expression.empty())
    as_json_ = std::make_shared<jinja::Template>("{{ (" + expression + ") | tojson }}", where);
}

std::string TemplateField::render(const jinja::Template& source, const Json& row) const {
  std::vector<std::pair<std::string, jinja::Value>> variables;
  for (const auto& [key, value] : row.items())
    variables.emplace_back(key, jinja::Value::from_json(value, true));
  std::string result;
  for (const TextSegment& segment : source.render(variables, 0)) result += segment.text;
  return result;
}

std::string TemplateField::text(const Json& row) const {
  if (row.contains(source_)) return python_text(row[source_]);
  return render(*template_, row) + trailing_newlines_;
}

std::vector<std::string> TemplateField::list(const Json& row) const {
  Json value;
  if (row.contains(source_)) {
    value = row[source_];
  } else if (as_json_) {
    value = parse_json(render(*as_json_, row), where_);
  }
  if (!value.is_array() || value.empty())
    throw Error("no list of choices")
        .at(where_)
        .expected("a field or expression that is a list")
        .got(source_);
  std::vector<std::string> result;
  for (const Json& entry : value) result.push_back(python_text(entry));
  return result;
}

DocumentMaker::DocumentMaker(const TaskConfig& task)
    : task_(task),
      text_(task.doc_to_text, task.task + ": doc_to_text"),
      target_(task.doc_to_target, task.task + ": doc_to_target"),
      description_(task.description, task.task + ": description") {
  if (!task.doc_to_choice.empty()) choices_.emplace(task.doc_to_choice, task.task + ": doc_to_choice");
}

void DocumentMaker::set_choices(Document& document) const {
  if (choices_) {
    document.choices = choices_->list(*document.row);
  } else {
    document.choices = task_.choices;
  }
  if (document.choices.empty()) return;
  // With contexts for choices, the text says which of them is right.
  const std::string right = task_.multiple_inputs ? document.text : document.target;
  if (is_digits(right)) {
    std::size_t index = 0;
    std::from_chars(right.data(), right.data() + right.size(), index);
    if (index < document.choices.size()) document.gold = static_cast<std::int64_t>(index);
  } else if (const auto found = std::ranges::find(document.choices, right); found != document.choices.end()) {
    document.gold = found - document.choices.begin();
  }
  if (task_.multiple_inputs) {
    document.text.clear();
    return;
  }
  document.target_text = std::to_string(document.gold);
  if (document.gold >= 0) document.target = document.choices[static_cast<std::size_t>(document.gold)];
}

Document DocumentMaker::make(Json row, const std::string& where) const {
  Document document;
  try {
    transform_row(task_.process_docs, row, where);
    document.row = std::make_shared<Json>(std::move(row));
    document.text = text_.text(*document.row);
    document.target = target_.text(*document.row);
    document.target_text = document.target;
    set_choices(document);
  } catch (const Error& error) {
    rethrow_inside(error, where);
  }
  return document;
}

}  // namespace bise
