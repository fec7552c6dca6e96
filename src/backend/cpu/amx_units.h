// How the rows of a weight are cut into units for AMX: of a plain layer two times 16 consecutive rows, of a
// gated one 16 rows of gate and the same 16 of up. Internal to the linear layers.
#pragma once

#include "backend/cpu/linear_driver.h"

namespace bise {
namespace {

class AmxUnits {
 public:
  AmxUnits(std::int64_t rows, bool gated) : columns_(gated ? rows / 2 : rows), gated_(gated) {}

  // Columns of the layer's output.
  std::int64_t columns() const { return columns_; }
  std::int64_t count() const {
    const std::int64_t of_unit = gated_ ? Unit::kHalf : 2 * Unit::kHalf;
    return (columns_ + of_unit - 1) / of_unit;
  }
  Unit at(std::int64_t u) const {
    if (gated_) {
      const std::int64_t row = Unit::kHalf * u, count = half_count(columns_ - row);
      return {{row, columns_ + row}, {count, count}};
    }
    const std::int64_t row = 2 * Unit::kHalf * u;
    return {{row, row + Unit::kHalf}, {half_count(columns_ - row), half_count(columns_ - row - Unit::kHalf)}};
  }

 private:
  std::int64_t columns_;
  bool gated_;
};

}  // namespace
}  // namespace bise
