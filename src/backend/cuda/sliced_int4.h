// Linear layers of few rows with int4 panels, with blocks so small that those of a launch and of the next one
// run beside each other: the next one's weights come while the first still multiplies.
#pragma once

#include "backend/cuda/streamed_linear.h"

namespace bise::cuda {

constexpr std::int64_t kSlicedInt4Rows = 16;  // beyond, streamed_linear() is faster
constexpr std::int64_t kDigitInt4Rows = 2;    // up to so many are multiplied as digits (digit_int4.cu)

// How a weight is cut for `rows` rows of the input, in one way up to kDigitInt4Rows and in one beyond: into
// tiles of `row_blocks` times 64 rows, and its columns among `chains` of sums, a multiprocessor each.
// row_blocks is 0 where streamed_linear() is to multiply the weight.
struct Int4Slices {
  int row_blocks = 0, tiles = 0, chains = 0;
};
Int4Slices int4_slices(std::int64_t rows, std::int64_t weight_rows, std::int64_t stride, bool gated);

// As streamed_linear() for up to kSlicedInt4Rows rows and panels. A row's result is the same, bit by bit, in
// any number of them up to kDigitInt4Rows and in any beyond; it is neither the other's nor the one that
// streamed_linear() gives. Among the former a row with an input of 2^110 and more, infinity or NaN gives NaN.
void sliced_int4(const StreamedLinear& task, const Int4Slices& slices, cudaStream_t stream);

}  // namespace bise::cuda
