// A row of a data set as the model sees it: text, choices and answer, made by a task's templates.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "eval/python_random.h"
#include "eval/task.h"
#include "text/jinja/template.h"

namespace bise {

// The name of a field, or a Jinja template over the row's fields, as lm-evaluation-harness reads doc_to_text
// and its like. Never changes once made.
class TemplateField {
 public:
  // `where` names the task and key. Throws Error for a template that does not parse.
  TemplateField(const std::string& source, const std::string& where);

  // `fields`: an object with the variables.
  std::string text(const Json& fields) const;
  // The value of a field that is a list, or of a template that is one "{{ expression }}".
  std::vector<std::string> list(const Json& fields) const;

 private:
  std::string render(const jinja::Template& source, const Json& fields) const;

  std::string source_, where_, trailing_newlines_;
  std::shared_ptr<const jinja::Template> template_, as_json_;
};

struct Document {
  std::shared_ptr<const Json> row;  // an object: as the harness's process_docs leaves it
  std::string text;                 // of the question; "" when the choices are the contexts
  std::vector<std::string> choices;
  std::int64_t gold = -100;  // index of the right choice; -100 = none of them is
  std::string target;        // the answer as text: what an example shows
  std::string target_text;   // as the template gives it: an index or an answer
  std::string gen_prefix;    // what the answer begins with
};

class DocumentMaker {
 public:
  // Uses the task's templates, or those of its examples. `common` are variables that all rows have; `random`
  // is Python's global generator. All outlive the maker.
  DocumentMaker(const TaskConfig& task, const DocumentTemplates& templates, const Json& common,
                PythonRandom& random);

  // `where` names the row. The row is transformed by the task's process_docs unless it is `ready` for the
  // templates.
  Document make(Json row, const std::string& where, bool ready = false) const;
  std::string description(const Json& row) const { return description_.text(row); }

 private:
  void set_choices(const Json& fields, Document& document) const;

  const TaskConfig& task_;
  const std::vector<std::string>& fixed_choices_;
  const Json& common_;
  PythonRandom& random_;
  TemplateField text_, target_, description_, gen_prefix_;
  std::optional<TemplateField> choices_;
};

}  // namespace bise
