// Weights with so many rows that each multiprocessor has a slice of them, for every size of slice, and some
// that are divided along their columns: against reference/, and fewer rows against more.
#include "tests/backend/conformance.h"

namespace bise {
namespace {

struct SliceCase {
  std::int64_t outputs, columns;
  std::string only = "";  // of the kinds
};

// Products of range.last rows against reference/, and those of fewer rows of `range` against them.
void expect_products(Backend& cuda, const LinearCase& kind, const std::vector<StoredLinear>& parts,
                     const SliceCase& one, const RowRange& range, Random& random) {
  const std::int64_t all_rows = range.last;
  SCOPED_TRACE(testing::Message() << "up to " << all_rows << " rows");
  const Floats inputs = rounded_to_bf16(random_rows(all_rows, one.columns, random));
  const auto plain = reference().prepare_linear(parts), weight = cuda.prepare_linear(parts);
  const auto products = [&](Backend& backend, const LinearWeight& weight, std::int64_t rows) {
    const auto in = encode(backend, std::span(inputs).first(as_size(rows * one.columns)), rows, one.columns,
                           encoding_for(weight));
    const auto out = backend.make_matrix(rows, one.outputs);
    backend.linear(*in, weight, *out);
    return read_all(backend, *out);
  };
  const Floats actual = products(cuda, *weight, all_rows);
  const std::vector<double> lengths = row_lengths(inputs, one.columns),
                            weight_lengths = row_lengths(dequantized(parts), one.columns);
  // Of the sums of float8 products see linear_test.cpp; a wrong row is off by far more.
  const double share = kind.name == "FP8" ? 2e-3 : 1e-5;
  std::vector<double> tolerance(actual.size());
  for (std::size_t i = 0; i < actual.size(); ++i)
    tolerance[i] = share * lengths[i / as_size(one.outputs)] * weight_lengths[i % as_size(one.outputs)];
  EXPECT_TRUE(within(actual, products(reference(), *plain, all_rows), tolerance, one.outputs));
  for (const std::int64_t rows : {1, 3, 5, 8, 9}) {
    if (rows < range.first || rows >= all_rows) continue;
    const Floats fewer = products(cuda, *weight, rows);
    EXPECT_TRUE(identical(fewer, std::span(actual).first(fewer.size()), one.outputs))
        << "of " << rows << " rows";
  }

  const std::int64_t half = one.outputs / 2;
  const auto gated = [&](std::int64_t rows) {
    const auto values = std::span(inputs).first(as_size(rows * one.columns));
    const auto in = encode(cuda, values, rows, one.columns, encoding_for(*weight));
    const auto joined = cuda.make_linear_input(rows, half);
    cuda.gated_linear(*in, *weight, {}, *joined);
    return read_all(cuda, *joined);
  };
  const Floats joined = gated(all_rows), fewest = gated(range.first);
  const Gated expected = gated_of(actual, tolerance, one.outputs);
  EXPECT_TRUE(within(joined, expected.values, expected.slack, half)) << "gated";
  EXPECT_TRUE(identical(fewest, std::span(joined).first(fewest.size()), half))
      << "gated, of " << range.first << " rows";
}

TEST(CudaSlices, AgreeWithReference) {
  const auto cuda = cuda_or_null();
  if (!cuda) GTEST_SKIP() << "no GPU, or built without CUDA";
  const std::vector<LinearCase> kinds = {
      {.name = "BF16", .scheme = {}},
      {.name = "FP8", .scheme = {WeightType::kFloat, 8, Strategy::kChannel, 0, true, InputType::kFp8Token}},
      {.name = "W8A8", .scheme = {WeightType::kInt, 8, Strategy::kChannel, 0, true, InputType::kInt8Token}},
      {.name = "W4A16_g128", .scheme = {WeightType::kInt, 4, Strategy::kGroup, 128, true}, .packed = true},
      {.name = "W4A16_ASYM_g64",
       .scheme = {WeightType::kInt, 4, Strategy::kGroup, 64, false},
       .packed = true},
      {.name = "W4A16_ASYM_g32",
       .scheme = {WeightType::kInt, 4, Strategy::kGroup, 32, false},
       .packed = true},
      {.name = "W4A16_channel",
       .scheme = {WeightType::kInt, 4, Strategy::kChannel, 0, true},
       .packed = true}};
  // For 132 multiprocessors 16, 32, 48, 64, 96, 128 and 192 rows each. Of {1008, 4160} and {5008, 1024} only
  // those of int4 are sliced; the last have more columns than a ring holds.
  const std::vector<SliceCase> cases = {{2000, 640},
                                        {4000, 1100},
                                        {6144, 256},
                                        {8192, 256},
                                        {12500, 256},
                                        {16384, 256},
                                        {24576, 256},
                                        {1008, 4160},
                                        {5008, 1024},
                                        {128, 12288},
                                        {24576, 2176, "W4A16_g128"}};
  Random random(17);
  for (const LinearCase& kind : kinds)
    for (const SliceCase& one : cases) {
      if (!kind.permits(one.outputs, one.columns) || (!one.only.empty() && one.only != kind.name)) continue;
      SCOPED_TRACE(testing::Message()
                   << kind.name << ", weight [" << one.outputs << ", " << one.columns << "]");
      const std::vector<StoredLinear> parts = random_linear(kind, one.outputs, one.columns, random);
      // Int4 products of more rows are streamed_linear()'s.
      for (const RowRange& range :
           kind.packed ? std::vector<RowRange>{kFewInt4Rows, kDigitInt4Rows} : std::vector<RowRange>{{1, 20}})
        expect_products(*cuda, kind, parts, one, range, random);
    }
}

}  // namespace
}  // namespace bise
