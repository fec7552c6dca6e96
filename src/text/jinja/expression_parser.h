// The expression half of the parser; parser.cpp has the statements.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/token_stream.h"

namespace bise::jinja {

class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream& tokens) : tokens_(tokens) {}

  // One expression; "a if b else c" only when `with_conditional`, so that {% for x in y if z %} can end it.
  ExpressionPtr expression(bool with_conditional = true);
  // The same, or several with commas between them: a tuple.
  ExpressionPtr expression_or_tuple(bool with_conditional = true);
  // "name(arguments)" after a bar, and further filters after it, first to last; empty when there is none.
  std::vector<std::unique_ptr<const Filter>> filter_chain();
  std::unique_ptr<const Filter> filter_after_bar(ExpressionPtr input);
  // The names read so far, in order: what a macro's body reads decides which arguments it takes.
  const std::vector<std::string>& names_read() const { return names_read_; }

  // A level of recursion of either parser. A tree's height is bounded by the levels it lies in and by the
  // links of the chains (a + b + c, a.b.c) in them; both throw Error beyond kMaxSyntaxDepth.
  class Level {
   public:
    explicit Level(ExpressionParser& parser) : parser_(parser), outer_depth_(parser.depth_) {
      parser.deepen(5);
    }
    ~Level() { parser_.depth_ = outer_depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    ExpressionParser& parser_;
    int outer_depth_;
  };

 private:
  void deepen(int by);
  ExpressionPtr conditional();
  ExpressionPtr disjunction();
  ExpressionPtr conjunction();
  ExpressionPtr negation();
  ExpressionPtr comparison();
  ExpressionPtr sum();
  ExpressionPtr concatenation();
  ExpressionPtr product();
  ExpressionPtr power();
  ExpressionPtr unary(bool with_filters);
  ExpressionPtr primary();
  ExpressionPtr parenthesis();
  ExpressionPtr list_display();
  ExpressionPtr dict_display();
  ExpressionPtr postfix(ExpressionPtr node);
  ExpressionPtr filters_and_tests(ExpressionPtr node);
  ExpressionPtr subscript(ExpressionPtr object);
  ExpressionPtr test(ExpressionPtr input);
  ExpressionPtr call(ExpressionPtr callee);
  CallArguments call_arguments();
  bool at_tuple_end() const;

  TokenStream& tokens_;
  int depth_ = 0;
  std::vector<std::string> names_read_;
};

}  // namespace bise::jinja
