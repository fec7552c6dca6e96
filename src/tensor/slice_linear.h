// A part of a stored linear layer that is a linear layer of the same scheme: for devices that share a layer.
#pragma once

#include <cstdint>

#include "tensor/stored_linear.h"

namespace bise {

// Rows or columns [begin, end).
struct Slice {
  std::int64_t begin = 0, end = 0;
};

// The outputs in `rows`; shares the memory but for packed zero points. Throws Error where the slice cuts
// through what is stored together: a block's rows, a word of packed zero points, 64 values of nf4.
StoredLinear slice_rows(const StoredLinear& linear, Slice rows);

// The part of every output that the inputs in `columns` give; copies. The sum of such parts is the layer, so
// that only the one that begins at column 0 has the bias. Throws Error where the slice cuts through a group,
// a block, a packed word or 64 values of nf4.
StoredLinear slice_columns(const StoredLinear& linear, Slice columns);

}  // namespace bise
