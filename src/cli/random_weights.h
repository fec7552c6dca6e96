// Weights of random bits for measurements: speed does not depend on values, as long as they are numbers.
#pragma once

#include <cstdint>

#include "tensor/stored_linear.h"

namespace bise {

// [rows, columns] as a checkpoint of `scheme` stores it. Values have the size that keeps a row's product with
// inputs of about 1 near 1. Throws Error when the columns do not divide into groups.
StoredLinear random_linear(const Scheme& scheme, std::int64_t rows, std::int64_t columns, std::uint64_t seed);

}  // namespace bise
