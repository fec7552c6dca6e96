// Every backend this machine can run, for tests that hold on each.
#pragma once

#include <memory>
#include <vector>

#include "backend/backend.h"
#include "base/thread_pool.h"

namespace bise {

inline std::vector<std::unique_ptr<Backend>> test_backends(ThreadPool&) {
  std::vector<std::unique_ptr<Backend>> backends;
  backends.push_back(make_reference_backend());
  return backends;
}

}  // namespace bise
