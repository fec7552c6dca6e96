// What the conformance tests share: the backends to compare with reference/, random stored weights, inputs
// in a chosen encoding, and comparison against a tolerance per element.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "base/error.h"
#include "base/thread_pool.h"
#include "tensor/float_types.h"
#include "tensor/pack.h"
#include "tests/cuda_backend.h"

namespace bise {

constexpr double kUnit = 0x1p-24;     // unit roundoff of float32
constexpr double kBf16Unit = 0x1p-8;  // of bfloat16

using Floats = std::vector<float>;

inline std::size_t as_size(std::int64_t value) {
  return static_cast<std::size_t>(value);
}

inline Backend& reference() {
  static const std::unique_ptr<Backend> backend = make_reference_backend();
  return *backend;
}

// One backend under test.
struct Variant {
  std::string name;  // "avx2, 2 threads"
  std::string kind;  // "avx2", "cuda": results are equal to the bit within a kind
  int threads;
  // Rows of one call up to which a row's result depends on that row alone, but for int4 weights: see
  // independent_ranges().
  std::int64_t independent_rows;
  std::unique_ptr<Backend> backend;

  // AMX and the GPU's tensor cores multiply bfloat16: inputs that stay in floating point are rounded when
  // they are encoded, and weights when they are dequantized.
  bool rounds_to_bf16() const { return kind == "amx" || kind == "cuda"; }
};

inline const std::vector<Variant>& variants() {
  static ThreadPool one(1), two(2);
  static const std::vector<Variant> all = [] {
    std::vector<Variant> made;
    for (const Isa isa : available_isas())
      for (ThreadPool* pool : {&one, &two})
        made.push_back({std::string(isa_name(isa)) + ", " + std::to_string(pool->threads()) + " threads",
                        std::string(isa_name(isa)), pool->threads(), std::numeric_limits<std::int64_t>::max(),
                        make_cpu_backend(*pool, isa)});
    if (std::unique_ptr<Backend> cuda = cuda_or_null())
      made.push_back({cuda->name(), "cuda", 1, 32, std::move(cuda)});
    return made;
  }();
  return all;
}

// Calls body(variant) for each; what one throws is a failure of that one alone.
template <class Body>
void for_each_variant(Body body) {
  for (const Variant& variant : variants()) {
    SCOPED_TRACE(variant.name);
    try {
      body(variant);
    } catch (const std::exception& error) {
      ADD_FAILURE() << "threw: " << error.what();
    }
  }
}

class Random {
 public:
  explicit Random(std::uint32_t seed) : engine_(seed) {}
  float normal(float deviation = 1) { return normal_(engine_) * deviation; }
  float between(float low, float high) { return std::uniform_real_distribution<float>(low, high)(engine_); }
  std::int64_t integer(std::int64_t low, std::int64_t high) {  // both inclusive
    return std::uniform_int_distribution<std::int64_t>(low, high)(engine_);
  }
  Floats normals(std::int64_t count, float deviation = 1) {
    Floats values(as_size(count));
    for (float& value : values) value = normal(deviation);
    return values;
  }
  template <class T>
  void shuffle(std::vector<T>& values) {
    std::shuffle(values.begin(), values.end(), engine_);
  }

