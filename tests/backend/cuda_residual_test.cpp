// The residual of long steps, which a GPU keeps in bf16 (Backend::make_residual), and the products that it
// adds to it by themselves (Backend::linear_add).
#include <numeric>

#include "tests/backend/conformance.h"

namespace bise {
namespace {

// A step whose tokens' embeddings are `values` [rows, columns], and the residual that it gives.
class Residual {
 public:
  Residual(Backend& backend, std::span<const float> values, std::int64_t rows, std::int64_t columns)
      : backend_(backend),
        table_(backend.prepare_tensor(from_float(values, DType::kBF16, {rows, columns}))),
        cache_(backend.make_kv_cache({1, blocks_of(rows), 16, 1, 64, DType::kBF16})),
        matrix_(backend.make_residual(rows, columns)),
        ids_(as_size(rows)),
        starts_{0, static_cast<std::int32_t>(rows)},
        lengths_{static_cast<std::int32_t>(rows)},
        blocks_(as_size(blocks_of(rows))) {
    std::iota(ids_.begin(), ids_.end(), 0);
    std::iota(blocks_.begin(), blocks_.end(), 0);
    fill();
  }
  void fill() {
    backend_.begin_step({ids_, ids_, starts_, lengths_, blocks_, blocks_of(lengths_[0])}, *cache_);
    backend_.embed(*table_, *matrix_);
  }
  Matrix& matrix() { return *matrix_; }

 private:
  static std::int64_t blocks_of(std::int64_t rows) { return (rows + 15) / 16; }

