#include "backend/cpu/linear_kernels.h"
#include "backend/cpu/linear_rows_kernel.h"
#include "backend/cpu/simd_scalar.h"
#include "tensor/float_types.h"

namespace bise {
namespace {

struct ScalarCodes : SimdScalar {
  static constexpr int kRows = 4, kTokens = 2;
  static constexpr std::int32_t kCodeOffset = 0;

  static void widen_f16(const std::uint16_t* in, std::int64_t count, float* out) {
    for (std::int64_t i = 0; i < count; ++i) out[i] = f16_to_float(in[i]);
  }

  static void widen_nibbles(const std::uint8_t* in, std::int64_t count, bool high_first, const float* levels,
                            float zero_point, float scale, float* out) {
    float values[16];
    for (int code = 0; code < 16; ++code) values[code] = (levels[code] - zero_point) * scale;
    for (std::int64_t i = 0; i < count; ++i)
      out[i] = values[(i % 2 == 0) == high_first ? in[i / 2] >> 4 : in[i / 2] & 15];
  }

  template <int R, int T>
  static void dot_codes(const std::int8_t* w, std::int64_t w_stride, const std::int8_t* x,
                        std::int64_t x_stride, std::int64_t columns, std::int32_t* sums) {
    for (int r = 0; r < R; ++r)
      for (int t = 0; t < T; ++t) {
        std::int32_t sum = 0;
        for (std::int64_t k = 0; k < columns; ++k) sum += w[r * w_stride + k] * x[t * x_stride + k];
        sums[r * T + t] = sum;
      }
  }
};

}  // namespace

void scalar_linear(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                   const CpuLinearWeight& weight, CpuMatrix& out) {
  run_linear<RowProduct<ScalarCodes>>(pool, buffers, in, weight, out);
}

void scalar_gated_linear(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                         const CpuLinearWeight& gate_up, CpuLinearInput& out) {
  run_gated<RowProduct<ScalarCodes>>(pool, buffers, in, gate_up, out);
}

}  // namespace bise
