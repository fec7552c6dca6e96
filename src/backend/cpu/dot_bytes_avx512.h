// vpdpbusd as an instruction: g++ 12 copies and stores the sums of the intrinsic at each use in a loop over
// more than a few, which takes longer than the products. Include inside a region of target("avx512vnni").
#pragma once

#include <immintrin.h>

namespace bise {
namespace {

// Each lane of `sums` plus four products of an unsigned byte of `bytes` and a signed one of `x`.
[[gnu::always_inline]] inline __m512i add_dot_bytes(__m512i sums, __m512i bytes, __m512i x) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(bytes), "v"(x));
  return sums;
}

}  // namespace
}  // namespace bise
