// Linear layers of every CPU backend against reference/.
#include <map>

#include "tests/backend/linear_cases.h"

namespace bise {
namespace {

constexpr std::int64_t kMostRows = 512;

// One stored layer, its inputs and what reference/ makes of them.
class Layer {
 public:
  Layer(const LinearCase& kind, const LinearShape& shape, std::uint32_t seed)
      : shape_(shape), random_(seed), parts_(random_linear(kind, shape.rows, shape.columns, random_)) {
    inputs_ = random_rows(most_rows(), shape.columns, random_);
    weights_ = dequantized(parts_);
    weight_lengths_ = row_lengths(weights_, shape.columns);
    for (const StoredLinear& part : parts_) {
      Floats bias(as_size(part.rows));
      if (!part.bias.empty()) to_float(part.bias, bias);
      bias_.insert(bias_.end(), bias.begin(), bias.end());
    }
  }

  const std::vector<StoredLinear>& parts() const { return parts_; }
  std::span<const float> inputs(std::int64_t rows) const {
    return std::span(inputs_).first(as_size(rows * shape_.columns));
  }

  // Reference outputs for the first `rows` inputs, with inputs and weights rounded to bfloat16 or not.
  std::span<const float> expected(std::int64_t rows, bool round_inputs, bool round_weights) {
    Floats& all = expected_[{round_inputs, round_weights}];
    if (all.empty()) {
      const auto weight = reference().prepare_linear(round_weights ? rounded_to_bf16(parts_) : parts_);
      const auto in = encode(reference(), round_inputs ? rounded_to_bf16(inputs_) : inputs_, most_rows(),
                             shape_.columns, encoding_for(*weight));
      const auto out = reference().make_matrix(most_rows(), shape_.rows);
      reference().linear(*in, *weight, *out);
      all = read_all(reference(), *out);
    }
    return std::span(all).first(as_size(rows * shape_.rows));
  }

  // Hopper's tensor cores add 32 fp8 products to a sum by cutting all 33 off at 13 bits below the largest of
  // them (DeepSeek-V3, 2024, section 3.3.2). What is cut, between none and a unit of that place with the
  // sign of its number, has a mean square of a third of the unit's: over the sums of a row it adds up like a
  // random walk. Six standard deviations; the sum may be one of all columns so far. `encoded` are the inputs
  // as their codes have them.
  void add_fp8_sums(std::int64_t rows, std::span<const float> encoded, std::vector<double>& tolerance) const {
    constexpr std::size_t kTogether = 32;
    const std::size_t columns = as_size(shape_.columns), weight_rows = as_size(shape_.rows);
    for (std::size_t r = 0; r < as_size(rows); ++r)
      for (std::size_t n = 0; n < weight_rows; ++n) {
        const float* weight = weights_.data() + n * columns;
        const float* input = encoded.data() + r * columns;
        double sum = 0, squares = 0;
        for (std::size_t first = 0; first < columns; first += kTogether) {
          double largest = std::fabs(sum);
          for (std::size_t k = first; k < std::min(first + kTogether, columns); ++k) {
            const double product = static_cast<double>(weight[k]) * static_cast<double>(input[k]);
            largest = std::max(largest, std::fabs(product));
            sum += product;
          }
          squares += (kTogether + 1) / 3.0 * largest * largest;
        }
        tolerance[r * weight_rows + n] += 6 * 0x1p-13 * std::sqrt(squares);
      }
  }

  // Planes round a value to a multiple of a step (kPlaneSteps); a span has at most 128 columns. What is
  // rounded off is spread evenly over half of that to both sides: over a sum it adds up like a random walk.
  // Six standard deviations.
  void add_planes(std::int64_t rows, std::vector<double>& tolerance) const {
    const std::size_t columns = as_size(shape_.columns), weight_rows = as_size(shape_.rows);
    for (std::size_t r = 0; r < as_size(rows); ++r) {
      const std::span<const float> row = inputs(rows).subspan(r * columns, columns);
      std::vector<double> steps;
      for (std::size_t first = 0; first < columns; first += 128) {
        const std::size_t count = std::min<std::size_t>(128, columns - first);
        steps.resize(first + count, static_cast<double>(largest_of(row.subspan(first, count))) / kPlaneSteps);
      }
      for (std::size_t n = 0; n < weight_rows; ++n) {
        double squares = 0;
        for (std::size_t k = 0; k < columns; ++k) {
          const double error = steps[k] * static_cast<double>(weights_[n * columns + k]);
          squares += error * error / 12;
        }
        tolerance[r * weight_rows + n] += 6 * std::sqrt(squares);
      }
    }
  }

