#include "backend/cpu/linear_input.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "tensor/float_types.h"

namespace bise {
namespace {

constexpr std::int64_t kLineBytes = 64;
constexpr std::int64_t kRowsOfTile = 16;  // kernels read and ignore rows up to a multiple of this
constexpr float kSmallestFp8Scale = 1.0f / (kE4M3Max * 512.0f);

std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

std::int64_t bytes_of_row(std::int64_t columns, Isa isa) {
  const std::int64_t padded = round_up(columns, CpuLinearInput::kColumnPadding);
  const std::int64_t bytes = padded * (isa == Isa::kAmx ? 2 : 4);
  return bytes / kLineBytes % 2 == 0 ? bytes + kLineBytes : bytes;
}

// The loops below are written once, without branches, and vectorized for each instruction set where they are
// inlined at the end of this file.

[[gnu::always_inline]] inline float largest_magnitude(const float* values, std::int64_t count) {
  std::uint32_t largest = 0;  // non-negative floats are ordered as their bits
  for (std::int64_t i = 0; i < count; ++i)
    largest = std::max(largest, std::bit_cast<std::uint32_t>(values[i]) & 0x7fffffffu);
  return std::bit_cast<float>(largest);
}

[[gnu::always_inline]] inline bf16 to_bf16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const std::uint32_t quiet_nan = (bits >> 16) | 0x40u;
  return static_cast<bf16>((bits & 0x7fffffffu) > 0x7f800000u ? quiet_nan : rounded);
}

// The nearest e4m3 value, saturated.
[[gnu::always_inline]] inline float to_e4m3(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const float magnitude = std::bit_cast<float>(bits & 0x7fffffffu);
  const float bounded = magnitude > kE4M3Max ? kE4M3Max : magnitude;
  const std::uint32_t absolute = std::bit_cast<std::uint32_t>(bounded);
  const std::uint32_t normal = (absolute + 0x7ffffu + ((absolute >> 20) & 1u)) & ~0xfffffu;
  // Below 2^-6: a multiple of 2^-9, which is the unit in the last place of 2^14.
  const float subnormal = (bounded + 0x1p14f) - 0x1p14f;
  const std::uint32_t rounded = bounded < 0x1p-6f ? std::bit_cast<std::uint32_t>(subnormal) : normal;
  return std::bit_cast<float>(rounded | (bits & 0x80000000u));
}

// Nearest integer of a value within +-2^22, ties to even.
[[gnu::always_inline]] inline std::int32_t to_integer(float value) {
  return std::bit_cast<std::int32_t>(value + 0x1.8p23f) - std::bit_cast<std::int32_t>(0x1.8p23f);
}

struct EncodedRow {
  float scale = 1;
  std::int32_t code_sum = 0;
};

// vLLM's rules (spec/quantization.md section 3.4); `out` is filled up with zeros to `out_bytes`.
[[gnu::always_inline]] inline EncodedRow encode(InputType type, float static_scale, bool as_bf16,
                                                const float* values, std::int64_t count, std::byte* out,
                                                std::int64_t out_bytes) {
  EncodedRow row;
  std::int64_t bytes = count * (type == InputType::kInt8Token ? 1 : as_bf16 ? 2 : 4);
  std::memset(out + bytes, 0, static_cast<std::size_t>(out_bytes - bytes));
  if (type == InputType::kNone) {
    if (!as_bf16) {
      std::memcpy(out, values, static_cast<std::size_t>(bytes));
      return row;
    }
    auto* rounded = reinterpret_cast<bf16*>(out);
    for (std::int64_t i = 0; i < count; ++i) rounded[i] = to_bf16(values[i]);
    return row;
  }
  if (type == InputType::kInt8Token) {
    const float largest = largest_magnitude(values, count);
    const float inverse = largest == 0 ? 0 : 127.0f / largest;
    row.scale = largest / 127.0f;
    auto* codes = reinterpret_cast<std::int8_t*>(out);
    std::int32_t sum = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int32_t code = to_integer(values[i] * inverse);
      codes[i] = static_cast<std::int8_t>(code);
      sum += code;
    }
    row.code_sum = sum;
    return row;
  }
  row.scale = type == InputType::kFp8Tensor
                  ? static_scale
                  : std::max(largest_magnitude(values, count) / kE4M3Max, kSmallestFp8Scale);
  const float inverse = 1.0f / row.scale;
  if (as_bf16) {
    auto* rounded = reinterpret_cast<bf16*>(out);
    for (std::int64_t i = 0; i < count; ++i)
      rounded[i] = static_cast<bf16>(std::bit_cast<std::uint32_t>(to_e4m3(values[i] * inverse)) >> 16);
  } else {
    auto* rounded = reinterpret_cast<float*>(out);
    for (std::int64_t i = 0; i < count; ++i) rounded[i] = to_e4m3(values[i] * inverse);
  }
  return row;
}

using EncodeFunction = EncodedRow (*)(InputType, float, const float*, std::int64_t, std::byte*, std::int64_t);

EncodedRow encode_scalar(InputType type, float scale, const float* values, std::int64_t count, std::byte* out,
                         std::int64_t out_bytes) {
  return encode(type, scale, false, values, count, out, out_bytes);
}

