// What every backend asks of a batch before it computes with it.
#pragma once

#include "backend/backend.h"

namespace bise {

// check()s that the batch's arrays fit each other and the cache.
void check_batch(const Batch& batch, const KvCacheShape& cache);

}  // namespace bise
