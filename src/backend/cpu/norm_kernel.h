// One row of add_rms_norm, for every instruction set. Include inside its target region.
#pragma once

#include <cstdint>

namespace bise {

// residual[0..kWidth) += delta (unless null), its squares are added to `sum`.
template <class Simd>
typename Simd::Vec add_and_square(float* residual, const float* delta, typename Simd::Vec sum) {
  typename Simd::Vec x = Simd::load(residual);
  if (delta) Simd::store(residual, x = Simd::add(x, Simd::load(delta)));
  return Simd::fma(x, x, sum);
}

// residual += delta (unless null); returns the sum of residual^2.
template <class Simd>
float add_and_sum_squares(float* residual, const float* delta, std::int64_t columns) {
  constexpr std::int64_t kWidth = Simd::kWidth;
  typename Simd::Vec sums[4] = {Simd::zero(), Simd::zero(), Simd::zero(), Simd::zero()};
  std::int64_t c = 0;
  for (; c + 4 * kWidth <= columns; c += 4 * kWidth)
    for (std::int64_t i = 0; i < 4; ++i)
      sums[i] =
          add_and_square<Simd>(residual + c + i * kWidth, delta ? delta + c + i * kWidth : nullptr, sums[i]);
  for (; c + kWidth <= columns; c += kWidth)
    sums[0] = add_and_square<Simd>(residual + c, delta ? delta + c : nullptr, sums[0]);
  if (const std::int64_t left = columns - c; left > 0) {
    typename Simd::Vec x = Simd::load_first(residual + c, left);
    if (delta) Simd::store_first(residual + c, x = Simd::add(x, Simd::load_first(delta + c, left)), left);
    sums[1] = Simd::fma(x, x, sums[1]);
  }
  return Simd::sum(Simd::add(Simd::add(sums[0], sums[1]), Simd::add(sums[2], sums[3])));
}

// out = x * factor * gain
template <class Simd>
void scale_row(const float* x, float factor, const float* gain, float* out, std::int64_t columns) {
  const auto f = Simd::set(factor);
  std::int64_t c = 0;
  for (; c + Simd::kWidth <= columns; c += Simd::kWidth)
    Simd::store(out + c, Simd::mul(Simd::mul(Simd::load(x + c), f), Simd::load(gain + c)));
  if (const std::int64_t left = columns - c; left > 0) {
    const auto scaled = Simd::mul(Simd::load_first(x + c, left), f);
    Simd::store_first(out + c, Simd::mul(scaled, Simd::load_first(gain + c, left)), left);
  }
}

// out += x * factor
template <class Simd>
void add_scaled(const float* x, float factor, float* out, std::int64_t columns) {
  const auto f = Simd::set(factor);
  std::int64_t c = 0;
  for (; c + Simd::kWidth <= columns; c += Simd::kWidth)
    Simd::store(out + c, Simd::fma(Simd::load(x + c), f, Simd::load(out + c)));
  if (const std::int64_t left = columns - c; left > 0) {
    const auto sum = Simd::fma(Simd::load_first(x + c, left), f, Simd::load_first(out + c, left));
    Simd::store_first(out + c, sum, left);
  }
}

}  // namespace bise
