#include "grammar/json_numbers.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/error.h"
#include "grammar/finite_automaton.h"

namespace bise {
namespace {

// The automaton for `multipleOf` has about this many states.
constexpr std::int64_t kMaxDivisor = 10'000;

Expr digit(char low = '0', char high = '9') {
  if (low > high) return choice({});
  return byte_range(static_cast<std::uint8_t>(low), static_cast<std::uint8_t>(high));
}

Expr digits(int min, int max = Expression::kUnbounded) {
  return repeat(digit(), min, max);
}

Expr zeros(int min) {
  return repeat(literal("0"), min, Expression::kUnbounded);
}

// Whole numbers of `min` to `max` digits.
Expr whole_of_length(int min, int max) {
  std::vector<Expr> parts;
  if (min <= 1) parts.push_back(literal("0"));
  if (max >= min) parts.push_back(sequence({digit('1'), digits(std::max(min - 1, 0), max - 1)}));
  return choice(std::move(parts));
}

// Whole numbers above `bound`, of at most `length` digits.
Expr whole_above(std::string_view bound, int length) {
  const int size = static_cast<int>(bound.size());
  std::vector<Expr> parts = {whole_of_length(size + 1, length)};
  for (std::size_t i = 0; i < bound.size(); ++i) {
    const int rest = size - static_cast<int>(i) - 1;
    parts.push_back(
        sequence({literal(bound.substr(0, i)), digit(static_cast<char>(bound[i] + 1)), digits(rest, rest)}));
  }
  return choice(std::move(parts));
}

Expr whole_below(std::string_view bound) {
  const int size = static_cast<int>(bound.size());
  std::vector<Expr> parts;
  if (size > 1) parts.push_back(whole_of_length(1, size - 1));
  for (std::size_t i = 0; i < bound.size(); ++i) {
    const int rest = size - static_cast<int>(i) - 1;
    const char low = i == 0 && size > 1 ? '1' : '0';  // no leading zero
    parts.push_back(sequence(
        {literal(bound.substr(0, i)), digit(low, static_cast<char>(bound[i] - 1)), digits(rest, rest)}));
  }
  return choice(std::move(parts));
}

// A point and digits, or nothing.
Expr any_fraction() {
  return optional(sequence({literal("."), digits(1, kMaxNumberDigits)}));
}

// Fractions above `bound`, or equal to it unless `strict`.
Expr fraction_above(std::string_view bound, bool strict) {
  if (bound.empty() && !strict) return any_fraction();
  std::vector<Expr> parts;
  for (std::size_t i = 0; i < bound.size(); ++i)
    parts.push_back(
        sequence({literal(bound.substr(0, i)), digit(static_cast<char>(bound[i] + 1)), digits(0)}));
  parts.push_back(strict ? sequence({literal(bound), zeros(0), digit('1'), digits(0)})
                         : sequence({literal(bound), digits(0)}));
  return sequence({literal("."), choice(std::move(parts))});
}

Expr fraction_below(std::string_view bound, bool strict) {
  if (bound.empty()) return strict ? choice({}) : optional(sequence({literal("."), zeros(1)}));
  std::vector<Expr> parts;
  for (std::size_t i = 0; i < bound.size(); ++i) {
    parts.push_back(
        sequence({literal(bound.substr(0, i)), digit('0', static_cast<char>(bound[i] - 1)), digits(0)}));
    if (i > 0) parts.push_back(literal(bound.substr(0, i)));
  }
  if (!strict) parts.push_back(sequence({literal(bound), zeros(0)}));
  return optional(sequence({literal("."), choice(std::move(parts))}));
}

// Numbers without sign above / below that of `bound`; whole parts have at most `length` digits.
Expr magnitude_above(const Decimal& bound, bool strict, int length) {
  return choice({sequence({whole_above(bound.whole, length), any_fraction()}),
                 sequence({literal(bound.whole), fraction_above(bound.fraction, strict)})});
}

Expr magnitude_below(const Decimal& bound, bool strict) {
  return choice({sequence({whole_below(bound.whole), any_fraction()}),
                 sequence({literal(bound.whole), fraction_below(bound.fraction, strict)})});
}

// All numbers without exponent; only those that are not zero have a sign.
Expr decimals(int length) {
  return choice({sequence({whole_of_length(1, length), any_fraction()}),
                 sequence({literal("-"), magnitude_above(Decimal{}, true, length)})});
}

// What remains of decimals() above / below a bound.
Expr decimals_above(const NumberBounds::Bound& bound, int length) {
  if (!bound.value.negative) return magnitude_above(bound.value, bound.strict, length);
  return choice({sequence({whole_of_length(1, length), any_fraction()}),
                 sequence({literal("-"), magnitude_below(bound.value, bound.strict)})});
}

Expr decimals_below(const NumberBounds::Bound& bound, int length) {
  if (bound.value.negative)
    return sequence({literal("-"), magnitude_above(bound.value, bound.strict, length)});
  return choice({magnitude_below(bound.value, bound.strict),
                 sequence({literal("-"), whole_of_length(1, length), any_fraction()})});
}

// Numbers whose digits, with `places` of them behind the point, form a multiple of `divisor`.
Expr multiples(std::int64_t divisor, int places) {
  // Node 0: before the sign. For each count of digits behind the point (-1: no point yet, 0: just the point)
  // and each remainder there is one more; the last node is the end.
  const auto count = static_cast<int>(divisor);
  const auto node = [&](int behind, std::int64_t remainder) {
    return 1 + (behind + 1) * count + static_cast<int>(remainder);
  };
  const int end = node(places, divisor - 1) + 1;
  std::vector<GraphEdge> edges = {{0, node(-1, 0), optional(literal("-"))}};
  for (int behind = -1; behind <= places; ++behind) {
    std::int64_t missing = 1;  // the power of ten for the places that are not written
    for (int i = std::max(behind, 0); i < places; ++i) missing = missing * 10 % divisor;
    for (std::int64_t remainder = 0; remainder < divisor; ++remainder) {
      if (remainder * missing % divisor == 0 && behind != 0)
        edges.push_back({node(behind, remainder), end, literal("")});
      if (behind < 0 && places > 0) edges.push_back({node(-1, remainder), node(0, remainder), literal(".")});
      if (behind == places) continue;
      for (char c = '0'; c <= '9'; ++c) {
        const std::int64_t next = (remainder * 10 + (c - '0')) % divisor;
        edges.push_back({node(behind, remainder), node(behind < 0 ? -1 : behind + 1, next), digit(c, c)});
      }
    }
  }
  return graph(end + 1, std::move(edges));
}

Expr multiples_of(const Decimal& value) {
  std::string all = value.whole + value.fraction;
  all.erase(0, all.find_first_not_of('0'));
  const auto places = static_cast<int>(std::min<std::size_t>(value.fraction.size(), 100));
  if (value.negative || all.empty()) throw Error("multipleOf must be above 0");
  if (all.size() > 6 || std::stoll(all) * (places + 2) > kMaxDivisor || places > kMaxNumberDigits)
    throw Error("multipleOf has too many digits")
        .got(value.fraction.empty() ? value.whole : value.whole + "." + value.fraction);
  return multiples(std::stoll(all), places);
}

Expr within(const NumberBounds& bounds, const Expr* shape) {
  std::size_t length = kMaxNumberDigits;
  for (const NumberBounds::Bound& bound : bounds.lower)
    if (!bound.value.negative) length = std::max(length, bound.value.whole.size());
  for (const NumberBounds::Bound& bound : bounds.upper)
    if (bound.value.negative) length = std::max(length, bound.value.whole.size());
  const int digits_allowed = static_cast<int>(length);
  Dfa result = determinize(*decimals(digits_allowed));
  const auto also = [&](const Expr& language) { result = intersection(result, determinize(*language)); };
  if (shape) also(*shape);
  for (const NumberBounds::Bound& bound : bounds.lower) also(decimals_above(bound, digits_allowed));
  for (const NumberBounds::Bound& bound : bounds.upper) also(decimals_below(bound, digits_allowed));
  for (const Decimal& divisor : bounds.divisors) also(multiples_of(divisor));
  return dfa_expression(std::make_shared<const Dfa>(std::move(result)));
}

}  // namespace

Decimal decimal_of(const Json& value) {
  std::string all = "0";  // digits; the point stands before all[point]
  int point = 1;
  Decimal result;
  if (value.is_number_integer()) {
    all = value.dump();
    point = static_cast<int>(all.size());
  } else {
    if (!value.is_number() || !std::isfinite(value.get<double>())) throw Error("not a finite number");
    char buffer[64];
    const auto [end, problem] = std::to_chars(buffer, buffer + sizeof buffer, value.get<double>(),
                                              std::chars_format::scientific);  // the shortest: d.ddde+xx
    const std::string text(buffer, end);
    const std::size_t e = text.find('e');
    all = text.substr(0, e);
    std::erase(all, '.');
    point = std::stoi(text.substr(e + 1)) + 1 + (all[0] == '-');
  }
  if (all[0] == '-') {
    result.negative = true;
    all.erase(0, 1);
    --point;
  }
  if (point < 1) {
    all.insert(0, static_cast<std::size_t>(1 - point), '0');
    point = 1;
  }
  if (static_cast<std::size_t>(point) > all.size()) all.resize(static_cast<std::size_t>(point), '0');
  result.whole = all.substr(0, static_cast<std::size_t>(point));
  result.fraction = all.substr(static_cast<std::size_t>(point));
  result.whole.erase(0, std::min(result.whole.find_first_not_of('0'), result.whole.size() - 1));
  result.fraction.erase(result.fraction.find_last_not_of('0') + 1);  // npos + 1 is 0
  if (result.whole == "0" && result.fraction.empty()) result.negative = false;
  return result;
}

Expr json_integer() {
  return choice(
      {literal("0"), sequence({optional(literal("-")), digit('1'), digits(0, kMaxNumberDigits - 1)})});
}

Expr json_number() {
  // Up to 279: with 18 digits before the point that stays below the largest double.
  const Expr exponent = choice({digits(1, 2), sequence({literal("1"), digits(2, 2)}),
                                sequence({literal("2"), digit('0', '7'), digit()})});
  return sequence({optional(literal("-")), whole_of_length(1, kMaxNumberDigits), any_fraction(),
                   optional(sequence({choice({literal("e"), literal("E")}),
                                      optional(choice({literal("+"), literal("-")})), exponent}))});
}

Expr json_integer_within(const NumberBounds& bounds) {
  const Expr shape = sequence({optional(literal("-")), digits(1)});
  return within(bounds, &shape);
}

Expr json_number_within(const NumberBounds& bounds) {
  return within(bounds, nullptr);
}

}  // namespace bise
