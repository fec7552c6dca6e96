#include "text/jinja/parser.h"

#include <algorithm>

#include "text/jinja/expression_parser.h"

namespace bise::jinja {
namespace {

using Names = std::initializer_list<std::string_view>;

class StatementParser {
 public:
  explicit StatementParser(std::string_view source) : tokens_(tokenize(source)), expressions_(tokens_) {}

  SyntaxTree run() {
    tree_.body = block({});
    return std::move(tree_);
  }

 private:
  // Statements up to the tag that one of `ends` names (which is left current), or to the end of the template
  // when there are none.
  Block block(Names ends);
  // The same after a tag's "%}"; the end tag's name is returned, its "%}" left to the caller.
  std::string body(Block& into, Names ends);
  std::unique_ptr<const Statement> statement();
  void end_tag() { tokens_.expect(Token::Kind::kBlockEnd, "'%}'"); }

  std::unique_ptr<const Statement> if_statement(int line);
  std::unique_ptr<const Statement> for_statement(int line);
  std::unique_ptr<const Statement> set_statement(int line);
  std::unique_ptr<const Statement> macro_statement(int line);
  std::unique_ptr<const Statement> call_statement(int line);
  std::unique_ptr<const Statement> filter_statement(int line);
  std::unique_ptr<const Statement> with_statement(int line);
  std::unique_ptr<const Statement> generation_statement(int line);
  std::unique_ptr<const Statement> print_statement(int line);
  std::unique_ptr<const Statement> jump_statement(int line, Flow flow);
  MacroParameters parameters();
  void note_implicit_arguments(MacroParameters& into, std::size_t names_before);
  Target target(bool with_attribute);
  Target target_part(bool with_attribute);