#pragma GCC push_options
#pragma GCC target("avx2,fma")
EncodedRow encode_avx2(InputType type, float scale, const float* values, std::int64_t count, std::byte* out,
                       std::int64_t out_bytes) {
  return encode(type, scale, false, values, count, out, out_bytes);
}
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
EncodedRow encode_avx512(InputType type, float scale, const float* values, std::int64_t count, std::byte* out,
                         std::int64_t out_bytes) {
  return encode(type, scale, false, values, count, out, out_bytes);
}
EncodedRow encode_amx(InputType type, float scale, const float* values, std::int64_t count, std::byte* out,
                      std::int64_t out_bytes) {
  return encode(type, scale, true, values, count, out, out_bytes);
}
// rest = values - rounded
void subtract(const float* values, const bf16* rounded, float* rest, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i)
    rest[i] = values[i] - std::bit_cast<float>(static_cast<std::uint32_t>(rounded[i]) << 16);
}
#pragma GCC pop_options

EncodeFunction encode_function(Isa isa) {
  switch (isa) {
    case Isa::kScalar: return encode_scalar;
    case Isa::kAvx2: return encode_avx2;
    case Isa::kAvx512: return encode_avx512;
    case Isa::kAmx: return encode_amx;
  }
  return encode_scalar;
}

}  // namespace

CpuLinearInput::CpuLinearInput(std::int64_t max_rows, std::int64_t columns, Isa isa, bool float_rows)
    : LinearInput(max_rows, columns),
      isa_(isa),
      row_bytes_(bytes_of_row(columns, isa)),
      packed_rows_(round_up(std::min(max_rows, kChunkRows), 2 * kRowsOfTile)),
      codes_(round_up(max_rows, kRowsOfTile) * row_bytes_),
      scales_(max_rows),
      code_sums_(max_rows),
      packing_space_(allocate_aligned(static_cast<std::size_t>(packed_rows_ * round_up(columns, 2048) * 4))),
      staging_(max_rows * columns),
      halves_(float_rows && isa == Isa::kAmx ? std::make_unique<CpuLinearInput>(2 * max_rows, columns, isa)
                                             : nullptr) {
  if (halves_) halves_->is_halves_ = true;
  if (isa != Isa::kAmx) return;
  float_stride_ = round_up(columns, kColumnPadding);
  float_rows_ = AlignedBuffer<float>(std::min(max_rows, kFloatRows) * float_stride_);
}

void CpuLinearInput::begin(std::int64_t rows, InputEncoding encoding) {
  check(rows >= 0 && rows <= max_rows_, "the rows fit the linear input");
  check(encoding.type != InputType::kFp8Tensor || encoding.scale > 0, "a static input scale is positive");
  rows_ = rows;
  type_ = encoding.type;
  static_scale_ = encoding.scale;
  if (halves()) halves_->begin(2 * rows, encoding);
}

void CpuLinearInput::encode_row(std::int64_t row, const float* values) {
  if (halves()) {
    halves_->encode_row(2 * row, values);
    float* rest = halves_->staging(2 * row);
    subtract(values, halves_->bf16_row(2 * row), rest, columns_);
    return halves_->encode_row(2 * row + 1, rest);
  }
  if (keeps_floats()) std::copy_n(values, columns_, float_rows_.data() + row * float_stride_);
  const EncodedRow encoded =
      encode_function(isa_)(type_, static_scale_, values, columns_, row_data(row), row_bytes_);
  scales_[row] = encoded.scale;
  code_sums_[row] = encoded.code_sum;
}

void CpuLinearInput::end_row(std::int64_t row) {
  if (!bf16_row(row)) return encode_row(row, staging(row));
  std::memset(bf16_row(row) + columns_, 0, static_cast<std::size_t>(row_bytes_ - 2 * columns_));
  scales_[row] = 1;
  code_sums_[row] = 0;
}

void CpuLinearInput::copy_row(std::int64_t row, const CpuLinearInput& from, std::int64_t from_row) {
  check(from.columns_ == columns_ && from.type_ == type_ && from.isa_ == isa_,
        "a row is copied between inputs of one kind");
  if (halves()) {
    halves_->copy_row(2 * row, *from.halves_, 2 * from_row);
    return halves_->copy_row(2 * row + 1, *from.halves_, 2 * from_row + 1);
  }
  std::memcpy(row_data(row), from.row_data(from_row), static_cast<std::size_t>(row_bytes_));
  scales_[row] = from.scales_[from_row];
  code_sums_[row] = from.code_sums_[from_row];
  if (!keeps_floats()) return;
  float* floats = float_rows_.data() + row * float_stride_;
  from.keeps_floats() ? (void)std::copy_n(from.float_row(from_row), columns_, floats)
                      : from.decode_row(from_row, floats);
}

void CpuLinearInput::decode_row(std::int64_t row, float* values) const {
  if (halves()) {
    std::vector<float> rest(static_cast<std::size_t>(columns_));
    halves_->decode_row(2 * row, values);
    halves_->decode_row(2 * row + 1, rest.data());
    for (std::int64_t i = 0; i < columns_; ++i) values[i] += rest[static_cast<std::size_t>(i)];
    return;
  }
  const std::byte* codes = row_data(row);
  const float scale = type_ == InputType::kNone ? 1.0f : scales_[row];
  for (std::int64_t i = 0; i < columns_; ++i) {
    float code;
    if (is_int8())
      code = reinterpret_cast<const std::int8_t*>(codes)[i];
    else if (isa_ == Isa::kAmx)
      code = bf16_to_float(reinterpret_cast<const bf16*>(codes)[i]);
    else
      code = reinterpret_cast<const float*>(codes)[i];
    values[i] = code * scale;
  }
}

}  // namespace bise
