// Weights for measurements: normally distributed values, rounded to a scheme as a quantizer rounds them.
// Speed depends on values where a device is held at its power limit: uniform random bits draw more power than
// any real checkpoint's.
#pragma once

#include <cstdint>

#include "tensor/stored_linear.h"

namespace bise {

// [rows, columns] as a checkpoint of `scheme` stores it. The values' standard deviation is about 1 /
// sqrt(columns): a row's product with inputs of about 1 is near 1. Throws Error when the columns do not
// divide into groups.
StoredLinear random_linear(const Scheme& scheme, std::int64_t rows, std::int64_t columns, std::uint64_t seed);

}  // namespace bise
