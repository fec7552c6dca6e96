// What the kernel templates (norm_kernel.h, rope_kernel.h, ...) need of an instruction set: a struct Simd
// with a float vector Vec of kWidth lanes and static functions on it. SimdScalar, SimdAvx2 and SimdAvx512
// are the three; each stands in a `#pragma GCC target` region of the one .cpp that uses it.
//
//   kTileRows, kTileVectors   the accumulators that its registers hold beside what a product reads
//   load / store        kWidth floats, or bfloat16 widened and rounded to nearest even
//   load of e4m3        the values times kLoadedE4M3 (its exponent's bias stays that of a half float)
//   *_first(p, n)       the first n lanes only (n <= kWidth); the others read as 0
//   fma(a, b, c)        a * b + c, fused where the instruction set has it
//   sum, max_lane       over the lanes, in a fixed order
//   exp2(x)             2^x to 1e-7, x <= 127; 0 below 2^-126, so 0 for -infinity; exactly 1 at 0
#pragma once

namespace bise {

constexpr float kSmallestExponent = -126.0f;
constexpr float kLoadedE4M3 = 0x1p-8f;

// 2^r for r in [0, 1): a minimax polynomial of relative error 8e-8, fixed to 1 at r = 0.
template <class Simd>
typename Simd::Vec exp2_fraction(typename Simd::Vec r) {
  typename Simd::Vec p = Simd::set(0.00186713005f);
  p = Simd::fma(p, r, Simd::set(0.00901703071f));
  p = Simd::fma(p, r, Simd::set(0.0557999127f));
  p = Simd::fma(p, r, Simd::set(0.240164444f));
  p = Simd::fma(p, r, Simd::set(0.693151295f));
  return Simd::fma(p, r, Simd::set(1.0f));
}

}  // namespace bise
