// Passes over a row of logits, behind sampling and log-probabilities. Compiled for each instruction set, with
// results that are equal to the bit on all of them: sums are taken in a fixed order of lanes and no
// multiplication is fused with an addition. Pure functions, any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "backend/backend.h"
#include "engine/gumbel.h"

namespace bise {

// Logits whose maximum is taken together.
constexpr std::size_t kLogitBlock = 64;

struct LogitKernels {
  // maxima[b] = largest of values[b * kLogitBlock ...]; false, and no meaning, when there is a NaN.
  bool (*block_maxima)(const float* values, std::size_t count, float* maxima);
  // sum of exp((value - largest) * factor); exponentials in float32 (relative error 2e-7), sums in double.
  double (*sum_exp)(const float* values, std::size_t count, float largest, float factor);
  // The sum of the weights exp((value - largest) * factor), in float32, rounded to multiples of 2^-33: exact
  // up to 2^19 of them, so that it is the same in every order (backend.h, TokenDraw).
  double (*sum_weights)(const float* values, std::size_t count, float largest, float factor);
  // The same; each value becomes its weight.
  double (*weigh)(float* values, std::size_t count, float largest, float factor);
  // sum of exp(p - largest) * (p - q)
  double (*weighted_difference)(const float* p, const float* q, std::size_t count, float largest);
  std::size_t (*count_at_least)(const float* values, std::size_t count, float threshold);
  // values[i] = -infinity where bit i % 32 of bits[i / 32] is clear.
  void (*apply_mask)(float* values, std::size_t count, const std::uint32_t* bits);
  // The token with the largest value * factor + noise, in double, of those with value >= threshold; the
  // first of equals. -1 when there is none. Values are above -infinity or out.
  std::int32_t (*gumbel_argmax)(const float* values, std::size_t count, float factor, float threshold,
                                GumbelKey key);
};

const LogitKernels& logit_kernels(Isa isa);
// Of the best instruction set that this processor has.
const LogitKernels& logit_kernels();

}  // namespace bise
