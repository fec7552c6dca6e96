// Weights for measurements: normally distributed values, rounded to a scheme as a quantizer rounds them.
// Speed depends on values where a device is held at its power limit: uniform random bits draw more power than
// any real checkpoint's, zeros draw less.
#pragma once

#include <cstdint>
#include <string>

#include "tensor/stored_linear.h"

namespace bise {

enum class RandomValues {
  kNormal,
  // What vLLM's `--load-format dummy` leaves (initialize_dummy_weights): floats uniform in +-0.001, rounded
  // to their type, scales too; integers as they were allocated, which is zero in a new process. Nearly all
  // e4m3 weights are zero then.
  kDummy,
};

// "normal" or "dummy"; throws Error on others.
RandomValues parse_random_values(const std::string& name);

// [rows, columns] as a checkpoint of `scheme` stores it. Normal values' standard deviation is about 1 /
// sqrt(columns): a row's product with inputs of about 1 is near 1. Throws Error when the columns do not
// divide into groups.
StoredLinear random_linear(const Scheme& scheme, std::int64_t rows, std::int64_t columns, std::uint64_t seed,
                           RandomValues values = RandomValues::kNormal);

}  // namespace bise