 private:
  std::mt19937 engine_;
  std::normal_distribution<float> normal_;
};

// Inputs as they occur: rows of different magnitude, a few large columns, one row of zeros.
inline Floats random_rows(std::int64_t rows, std::int64_t columns, Random& random) {
  Floats values = random.normals(rows * columns);
  for (std::int64_t r = 0; r < rows; ++r) {
    const float magnitude = r == 2 ? 0 : std::exp2(static_cast<float>(r % 9 - 4));
    for (std::int64_t c = 0; c < columns; ++c)
      values[as_size(r * columns + c)] *= magnitude * (c % 61 == 7 ? 20.0f : 1.0f);
  }
  return values;
}

inline Floats rounded_to_bf16(Floats values) {
  for (float& value : values) value = round_to_bf16(value);
  return values;
}

inline Floats read_all(Backend& backend, const Matrix& matrix) {
  Floats values(as_size(matrix.rows() * matrix.columns()));
  backend.read(matrix, values);
  return values;
}

inline Floats read_all(Backend& backend, const LinearInput& input) {
  Floats values(as_size(input.rows() * input.columns()));
  backend.read(input, values);
  return values;
}

inline std::unique_ptr<Matrix> matrix_of(Backend& backend, std::span<const float> values, std::int64_t rows,
                                         std::int64_t columns) {
  auto matrix = backend.make_matrix(rows, columns);
  backend.write(values, rows, *matrix);
  return matrix;
}

// `values` [rows, columns] encoded by a norm that changes nothing: with eps 2^60, beside which the mean
// square vanishes, and weight 2^30 every value comes out as it was, in any sensible order of operations.
inline std::unique_ptr<LinearInput> encode(Backend& backend, std::span<const float> values, std::int64_t rows,
                                           std::int64_t columns, InputEncoding encoding) {
  const Floats gain(as_size(columns), 0x1p30f);
  const auto weight = backend.prepare_tensor(from_float(gain, DType::kF32, {columns}));
  const auto residual = matrix_of(backend, values, rows, columns);
  auto out = backend.make_linear_input(rows, columns);
  backend.add_rms_norm(nullptr, *residual, *weight, 0x1p60f, encoding, *out);
  return out;
}

// A kind of stored weight.
struct LinearCase {
  std::string name;
  Scheme scheme;
  DType dtype = DType::kBF16;  // of an unquantized weight, else of the scales
  bool packed = false, g_idx = false, bias = false;
  int parts = 1;