  // Integer products are exact: the sum's conversion to float32, two scales and the bias each round once.
  // Float32 sums of K products in any order: each of K roundings moves the sum by at most one unit of a
  // partial sum, which |w| |x| bounds (Cauchy-Schwarz); they add up like a random walk, sqrt(K). The factor
  // 2 leaves room for rounded products and scales applied before or after. Then the sum is scaled, which
  // rounds it once, and the bias is added, which rounds the output; reference/ has rounded its own output
  // once as well, from float64.
  std::vector<double> tolerance(std::int64_t rows, bool exact_sums) {
    const std::span<const float> outputs = expected(rows, false, false);
    const std::vector<double> input_lengths = row_lengths(inputs(rows), shape_.columns);
    const double steps = 2 * std::sqrt(static_cast<double>(shape_.columns));
    std::vector<double> tolerance(outputs.size());
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      const std::size_t r = i / as_size(shape_.rows), n = i % as_size(shape_.rows);
      const double sum = static_cast<double>(outputs[i]) - static_cast<double>(bias_[n]);
      const double of_sum = kUnit * std::fabs(sum);
      const double of_output = kUnit * std::fabs(static_cast<double>(outputs[i]));
      tolerance[i] = exact_sums
                         ? 4 * (of_sum + of_output)
                         : of_sum + 2 * of_output + kUnit * steps * weight_lengths_[n] * input_lengths[r];
    }
    return tolerance;
  }

 private:
  std::int64_t most_rows() const {
    return *std::max_element(shape_.batch_rows.begin(), shape_.batch_rows.end());
  }

