// Which rows of a step a thread works on, the same in every operation that divides rows: what a thread has
// written is then still in its own cache when the next operation reads it.
#pragma once

#include <algorithm>
#include <cstdint>

namespace bise {

// Whether `rows` are enough for the linear layers to divide them among the threads: then each thread brings
// all weights into its cache, so it must have rows enough to use them on.
inline bool rows_are_shared(std::int64_t rows, int threads) {
  constexpr std::int64_t kRowsOfThread = 192;
  return threads > 1 && rows >= kRowsOfThread * threads;
}

struct RowShare {
  std::int64_t begin, end;
};

// Whole pairs of token tiles (many_rows_amx.cpp), the rest for the last thread.
inline RowShare share_of_rows(std::int64_t rows, int thread, int threads) {
  constexpr std::int64_t kPairRows = 32;
  const std::int64_t pairs = (rows + kPairRows - 1) / kPairRows;
  return {pairs * thread / threads * kPairRows, std::min(rows, pairs * (thread + 1) / threads * kPairRows)};
}

}  // namespace bise