  bool permits(std::int64_t rows, std::int64_t columns) const {
    if (scheme.type == WeightType::kNf4) return rows * columns % 2 == 0;
    if (scheme.strategy != Strategy::kGroup) return true;
    return columns % scheme.group_size == 0 || columns < scheme.group_size;
  }
};

// AVX-512 multiplies integer codes with the input as planes of int8 (cpu/planes_avx512.h), AMX does up to so
// many rows (cpu/planes_amx.h): neither weights nor inputs are rounded to bfloat16, and a row's bits are
// others than in a larger batch on AMX.
constexpr std::int64_t kPlaneRows = 32;
// Planes hold a value as a multiple of the largest of its span divided by this.
constexpr double kPlaneSteps = 32639;

inline bool takes_planes(const Variant& variant, const LinearCase& kind, std::int64_t columns) {
  const bool stored_whole = kind.scheme.num_bits == 8 || columns % 2 == 0;
  const bool integers =
      kind.scheme.input == InputType::kInt8Token && kind.scheme.strategy != Strategy::kGroup;
  return (variant.kind == "amx" || variant.kind == "avx512") && kind.scheme.type == WeightType::kInt &&
         !kind.g_idx && stored_whole && !integers;
}

// Numbers of rows of one call, both inclusive.
struct RowRange {
  std::int64_t first, last;
};

// With so few rows int4 weights have kernels of their own on the GPU (cuda/sliced_int4.h).
constexpr RowRange kDigitInt4Rows = {1, 2}, kFewInt4Rows = {3, 16};

inline bool has_int4_on_gpu(const Variant& variant, const LinearCase& kind) {
  const Scheme& scheme = kind.scheme;
  return variant.kind == "cuda" && scheme.type == WeightType::kInt && scheme.num_bits == 4 &&
         scheme.input == InputType::kNone;
}

// In each of these a row's result depends on that row alone, but not from one to another.
inline std::vector<RowRange> independent_ranges(const Variant& variant, const LinearCase& kind) {
  if (!has_int4_on_gpu(variant, kind)) return {{1, variant.independent_rows}};
  return {kDigitInt4Rows, kFewInt4Rows, {kFewInt4Rows.last + 1, variant.independent_rows}};
}

inline void PrintTo(const LinearCase& one, std::ostream* out) {
  *out << one.name;
}

inline std::string case_name(const testing::TestParamInfo<LinearCase>& info) {
  return info.param.name;
}

inline Shape scale_shape(const StoredLinear& linear) {
  const auto ceil_div = [](std::int64_t a, std::int64_t b) { return (a + b - 1) / b; };
  switch (linear.scheme.strategy) {
    case Strategy::kTensor: return {1};
    case Strategy::kChannel: return {linear.rows, 1};
    case Strategy::kGroup: return {linear.rows, ceil_div(linear.columns, linear.scheme.group_size)};
    case Strategy::kBlock:
      return {ceil_div(linear.rows, linear.block_rows), ceil_div(linear.columns, linear.block_columns)};
  }
  return {};
}

inline Tensor random_codes(Shape shape, int bits, Random& random) {
  Tensor codes = Tensor::allocate(DType::kI8, std::move(shape));
  for (std::int64_t i = 0; i < codes.elements(); ++i)
    codes.mutable_data<std::int8_t>()[i] =
        static_cast<std::int8_t>(random.integer(-(1 << (bits - 1)), (1 << (bits - 1)) - 1));
  return codes;
}

inline void fill_integers(StoredLinear& linear, bool packed, bool g_idx, Random& random) {
  const int bits = linear.scheme.num_bits;
  const Tensor codes = random_codes({linear.rows, linear.columns}, bits, random);
  linear.weight = packed ? pack_rows(codes, bits) : codes;
  if (!linear.scheme.symmetric) {
    const Tensor zero_points = random_codes(linear.scale.shape(), bits, random);
    linear.zero_point = packed ? pack_columns(zero_points, bits) : zero_points;
  }
  if (g_idx) {
    std::vector<std::int32_t> groups(as_size(linear.columns));
    for (std::size_t k = 0; k < groups.size(); ++k)
      groups[k] = static_cast<std::int32_t>(k / as_size(linear.scheme.group_size));
    random.shuffle(groups);
    linear.g_idx = Tensor::of<std::int32_t>(DType::kI32, {linear.columns}, groups);
  }
}

inline void fill_nf4(StoredLinear& linear, Random& random) {
  const std::int64_t elements = linear.rows * linear.columns;
  linear.weight = Tensor::allocate(DType::kU8, {elements / 2});
  for (std::int64_t i = 0; i < elements / 2; ++i)
    linear.weight.mutable_data<std::uint8_t>()[i] = static_cast<std::uint8_t>(random.integer(0, 255));
  Floats absmax(as_size((elements + 63) / 64));
  for (float& value : absmax) value = random.between(0.05f, 0.2f);
  const auto blocks = static_cast<std::int64_t>(absmax.size());
  linear.absmax = Tensor::of<float>(DType::kF32, {blocks}, absmax);
  linear.quant_map = Tensor::of<float>(DType::kF32, {16}, kNf4Values);
}

// e4m3 values near a normal distribution, every 16th any finite pattern (subnormals, the largest).
inline Tensor random_e4m3(std::int64_t rows, std::int64_t columns, Random& random) {
  Tensor weight = from_float(random.normals(rows * columns, 40), DType::kF8E4M3, {rows, columns});
  for (std::int64_t i = 0; i < weight.elements(); i += 16) {
    const auto sign = static_cast<e4m3>(random.integer(0, 1) << 7);
    weight.mutable_data<e4m3>()[i] = static_cast<e4m3>(sign | random.integer(0, 0x7e));
  }
  return weight;
}

inline StoredLinear random_part(const LinearCase& kind, std::int64_t rows, std::int64_t columns,
                                Random& random) {
  StoredLinear linear;
  linear.scheme = kind.scheme;
  linear.rows = rows;
  linear.columns = columns;
  if (kind.scheme.strategy == Strategy::kBlock) linear.block_rows = linear.block_columns = 128;
  if (kind.scheme.quantized() && kind.scheme.type != WeightType::kNf4) {
    const Shape shape = scale_shape(linear);
    const float size = kind.scheme.type == WeightType::kFloat ? 0.001f : 0.1f / (1 << kind.scheme.num_bits);
    Floats scales(as_size(element_count(shape)));
    for (float& scale : scales) scale = random.between(0.5f, 1.5f) * size;
    linear.scale = from_float(scales, kind.dtype, shape);
  }
  switch (kind.scheme.type) {
    case WeightType::kInt: fill_integers(linear, kind.packed, kind.g_idx, random); break;
    case WeightType::kNf4: fill_nf4(linear, random); break;
    case WeightType::kFloat:
      linear.weight = kind.scheme.quantized()
                          ? random_e4m3(rows, columns, random)
                          : from_float(random.normals(rows * columns, 0.05f), kind.dtype, {rows, columns});
  }
  if (kind.scheme.input == InputType::kFp8Tensor)
    linear.input_scale = from_float(Floats{random.between(0.01f, 0.03f)}, DType::kF32, {1});
  if (kind.bias) linear.bias = from_float(random.normals(rows), DType::kBF16, {rows});
  return linear;
}

// `rows` rows in all, unequally divided among the parts.
inline std::vector<StoredLinear> random_linear(const LinearCase& kind, std::int64_t rows,
                                               std::int64_t columns, Random& random) {
  std::vector<StoredLinear> parts;
  for (int part = kind.parts; part > 1; --part) {
    const std::int64_t share = rows / (part + 1);
    parts.push_back(random_part(kind, share, columns, random));
    rows -= share;
  }
  parts.push_back(random_part(kind, rows, columns, random));
  return parts;
}

// An unquantized float32 weight [rows, columns].
inline StoredLinear plain_linear(std::span<const float> weight, std::int64_t rows, std::int64_t columns) {
  StoredLinear linear;
  linear.scheme.num_bits = 32;
  linear.rows = rows;
  linear.columns = columns;
  linear.weight = from_float(weight, DType::kF32, {rows, columns});
  return linear;
}

inline Floats dequantized(const std::vector<StoredLinear>& parts) {
  Floats all;
  for (const StoredLinear& part : parts)
    for (std::int64_t row = 0; row < part.rows; ++row) {
      all.resize(all.size() + as_size(part.columns));
      dequantize_row(part, row, std::span(all).last(as_size(part.columns)));
    }
  return all;
}

// The same layer with its dequantized weight rounded to bfloat16.
inline std::vector<StoredLinear> rounded_to_bf16(const std::vector<StoredLinear>& parts) {
  std::vector<StoredLinear> rounded;
  for (const StoredLinear& part : parts) {
    StoredLinear plain;
    plain.scheme = {.input = part.scheme.input};
    plain.rows = part.rows;
    plain.columns = part.columns;
    plain.weight = from_float(dequantized({part}), DType::kBF16, {part.rows, part.columns});
    plain.input_scale = part.input_scale;
    plain.bias = part.bias;
    rounded.push_back(plain);
  }
  return rounded;
}

// Euclidean length of each row of `values` [rows, columns].
inline std::vector<double> row_lengths(std::span<const float> values, std::int64_t columns) {
  std::vector<double> lengths(values.size() / as_size(columns));
  for (std::size_t i = 0; i < values.size(); ++i)
    lengths[i / as_size(columns)] += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  for (double& length : lengths) length = std::sqrt(length);
  return lengths;
}

inline float largest_of(std::span<const float> values) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::fabs(value));
  return largest;
}