  Backend& backend_;
  std::unique_ptr<DeviceTensor> table_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<Matrix> matrix_;
  std::vector<std::int32_t> ids_, starts_, lengths_, blocks_;
};

struct NormCase {
  std::int64_t rows, columns;
  bool delta;
  std::vector<std::int32_t> picked;
  bool is_short = true;  // or float32
};

TEST(CudaResidual, NormAgreesWithReference) {
  const auto cuda = cuda_or_null();
  if (!cuda) GTEST_SKIP() << "no GPU, or built without CUDA";
  const std::vector<NormCase> cases{
      {512, 2176, false, {}},      {700, 2176, true, {}},      {1500, 576, false, {}},
      {600, 100, true, {}, false},  // no whole vectors
      {600, 104, true, {}},        {600, 104, false, {}},      {600, 576, true, {599, 0, 17}},
      {600, 576, false, {3, 2}},   {520, 8192, true, {}},      {520, 16448, false, {}, false},  // too wide
      {2000, 4096, false, {}},     {511, 576, true, {}, false}};
  Random random(8);
  for (const NormCase& one : cases) {
    SCOPED_TRACE(testing::Message() << one.rows << " x " << one.columns << (one.delta ? ", delta" : "")
                                    << (one.picked.empty() ? "" : ", some rows"));
    const Floats values = rounded_to_bf16(random_rows(one.rows, one.columns, random));
    const Floats delta = rounded_to_bf16(random_rows(one.rows, one.columns, random));
    const Tensor weight = from_float(random.normals(one.columns), DType::kBF16, {one.columns});
    Floats sum = values;
    if (one.delta)
      for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += delta[i];
    if (one.is_short) sum = rounded_to_bf16(sum);
    const auto out_rows = static_cast<std::int64_t>(one.picked.size());
    const auto normed = reference().make_linear_input(one.rows, one.columns);
    reference().add_rms_norm(nullptr, *matrix_of(reference(), sum, one.rows, one.columns),
                             *reference().prepare_tensor(weight), 1e-5f, {}, *normed, one.picked);
    const Floats expected = read_all(reference(), *normed);
    Residual residual(*cuda, values, one.rows, one.columns);
    const auto addend = cuda->make_intermediate(one.rows, one.columns);
    cuda->write(delta, one.rows, *addend);
    const auto gain = cuda->prepare_tensor(weight);
    const auto out = cuda->make_linear_input(one.rows, one.columns);
    for (const InputEncoding encoding :
         {InputEncoding{}, InputEncoding{InputType::kInt8Token, 0}, InputEncoding{InputType::kFp8Token, 0},
          InputEncoding{InputType::kFp8Tensor, 0.02f}}) {
      SCOPED_TRACE(testing::Message() << "input type " << static_cast<int>(encoding.type));
      residual.fill();
      cuda->add_rms_norm(one.delta ? addend.get() : nullptr, residual.matrix(), *gain, 1e-5f, encoding, *out,
                         one.picked);
      EXPECT_EQ(out->rows(), one.picked.empty() ? one.rows : out_rows);
      EXPECT_TRUE(identical(read_all(*cuda, residual.matrix()), sum, one.columns)) << "the residual";
      const double units = std::sqrt(static_cast<double>(one.columns)) + 6;  // as in norm_test.cpp
      std::vector<double> slack;
      for (const float value : expected)
        slack.push_back(units * kUnit * std::fabs(static_cast<double>(value)));
      const Variant variant{"cuda", "cuda", 1, 0, nullptr};
      EXPECT_TRUE(within(read_all(*cuda, *out), expected,
                         with_encoding(slack, variant, encoding, expected, one.columns), one.columns));
    }
  }
}

struct AddCase {
  std::string name;
  Scheme scheme;
  std::int64_t rows, outputs, columns;
  bool adds = true;  // or left to linear()
  bool packed = false, bias = false;
};

// Of float8 codes such that the tensor cores' sums are exact: products are integers, no sum has 13 bits.
void make_exact(StoredLinear& linear, Floats& inputs, std::int64_t rows, Random& random) {
  Floats weight(as_size(linear.rows * linear.columns));
  for (float& value : weight) value = static_cast<float>(random.integer(-2, 2));
  linear.weight = from_float(weight, DType::kF8E4M3, {linear.rows, linear.columns});
  for (float& value : inputs) value = static_cast<float>(random.integer(-1, 1));
  for (std::int64_t r = 0; r < rows; ++r) inputs[as_size(r * linear.columns + r % linear.columns)] = 448;
}

TEST(CudaResidual, GetsTheProduct) {
  const auto cuda = cuda_or_null();
  if (!cuda) GTEST_SKIP() << "no GPU, or built without CUDA";
  using enum WeightType;
  using enum Strategy;
  const Scheme fp8{kFloat, 8, kChannel, 0, true, InputType::kFp8Token};
  const Scheme int8{kInt, 8, kChannel, 0, true, InputType::kInt8Token};
  const Scheme int4{kInt, 4, kGroup, 128, true, InputType::kNone};
  const std::vector<AddCase> cases{
      {"BF16", {}, 512, 656, 1100},
      {"BF16", {}, 1001, 656, 1100},
      {"BF16, few rows", {}, 511, 656, 1100, false},
      {"BF16, bias", {}, 600, 656, 1100, false, false, true},
      {"BF16, width without fast kernels", {}, 600, 650, 1100, false},
      {"FP8", fp8, 512, 656, 1100},
      {"FP8", fp8, 1001, 4096, 256},
      {"W8A8", int8, 512, 656, 1100},
      {"W8A8, wide tiles", int8, 4230, 4096, 256},
      {"W4A16, panels", int4, 512, 656, 1152, false, true},
      {"W4A16, expanded", int4, 700, 656, 1152, true, true},
      {"NF4", {kNf4, 4, kGroup, 64, true, InputType::kNone}, 600, 656, 1152},
      {"W8A8 in groups", {kInt, 8, kGroup, 64, true, InputType::kInt8Token}, 600, 656, 1152, false},
  };
  Random random(12);
  for (const AddCase& one : cases) {
    SCOPED_TRACE(testing::Message() << one.name << ", " << one.rows << " rows");
    const LinearCase kind{.name = one.name, .scheme = one.scheme, .packed = one.packed, .bias = one.bias};
    std::vector<StoredLinear> parts = random_linear(kind, one.outputs, one.columns, random);
    Floats inputs = random_rows(one.rows, one.columns, random);
    if (one.scheme.input == InputType::kFp8Token) make_exact(parts[0], inputs, one.rows, random);
    const auto weight = cuda->prepare_linear(parts);
    const auto in = encode(*cuda, inputs, one.rows, one.columns, encoding_for(*weight));
    const auto product = cuda->make_matrix(one.rows, one.outputs);
    cuda->linear(*in, *weight, *product);
    const Floats products = read_all(*cuda, *product);
    const std::vector<double> lengths = row_lengths(products, one.outputs);
    const bool is_int8 = one.scheme.input == InputType::kInt8Token;
    // Sums as large as the products.
    Floats values(products.size());
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = round_to_bf16(
          static_cast<float>(lengths[i / as_size(one.outputs)] / std::sqrt(static_cast<double>(one.outputs)) *
                             static_cast<double>(random.between(-3, 3))));
    Residual residual(*cuda, values, one.rows, one.outputs);
    // The second time with an algorithm that is known.
    for (int time = 0; time < 2; ++time) {
      residual.fill();
      ASSERT_EQ(cuda->linear_add(*in, *weight, residual.matrix()), one.adds);
      if (!one.adds) {
        EXPECT_TRUE(identical(read_all(*cuda, residual.matrix()), values, one.outputs));
        continue;
      }
      Floats expected(values.size());
      std::vector<double> tolerance(values.size());
      for (std::size_t i = 0; i < values.size(); ++i) {
        expected[i] = values[i] + products[i];
        // The rounding, cuBLASLt's before it, and what another order of sums may move across their edges.
        const double product = is_int8 ? 0 : static_cast<double>(products[i]);
        tolerance[i] = 1.01 * kBf16Unit * (std::fabs(static_cast<double>(expected[i])) + std::fabs(product)) +
                       1e-5 * lengths[i / as_size(one.outputs)];
      }
      EXPECT_TRUE(within(read_all(*cuda, residual.matrix()), expected, tolerance, one.outputs));
    }
  }
}

TEST(CudaResidual, IsFloat32WhenWritten) {
  const auto cuda = cuda_or_null();
  if (!cuda) GTEST_SKIP() << "no GPU, or built without CUDA";
  constexpr std::int64_t kRows = 600, kColumns = 128;
  Random random(13);
  const Floats values = random.normals(kRows * kColumns), shorter = rounded_to_bf16(values);
  Residual residual(*cuda, values, kRows, kColumns);
  EXPECT_TRUE(identical(read_all(*cuda, residual.matrix()), shorter, kColumns));
  const auto store = cuda->make_row_store(2 * kRows, kColumns);
  store->save(residual.matrix(), 7);
  cuda->write(values, kRows, residual.matrix());
  EXPECT_TRUE(identical(read_all(*cuda, residual.matrix()), values, kColumns));
  residual.fill();
  store->load(7, kRows, residual.matrix());
  EXPECT_TRUE(identical(read_all(*cuda, residual.matrix()), shorter, kColumns));
  // Float32 again: sums are not rounded.
  const Floats small(values.size(), 0x1p-12f);
  const auto delta = matrix_of(*cuda, small, kRows, kColumns);
  const auto gain = cuda->prepare_tensor(from_float(Floats(kColumns, 1), DType::kF32, {kColumns}));
  const auto out = cuda->make_linear_input(kRows, kColumns);
  cuda->add_rms_norm(delta.get(), residual.matrix(), *gain, 1e-5f, {}, *out);
  Floats sums = shorter;
  for (float& value : sums) value += 0x1p-12f;
  EXPECT_TRUE(identical(read_all(*cuda, residual.matrix()), sums, kColumns));
}

// Sums of many rows that bf16 would round.
TEST(CudaResidual, IsFloat32WhereAskedFor) {
  const auto cuda = cuda_or_null(true);
  if (!cuda) GTEST_SKIP() << "no GPU, or built without CUDA";
  constexpr std::int64_t kRows = 600, kColumns = 128;
  Random random(14);
  const Floats values = random.normals(kRows * kColumns);
  Residual residual(*cuda, values, kRows, kColumns);
  const auto delta = cuda->make_intermediate(kRows, kColumns);
  cuda->write(Floats(values.size(), 0x1p-12f), kRows, *delta);
  const auto gain = cuda->prepare_tensor(from_float(Floats(kColumns, 1), DType::kF32, {kColumns}));
  const auto out = cuda->make_linear_input(kRows, kColumns);
  cuda->add_rms_norm(delta.get(), residual.matrix(), *gain, 1e-5f, {}, *out);
  Floats sums = rounded_to_bf16(values);
  for (float& value : sums) value += 0x1p-12f;
  EXPECT_TRUE(identical(read_all(*cuda, residual.matrix()), sums, kColumns));
}

}  // namespace
}  // namespace bise
