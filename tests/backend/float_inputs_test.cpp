// make_cpu_backend(..., float_inputs): linear layers keep float32's precision on every instruction set, AMX
// included; and copies of cache blocks.
#include "tests/backend/linear_cases.h"

namespace bise {
namespace {

// Of the product of two rows' lengths: two bf16 numbers hold 16 bits of a value.
constexpr double kUnit = 0x1p-15;

double length_of(std::span<const float> row) {
  double squares = 0;
  for (const float value : row) squares += static_cast<double>(value) * value;
  return std::sqrt(squares);
}

TEST(FloatInputs, LinearLayersEqualTheReference) {
  ThreadPool pool(2);
  const auto backend = make_cpu_backend(pool, available_isas().back(), true);
  Random random(20261121);
  for (const LinearCase& kind : linear_cases()) {
    if (!std::string(kind.name).starts_with("BF16")) continue;
    for (const std::int64_t rows : {1, 2, 17, 130}) {
      constexpr std::int64_t kOutputs = 192, kColumns = 576;
      const auto parts = random_linear(kind, kOutputs, kColumns, random);
      const Floats inputs = random_rows(rows, kColumns, random);
      Floats outputs[2], gated[2];
      Backend* backends[2] = {&reference(), backend.get()};
      for (int b = 0; b < 2; ++b) {
        const auto weight = backends[b]->prepare_linear(parts);
        const auto in = encode(*backends[b], inputs, rows, kColumns, encoding_for(*weight));
        const auto out = backends[b]->make_matrix(rows, weight->rows());
        backends[b]->linear(*in, *weight, *out);
        outputs[b] = read_all(*backends[b], *out);
        if (weight->rows() % 2 != 0) continue;
        const auto middle = backends[b]->make_linear_input(rows, weight->rows() / 2);
        backends[b]->gated_linear(*in, *weight, {}, *middle);
        gated[b].resize(static_cast<std::size_t>(rows * weight->rows() / 2));
        backends[b]->read(*middle, gated[b]);
      }
      const double scale = kUnit * length_of(inputs) * std::sqrt(kColumns);
      for (std::size_t i = 0; i < outputs[0].size(); ++i)
        ASSERT_NEAR(outputs[1][i], outputs[0][i], scale) << kind.name << " rows " << rows << " value " << i;
      for (std::size_t i = 0; i < gated[0].size(); ++i)
        ASSERT_NEAR(gated[1][i], gated[0][i], scale * (1 + std::fabs(gated[0][i])))
            << kind.name << " rows " << rows << " gated value " << i;
    }
  }
}

TEST(FloatInputs, HessiansEqualTheReference) {
  ThreadPool pool(2);
  const auto backend = make_cpu_backend(pool, available_isas().back(), true);
  Random random(3);
  constexpr std::int64_t kRows = 130, kColumns = 192;
  const Floats inputs = random_rows(kRows, kColumns, random);
  Floats hessians[2];
  Backend* backends[2] = {&reference(), backend.get()};
  for (int b = 0; b < 2; ++b) {
    hessians[b].resize(kColumns * kColumns);
    backends[b]->accumulate_hessian(*encode(*backends[b], inputs, kRows, kColumns, {}), hessians[b]);
  }
  for (std::size_t i = 0; i < kColumns; ++i)
    for (std::size_t j = i; j < kColumns; ++j) {
      const double lengths =
          std::sqrt(static_cast<double>(hessians[0][i * (kColumns + 1)]) * hessians[0][j * (kColumns + 1)]);
      ASSERT_NEAR(hessians[1][i * kColumns + j], hessians[0][i * kColumns + j], kUnit * lengths)
          << i << ", " << j;
    }
}

}  // namespace
}  // namespace bise
