// The syntax tree of a template. Nodes never change once parsed and hold no state of a rendering, so that one
// tree renders on many threads at once. evaluate() and execute() are defined in expressions.cpp and
// statements.cpp.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace bise::jinja {

struct Expression {
  explicit Expression(int at) : line(at) {}
  virtual ~Expression() = default;
  // Counts the step, notes the line for errors, and evaluates. Throws Error without a place.
  Value evaluate(Runtime& runtime) const;
  const int line;

 private:
  virtual Value value(Runtime& runtime) const = 0;
};
using ExpressionPtr = std::unique_ptr<const Expression>;
using Expressions = std::vector<ExpressionPtr>;

enum class Flow { kNext, kBreak, kContinue };

struct Statement {
  explicit Statement(int at) : line(at) {}
  virtual ~Statement() = default;
  Flow execute(Runtime& runtime) const;
  const int line;

 private:
  virtual Flow run(Runtime& runtime) const = 0;
};
using Block = std::vector<std::unique_ptr<const Statement>>;

// What stands between the parentheses of a call.
struct CallArguments {
  Expressions positional;
  std::vector<std::pair<std::string, ExpressionPtr>> keyword;
  ExpressionPtr more_positional;  // *list, may be null
  ExpressionPtr more_keyword;     // **dict, may be null
};

struct Literal : Expression {
  Literal(int at, Value literal) : Expression(at), constant(std::move(literal)) {}
  Value constant;
  Value value(Runtime&) const override { return constant; }
};

struct Name : Expression {
  Name(int at, std::string text) : Expression(at), name(std::move(text)) {}
  std::string name;
  Value value(Runtime& runtime) const override;
};

struct ListDisplay : Expression {
  using Expression::Expression;
  Expressions items;
  bool is_tuple = false;
  Value value(Runtime& runtime) const override;
};

struct DictDisplay : Expression {
  using Expression::Expression;
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> items;
  Value value(Runtime& runtime) const override;
};

struct Unary : Expression {
  enum class Operator { kNot, kNegate, kPlus };
  Unary(int at, Operator of, ExpressionPtr on) : Expression(at), op(of), operand(std::move(on)) {}
  Operator op;
  ExpressionPtr operand;
  Value value(Runtime& runtime) const override;
};

struct Binary : Expression {
  Binary(int at, std::string symbol, ExpressionPtr a, ExpressionPtr b)
      : Expression(at), op(std::move(symbol)), left(std::move(a)), right(std::move(b)) {}
  std::string op;  // + - * / // % ** and or
  ExpressionPtr left, right;
  Value value(Runtime& runtime) const override;
};

// a < b <= c: true when every neighbouring pair compares so.
struct Comparison : Expression {
  using Expression::Expression;
  ExpressionPtr first;
  std::vector<std::pair<std::string, ExpressionPtr>> rest;  // == != < <= > >= in "not in"
  Value value(Runtime& runtime) const override;
};

struct Concatenation : Expression {
  using Expression::Expression;
  Expressions parts;
  Value value(Runtime& runtime) const override;
};

struct Conditional : Expression {
  using Expression::Expression;
  ExpressionPtr test, then, otherwise;  // otherwise may be null
  Value value(Runtime& runtime) const override;
};

// object.name (attribute first) or object[index] (item first).
struct Subscript : Expression {
  using Expression::Expression;
  ExpressionPtr object, index;
  bool is_attribute = false;
  Value value(Runtime& runtime) const override;
};

struct Slice : Expression {
  using Expression::Expression;
  ExpressionPtr object, start, stop, step;  // the last three may be null
  Value value(Runtime& runtime) const override;
};

struct Call : Expression {
  using Expression::Expression;
  ExpressionPtr callee;
  CallArguments arguments;
  Value value(Runtime& runtime) const override;
  // `caller` is what a call block hands over; undefined otherwise.
  Value call(Runtime& runtime, const Value* caller) const;
};

struct Filter : Expression {
  using Expression::Expression;
  ExpressionPtr input;  // null: the text of a filter or set block
  std::string name;
  CallArguments arguments;
  Value value(Runtime& runtime) const override;
  Value apply(Runtime& runtime, const Value& to) const;
};

struct Test : Expression {
  using Expression::Expression;
  ExpressionPtr input;
  std::string name;
  CallArguments arguments;
  bool negated = false;
  Value value(Runtime& runtime) const override;
};

// Where a value goes: a name, a namespace's attribute, or several of them.
struct Target {
  std::string name;
  std::string attribute;      // of namespace `name`; empty for a plain name
  std::vector<Target> parts;  // not empty for a tuple
};

struct Data : Statement {
  Data(int at, std::string_view text) : Statement(at), content(text, true) {}
  Text content;
  Flow run(Runtime& runtime) const override;
};

struct Output : Statement {
  using Statement::Statement;
  Expressions expressions;
  Flow run(Runtime& runtime) const override;
};

struct If : Statement {
  using Statement::Statement;
  std::vector<std::pair<ExpressionPtr, Block>> branches;
  Block otherwise;
  Flow run(Runtime& runtime) const override;
};

struct For : Statement {
  using Statement::Statement;
  Target target;
  ExpressionPtr items, condition;  // condition may be null
  bool recursive = false;
  Block body, otherwise;
  Flow run(Runtime& runtime) const override;

 private:
  void iterate(Runtime& runtime, const Value& over, int nesting) const;
  std::vector<Value> chosen_items(Runtime& runtime, const Value& over) const;
};

// {% set target = value %}, or {% set target | filters %}body{% endset %} when `value` is null.
struct Set : Statement {
  using Statement::Statement;
  Target target;
  ExpressionPtr value;
  std::vector<std::unique_ptr<const Filter>> filters;
  Block body;
  Flow run(Runtime& runtime) const override;
};

struct MacroParameters {
  std::vector<std::string> names;
  Expressions defaults;  // of the last names
  bool takes_varargs = false, takes_kwargs = false, takes_caller = false;
};

struct Macro : Statement {
  using Statement::Statement;
  std::string name;
  MacroParameters parameters;
  Block body;
  Flow run(Runtime& runtime) const override;
};

struct CallBlock : Statement {
  using Statement::Statement;
  MacroParameters parameters;
  std::unique_ptr<const Call> call;
  Block body;
  Flow run(Runtime& runtime) const override;
};

struct FilterBlock : Statement {
  using Statement::Statement;
  std::vector<std::unique_ptr<const Filter>> filters;
  Block body;
  Flow run(Runtime& runtime) const override;
};

// {% with a = b %} and {% generation %}: a body with its own names.
struct With : Statement {
  using Statement::Statement;
  std::vector<std::pair<Target, ExpressionPtr>> values;
  Block body;
  Flow run(Runtime& runtime) const override;
};

struct Jump : Statement {
  Jump(int at, Flow to) : Statement(at), flow(to) {}
  Flow flow;
  Flow run(Runtime&) const override { return flow; }
};

}  // namespace bise::jinja
