#include "tensor/slice_linear.h"

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/error.h"

namespace bise {
namespace {

constexpr std::int64_t kNf4Block = 64;

void require_whole(Slice slice, std::int64_t size, std::int64_t step, const char* what) {
  check(slice.begin >= 0 && slice.begin < slice.end && slice.end <= size, "the slice is inside the layer");
  if (slice.begin % step != 0 || (slice.end % step != 0 && slice.end != size))
    throw Error("a linear layer cannot be divided here: {} are stored together", what)
        .expected("multiples of " + std::to_string(step))
        .got("[" + std::to_string(slice.begin) + ", " + std::to_string(slice.end) + ")");
}

// Columns [begin, end) of a tensor [rows, ...], `per_row` elements a row.
Tensor copy_columns(const Tensor& tensor, std::int64_t rows, Slice columns) {
  const std::int64_t per_row = tensor.elements() / rows, count = columns.end - columns.begin;
  const std::size_t size = dtype_size(tensor.dtype());
  std::vector<std::byte> bytes(static_cast<std::size_t>(rows * count) * size);
  for (std::int64_t row = 0; row < rows; ++row)
    std::memcpy(bytes.data() + static_cast<std::size_t>(row * count) * size,
                tensor.bytes().data() + static_cast<std::size_t>(row * per_row + columns.begin) * size,
                static_cast<std::size_t>(count) * size);
  auto owner = std::make_shared<const std::vector<std::byte>>(std::move(bytes));
  return Tensor(tensor.dtype(), {rows, count}, *owner, owner);
}

// Elements [begin, end) of a tensor of any shape.
Tensor elements_of(const Tensor& tensor, std::int64_t begin, std::int64_t end) {
  return tensor.reshaped({tensor.elements()}).rows(begin, end);
}

// Packed along rows, so many rows in a word.
std::int64_t zero_points_per_word(const StoredLinear& linear) {
  return linear.zero_point.dtype() == DType::kI32 ? 32 / linear.scheme.num_bits : 1;
}

void slice_nf4_rows(const StoredLinear& linear, Slice rows, StoredLinear& out) {
  const Slice elements{rows.begin * linear.columns, rows.end * linear.columns};
  require_whole(elements, linear.rows * linear.columns, kNf4Block, "64 values of nf4");
  out.weight = elements_of(linear.weight, elements.begin / 2, (elements.end + 1) / 2);
  out.absmax =
      elements_of(linear.absmax, elements.begin / kNf4Block, (elements.end + kNf4Block - 1) / kNf4Block);
}

// Rows of a scale or zero point that has one row for each row of the weight, or of blocks of them.
Tensor rows_of(const Tensor& tensor, Slice rows, std::int64_t step) {
  return tensor.rows(rows.begin / step, (rows.end + step - 1) / step);
}

}  // namespace

StoredLinear slice_rows(const StoredLinear& linear, Slice rows) {
  StoredLinear out = linear;
  out.rows = rows.end - rows.begin;
  if (!linear.bias.empty()) out.bias = linear.bias.rows(rows.begin, rows.end);
  if (linear.scheme.type == WeightType::kNf4) {
    slice_nf4_rows(linear, rows, out);
    return out;
  }
  const bool blocks = linear.scheme.strategy == Strategy::kBlock;
  require_whole(rows, linear.rows, blocks ? linear.block_rows : 1, "the rows of a block");
  out.weight = linear.weight.rows(rows.begin, rows.end);
  if (!linear.scheme.quantized() || linear.scheme.strategy == Strategy::kTensor) return out;
  out.scale = rows_of(linear.scale, rows, blocks ? linear.block_rows : 1);
  if (linear.zero_point.empty()) return out;
  require_whole(rows, linear.rows, zero_points_per_word(linear), "packed zero points");
  out.zero_point = rows_of(linear.zero_point, rows, zero_points_per_word(linear));
  return out;
}

StoredLinear slice_columns(const StoredLinear& linear, Slice columns) {
  StoredLinear out = linear;
  out.columns = columns.end - columns.begin;
  if (columns.begin != 0) out.bias = {};
  const std::int64_t rows = linear.rows;
  if (linear.scheme.type == WeightType::kNf4) {
    // Not only here: with other widths the 64 values go on in the next row.
    const std::int64_t elements = linear.rows * linear.columns;
    require_whole({0, linear.columns}, elements, kNf4Block, "64 values of nf4");
    require_whole(columns, elements, kNf4Block, "64 values of nf4");
    out.weight = copy_columns(linear.weight, rows, {columns.begin / 2, columns.end / 2});
    out.absmax = copy_columns(linear.absmax, rows, {columns.begin / kNf4Block, columns.end / kNf4Block});
    return out;
  }
  const std::int64_t per_word = linear.packed() ? 32 / linear.scheme.num_bits : 1;
  require_whole(columns, linear.columns, per_word, "the codes of a word");
  out.weight =
      copy_columns(linear.weight, rows, {columns.begin / per_word, (columns.end + per_word - 1) / per_word});
  if (!linear.g_idx.empty()) {  // each column names its group: all scales stay
    out.g_idx = linear.g_idx.rows(columns.begin, columns.end);
    return out;
  }
  const bool blocks = linear.scheme.strategy == Strategy::kBlock;
  if (!blocks && linear.scheme.strategy != Strategy::kGroup) return out;
  const std::int64_t step = blocks ? linear.block_columns : linear.scheme.group_size;
  require_whole(columns, linear.columns, step, "the columns of a group");
  const Slice groups{columns.begin / step, (columns.end + step - 1) / step};
  out.scale = copy_columns(linear.scale, linear.scale.dim(0), groups);
  if (!linear.zero_point.empty())
    out.zero_point = copy_columns(linear.zero_point, linear.zero_point.dim(0), groups);
  return out;
}

}  // namespace bise
