#include "engine/logit_kernels.h"

#include <cmath>
#include <vector>

// Vectors are passed between functions that are always inlined.
#pragma GCC diagnostic ignored "-Wpsabi"

namespace bise {

double gumbel_noise(std::uint32_t bits) {
  return -std::log(-std::log1p(-(static_cast<double>(bits) + 0.5) * 0x1p-32));
}

namespace {

namespace plain {
constexpr std::size_t kVectorBytes = 16;
#include "engine/logit_kernels_body.h"
}  // namespace plain

#pragma GCC push_options
#pragma GCC target("avx2,bmi2")
namespace avx2 {
constexpr std::size_t kVectorBytes = 32;
#include "engine/logit_kernels_body.h"
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,bmi2,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,prefer-vector-width=512")
namespace avx512 {
constexpr std::size_t kVectorBytes = 64;
#include "engine/logit_kernels_body.h"
}  // namespace avx512
#pragma GCC pop_options

}  // namespace

const LogitKernels& logit_kernels(Isa isa) {
  switch (isa) {
    case Isa::kScalar: return plain::kKernels;
    case Isa::kAvx2: return avx2::kKernels;
    case Isa::kAvx512:
    case Isa::kAmx: return avx512::kKernels;
  }
  return plain::kKernels;
}

const LogitKernels& logit_kernels() {
  static const LogitKernels& best = logit_kernels(available_isas().back());
  return best;
}

}  // namespace bise
