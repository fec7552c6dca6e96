// JSON numbers within bounds, as automata over their digits.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "grammar/expression.h"

namespace bise {

// Numbers have at most this many digits before the point, and behind it, unless a bound asks for larger ones:
// whole numbers then fit in 64 bits.
inline constexpr int kMaxNumberDigits = 18;

// A finite number as its digits: whole part without leading zeros, fraction without trailing ones.
struct Decimal {
  bool negative = false;  // never for zero
  std::string whole = "0", fraction;
};
// Throws Error when `value` is no finite number.
Decimal decimal_of(const Json& value);

struct NumberBounds {
  struct Bound {
    Decimal value;
    bool strict;  // the bound itself is out
  };
  std::vector<Bound> lower, upper;
  std::vector<Decimal> divisors;  // `multipleOf`
  bool any() const { return !lower.empty() || !upper.empty() || !divisors.empty(); }
};

Expr json_integer();
Expr json_number();
// Without an exponent; nothing when no number lies within the bounds. Throws Error when a divisor is not
// positive or has too many digits.
Expr json_integer_within(const NumberBounds& bounds);
Expr json_number_within(const NumberBounds& bounds);

}  // namespace bise