  LinearShape shape_;
  Random random_;
  std::vector<StoredLinear> parts_;
  Floats inputs_, weights_, bias_;
  std::vector<double> weight_lengths_;
  std::map<std::pair<bool, bool>, Floats> expected_;
};

class Linear : public testing::TestWithParam<LinearCase> {
 protected:
  // Calls body(layer, shape) for every shape that the scheme permits.
  template <class Body>
  void for_each_shape(Body body) {
    std::uint32_t seed = 1;
    for (const LinearShape& shape : linear_shapes()) {
      if (!GetParam().permits(shape.rows, shape.columns)) continue;
      SCOPED_TRACE(testing::Message() << "weight [" << shape.rows << ", " << shape.columns << "]");
      Layer layer(GetParam(), shape, seed++);
      body(layer, shape);
    }
  }
};

void expect_conformance(const Variant& variant, const LinearCase& kind, Layer& layer,
                        const LinearShape& shape) {
  Backend& backend = *variant.backend;
  const auto weight = backend.prepare_linear(layer.parts());
  const auto out = backend.make_matrix(kMostRows, shape.rows);
  for (const std::int64_t rows : shape.batch_rows) {
    SCOPED_TRACE(testing::Message() << rows << " rows");
    const InputEncoding encoding = encoding_for(*weight);
    const auto in = encode(backend, layer.inputs(rows), rows, shape.columns, encoding);
    const auto same = encode(reference(), layer.inputs(rows), rows, shape.columns, encoding);
    const bool rounded = encoding.type == InputType::kNone && variant.rounds_to_bf16();
    const Floats encoded = read_all(reference(), *same);
    ASSERT_TRUE(
        identical(read_all(backend, *in), rounded ? rounded_to_bf16(encoded) : encoded, shape.columns))
        << "the encoded input";
    backend.linear(*in, *weight, *out);
    const Floats actual = read_all(backend, *out);
    const bool exact_sums =
        encoding.type == InputType::kInt8Token && kind.scheme.strategy != Strategy::kGroup;
    std::vector<double> tolerance = layer.tolerance(rows, exact_sums);
    const bool fp8_inputs = encoding.type == InputType::kFp8Token || encoding.type == InputType::kFp8Tensor;
    if (variant.kind == "cuda" && fp8_inputs) layer.add_fp8_sums(rows, encoded, tolerance);
    const bool planes =
        takes_planes(variant, kind, shape.columns) && (rows <= kPlaneRows || variant.kind != "amx");
    if (planes && encoding.type == InputType::kNone) layer.add_planes(rows, tolerance);
    Worst worst = compare(actual, layer.expected(rows, rounded && !planes, false), tolerance);
    // AMX may dequantize to bfloat16, or scale sums of exact codes: the whole result is one or the other.
    if (worst.ratio > 1 && variant.rounds_to_bf16() && !exact_sums && !planes) {
      const Worst second = compare(actual, layer.expected(rows, rounded, true), tolerance);
      if (second.ratio < worst.ratio) worst = second;
    }
    ASSERT_TRUE(passes(worst, shape.rows));
  }
}

TEST_P(Linear, AgreesWithReference) {
  for_each_shape([](Layer& layer, const LinearShape& shape) {
    for_each_variant([&](const Variant& variant) { expect_conformance(variant, GetParam(), layer, shape); });
  });
}

// Joined parts, all rows at once, must equal each row by itself and any number of threads, to the bit. Where
// a few rows are multiplied in another way than many, that holds among numbers that have the same way.
TEST_P(Linear, RowsDoNotDependOnTheBatchOrThreads) {
  for_each_shape([](Layer& layer, const LinearShape& shape) {
    std::map<std::string, Floats> by_kind;
    for_each_variant([&](const Variant& variant) {
      const std::int64_t most = std::min(shape.batch_rows.back(), variant.independent_rows);
      Backend& backend = *variant.backend;
      const auto weight = backend.prepare_linear(layer.parts());
      const auto out = backend.make_matrix(most, shape.rows);
      const auto run = [&](std::int64_t first, std::int64_t rows) {
        const auto in = encode(
            backend,
            layer.inputs(most).subspan(as_size(first * shape.columns)).first(as_size(rows * shape.columns)),
            rows, shape.columns, encoding_for(*weight));
        backend.linear(*in, *weight, *out);
        return read_all(backend, *out);
      };
      const auto expect_same = [&](std::int64_t all, const std::vector<std::int64_t>& batches) {
        const Floats together = run(0, all);
        const std::string kind = variant.kind + ", " + std::to_string(all) + " rows";
        const Floats& first_of_kind = by_kind.try_emplace(kind, together).first->second;
        EXPECT_TRUE(identical(together, first_of_kind, shape.rows)) << "with another number of threads";
        for (const std::int64_t rows : batches) {
          Floats pieces;
          const std::int64_t end = rows < 16 ? std::min<std::int64_t>(all, 9) : all;
          for (std::int64_t first = 0; first < end; first += rows) {
            // The last batch is as large as the others: its rows may come a second time.
            const std::int64_t count = std::min(rows, all), begin = std::min(first, all - count);
            const Floats piece = run(begin, count);
            pieces.resize(as_size(begin * shape.rows));
            pieces.insert(pieces.end(), piece.begin(), piece.end());
          }
          ASSERT_TRUE(identical(pieces, std::span(together).first(pieces.size()), shape.rows))
              << "in batches of " << rows << " of " << all;
        }
      };
      if (const auto ranges = independent_ranges(variant, GetParam()); ranges.size() > 1) {
        for (const RowRange& range : ranges) {
          if (range.first > most) break;
          std::vector<std::int64_t> batches;
          for (const std::int64_t rows : {1, 3, 8, 9, 20})
            if (rows >= range.first && rows <= range.last) batches.push_back(rows);
          expect_same(std::min(range.last, most), batches);
        }
        return;
      }
      if (!takes_planes(variant, GetParam(), shape.columns)) return expect_same(most, {1, 3, 16, 20});
      if (variant.kind != "amx") return expect_same(most, {1, 2, 3, 8, 9, 16, 20, 70});
      expect_same(std::min(most, kPlaneRows), {1, 2, 3, 8, 9, 16, 20});
      if (most > kPlaneRows) expect_same(most, {kPlaneRows + 1, 80});
    });
  });
}

// silu(gate) * up, encoded in each way.
TEST_P(Linear, GatedAgreesWithReference) {
  Random random(11);
  constexpr std::int64_t kIntermediate = 100, kColumns = 128, kRows = 40;
  std::vector<StoredLinear> parts;
  for (int half = 0; half < 2; ++half) {
    LinearCase kind = GetParam();
    kind.parts = 1;
    parts.push_back(random_part(kind, kIntermediate, kColumns, random));
  }
  const Floats all_inputs = random.normals(kRows * kColumns);
  const std::vector<double> weight_lengths = row_lengths(dequantized(parts), kColumns);
  for (const std::int64_t rows : {std::int64_t{1}, std::int64_t{5}, std::int64_t{19}, kRows}) {
    SCOPED_TRACE(testing::Message() << rows << " rows");
    const auto inputs = std::span(all_inputs).first(as_size(rows * kColumns));
    for_each_variant([&](const Variant& variant) {
      Backend& backend = *variant.backend;
      const auto weight = backend.prepare_linear(parts);
      const auto in = encode(backend, inputs, rows, kColumns, encoding_for(*weight));
      const auto both = backend.make_matrix(rows, 2 * kIntermediate);
      backend.linear(*in, *weight, *both);
      const Floats gate_up = read_all(backend, *both);  // itself tested above
      const std::vector<double> input_lengths = row_lengths(inputs, kColumns);
      Floats expected(as_size(rows * kIntermediate));
      std::vector<double> slack(expected.size());
      for (std::size_t i = 0; i < expected.size(); ++i) {
        const std::size_t r = i / kIntermediate, n = i % kIntermediate;
        const double gate = gate_up[r * 2 * kIntermediate + n], up = gate_up[(r * 2 + 1) * kIntermediate + n];
        const double silu = gate / (1 + std::exp(-gate));
        expected[i] = static_cast<float>(silu * up);
        // Fused sums may be added in another order (see Layer::tolerance; silu's slope is below 1.1). exp
        // sees its argument rounded, |gate| < 32 here, and four operations follow.
        const double sum = kUnit * 2 * std::sqrt(static_cast<double>(kColumns)) * input_lengths[r];
        slack[i] = sum * (1.1 * weight_lengths[n] * std::fabs(up) +
                          weight_lengths[n + kIntermediate] * std::fabs(silu)) +
                   32 * kUnit * std::fabs(silu * up);
      }
      const auto out = backend.make_linear_input(rows, kIntermediate);
      for (const InputEncoding encoding :
           {InputEncoding{}, InputEncoding{InputType::kInt8Token}, InputEncoding{InputType::kFp8Token},
            InputEncoding{InputType::kFp8Tensor, 0.02f}}) {
        SCOPED_TRACE(testing::Message() << "input type " << static_cast<int>(encoding.type));
        backend.gated_linear(*in, *weight, encoding, *out);
        const auto tolerance = with_encoding(slack, variant, encoding, expected, kIntermediate);
        ASSERT_TRUE(within(read_all(backend, *out), expected, tolerance, kIntermediate));
      }
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Schemes, Linear, testing::ValuesIn(linear_cases()), case_name);

TEST(Hessian, AgreesWithReference) {
  Random random(5);
  constexpr std::int64_t kColumns = 100;
  for_each_variant([&](const Variant& variant) {
    for (const InputEncoding encoding : {InputEncoding{}, InputEncoding{InputType::kInt8Token}}) {
      SCOPED_TRACE(testing::Message() << "input type " << static_cast<int>(encoding.type));
      Floats actual(kColumns * kColumns), expected(actual.size());
      std::vector<double> squares(kColumns), tolerance(actual.size());
      std::int64_t seen = 0;
      for (const std::int64_t rows : {1, 17, 64, 130}) {
        const Floats inputs = random_rows(rows, kColumns, random);
        const auto in = encode(*variant.backend, inputs, rows, kColumns, encoding);
        const Floats decoded = read_all(*variant.backend, *in);
        variant.backend->accumulate_hessian(*in, actual);
        reference().accumulate_hessian(*encode(reference(), decoded, rows, kColumns, {}), expected);
        seen += rows;
        for (std::size_t i = 0; i < decoded.size(); ++i)
          squares[i % kColumns] += static_cast<double>(decoded[i]) * static_cast<double>(decoded[i]);
      }
      // As for linear layers, a sum of `seen` products bounded by the columns' lengths.
      for (std::size_t i = 0; i < kColumns; ++i)
        for (std::size_t j = 0; j < kColumns; ++j) {
          tolerance[i * kColumns + j] =
              2 * kUnit * 2 * std::sqrt(static_cast<double>(seen) * squares[i] * squares[j]);
          if (j < i) actual[i * kColumns + j] = expected[i * kColumns + j] = 0;  // not kept
        }
      EXPECT_TRUE(within(actual, expected, tolerance, kColumns));
    }
  });
}

TEST(PrepareLinear, RefusesPartsThatDoNotJoin) {
  Random random(3);
  const LinearCase plain{.name = "BF16", .scheme = {}};
  const LinearCase int8{.name = "W8A8",
                        .scheme = {WeightType::kInt, 8, Strategy::kChannel, 0, true, InputType::kInt8Token}};
  const auto expect_refusal = [&](Backend& backend) {
    EXPECT_ANY_THROW(backend.prepare_linear({}));
    EXPECT_ANY_THROW(
        backend.prepare_linear({random_part(plain, 16, 64, random), random_part(plain, 16, 32, random)}));
    EXPECT_ANY_THROW(
        backend.prepare_linear({random_part(plain, 16, 64, random), random_part(int8, 16, 64, random)}));
  };
  expect_refusal(reference());
  for_each_variant([&](const Variant& variant) { expect_refusal(*variant.backend); });
}

}  // namespace
}  // namespace bise
