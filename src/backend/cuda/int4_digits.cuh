// One or two rows of inputs as digits, for digit_int4.cu: operand B of mma.sync in 8 bits. The bf16 values of
// a row in one chunk of 128 columns, over a power of two that follows from the largest of them, are rounded
// to whole numbers below 2^22 (exact down to 2^-14 of the largest) and written as three digits of base 256,
// from -128 to 127. Sums of products are exact then, whatever their order.
//
// Digits of a chunk: [8 columns of B][2 halves][4 threads][4 steps] words of four columns of the weight,
// which are those of a word of int4_panels.h, as the threads of a product find them; the halves of odd
// columns of B have changed places, so that eight threads read from all banks. Behind them the sums of each
// column's digits, int [4][8], by 32 columns of the weight or all in the first, and what a digit is worth,
// float [8].
#pragma once

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/hopper.cuh"

namespace bise::cuda {

constexpr int kDigits = 3;
constexpr int kDigitColumns = 8, kDigitColumnBytes = 128;
constexpr int kDigitSumsAt = kDigitColumns * kDigitColumnBytes, kDigitWorthsAt = kDigitSumsAt + 4 * 8 * 4;
constexpr int kDigitBytes = kDigitWorthsAt + 128;  // a whole line for the worths

// A row's columns of B: a thread has the two lower digits of row lane % 4 and the highest of two rows less.
__device__ inline int digit_column(int row, int digit) {
  return digit < 2 ? row * 2 + digit : 4 + row * 2;
}

// What a lane has of a row's chunk: columns 2 t, 2 t + 1 and those 8 further of step lane / 4, t = lane % 4.
using RowPairs = uint2;
__device__ inline RowPairs load_pairs(const bf16* chunk) {
  const int lane = threadIdx.x % 32;
  const auto* at = reinterpret_cast<const std::uint32_t*>(chunk) + lane / 4 * 8 + lane % 4;
  return {__ldcg(at), __ldcg(at + 4)};
}

// 1.5 * 2^23: added to a float of less than 2^22, it leaves the nearest whole number in the lowest bits.
constexpr std::int32_t kWholeBits = 0x4b400000;
constexpr float kWhole = 12582912.f;

// What a warp makes of a row's chunk: the lane's digits, and their sums. kBySteps: sums by 32 columns.
struct RowDigits {
  std::uint32_t words[kDigits];
  int sums[kDigits], exponent;
};
template <bool kBySteps>
__device__ inline RowDigits digits_of_row(RowPairs pairs) {
  const std::uint32_t largest = __vmaxu2(pairs.x & 0x7fff7fffu, pairs.y & 0x7fff7fffu);
  const std::uint32_t bits = __reduce_max_sync(~0u, max(largest >> 16, largest & 0xffff));
  RowDigits row;
  row.exponent = max(static_cast<int>(bits >> 7), 22);
  const float scale = __int_as_float((275 - row.exponent) << 23);
  const auto digits_of = [&](std::uint32_t value) {
    const std::int32_t whole = __float_as_int(__fmaf_rn(__uint_as_float(value), scale, kWhole)) - kWholeBits;
    return static_cast<std::uint32_t>(whole + 0x808080) ^ 0x808080u;
  };
  const std::uint32_t low = digits_of(pairs.x << 16), next_low = digits_of(pairs.y << 16),
                      high = digits_of(pairs.x & 0xffff0000u), next_high = digits_of(pairs.y & 0xffff0000u);
  const std::uint32_t lower = __byte_perm(low, next_low, 0x5140),
                      upper = __byte_perm(high, next_high, 0x5140);
  row.words[0] = __byte_perm(lower, upper, 0x5410);
  row.words[1] = __byte_perm(lower, upper, 0x7632);
  row.words[2] =
      __byte_perm(__byte_perm(low, next_low, 0x0062), __byte_perm(high, next_high, 0x0062), 0x5410);
#pragma unroll
  for (int d = 0; d < kDigits; ++d) {
    row.sums[d] = __dp4a(static_cast<int>(row.words[d]), 0x01010101, 0);
    if constexpr (kBySteps) {
#pragma unroll
      for (int offset = 1; offset < 8; offset *= 2) row.sums[d] += __shfl_xor_sync(~0u, row.sums[d], offset);
    } else {
      row.sums[d] = __reduce_add_sync(~0u, row.sums[d]);
    }
  }
  return row;
}

template <bool kBySteps>
__device__ inline void store_digits(char* digits, int row, const RowDigits& of_row) {
  // From 2^110 on kWhole times the highest digit's worth is no float (exponent 255: infinity or NaN).
  constexpr int kTooLarge = 127 + 110;
  const int lane = threadIdx.x % 32, step = lane / 4;
#pragma unroll
  for (int d = 0; d < kDigits; ++d) {
    const int column = digit_column(row, d);
    *reinterpret_cast<std::uint32_t*>(digits + column * kDigitColumnBytes + ((step / 4) ^ (column & 1)) * 64 +
                                      lane % 4 * 16 + step % 4 * 4) = of_row.words[d];
  }
  const int digit = lane % 8;
  if (digit >= kDigits || (!kBySteps && lane >= kDigits)) return;
  const int column = digit_column(row, digit);
  const int sum = digit == 0 ? of_row.sums[0] : digit == 1 ? of_row.sums[1] : of_row.sums[2];
  reinterpret_cast<int*>(digits + kDigitSumsAt)[lane / 8 * kDigitColumns + column] = sum;
  if (lane < kDigits)
    reinterpret_cast<float*>(digits + kDigitWorthsAt)[column] =
        of_row.exponent >= kTooLarge ? __int_as_float(0x7fc00000)
                                     : __int_as_float((of_row.exponent - 21 + 8 * digit) << 23);
}

// The lane's operand B of four steps, two of which are a product's.
__device__ inline void load_digits(const char* digits, int half, std::uint32_t (&words)[4]) {
  const int lane = threadIdx.x % 32, column = lane / 4;
  const uint4 raw = *reinterpret_cast<const uint4*>(digits + column * kDigitColumnBytes +
                                                    (half ^ (column & 1)) * 64 + lane % 4 * 16);
  words[0] = raw.x, words[1] = raw.y, words[2] = raw.z, words[3] = raw.w;
}

// sums += a b: 16 rows of codes, unsigned, and 8 columns of digits, 32 of each.
__device__ inline void multiply_digits(std::int32_t (&sums)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                       std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace bise::cuda
