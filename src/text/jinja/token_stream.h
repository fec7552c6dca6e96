// The parser's view of the tokens: one ahead, with errors that name the line.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "text/jinja/lexer.h"

namespace bise::jinja {

class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& current() const { return tokens_[position_]; }
  const Token& ahead() const { return tokens_[std::min(position_ + 1, tokens_.size() - 1)]; }
  Token next() {
    const Token token = current();
    if (position_ + 1 < tokens_.size()) ++position_;
    return token;
  }

  bool skip_operator(std::string_view symbol) {
    const bool found = current().is_operator(symbol);
    if (found) next();
    return found;
  }
  bool skip_name(std::string_view name) {
    const bool found = current().is_name(name);
    if (found) next();
    return found;
  }
  Token expect(Token::Kind kind, const char* what) {
    if (current().kind != kind) fail(std::string("expected ") + what + ", got " + description());
    return next();
  }
  void expect_operator(std::string_view symbol) {
    if (!skip_operator(symbol)) fail("expected '" + std::string(symbol) + "', got " + description());
  }
  void expect_name(std::string_view name) {
    if (!skip_name(name)) fail("expected '" + std::string(name) + "', got " + description());
  }

  [[noreturn]] void fail(const std::string& message) const {
    throw Error("{}", message).at("line " + std::to_string(current().line));
  }
  std::string description() const {
    switch (current().kind) {
      case Token::Kind::kEnd: return "the end of the template";
      case Token::Kind::kBlockEnd: return "'%}'";
      case Token::Kind::kVariableEnd: return "'}}'";
      default: return "'" + current().text + "'";
    }
  }

 private:
  std::vector<Token> tokens_;
  std::size_t position_ = 0;
};

}  // namespace bise::jinja
