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

// The harness keeps blanks and newlines around blocks, which Template drops as transformers does: they are
// written as expressions.
std::string with_block_space(std::string_view source) {
  std::string result;
  for (std::size_t at = 0; at < source.size();) {
    const bool opens = source.substr(at).starts_with("{%"), closes = source.substr(at).starts_with("%}");
    if (opens) {
      std::size_t line = result.find_last_not_of(" \t");
      line = line == std::string::npos ? 0 : line + 1;
      if (line < result.size() && (line == 0 || result[line - 1] == '\n'))
        result = result.substr(0, line) + "{{ '" + result.substr(line) + "' }}";
    }
    result += opens || closes ? source.substr(at, 2) : source.substr(at, 1);
    at += opens || closes ? 2 : 1;
    if (closes && at < source.size() && source[at] == '\n') {
      result += "{{ '\\n' }}";
      ++at;
    }
  }
  return result;
}

}  // namespace

// jinja2 keeps a template's last newline here; Template drops it.
TemplateField::TemplateField(const std::string& source, const std::string& where)
    : source_(source), where_(where) {
  const std::size_t end = source.find_last_not_of('\n') + 1;
  trailing_newlines_ = source.substr(end);
  template_ = std::make_shared<jinja::Template>(with_block_space(source.substr(0, end)), where);
  if (const std::string expression = only_expression(source); !expression.empty())
    as_json_ = std::make_shared<jinja::Template>("{{ (" + expression + ") | tojson }}", where);
}

std::string TemplateField::render(const jinja::Template& source, const Json& fields) const {
  std::vector<std::pair<std::string, jinja::Value>> variables;
  for (const auto& [key, value] : fields.items())
    variables.emplace_back(key, jinja::Value::from_json(value, true));
  std::string result;
  for (const TextSegment& segment : source.render(variables, 0)) result += segment.text;
  return result;
}

std::string TemplateField::text(const Json& fields) const {
  if (fields.contains(source_)) return python_text(fields[source_]);
  return render(*template_, fields) + trailing_newlines_;
}

std::vector<std::string> TemplateField::list(const Json& fields) const {
  Json value;
  if (fields.contains(source_)) {
    value = fields[source_];
  } else if (as_json_) {
    value = parse_json(render(*as_json_, fields), where_);
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

DocumentMaker::DocumentMaker(const TaskConfig& task, const DocumentTemplates& templates, const Json& common,
                             PythonRandom& random)
    : task_(task),
      fixed_choices_(templates.choices),
      common_(common),
      random_(random),
      text_(templates.text, task.task + ": doc_to_text"),
      target_(templates.target, task.task + ": doc_to_target"),
      description_(task.description, task.task + ": description"),
      gen_prefix_(task.gen_prefix, task.task + ": gen_prefix") {
  if (!templates.choice.empty()) choices_.emplace(templates.choice, task.task + ": doc_to_choice");
}

void DocumentMaker::set_choices(const Json& fields, Document& document) const {
  if (choices_) {
    document.choices = choices_->list(fields);
  } else {
    document.choices = fixed_choices_;
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
  if (document.gold >= 0) document.target = document.choices[static_cast<std::size_t>(document.gold)];
}

Document DocumentMaker::make(Json row, const std::string& where, bool ready) const {
  Document document;
  try {
    Json extra = Json::object(), fields = common_;
    if (!ready) transform_row(task_.process_docs, row, extra, random_, where);
    fields.update(row);
    fields.update(extra);
    document.row = std::make_shared<Json>(std::move(row));
    document.text = text_.text(fields);
    document.target = target_.text(fields);
    document.target_text = document.target;
    document.gen_prefix = gen_prefix_.text(fields);
    set_choices(fields, document);
  } catch (const Error& error) {
    rethrow_inside(error, where);
  }
  return document;
}

}  // namespace bise
