// Int4 weights with more rows of the input than are streamed, cut in every way that the kernel knows: the
// columns divided or not, two or three warpgroups, several tiles of rows; against reference/.
#include "tests/backend/conformance.h"

namespace bise {
namespace {

struct WideCase {
  std::int64_t outputs, columns;
  std::vector<std::int64_t> rows;
};

TEST(CudaWidePanels, AgreeWithReference) {
  const auto cuda = cuda_or_null();
  if (!cuda) GTEST_SKIP() << "no GPU, or built without CUDA";
  using enum Strategy;
  const auto int4 = [](Strategy strategy, bool symmetric) {
    return Scheme{WeightType::kInt, 4, strategy, strategy == kGroup ? 128 : 0, symmetric, InputType::kNone};
  };
  const std::vector<LinearCase> kinds = {
      {.name = "W4A16_g128", .scheme = int4(kGroup, true), .packed = true},
      {.name = "W4A16_ASYM_g128_bias", .scheme = int4(kGroup, false), .packed = true, .bias = true},
      {.name = "W4A16_channel", .scheme = int4(kChannel, true), .packed = true, .parts = 2}};
  const std::vector<WideCase> cases = {{6144, 256, {40, 128}},
                                       {2048, 1024, {64, 160}},
                                       {1160, 640, {33, 96, 300}},
                                       {17152, 128, {100, 140}},
                                       {384, 256, {64, 65, 500}}};
  Random random(19);
  for (const LinearCase& kind : kinds)
    for (const WideCase& one : cases) {
      if (one.outputs % kind.parts != 0) continue;
      const std::vector<StoredLinear> parts = random_linear(kind, one.outputs, one.columns, random);
      const std::int64_t most = one.rows.back(), half = one.outputs / 2;
      const Floats inputs = rounded_to_bf16(random_rows(most, one.columns, random));
      const std::vector<double> lengths = row_lengths(inputs, one.columns);
      const std::vector<double> weight_lengths = row_lengths(dequantized(parts), one.columns);
      const auto plain = reference().prepare_linear(parts);
      const auto rounded = reference().prepare_linear(rounded_to_bf16(parts));
      const auto weight = cuda->prepare_linear(parts);
      const auto products = [&](Backend& backend, const LinearWeight& weight, std::int64_t rows) {
        const auto values = std::span(inputs).first(as_size(rows * one.columns));
        const auto out = backend.make_matrix(rows, one.outputs);
        backend.linear(*encode(backend, values, rows, one.columns, {}), weight, *out);
        return read_all(backend, *out);
      };
      // Codes that are multiplied as they are, or weights rounded to bf16.
      const Floats exact = products(reference(), *plain, most),
                   scaled = products(reference(), *rounded, most);
      for (const std::int64_t rows : one.rows) {
        SCOPED_TRACE(testing::Message() << kind.name << ", weight [" << one.outputs << ", " << one.columns
                                        << "], " << rows << " rows");
        const std::span<const float> values = std::span(inputs).first(as_size(rows * one.columns));
        const auto in = encode(*cuda, values, rows, one.columns, {});
        const Floats actual = products(*cuda, *weight, rows);
        std::vector<double> tolerance(actual.size());
        for (std::size_t i = 0; i < actual.size(); ++i)
          tolerance[i] = 1e-5 * lengths[i / as_size(one.outputs)] * weight_lengths[i % as_size(one.outputs)];
        const Worst by_codes = compare(actual, std::span(exact).first(actual.size()), tolerance);
        const Worst by_weights = compare(actual, std::span(scaled).first(actual.size()), tolerance);
        EXPECT_TRUE(passes(by_codes.ratio < by_weights.ratio ? by_codes : by_weights, one.outputs));

        if (half % 64 != 0) continue;  // gate and up pass through memory, rounded to bf16
        const auto joined = cuda->make_linear_input(rows, half);
        cuda->gated_linear(*in, *weight, {}, *joined);
        const Gated expected = gated_of(actual, tolerance, one.outputs);
        EXPECT_TRUE(within(read_all(*cuda, *joined), expected.values, expected.slack, half)) << "gated";
      }
    }
}

}  // namespace
}  // namespace bise
