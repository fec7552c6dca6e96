#include "text/jinja/expression_parser.h"

#include <charconv>

#include "text/jinja/parser.h"

namespace bise::jinja {
namespace {

constexpr auto kOperatorToken = Token::Kind::kOperator;

std::int64_t integer_value(const Token& token, TokenStream& tokens) {
  std::string_view digits = token.text;
  int base = 10;
  if (digits.size() > 2 && digits[0] == '0') {
    const char radix = static_cast<char>(digits[1] | 0x20);
    base = radix == 'x' ? 16 : radix == 'o' ? 8 : radix == 'b' ? 2 : 10;
    if (base != 10) digits.remove_prefix(2);
  }
  std::int64_t value = 0;
  const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (result.ec != std::errc() || result.ptr != digits.data() + digits.size()) {
    tokens.fail("invalid integer " + token.text);
  }
  return value;
}

double float_value(const Token& token, TokenStream& tokens) {
  double value = 0;
  const auto result = std::from_chars(token.text.data(), token.text.data() + token.text.size(), value);
  if (result.ec != std::errc()) tokens.fail("invalid number " + token.text);
  return value;
}

}  // namespace

void ExpressionParser::deepen(int by) {
  if (depth_ + by > kMaxSyntaxDepth) tokens_.fail("the template is nested too deeply");
  depth_ += by;
}

ExpressionPtr ExpressionParser::expression(bool with_conditional) {
  const Level level(*this);
  return with_conditional ? conditional() : disjunction();
}

ExpressionPtr ExpressionParser::conditional() {
  ExpressionPtr node = disjunction();
  while (tokens_.current().is_name("if")) {
    deepen(1);
    auto choice = std::make_unique<Conditional>(tokens_.next().line);
    choice->then = std::move(node);
    choice->test = disjunction();
    if (tokens_.skip_name("else")) {
      const Level level(*this);
      choice->otherwise = conditional();
    }
    node = std::move(choice);
  }
  return node;
}

ExpressionPtr ExpressionParser::disjunction() {
  ExpressionPtr node = conjunction();
  while (tokens_.current().is_name("or")) {
    const int line = tokens_.next().line;
    deepen(1);
    node = std::make_unique<Binary>(line, "or", std::move(node), conjunction());
  }
  return node;
}

ExpressionPtr ExpressionParser::conjunction() {
  ExpressionPtr node = negation();
  while (tokens_.current().is_name("and")) {
    const int line = tokens_.next().line;
    deepen(1);
    node = std::make_unique<Binary>(line, "and", std::move(node), negation());
  }
  return node;
}

ExpressionPtr ExpressionParser::negation() {
  if (!tokens_.current().is_name("not")) return comparison();
  const Level level(*this);
  const int line = tokens_.next().line;
  return std::make_unique<Unary>(line, Unary::Operator::kNot, negation());
}

ExpressionPtr ExpressionParser::comparison() {
  const int line = tokens_.current().line;
  ExpressionPtr node = sum();
  std::vector<std::pair<std::string, ExpressionPtr>> rest;
  while (true) {
    const Token& token = tokens_.current();
    std::string op;
    if (token.kind == kOperatorToken && (token.text == "==" || token.text == "!=" || token.text == "<" ||
                                         token.text == "<=" || token.text == ">" || token.text == ">=")) {
      op = tokens_.next().text;
    } else if (tokens_.skip_name("in")) {
      op = "in";
    } else if (token.is_name("not") && tokens_.ahead().is_name("in")) {
      tokens_.next();
      tokens_.next();
      op = "not in";
    } else {
      break;
    }
    rest.emplace_back(op, sum());
  }
  if (rest.empty()) return node;
  auto chain = std::make_unique<Comparison>(line);
  chain->first = std::move(node);
  chain->rest = std::move(rest);
  return chain;
}

ExpressionPtr ExpressionParser::sum() {
  ExpressionPtr node = concatenation();
  while (tokens_.current().is_operator("+") || tokens_.current().is_operator("-")) {
    const Token token = tokens_.next();
    deepen(1);
    node = std::make_unique<Binary>(token.line, token.text, std::move(node), concatenation());
  }
  return node;
}

ExpressionPtr ExpressionParser::concatenation() {
  ExpressionPtr node = product();
  if (!tokens_.current().is_operator("~")) return node;
  auto joined = std::make_unique<Concatenation>(node->line);
  joined->parts.push_back(std::move(node));
  while (tokens_.skip_operator("~")) joined->parts.push_back(product());
  return joined;
}

ExpressionPtr ExpressionParser::product() {
  ExpressionPtr node = power();
  while (tokens_.current().is_operator("*") || tokens_.current().is_operator("/") ||
         tokens_.current().is_operator("//") || tokens_.current().is_operator("%")) {
    const Token token = tokens_.next();
    deepen(1);
    node = std::make_unique<Binary>(token.line, token.text, std::move(node), power());
  }
  return node;
}

// Left to right and looser than a sign, as Jinja has it (Python differs).
ExpressionPtr ExpressionParser::power() {
  ExpressionPtr node = unary(true);
  while (tokens_.current().is_operator("**")) {
    const int line = tokens_.next().line;
    deepen(1);
    node = std::make_unique<Binary>(line, "**", std::move(node), unary(true));
  }
  return node;
}

ExpressionPtr ExpressionParser::unary(bool with_filters) {
  ExpressionPtr node;
  const Token& token = tokens_.current();
  if (token.is_operator("-") || token.is_operator("+")) {
    const Level level(*this);
    const auto op = token.text == "-" ? Unary::Operator::kNegate : Unary::Operator::kPlus;
    const int line = tokens_.next().line;
    node = std::make_unique<Unary>(line, op, unary(false));
  } else {
    node = primary();
  }
  node = postfix(std::move(node));
  return with_filters ? filters_and_tests(std::move(node)) : std::move(node);
}

ExpressionPtr ExpressionParser::primary() {
  const Token token = tokens_.current();
  switch (token.kind) {
    case Token::Kind::kName:
      tokens_.next();
      if (token.text == "true" || token.text == "True") {
        return std::make_unique<Literal>(token.line, Value::boolean(true));
      }
      if (token.text == "false" || token.text == "False") {
        return std::make_unique<Literal>(token.line, Value::boolean(false));
      }
      if (token.text == "none" || token.text == "None") {
        return std::make_unique<Literal>(token.line, Value::none());
      }
      names_read_.push_back(token.text);
      return std::make_unique<Name>(token.line, token.text);
    case Token::Kind::kString: {
      std::string text;
      while (tokens_.current().kind == Token::Kind::kString) text += tokens_.next().text;
      return std::make_unique<Literal>(token.line, Value::text(text, true));
    }
    case Token::Kind::kInteger:
      tokens_.next();
      return std::make_unique<Literal>(token.line, Value::integer(integer_value(token, tokens_)));
    case Token::Kind::kFloat:
      tokens_.next();
      return std::make_unique<Literal>(token.line, Value::floating(float_value(token, tokens_)));
    case Token::Kind::kOperator:
      if (token.text == "(") return parenthesis();
      if (token.text == "[") return list_display();
      if (token.text == "{") return dict_display();
      break;
    default: break;
  }
  tokens_.fail("expected an expression, got " + tokens_.description());
}

ExpressionPtr ExpressionParser::parenthesis() {
  const int line = tokens_.next().line;
  if (tokens_.skip_operator(")")) {
    auto empty = std::make_unique<ListDisplay>(line);
    empty->is_tuple = true;
    return empty;
  }
  ExpressionPtr node = expression_or_tuple();
  tokens_.expect_operator(")");
  return node;
}

bool ExpressionParser::at_tuple_end() const {
  const Token& token = tokens_.current();
  return token.kind == Token::Kind::kVariableEnd || token.kind == Token::Kind::kBlockEnd ||
         token.is_operator(")") || token.is_name("recursive");
}

ExpressionPtr ExpressionParser::expression_or_tuple(bool with_conditional) {
  const Level level(*this);
  const int line = tokens_.current().line;
  ExpressionPtr first = expression(with_conditional);
  if (!tokens_.current().is_operator(",")) return first;
  auto tuple = std::make_unique<ListDisplay>(line);
  tuple->is_tuple = true;
  tuple->items.push_back(std::move(first));
  while (tokens_.skip_operator(",") && !at_tuple_end()) tuple->items.push_back(expression(with_conditional));
  return tuple;
}

ExpressionPtr ExpressionParser::list_display() {
  auto list = std::make_unique<ListDisplay>(tokens_.next().line);
  while (!tokens_.skip_operator("]")) {
    if (!list->items.empty()) {
      tokens_.expect_operator(",");
      if (tokens_.skip_operator("]")) break;
    }
    list->items.push_back(expression());
  }
  return list;
}

ExpressionPtr ExpressionParser::dict_display() {
  auto dict = std::make_unique<DictDisplay>(tokens_.next().line);
  while (!tokens_.skip_operator("}")) {
    if (!dict->items.empty()) {
      tokens_.expect_operator(",");
      if (tokens_.skip_operator("}")) break;
    }
    ExpressionPtr key = expression();
    tokens_.expect_operator(":");
    dict->items.emplace_back(std::move(key), expression());
  }
  return dict;
}

ExpressionPtr ExpressionParser::postfix(ExpressionPtr node) {
  while (true) {
    deepen(1);
    if (tokens_.current().is_operator(".") || tokens_.current().is_operator("[")) {
      node = subscript(std::move(node));
    } else if (tokens_.current().is_operator("(")) {
      node = call(std::move(node));
    } else {
      return node;
    }
  }
}

ExpressionPtr ExpressionParser::filters_and_tests(ExpressionPtr node) {
  while (true) {
    deepen(1);
    if (tokens_.skip_operator("|")) {
      node = filter_after_bar(std::move(node));
    } else if (tokens_.current().is_name("is")) {
      node = test(std::move(node));
    } else if (tokens_.current().is_operator("(")) {
      node = call(std::move(node));
    } else {
      return node;
    }
  }
}

ExpressionPtr ExpressionParser::subscript(ExpressionPtr object) {
  const Token opening = tokens_.next();
  if (opening.text == ".") {
    auto node = std::make_unique<Subscript>(opening.line);
    const Token name = tokens_.next();
    node->object = std::move(object);
    node->is_attribute = name.kind == Token::Kind::kName;
    if (name.kind == Token::Kind::kInteger) {
      node->index = std::make_unique<Literal>(name.line, Value::integer(integer_value(name, tokens_)));
    } else if (node->is_attribute) {
      node->index = std::make_unique<Literal>(name.line, Value::text(name.text, true));
    } else {
      tokens_.fail("expected a name or number after '.'");
    }
    return node;
  }
  ExpressionPtr bounds[3];
  int given = 0;
  bool is_slice = false;
  while (!tokens_.current().is_operator("]") && given < 3) {
    if (!tokens_.current().is_operator(":")) bounds[given] = expression_or_tuple();
    if (!tokens_.skip_operator(":")) break;
    is_slice = true;
    ++given;
  }
  tokens_.expect_operator("]");
  if (!is_slice) {
    if (!bounds[0]) tokens_.fail("expected a subscript");
    auto node = std::make_unique<Subscript>(opening.line);
    node->object = std::move(object);
    node->index = std::move(bounds[0]);
    return node;
  }
  auto node = std::make_unique<Slice>(opening.line);
  node->object = std::move(object);
  node->start = std::move(bounds[0]);
  node->stop = std::move(bounds[1]);
  node->step = std::move(bounds[2]);
  return node;
}

ExpressionPtr ExpressionParser::call(ExpressionPtr callee) {
  auto node = std::make_unique<Call>(tokens_.current().line);
  node->callee = std::move(callee);
  node->arguments = call_arguments();
  return node;
}

CallArguments ExpressionParser::call_arguments() {
  CallArguments arguments;
  tokens_.expect_operator("(");
  for (bool first = true; !tokens_.skip_operator(")"); first = false) {
    if (!first) {
      tokens_.expect_operator(",");
      if (tokens_.skip_operator(")")) break;
    }
    if (arguments.more_keyword) tokens_.fail("invalid syntax for function call expression");
    if (tokens_.skip_operator("**")) {
      arguments.more_keyword = expression();
    } else if (tokens_.skip_operator("*")) {
      if (arguments.more_positional) tokens_.fail("invalid syntax for function call expression");
      arguments.more_positional = expression();
    } else if (tokens_.current().kind == Token::Kind::kName && tokens_.ahead().is_operator("=")) {
      std::string name = tokens_.next().text;
      tokens_.next();
      arguments.keyword.emplace_back(std::move(name), expression());
    } else {
      if (!arguments.keyword.empty() || arguments.more_positional) {
        tokens_.fail("invalid syntax for function call expression");
      }
      arguments.positional.push_back(expression());
    }
  }
  return arguments;
}

std::unique_ptr<const Filter> ExpressionParser::filter_after_bar(ExpressionPtr input) {
  const Token name = tokens_.expect(Token::Kind::kName, "the name of a filter");
  auto node = std::make_unique<Filter>(name.line);
  node->input = std::move(input);
  node->name = name.text;
  if (tokens_.current().is_operator("(")) node->arguments = call_arguments();
  return node;
}

std::vector<std::unique_ptr<const Filter>> ExpressionParser::filter_chain() {
  std::vector<std::unique_ptr<const Filter>> chain;
  while (tokens_.skip_operator("|")) chain.push_back(filter_after_bar(nullptr));
  return chain;
}

ExpressionPtr ExpressionParser::test(ExpressionPtr input) {
  auto node = std::make_unique<Test>(tokens_.next().line);
  node->input = std::move(input);
  node->negated = tokens_.skip_name("not");
  node->name = tokens_.expect(Token::Kind::kName, "the name of a test").text;
  const Token& token = tokens_.current();
  if (token.is_operator("(")) {
    node->arguments = call_arguments();
    return node;
  }
  const bool starts_value = token.kind == Token::Kind::kName || token.kind == Token::Kind::kString ||
                            token.kind == Token::Kind::kInteger || token.kind == Token::Kind::kFloat ||
                            token.is_operator("[") || token.is_operator("{");
  if (starts_value && !token.is_name("else") && !token.is_name("or") && !token.is_name("and")) {
    if (token.is_name("is")) tokens_.fail("You cannot chain multiple tests with is");
    node->arguments.positional.push_back(postfix(primary()));
  }
  return node;
}

}  // namespace bise::jinja
