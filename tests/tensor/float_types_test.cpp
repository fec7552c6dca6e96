// Every conversion against a plain definition: the nearest representable value, ties to the even code.
#include "tensor/float_types.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "base/check.h"
#include "formats/safetensors.h"
#include "tests/test_support.h"

namespace bise {
namespace {

// A small float format by its fields; `decode` is the definition of IEEE 754 and OCP OFP8 section 5.
struct Format {
  const char* name;
  int bits, mantissa, bias;
  bool has_infinity;
  std::function<float(std::uint32_t)> decode;
  std::function<std::uint32_t(float)> encode;
};

double defined_value(const Format& format, std::uint32_t code) {
  const int exponent_bits = format.bits - 1 - format.mantissa;
  const std::uint32_t exponent = (code >> format.mantissa) & ((1u << exponent_bits) - 1);
  const std::uint32_t mantissa = code & ((1u << format.mantissa) - 1);
  const std::uint32_t top = (1u << exponent_bits) - 1, full = (1u << format.mantissa) - 1;
  const double sign = (code >> (format.bits - 1)) ? -1 : 1;
  if (exponent == top && (format.has_infinity ? mantissa != 0 : mantissa == full)) return NAN;
  if (exponent == top && format.has_infinity) return sign * INFINITY;
  const double fraction = std::ldexp(mantissa, -format.mantissa);
  return exponent == 0 ? sign * std::ldexp(fraction, 1 - format.bias)
                       : sign * std::ldexp(1 + fraction, static_cast<int>(exponent) - format.bias);
}

const Format kBf16Format = {"bf16",
                            16,
                            7,
                            127,
                            true,
                            [](std::uint32_t c) { return bf16_to_float(static_cast<bf16>(c)); },
                            [](float x) { return std::uint32_t{float_to_bf16(x)}; }};
const Format kF16Format = {"f16",
                           16,
                           10,
                           15,
                           true,
                           [](std::uint32_t c) { return f16_to_float(static_cast<f16>(c)); },
                           [](float x) { return std::uint32_t{float_to_f16(x)}; }};
const Format kE4M3Format = {"e4m3",
                            8,
                            3,
                            7,
                            false,
                            [](std::uint32_t c) { return e4m3_to_float(static_cast<e4m3>(c)); },
                            [](float x) { return std::uint32_t{float_to_e4m3(x)}; }};

class FloatFormat : public testing::TestWithParam<const Format*> {};

TEST_P(FloatFormat, EveryCodeHasItsDefinedValue) {
  const Format& format = *GetParam();
  for (std::uint32_t code = 0; code < 1u << format.bits; ++code) {
    const double expected = defined_value(format, code);
    const float got = format.decode(code);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(got)) << format.name << " " << code;
      continue;
    }
    ASSERT_EQ(static_cast<float>(expected), got) << format.name << " " << code;
    ASSERT_EQ(std::signbit(got), code >> (format.bits - 1) != 0) << format.name << " " << code;
  }
}

TEST_P(FloatFormat, EveryValueEncodesToItself) {
  const Format& format = *GetParam();
  for (std::uint32_t code = 0; code < 1u << format.bits; ++code) {
    const float value = format.decode(code);
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(format.decode(format.encode(value)))) << format.name << " " << code;
      continue;
    }
    ASSERT_EQ(format.encode(value), code) << format.name << " value " << value;
  }
}

// Between each two neighbours: just below, at and just above the midpoint.
TEST_P(FloatFormat, RoundsToTheNearestAndTiesToEven) {
  const Format& format = *GetParam();
  const std::uint32_t sign = 1u << (format.bits - 1);
  for (std::uint32_t code = 0; code + 1 < sign; ++code) {
    const double low = defined_value(format, code), high = defined_value(format, code + 1);
    if (!std::isfinite(low) || !std::isfinite(high)) continue;
    const auto middle = static_cast<float>((low + high) / 2);       // exact: one more bit than the format
    if (static_cast<double>(middle) != (low + high) / 2) continue;  // below float32's subnormals
    const std::uint32_t even = code % 2 == 0 ? code : code + 1;
    ASSERT_EQ(format.encode(middle), even) << format.name << " " << middle;
    ASSERT_EQ(format.encode(std::nextafterf(middle, 0)), code) << format.name << " below " << middle;
    ASSERT_EQ(format.encode(std::nextafterf(middle, INFINITY)), code + 1)
        << format.name << " above " << middle;
    ASSERT_EQ(format.encode(-middle), even | sign) << format.name << " " << -middle;
  }
}

