// Embedding, normalization, encoding and host access of every CPU backend against reference/.
#include <limits>

#include "tests/backend/conformance.h"

namespace bise {
namespace {

constexpr InputEncoding kEncodings[] = {{},
                                        {InputType::kInt8Token, 0},
                                        {InputType::kFp8Token, 0},
                                        {InputType::kFp8Tensor, 0.02f},
                                        {InputType::kFp8Tensor, 1.7f}};

TEST(Matrix, ReadsWhatWasWritten) {
  Random random(1);
  for_each_variant([&](const Variant& variant) {
    const auto matrix = variant.backend->make_matrix(9, 37);
    for (const std::int64_t rows : {9, 1, 4, 0}) {
      const Floats values = random.normals(rows * 37);
      variant.backend->write(values, rows, *matrix);
      EXPECT_EQ(matrix->rows(), rows);
      EXPECT_TRUE(identical(read_all(*variant.backend, *matrix), values, 37));
    }
    EXPECT_EQ(matrix->max_rows(), 9);
    EXPECT_ANY_THROW(variant.backend->write(Floats(370), 10, *matrix));
  });
}

// Every value that decides a rounding: halves of int8 codes, e4m3 ties and subnormals, saturation, zeros.
TEST(Encoding, IsTheReferencesToTheBit) {
  constexpr std::int64_t kColumns = 1037;
  Random random(4);
  Floats values;
  const auto add_row = [&](auto value) {
    for (std::int64_t c = 0; c < kColumns; ++c) values.push_back(value(c));
  };
  add_row([](std::int64_t) { return 0.0f; });
  add_row([](std::int64_t c) { return c == 5 ? 127.0f : static_cast<float>(c % 509 - 254) * 0.5f; });
  add_row([](std::int64_t c) { return c == 5 ? 448.0f : static_cast<float>(c % 897 - 448) * 0.0625f; });
  add_row([](std::int64_t c) { return c == 9 ? -448.0f : static_cast<float>(c - 518) * 0x1p-11f; });
  add_row([](std::int64_t c) { return static_cast<float>(c - 518) * 1e-9f; });
  add_row([](std::int64_t c) { return static_cast<float>(c - 518) * 1e2f; });
  add_row([](std::int64_t c) { return c == kColumns - 1 ? -3.0f : 0.0f; });
  for (int row = 0; row < 40; ++row) {
    const float magnitude = std::exp2(random.between(-12, 8));
    add_row([&](std::int64_t) { return random.normal(magnitude); });
  }
  const auto rows = static_cast<std::int64_t>(values.size()) / kColumns;
  for_each_variant([&](const Variant& variant) {
    for (const InputEncoding encoding : kEncodings) {
      SCOPED_TRACE(testing::Message() << "input type " << static_cast<int>(encoding.type));
      const auto actual = encode(*variant.backend, values, rows, kColumns, encoding);
      const auto expected = encode(reference(), values, rows, kColumns, encoding);
      EXPECT_EQ(actual->type(), encoding.type);
      Floats decoded = read_all(reference(), *expected);
      if (encoding.type == InputType::kNone && variant.rounds_to_bf16()) decoded = rounded_to_bf16(decoded);
      EXPECT_TRUE(identical(read_all(*variant.backend, *actual), decoded, kColumns));
    }
  });
}

struct NormCase {
  std::int64_t rows, columns;
  bool delta;
  std::vector<std::int32_t> picked;
  DType weight = DType::kBF16;
};

TEST(AddRmsNorm, AgreesWithReference) {
  const std::vector<NormCase> cases{{1, 576, true, {}},   {7, 576, true, {}, DType::kF32},
                                    {33, 64, false, {}},  {20, 100, true, {19, 3, 4}, DType::kF16},
                                    {5, 33, false, {0}},  {130, 2048, true, {}},
                                    {512, 2176, true, {}}};
  Random random(6);
  for (const NormCase& one : cases) {
    SCOPED_TRACE(testing::Message() << one.rows << " x " << one.columns);
    const Floats residual = random_rows(one.rows, one.columns, random);
    const Floats delta = random_rows(one.rows, one.columns, random);
    const Tensor weight = from_float(random.normals(one.columns), one.weight, {one.columns});
    const auto run = [&](Backend& backend, InputEncoding encoding, Floats* sum) {
      const auto stream = matrix_of(backend, residual, one.rows, one.columns);
      const auto addend = matrix_of(backend, delta, one.rows, one.columns);
      const auto gain = backend.prepare_tensor(weight);
      const auto out = backend.make_linear_input(one.rows, one.columns);
      backend.add_rms_norm(one.delta ? addend.get() : nullptr, *stream, *gain, 1e-5f, encoding, *out,
                           one.picked);
      *sum = read_all(backend, *stream);
      return read_all(backend, *out);
    };
    for (const InputEncoding encoding : kEncodings) {
      Floats expected_sum;
      const Floats expected = run(reference(), {}, &expected_sum);
      for_each_variant([&](const Variant& variant) {
        SCOPED_TRACE(testing::Message() << "input type " << static_cast<int>(encoding.type));
        Floats sum;
        const Floats actual = run(*variant.backend, encoding, &sum);
        EXPECT_TRUE(identical(sum, expected_sum, one.columns)) << "the residual";
        // A sum of squares in any order, halved by the root, and a handful of operations.
        const double units = std::sqrt(static_cast<double>(one.columns)) + 6;
        std::vector<double> slack;
        for (const float value : expected)
          slack.push_back(units * kUnit * std::fabs(static_cast<double>(value)));
        const auto tolerance = with_encoding(slack, variant, encoding, expected, one.columns);
        EXPECT_TRUE(within(actual, expected, tolerance, one.columns));
      });
    }
  }
}

TEST(AddRmsNorm, RowsDoNotDependOnTheBatchOrThreads) {
  constexpr std::int64_t kRows = 40, kColumns = 576;
  Random random(6);
  const Floats values = random_rows(kRows, kColumns, random);
  const Tensor weight = from_float(random.normals(kColumns), DType::kBF16, {kColumns});
  std::map<std::string, Floats> by_kind;
  for_each_variant([&](const Variant& variant) {
    Backend& backend = *variant.backend;
    const auto gain = backend.prepare_tensor(weight);
    const auto out = backend.make_linear_input(kRows, kColumns);
    const auto run = [&](std::int64_t first, std::int64_t rows) {
      const auto part = std::span(values).subspan(as_size(first * kColumns), as_size(rows * kColumns));
      const auto residual = matrix_of(backend, part, rows, kColumns);
      const auto delta = matrix_of(backend, part, rows, kColumns);
      backend.add_rms_norm(delta.get(), *residual, *gain, 1e-5f, {}, *out);
      return read_all(backend, *out);
    };
    const Floats together = run(0, kRows);
    EXPECT_TRUE(identical(together, by_kind.try_emplace(variant.kind, together).first->second, kColumns));
    Floats single;
    for (std::int64_t row = 0; row < kRows; ++row) {
      const Floats one = run(row, 1);
      single.insert(single.end(), one.begin(), one.end());
    }
    EXPECT_TRUE(identical(single, together, kColumns));
  });
}

TEST(Embed, CopiesRows) {
  constexpr std::int64_t kVocabulary = 50;
  Random random(8);
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32})
    for (const std::int64_t columns : {576, 37}) {
      const Tensor table = from_float(random.normals(kVocabulary * columns), dtype, {kVocabulary, columns});
      Floats rows(as_size(table.elements()));
      to_float(table, rows);
      const std::vector<std::int32_t> ids{49, 0, 7, 7, 31}, positions{0, 1, 2, 3, 4}, starts{0, 5},
          lengths{5};
      const std::vector<std::int32_t> blocks{0};
      const Batch batch{ids, positions, starts, lengths, blocks, 1};
      Floats expected;
      for (const std::int32_t id : ids)
        expected.insert(expected.end(), rows.begin() + id * columns, rows.begin() + (id + 1) * columns);
      const auto expect_rows = [&](Backend& backend) {
        const auto cache = backend.make_kv_cache({1, 1, 16, 1, 64, DType::kBF16});
        const auto weight = backend.prepare_tensor(table);
        const auto out = backend.make_matrix(8, columns);
        backend.begin_step(batch, *cache);
        backend.embed(*weight, *out);
        EXPECT_TRUE(identical(read_all(backend, *out), expected, columns));
      };
      expect_rows(reference());
      for_each_variant([&](const Variant& variant) { expect_rows(*variant.backend); });
    }
}

}  // namespace
}  // namespace bise
