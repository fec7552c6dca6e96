#include "tensor/pack.h"

#include "base/check.h"
#include "base/error.h"

namespace bise {

const std::array<float, 16> kNf4Values = {-1.0f,
                                          -0.6961928009986877f,
                                          -0.5250730514526367f,
                                          -0.39491748809814453f,
                                          -0.28444138169288635f,
                                          -0.18477343022823334f,
                                          -0.09105003625154495f,
                                          0.0f,
                                          0.07958029955625534f,
                                          0.16093020141124725f,
                                          0.24611230194568634f,
                                          0.33791524171829224f,
                                          0.44070982933044434f,
                                          0.5626170039176941f,
                                          0.7229568362236023f,
                                          1.0f};

namespace {

std::int64_t words_for(std::int64_t count, int bits) {
  return (count * bits + 31) / 32;
}

// A line of codes inside a matrix: consecutive codes are `stride` apart, so rows and columns share the code.
void pack_line(const std::int8_t* codes, std::int64_t count, std::int64_t stride, int bits,
               std::uint32_t* words, std::int64_t word_stride) {
  const int offset = 1 << (bits - 1);
  const std::uint32_t mask = (1u << bits) - 1u;
  for (std::int64_t k = 0; k < count; ++k) {
    const std::uint32_t code = static_cast<std::uint32_t>(codes[k * stride] + offset) & mask;
    const std::int64_t bit = k * bits;
    const int shift = static_cast<int>(bit % 32);
    words[bit / 32 * word_stride] |= code << shift;
    if (shift + bits > 32) words[(bit / 32 + 1) * word_stride] |= code >> (32 - shift);
  }
}

void unpack_line(const std::uint32_t* words, std::int64_t word_stride, std::int64_t count, int bits,
                 std::int8_t* codes, std::int64_t stride) {
  const int offset = 1 << (bits - 1);
  const std::uint32_t mask = (1u << bits) - 1u;
  for (std::int64_t k = 0; k < count; ++k) {
    const std::int64_t bit = k * bits;
    const int shift = static_cast<int>(bit % 32);
    std::uint32_t code = words[bit / 32 * word_stride] >> shift;
    if (shift + bits > 32) code |= words[(bit / 32 + 1) * word_stride] << (32 - shift);
    codes[k * stride] = static_cast<std::int8_t>(static_cast<int>(code & mask) - offset);
  }
}

void check_matrix(const Tensor& tensor, DType dtype, int bits) {
  check(bits >= 2 && bits <= 8, "codes have 2 to 8 bits");
  check(tensor.shape().size() == 2 && tensor.dtype() == dtype, "packing takes a matrix");
}

[[noreturn]] void wrong_width(const Tensor& packed, Shape expected) {
  throw Error("packed codes have the wrong shape")
      .expected(shape_text(expected))
      .got(shape_text(packed.shape()));
}

}  // namespace

Tensor pack_rows(const Tensor& codes, int bits) {
  check_matrix(codes, DType::kI8, bits);
  const std::int64_t rows = codes.dim(0), columns = codes.dim(1), words = words_for(columns, bits);
  Tensor packed = Tensor::allocate(DType::kI32, {rows, words});
  auto* out = packed.mutable_data<std::uint32_t>();
  for (std::int64_t row = 0; row < rows; ++row)
    pack_line(codes.data<std::int8_t>() + row * columns, columns, 1, bits, out + row * words, 1);
  return packed;
}

Tensor unpack_rows(const Tensor& packed, int bits, std::int64_t columns) {
  check_matrix(packed, DType::kI32, bits);
  const std::int64_t rows = packed.dim(0), words = words_for(columns, bits);
  if (packed.dim(1) != words) wrong_width(packed, {rows, words});
  Tensor codes = Tensor::allocate(DType::kI8, {rows, columns});
  auto* out = codes.mutable_data<std::int8_t>();
  for (std::int64_t row = 0; row < rows; ++row)
    unpack_line(packed.data<std::uint32_t>() + row * words, 1, columns, bits, out + row * columns, 1);
  return codes;
}

Tensor pack_columns(const Tensor& codes, int bits) {
  check_matrix(codes, DType::kI8, bits);
  const std::int64_t rows = codes.dim(0), columns = codes.dim(1);
  Tensor packed = Tensor::allocate(DType::kI32, {words_for(rows, bits), columns});
  auto* out = packed.mutable_data<std::uint32_t>();
  for (std::int64_t column = 0; column < columns; ++column)
    pack_line(codes.data<std::int8_t>() + column, rows, columns, bits, out + column, columns);
  return packed;
}

Tensor unpack_columns(const Tensor& packed, int bits, std::int64_t rows) {
  check_matrix(packed, DType::kI32, bits);
  const std::int64_t columns = packed.dim(1);
  if (packed.dim(0) != words_for(rows, bits)) wrong_width(packed, {words_for(rows, bits), columns});
  Tensor codes = Tensor::allocate(DType::kI8, {rows, columns});
  auto* out = codes.mutable_data<std::int8_t>();
  for (std::int64_t column = 0; column < columns; ++column)
    unpack_line(packed.data<std::uint32_t>() + column, columns, rows, bits, out + column, columns);
  return codes;
}

}  // namespace bise
