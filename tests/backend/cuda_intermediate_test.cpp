// Products that a GPU leaves in bf16 for the next operation: those of float32, rounded, for every number of
// rows that another kernel takes. (Sums of float8 products are not exact and differ from kernel to kernel.)
#include "tests/backend/conformance.h"

namespace bise {
namespace {

TEST(CudaIntermediate, IsTheFloat32ProductRounded) {
  const auto cuda = cuda_or_null();
  if (!cuda) GTEST_SKIP() << "no GPU, or built without CUDA";
  Random random(11);
  const std::vector<LinearCase> kinds = {
      {.name = "BF16", .scheme = {}},
      {.name = "W8A8", .scheme = {WeightType::kInt, 8, Strategy::kChannel, 0, true, InputType::kInt8Token}}};
  constexpr std::int64_t kOutputs = 656, kColumns = 1100;
  for (const LinearCase& kind : kinds) {
    const auto weight = cuda->prepare_linear(random_linear(kind, kOutputs, kColumns, random));
    for (const std::int64_t rows : {1, 64, 100, 383, 384, 1001}) {
      SCOPED_TRACE(testing::Message() << kind.name << ", " << rows << " rows");
      const auto in =
          encode(*cuda, random_rows(rows, kColumns, random), rows, kColumns, encoding_for(*weight));
      const auto exact = cuda->make_matrix(rows, kOutputs), rounded = cuda->make_intermediate(rows, kOutputs);
      cuda->linear(*in, *weight, *exact);
      cuda->linear(*in, *weight, *rounded);
      const Floats expected = read_all(*cuda, *exact);
      // The rounding, and what another order of sums may move across its edge.
      const std::vector<double> lengths = row_lengths(expected, kOutputs);
      std::vector<double> tolerance(expected.size());
      for (std::size_t i = 0; i < expected.size(); ++i)
        tolerance[i] = 1.01 * kBf16Unit * std::fabs(static_cast<double>(expected[i])) +
                       1e-5 * lengths[i / as_size(kOutputs)];
      EXPECT_TRUE(within(read_all(*cuda, *rounded), expected, tolerance, kOutputs));
    }
  }
}

}  // namespace
}  // namespace bise
