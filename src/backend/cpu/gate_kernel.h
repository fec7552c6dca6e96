// silu(gate) * up. A kernel template (simd.h).
#pragma once

#include <algorithm>
#include <cstdint>

#include "backend/cpu/simd.h"

namespace bise {

// gate / (1 + exp(-gate)) * up
template <class Simd>
typename Simd::Vec gate(typename Simd::Vec gate, typename Simd::Vec up) {
  // Below -87, exp(-gate) would overflow where the result is as good as 0.
  const typename Simd::Vec bounded = Simd::max(gate, Simd::set(-87.0f));
  const typename Simd::Vec exponential = Simd::exp2(Simd::mul(bounded, Simd::set(-1.44269504f)));
  return Simd::mul(Simd::div(gate, Simd::add(Simd::set(1.0f), exponential)), up);
}

template <class Simd>
void gate_columns(const float* gates, const float* ups, float* out, std::int64_t count) {
  for (std::int64_t i = 0; i < count; i += Simd::kWidth) {
    const std::int64_t lanes = std::min(Simd::kWidth, count - i);
    const auto value = gate<Simd>(Simd::load_first(gates + i, lanes), Simd::load_first(ups + i, lanes));
    Simd::store_first(out + i, value, lanes);
  }
}

}  // namespace bise
