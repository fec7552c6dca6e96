// silu(gate) * up over rows of float32. A kernel template (simd.h).
#pragma once

#include <algorithm>
#include <cstdint>

#include "backend/cpu/simd.h"

namespace bise {

// out[i] = gate[i] / (1 + exp(-gate[i])) * up[i] for i in [0, count).
template <class Simd>
void gate_columns(const float* gate, const float* up, float* out, std::int64_t count) {
  using Vec = typename Simd::Vec;
  const Vec one = Simd::set(1.0f), log2e = Simd::set(-1.44269504f), bound = Simd::set(-87.0f);
  for (std::int64_t i = 0; i < count; i += Simd::kWidth) {
    const std::int64_t lanes = std::min(Simd::kWidth, count - i);
    const Vec g = Simd::load_first(gate + i, lanes);
    // Below -87, exp(-gate) would overflow where the result is as good as 0.
    const Vec exponential = Simd::exp2(Simd::mul(Simd::max(g, bound), log2e));
    const Vec silu = Simd::div(g, Simd::add(one, exponential));
    Simd::store_first(out + i, Simd::mul(silu, Simd::load_first(up + i, lanes)), lanes);
  }
}

}  // namespace bise