// How far the encoding may move `value`: half a step of its codes. `largest` is the largest of its row, which
// sets the scale.
inline double encoding_step(const Variant& variant, InputEncoding encoding, double largest, float value) {
  const double magnitude = std::fabs(static_cast<double>(value));
  const auto e4m3_step = [&](double scale) {
    const double beyond = std::max(0.0, magnitude - 448 * scale);  // saturated
    return std::max({magnitude / 16, scale * 0x1p-10, beyond});
  };
  switch (encoding.type) {
    case InputType::kNone: return variant.rounds_to_bf16() ? magnitude * kBf16Unit : 0;
    case InputType::kInt8Token: return largest / 127 * 0.5;
    case InputType::kFp8Token: return e4m3_step(std::max(largest / 448, 1.0 / (448 * 512)));
    case InputType::kFp8Tensor: return e4m3_step(encoding.scale);
  }
  return 0;
}

// Adds to each tolerance for `values` [rows, columns] what the encoding may move it.
inline std::vector<double> with_encoding(std::vector<double> tolerance, const Variant& variant,
                                         InputEncoding encoding, std::span<const float> values,
                                         std::int64_t columns) {
  for (std::size_t first = 0; first < values.size(); first += as_size(columns)) {
    const double largest = largest_of(values.subspan(first, as_size(columns)));
    for (std::size_t i = first; i < first + as_size(columns); ++i)
      tolerance[i] = 1.001 * (tolerance[i] + encoding_step(variant, encoding, largest, values[i]));
  }
  return tolerance;
}

