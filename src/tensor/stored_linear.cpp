#include "tensor/stored_linear.h"

#include <vector>

#include "base/check.h"
#include "tensor/float_types.h"
#include "tensor/pack.h"

namespace bise {
namespace {

// Element `index` of a float tensor of any dtype.
float float_at(const Tensor& tensor, std::int64_t index) {
  switch (tensor.dtype()) {
    case DType::kF32: return tensor.data<float>()[index];
    case DType::kBF16: return bf16_to_float(tensor.data<bf16>()[index]);
    case DType::kF16: return f16_to_float(tensor.data<f16>()[index]);
    default: check(false, "a scale is F32, BF16 or F16"); return 0;
  }
}

// Where the scale of (row, column) stands in the flat scale tensor.
std::int64_t scale_index(const StoredLinear& linear, std::int64_t row, std::int64_t column) {
  switch (linear.scheme.strategy) {
    case Strategy::kTensor: return 0;
    case Strategy::kChannel: return row;
    case Strategy::kGroup: {
      const std::int64_t group = linear.g_idx.empty() ? column / linear.scheme.group_size
                                                      : linear.g_idx.data<std::int32_t>()[column];
      return row * linear.scale.dim(1) + group;
    }
    case Strategy::kBlock:
      return row / linear.block_rows * linear.scale.dim(1) + column / linear.block_columns;
  }
  return 0;
}

int zero_point_at(const StoredLinear& linear, std::int64_t row, std::int64_t scale_position) {
  if (linear.zero_point.empty()) return 0;
  if (linear.zero_point.dtype() == DType::kI8) return linear.zero_point.data<std::int8_t>()[scale_position];
  // Packed along rows: element `row` of this group's column.
  const int bits = linear.scheme.num_bits;
  const std::int64_t groups = linear.scale.dim(1), bit = row * bits;
  check(32 % bits == 0, "packed zero points do not straddle words");
  const std::uint32_t word =
      linear.zero_point.data<std::uint32_t>()[bit / 32 * groups + scale_position % groups];
  return static_cast<int>((word >> (bit % 32)) & ((1u << bits) - 1u)) - (1 << (bits - 1));
}

void dequantize_nf4_row(const StoredLinear& linear, std::int64_t row, std::span<float> out) {
  for (std::int64_t column = 0; column < linear.columns; ++column) {
    const std::int64_t element = row * linear.columns + column;
    const std::uint8_t byte = linear.weight.data<std::uint8_t>()[element / 2];
    const int code = element % 2 == 0 ? byte >> 4 : byte & 15;
    out[static_cast<std::size_t>(column)] =
        linear.quant_map.data<float>()[code] * linear.absmax.data<float>()[element / 64];
  }
}

// The integer codes of one row, from bytes or packed words.
std::vector<std::int8_t> codes_of_row(const StoredLinear& linear, std::int64_t row) {
  if (linear.packed()) {
    const Tensor codes =
        unpack_rows(linear.weight.rows(row, row + 1), linear.scheme.num_bits, linear.columns);
    return {codes.data<std::int8_t>(), codes.data<std::int8_t>() + linear.columns};
  }
  const std::int8_t* codes = linear.weight.data<std::int8_t>() + row * linear.columns;
  return {codes, codes + linear.columns};
}

}  // namespace

std::int64_t stored_bytes(const StoredLinear& linear) {
  std::size_t total = 0;
  for (const Tensor* tensor : {&linear.weight, &linear.scale, &linear.zero_point, &linear.g_idx,
                               &linear.absmax, &linear.quant_map, &linear.input_scale, &linear.bias})
    total += tensor->bytes().size();
  return static_cast<std::int64_t>(total);
}

void dequantize_row(const StoredLinear& linear, std::int64_t row, std::span<float> out) {
  check(static_cast<std::int64_t>(out.size()) == linear.columns && row < linear.rows,
        "a row fits the output");
  if (linear.scheme.type == WeightType::kNf4) return dequantize_nf4_row(linear, row, out);
  if (linear.scheme.type == WeightType::kFloat) {
    to_float(linear.weight.rows(row, row + 1), out);
    if (!linear.scheme.quantized()) return;
    for (std::int64_t column = 0; column < linear.columns; ++column)
      out[static_cast<std::size_t>(column)] *= float_at(linear.scale, scale_index(linear, row, column));
    return;
  }
  const std::vector<std::int8_t> codes = codes_of_row(linear, row);
  for (std::int64_t column = 0; column < linear.columns; ++column) {
    const std::int64_t position = scale_index(linear, row, column);
    const int code = codes[static_cast<std::size_t>(column)] - zero_point_at(linear, row, position);
    out[static_cast<std::size_t>(column)] = static_cast<float>(code) * float_at(linear.scale, position);
  }
}

}  // namespace bise