INSTANTIATE_TEST_SUITE_P(All, FloatFormat, testing::Values(&kBf16Format, &kF16Format, &kE4M3Format),
                         [](const auto& info) { return std::string(info.param->name); });

TEST(FloatTypes, LargeValuesOverflowAsTheFormatSays) {
  EXPECT_EQ(float_to_f16(65519.996f), 0x7bff);  // the largest finite value
  EXPECT_EQ(float_to_f16(65520.0f), 0x7c00);
  EXPECT_EQ(float_to_f16(-1e30f), 0xfc00);
  EXPECT_EQ(float_to_f16(INFINITY), 0x7c00);
  EXPECT_EQ(float_to_bf16(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_EQ(float_to_bf16(-INFINITY), 0xff80);
  for (const float large : {448.0f, 449.0f, 464.0f, 1e30f, INFINITY}) {
    EXPECT_EQ(float_to_e4m3(large), 0x7e) << large;
    EXPECT_EQ(float_to_e4m3(-large), 0xfe) << large;
  }
  EXPECT_TRUE(std::isnan(e4m3_to_float(float_to_e4m3(NAN))));
}

// The same as a search for the nearest code, on random floats of all sizes.
TEST(FloatTypes, E4M3IsTheNearestOfAllCodesOnRandomValues) {
  std::mt19937 random(7);
  std::vector<float> values;
  for (int code = 0; code < 0x7f; ++code) values.push_back(e4m3_to_float(static_cast<e4m3>(code)));
  for (int i = 0; i < 200000; ++i) {
    const float x =
        std::ldexp(static_cast<float>(random()) / 4294967296.0f + 0.5f, static_cast<int>(random() % 24) - 14);
    if (x > 448) continue;
    const auto above = std::lower_bound(values.begin(), values.end(), x);
    auto best = above;
    if (above != values.begin()) {
      const double to_low = static_cast<double>(x) - *(above - 1), to_high = static_cast<double>(*above) - x;
      if (to_low < to_high || (to_low == to_high && (above - values.begin()) % 2 == 1)) best = above - 1;
    }
    ASSERT_EQ(float_to_e4m3(x), best - values.begin()) << x;
  }
}

TEST(FloatTypes, E4M3EqualsTheReference) {
  const auto path = shared_path("golden/quantization/vectors.safetensors");
  BISE_SKIP_IF_ABSENT(path, "golden/quantization/vectors.safetensors");
  const SafetensorsFile vectors = SafetensorsFile::open(path);
  const Tensor values = vectors.tensor("e4m3.to_f32"), codes = vectors.tensor("e4m3.from_all_bf16");
  for (int code = 0; code < 256; ++code) {
    const float expected = values.data<float>()[code], got = e4m3_to_float(static_cast<e4m3>(code));
    EXPECT_TRUE(expected == got || (std::isnan(expected) && std::isnan(got))) << code;
  }
  for (int bits = 0; bits < 65536; ++bits) {
    const float value = bf16_to_float(static_cast<bf16>(bits));
    if (!std::isfinite(value)) continue;  // the reference stores 0 there
    ASSERT_EQ(float_to_e4m3(value), codes.data<std::uint8_t>()[bits]) << value;
  }
}

TEST(FloatTypes, TensorsConvertBothWays) {
  const std::vector<float> values = {0, -0.0f, 1, -2.5f, 0.001f, 300};
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kF8E4M3}) {
    const Tensor tensor = from_float(values, dtype, {2, 3});
    std::vector<float> back(values.size());
    to_float(tensor, back);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const float tolerance = dtype == DType::kF32 ? 0 : std::fabs(values[i]) / 16 + 0.001f;
      EXPECT_NEAR(back[i], values[i], tolerance) << dtype_name(dtype);
    }
    EXPECT_EQ(from_float(back, dtype, {6}).reshaped({2, 3}).bytes().size(), tensor.bytes().size());
  }
  const double half = 0.5;
  std::vector<float> out(1);
  to_float(Tensor::of(DType::kF64, {1}, std::span<const double>(&half, 1)), out);
  EXPECT_EQ(out[0], 0.5f);
}

}  // namespace
}  // namespace bise
