// Every backend this machine can run, for tests that hold on each.
#pragma once

#include <memory>
#include <vector>

#include "backend/backend.h"
#include "base/thread_pool.h"

namespace bise {

// The CPU backend with each instruction set, plain to wide; AMX with float32's inputs too.
inline std::vector<std::unique_ptr<Backend>> cpu_backends(ThreadPool& pool) {
  std::vector<std::unique_ptr<Backend>> backends;
  for (const Isa isa : available_isas()) backends.push_back(make_cpu_backend(pool, isa));
  if (available_isas().back() == Isa::kAmx) backends.push_back(make_cpu_backend(pool, Isa::kAmx, true));
  return backends;
}

inline std::vector<std::unique_ptr<Backend>> test_backends(ThreadPool& pool) {
  std::vector<std::unique_ptr<Backend>> backends = cpu_backends(pool);
  backends.insert(backends.begin(), make_reference_backend());
  return backends;
}

}  // namespace bise
