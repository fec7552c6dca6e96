// How fast this machine multiplies at best, measured: the yardstick beside every kernel's time.
#pragma once

#include "backend/backend.h"
#include "base/thread_pool.h"

namespace bise {

// Multiplications and additions per second of the fastest instruction that a linear layer can use: bf16 or
// int8 tiles with AMX; else fused multiply-add of floats (`integer` false), or vpdpbusd with AVX-512. 0 where
// there is no measurement for the instruction set.
double peak_operations(ThreadPool& pool, Isa isa, bool integer);

}  // namespace bise