// The worst |actual - expected| in units of its tolerance, and where it is. At most 1 is a pass; NaN and a
// wrong size are infinite.
struct Worst {
  double ratio = 0;
  std::size_t at = 0;
  float actual = 0, expected = 0;
};

inline Worst compare(std::span<const float> actual, std::span<const float> expected,
                     std::span<const double> tolerance) {
  const double infinite = std::numeric_limits<double>::infinity();
  if (actual.size() != expected.size() || tolerance.size() != expected.size()) return {infinite};
  Worst worst;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double difference = std::fabs(static_cast<double>(actual[i]) - static_cast<double>(expected[i]));
    double ratio = difference == 0 ? 0 : difference / tolerance[i];
    if (std::isnan(ratio)) ratio = infinite;
    if (ratio > worst.ratio) worst = {ratio, i, actual[i], expected[i]};
  }
  return worst;
}

inline testing::AssertionResult passes(const Worst& worst, std::int64_t columns) {
  if (worst.ratio <= 1) return testing::AssertionSuccess();
  return testing::AssertionFailure() << worst.ratio << " times the tolerance at ["
                                     << worst.at / as_size(columns) << ", " << worst.at % as_size(columns)
                                     << "]: " << worst.actual << ", expected " << worst.expected;
}

inline testing::AssertionResult within(std::span<const float> actual, std::span<const float> expected,
                                       std::span<const double> tolerance, std::int64_t columns) {
  return passes(compare(actual, expected, tolerance), columns);
}

// Equal to the last bit (0 and -0 are equal).
inline testing::AssertionResult identical(std::span<const float> actual, std::span<const float> expected,
                                          std::int64_t columns) {
  return within(actual, expected, std::vector<double>(expected.size()), columns);
}

// What gated_linear() makes of the products [rows, outputs] that linear() gave, the first half gate and the
// second up, rounded to bf16, and how far it may be from it where the products may be off by `tolerance`.
struct Gated {
  Floats values;
  std::vector<double> slack;
};
inline Gated gated_of(std::span<const float> products, std::span<const double> tolerance,
                      std::int64_t outputs) {
  const std::size_t half = as_size(outputs / 2);
  Gated gated{Floats(products.size() / 2), std::vector<double>(products.size() / 2)};
  for (std::size_t i = 0; i < gated.values.size(); ++i) {
    const std::size_t at = i / half * as_size(outputs) + i % half;
    const double gate = products[at], up = products[at + half], silu = gate / (1 + std::exp(-gate));
    gated.values[i] = static_cast<float>(silu * up);
    // Rounded to bf16; silu's slope is below 1.1.
    gated.slack[i] = kBf16Unit * std::fabs(silu * up) + 1.1 * std::fabs(up) * tolerance[at] +
                     std::fabs(silu) * tolerance[at + half] + 1e-30;
  }
  return gated;
}

}  // namespace bise
