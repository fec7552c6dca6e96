// The rotation of one head, for every instruction set. Include inside its target region.
#pragma once

#include <cstdint>

namespace bise {

template <class Simd, class Vec = typename Simd::Vec>
Vec turned_first(Vec x, Vec y, Vec cosine, Vec sine) {
  return Simd::fma(x, cosine, Simd::sub(Simd::zero(), Simd::mul(y, sine)));
}

template <class Simd, class Vec = typename Simd::Vec>
Vec turned_second(Vec x, Vec y, Vec cosine, Vec sine) {
  return Simd::fma(y, cosine, Simd::mul(x, sine));
}

// Turns the pairs (head[i], head[i + half]) by the angles of cosine[i] and sine[i], i < half.
template <class Simd>
void rotate_head(float* head, const float* cosine, const float* sine, std::int64_t half) {
  using Vec = typename Simd::Vec;
  std::int64_t i = 0;
  for (; i + Simd::kWidth <= half; i += Simd::kWidth) {
    const Vec x = Simd::load(head + i), y = Simd::load(head + half + i);
    const Vec c = Simd::load(cosine + i), s = Simd::load(sine + i);
    Simd::store(head + i, turned_first<Simd>(x, y, c, s));
    Simd::store(head + half + i, turned_second<Simd>(x, y, c, s));
  }
  if (const std::int64_t left = half - i; left > 0) {
    const Vec x = Simd::load_first(head + i, left), y = Simd::load_first(head + half + i, left);
    const Vec c = Simd::load_first(cosine + i, left), s = Simd::load_first(sine + i, left);
    Simd::store_first(head + i, turned_first<Simd>(x, y, c, s), left);
    Simd::store_first(head + half + i, turned_second<Simd>(x, y, c, s), left);
  }
}

}  // namespace bise
