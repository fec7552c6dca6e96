// How fast this machine reads memory: the limit that decoding is compared with.
#pragma once

#include <cstdint>

#include "base/thread_pool.h"

namespace bise {

// GB/s (1e9 bytes) at which all threads of `pool` together read a buffer of `bytes` on huge pages, the best
// of several passes. Allocates the buffer; for the memory itself take more than the last-level cache holds.
double measure_read_bandwidth(ThreadPool& pool, std::int64_t bytes);

}  // namespace bise