  TokenStream tokens_;
  ExpressionParser expressions_;
  SyntaxTree tree_;
  int loops_around_ = 0;
};

Block StatementParser::block(Names ends) {
  const ExpressionParser::Level level(expressions_);
  Block statements;
  while (true) {
    const Token& token = tokens_.current();
    switch (token.kind) {
      case Token::Kind::kData:
        statements.push_back(std::make_unique<Data>(token.line, token.text));
        tokens_.next();
        break;
      case Token::Kind::kVariableBegin: {
        auto output = std::make_unique<Output>(tokens_.next().line);
        output->expressions.push_back(expressions_.expression_or_tuple());
        tokens_.expect(Token::Kind::kVariableEnd, "'}}'");
        statements.push_back(std::move(output));
        break;
      }
      case Token::Kind::kBlockBegin: {
        tokens_.next();
        const Token& tag = tokens_.current();
        if (std::any_of(ends.begin(), ends.end(), [&](auto end) { return tag.is_name(end); }))
          return statements;
        statements.push_back(statement());
        break;
      }
      default:
        if (ends.size() == 0) return statements;
        tokens_.fail(fmt::format("unexpected end of template, looking for '{}'", *(ends.end() - 1)));
    }
  }
}

std::string StatementParser::body(Block& into, Names ends) {
  tokens_.skip_operator(":");
  end_tag();
  into = block(ends);
  return tokens_.next().text;
}

std::unique_ptr<const Statement> StatementParser::statement() {
  const Token tag = tokens_.expect(Token::Kind::kName, "the name of a tag");
  if (tag.text == "if") return if_statement(tag.line);
  if (tag.text == "for") return for_statement(tag.line);
  if (tag.text == "set") return set_statement(tag.line);
  if (tag.text == "macro") return macro_statement(tag.line);
  if (tag.text == "call") return call_statement(tag.line);
  if (tag.text == "filter") return filter_statement(tag.line);
  if (tag.text == "with") return with_statement(tag.line);
  if (tag.text == "generation") return generation_statement(tag.line);
  if (tag.text == "print") return print_statement(tag.line);
  if (tag.text == "break") return jump_statement(tag.line, Flow::kBreak);
  if (tag.text == "continue") return jump_statement(tag.line, Flow::kContinue);
  throw Error("unknown or unsupported tag '{}'", tag.text).at(fmt::format("line {}", tag.line));
}

std::unique_ptr<const Statement> StatementParser::if_statement(int line) {
  auto node = std::make_unique<If>(line);
  std::string end = "elif";
  while (end == "elif") {
    auto& branch = node->branches.emplace_back(expressions_.expression_or_tuple(false), Block());
    end = body(branch.second, {"elif", "else", "endif"});
  }
  if (end == "else") body(node->otherwise, {"endif"});
  end_tag();
  return node;
}

std::unique_ptr<const Statement> StatementParser::for_statement(int line) {
  auto node = std::make_unique<For>(line);
  node->target = target(false);
  tokens_.expect_name("in");
  node->items = expressions_.expression_or_tuple(false);
  if (tokens_.skip_name("if")) node->condition = expressions_.expression();
  node->recursive = tokens_.skip_name("recursive");
  ++loops_around_;
  const std::string end = body(node->body, {"endfor", "else"});
  --loops_around_;
  if (end == "else") body(node->otherwise, {"endfor"});
  end_tag();
  tree_.loops.push_back(node.get());
  return node;
}

std::unique_ptr<const Statement> StatementParser::set_statement(int line) {
  auto node = std::make_unique<Set>(line);
  node->target = target(true);
  if (tokens_.skip_operator("=")) {
    node->value = expressions_.expression_or_tuple();
  } else {
    node->filters = expressions_.filter_chain();
    body(node->body, {"endset"});
  }
  end_tag();
  tree_.assignments.push_back(node.get());
  return node;
}

std::unique_ptr<const Statement> StatementParser::macro_statement(int line) {
  auto node = std::make_unique<Macro>(line);
  node->name = tokens_.expect(Token::Kind::kName, "the name of a macro").text;
  const std::size_t names_before = expressions_.names_read().size();
  node->parameters = parameters();
  const int loops_outside = std::exchange(loops_around_, 0);
  body(node->body, {"endmacro"});
  loops_around_ = loops_outside;
  note_implicit_arguments(node->parameters, names_before);
  end_tag();
  return node;
}

std::unique_ptr<const Statement> StatementParser::call_statement(int line) {
  auto node = std::make_unique<CallBlock>(line);
  const std::size_t names_before = expressions_.names_read().size();
  if (tokens_.current().is_operator("(")) node->parameters = parameters();
  ExpressionPtr call = expressions_.expression();
  if (!dynamic_cast<const Call*>(call.get())) tokens_.fail("expected a call");
  node->call.reset(static_cast<const Call*>(call.release()));
  const int loops_outside = std::exchange(loops_around_, 0);
  body(node->body, {"endcall"});
  loops_around_ = loops_outside;
  note_implicit_arguments(node->parameters, names_before);
  end_tag();
  return node;
}

std::unique_ptr<const Statement> StatementParser::filter_statement(int line) {
  auto node = std::make_unique<FilterBlock>(line);
  node->filters.push_back(expressions_.filter_after_bar(nullptr));
  for (auto& filter : expressions_.filter_chain()) node->filters.push_back(std::move(filter));
  body(node->body, {"endfilter"});
  end_tag();
  return node;
}

std::unique_ptr<const Statement> StatementParser::with_statement(int line) {
  auto node = std::make_unique<With>(line);
  while (tokens_.current().kind != Token::Kind::kBlockEnd) {
    if (!node->values.empty()) tokens_.expect_operator(",");
    Target name = target(false);
    tokens_.expect_operator("=");
    node->values.emplace_back(std::move(name), expressions_.expression());
  }
  body(node->body, {"endwith"});
  end_tag();
  return node;
}

// Marks what the model said, for training masks; here its text alone matters.
std::unique_ptr<const Statement> StatementParser::generation_statement(int line) {
  auto node = std::make_unique<With>(line);
  const int loops_outside = std::exchange(loops_around_, 0);
  body(node->body, {"endgeneration"});
  loops_around_ = loops_outside;
  end_tag();
  return node;
}

std::unique_ptr<const Statement> StatementParser::print_statement(int line) {
  auto node = std::make_unique<Output>(line);
  do {
    node->expressions.push_back(expressions_.expression());
  } while (tokens_.skip_operator(","));
  end_tag();
  return node;
}

std::unique_ptr<const Statement> StatementParser::jump_statement(int line, Flow flow) {
  if (loops_around_ == 0) tokens_.fail("break or continue outside of a loop");
  end_tag();
  return std::make_unique<Jump>(line, flow);
}

MacroParameters StatementParser::parameters() {
  MacroParameters result;
  tokens_.expect_operator("(");
  while (!tokens_.skip_operator(")")) {
    if (!result.names.empty()) tokens_.expect_operator(",");
    result.names.push_back(tokens_.expect(Token::Kind::kName, "the name of a parameter").text);
    if (tokens_.skip_operator("=")) {
      result.defaults.push_back(expressions_.expression());
    } else if (!result.defaults.empty()) {
      tokens_.fail("non-default argument follows default argument");
    }
  }
  return result;
}

// A macro takes further arguments when its body reads the name that holds them.
void StatementParser::note_implicit_arguments(MacroParameters& into, std::size_t names_before) {
  const auto& names = expressions_.names_read();
  const auto reads = [&](std::string_view name) {
    return std::find(names.begin() + static_cast<std::ptrdiff_t>(names_before), names.end(), name) !=
           names.end();
  };
  into.takes_varargs = reads("varargs");
  into.takes_kwargs = reads("kwargs");
  into.takes_caller = reads("caller");
}

Target StatementParser::target(bool with_attribute) {
  Target first = target_part(with_attribute);
  if (!tokens_.current().is_operator(",")) return first;
  Target all;
  all.parts.push_back(std::move(first));
  while (tokens_.skip_operator(",")) {
    const Token& token = tokens_.current();
    if (token.is_name("in") || token.is_operator("=") || token.is_operator(")")) break;
    all.parts.push_back(target_part(with_attribute));
  }
  return all;
}

Target StatementParser::target_part(bool with_attribute) {
  if (tokens_.skip_operator("(")) {
    const ExpressionParser::Level level(expressions_);
    Target inner = target(with_attribute);
    tokens_.expect_operator(")");
    return inner;
  }
  const Token name = tokens_.expect(Token::Kind::kName, "a name to assign to");
  for (std::string_view constant : {"true", "false", "none", "True", "False", "None"}) {
    if (name.text == constant) tokens_.fail(fmt::format("can't assign to '{}'", constant));
  }
  Target result{name.text, {}, {}};
  if (with_attribute && tokens_.skip_operator(".")) {
    result.attribute = tokens_.expect(Token::Kind::kName, "the name of an attribute").text;
  }
  return result;
}

}  // namespace

SyntaxTree parse(std::string_view source) {
  return StatementParser(source).run();
}

}  // namespace bise::jinja
