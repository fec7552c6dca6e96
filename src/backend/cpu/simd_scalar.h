// Float vectors of one lane: the portable form of the kernels (see simd.h).
#pragma once

#include <cstdint>

#include "backend/cpu/simd.h"
#include "tensor/float_types.h"

namespace bise {

struct SimdScalar {
  using Vec = float;
  static constexpr std::int64_t kWidth = 1, kTileRows = 4, kTileVectors = 2;

  static Vec zero() { return 0; }
  static Vec set(float value) { return value; }
  static Vec load(const float* p) { return *p; }
  static Vec load(const bf16* p) { return bf16_to_float(*p); }
  static Vec load(const e4m3* p) { return e4m3_to_float(*p) * kLoadedE4M3; }
  static Vec load_first(const float* p, std::int64_t) { return *p; }
  static void store(float* p, Vec v) { *p = v; }
  static void store(bf16* p, Vec v) { *p = float_to_bf16(v); }
  static void store_first(float* p, Vec v, std::int64_t) { *p = v; }

  static Vec add(Vec a, Vec b) { return a + b; }
  static Vec sub(Vec a, Vec b) { return a - b; }
  static Vec mul(Vec a, Vec b) { return a * b; }
  static Vec div(Vec a, Vec b) { return a / b; }
  static Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
  static Vec max(Vec a, Vec b) { return a > b ? a : b; }
  static float sum(Vec v) { return v; }
  static float max_lane(Vec v) { return v; }

  static Vec exp2(Vec x) {
    if (x < kSmallestExponent) return 0;
    auto whole = static_cast<std::int32_t>(x);
    whole -= static_cast<float>(whole) > x;
    const float power = std::bit_cast<float>((whole + 127) << 23);
    return exp2_fraction<SimdScalar>(x - static_cast<float>(whole)) * power;
  }
};

}  // namespace bise
