#include "backend/cpu/linear_weight.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "backend/cpu/linear.h"
#include "base/check.h"
#include "base/error.h"
#include "tensor/float_types.h"

namespace bise {
namespace {

constexpr std::int64_t kTileRows = 16, kTileRowBytes = 64;

std::vector<float> floats_of(const Tensor& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
  to_float(tensor, values);
  return values;
}

float float_at(const Tensor& tensor, std::int64_t index) {
  switch (tensor.dtype()) {
    case DType::kF32: return tensor.data<float>()[index];
    case DType::kBF16: return bf16_to_float(tensor.data<bf16>()[index]);
    case DType::kF16: return f16_to_float(tensor.data<f16>()[index]);
    default: check(false, "a scale is F32, BF16 or F16"); return 0;
  }
}

// One scale for the whole row, which may wait until after the product.
bool scale_of_row(const StoredLinear& linear) {
  return linear.scheme.strategy == Strategy::kChannel || linear.scheme.strategy == Strategy::kTensor;
}

// Columns that share a scale.
std::int64_t group_size_of(const StoredLinear& linear) {
  if (linear.scheme.type == WeightType::kNf4) return 64;
  if (!linear.scheme.quantized() || scale_of_row(linear)) return 0;
  return linear.scheme.strategy == Strategy::kBlock ? linear.block_columns : linear.scheme.group_size;
}

// The kernels widen 128 columns of 4-bit codes or 32 of 8-bit codes at a time.
RowFormat format_of(const StoredLinear& linear, std::int64_t group_size) {
  const bool whole_groups = group_size % 32 == 0, even = linear.columns % 2 == 0;
  if (!linear.g_idx.empty()) return RowFormat::kOther;
  switch (linear.scheme.type) {
    case WeightType::kNf4: return linear.columns % 64 == 0 ? RowFormat::kNf4 : RowFormat::kOther;
    case WeightType::kFloat:
      if (linear.scheme.quantized()) return whole_groups ? RowFormat::kE4M3 : RowFormat::kOther;
      if (linear.weight.dtype() == DType::kBF16) return RowFormat::kBF16;
      return linear.weight.dtype() == DType::kF16 ? RowFormat::kF16 : RowFormat::kF32;
    case WeightType::kInt:
      if (!whole_groups) return RowFormat::kOther;
      if (!linear.packed()) return RowFormat::kInt8;
      if (linear.scheme.num_bits == 8) return RowFormat::kInt8Packed;
      const bool whole_blocks = group_size == 32 || group_size == 64 || group_size % 128 == 0;
      return linear.scheme.num_bits == 4 && whole_blocks && even ? RowFormat::kInt4Packed : RowFormat::kOther;
  }
  return RowFormat::kOther;
}

// Zero points of several rows share a word: where that of `row` is.
struct PackedPlace {
  PackedPlace(const StoredLinear& linear, std::int64_t row)
      : bits(linear.scheme.num_bits),
        word_row(row / (32 / bits)),
        shift(static_cast<int>(row % (32 / bits)) * bits) {}
  float value(std::uint32_t word) const {
    return static_cast<float>(static_cast<int>(word >> shift & ((1u << bits) - 1u)) - (1 << (bits - 1)));
  }
  int bits;
  std::int64_t word_row;
  int shift;
};

float zero_point_of_row(const StoredLinear& linear, std::int64_t row) {
  if (linear.zero_point.dtype() == DType::kI8) return linear.zero_point.data<std::int8_t>()[row];
  const PackedPlace place(linear, row);
  return place.value(linear.zero_point.data<std::uint32_t>()[place.word_row]);
}

void require_supported(const StoredLinear& linear) {
  check(linear.rows > 0 && linear.columns > 0, "a linear layer has rows and columns");
  if (linear.scheme.input == InputType::kInt8Token && linear.scheme.type == WeightType::kFloat)
    throw Error("a float weight with int8 inputs is not supported").got(scheme_text(linear.scheme));
}

}  // namespace

void LinearPart::load_groups(std::int64_t row, std::int64_t first, std::int64_t count, float* scales,
                             float* zero_points) const {
  std::fill_n(zero_points, count, 0.0f);
  std::fill_n(scales, count, 1.0f);
  const std::int64_t groups = group_size == 0 ? 1 : (stored.columns + group_size - 1) / group_size;
  if (group_size == 0) {
    if (!stored.zero_point.empty())
      std::fill_n(zero_points, count, zero_point_of_row(stored, stored.scale.elements() == 1 ? 0 : row));
    return;
  }
  count = std::min(count, groups - first);
  if (format == RowFormat::kNf4) {
    std::memcpy(scales, stored.absmax.data<float>() + row * groups + first,
                static_cast<std::size_t>(count) * sizeof(float));
    return;
  }
  const std::int64_t scale_row = stored.scheme.strategy == Strategy::kBlock ? row / stored.block_rows : row;
  const std::int64_t begin = scale_row * groups + first;
  if (stored.scale.dtype() == DType::kBF16) {
    const bf16* values = stored.scale.data<bf16>() + begin;
    for (std::int64_t g = 0; g < count; ++g) scales[g] = bf16_to_float(values[g]);
  } else {
    for (std::int64_t g = 0; g < count; ++g) scales[g] = float_at(stored.scale, begin + g);
  }
  if (stored.zero_point.empty()) return;
  if (stored.zero_point.dtype() == DType::kI32) {
    const PackedPlace place(stored, row);
    const std::uint32_t* words = stored.zero_point.data<std::uint32_t>() + place.word_row * groups + first;
    for (std::int64_t g = 0; g < count; ++g) zero_points[g] = place.value(words[g]);
  } else {
    const std::int8_t* zeros = stored.zero_point.data<std::int8_t>() + begin;
    for (std::int64_t g = 0; g < count; ++g) zero_points[g] = zeros[g];
  }
}

void LinearPart::dequantize(std::int64_t row, std::int64_t first, std::int64_t count, float* out) const {
  std::vector<float> values(static_cast<std::size_t>(stored.columns));
  dequantize_row(stored, row, values);
  std::copy_n(values.begin() + first, count, out);
}

CpuLinearWeight::CpuLinearWeight(std::vector<StoredLinear> parts, Isa isa) : isa_(isa) {
  check(!parts.empty(), "a linear layer has at least one part");
  columns_ = parts.front().columns;
  input_type_ = parts.front().scheme.input;
  for (const StoredLinear& part : parts) {
    check(part.columns == columns_ && part.scheme.input == input_type_,
          "joined parts agree in columns and input type");
    require_supported(part);
    rows_ += part.rows;
    if (input_type_ == InputType::kFp8Tensor)
      input_scale_ = std::max(input_scale_, floats_of(part.input_scale).front());
  }
  for (StoredLinear& part : parts) add_part(std::move(part));
  const auto all = [&](auto holds) { return std::all_of(parts_.begin(), parts_.end(), holds); };
  integer_ =
      input_type_ == InputType::kInt8Token && all([](const LinearPart& part) {
        return part.format == RowFormat::kInt8 && part.group_size == 0 && part.stored.zero_point.empty();
      });
  nibbles_ = isa == Isa::kAmx && all([](const LinearPart& part) {
               return part.format == RowFormat::kInt4Packed || part.format == RowFormat::kNf4;
             });
  if (isa == Isa::kAmx || isa == Isa::kAvx512) plane_span_ = find_plane_span();
}

int CpuLinearWeight::find_plane_span() const {
  const LinearPart& first = parts_.front();
  const bool integers = first.format == RowFormat::kInt4Packed || first.format == RowFormat::kInt8Packed ||
                        first.format == RowFormat::kInt8;
  const bool input = input_type_ == InputType::kNone || input_type_ == InputType::kInt8Token;
  if (!integers || !input || integer_) return 0;
  const Tensor& zero_point = first.stored.zero_point;
  for (const LinearPart& part : parts_) {
    const StoredLinear& stored = part.stored;
    const bool offset = !stored.zero_point.empty();
    const bool alike = part.format == first.format && part.group_size == first.group_size &&
                       stored.scale.dtype() == first.stored.scale.dtype() && offset != zero_point.empty() &&
                       (!offset || stored.zero_point.dtype() == zero_point.dtype());
    const Strategy strategy = stored.scheme.strategy;
    const bool by_rows = strategy == Strategy::kGroup || strategy == Strategy::kChannel ||
                         (strategy == Strategy::kTensor && !offset);
    if (!alike || !by_rows) return 0;
  }
  return first.group_size % 128 == 0 ? 128 : first.group_size % 64 == 0 ? 64 : 32;
}

void CpuLinearWeight::add_part(StoredLinear stored) {
  LinearPart part;
  part.first_row = parts_.empty() ? 0 : parts_.back().first_row + parts_.back().rows();
  part.group_size = group_size_of(stored);
  part.format = format_of(stored, part.group_size);
  part.data = stored.weight.bytes().data();
  part.row_bytes = static_cast<std::int64_t>(stored.weight.bytes().size()) / stored.rows;
  if (part.format == RowFormat::kNf4 || part.format == RowFormat::kInt4Packed) {
    part.levels = AlignedBuffer<float>(16);
    for (int code = 0; code < 16; ++code)
      part.levels[code] = part.format == RowFormat::kNf4 ? stored.quant_map.data<float>()[code]
                                                         : static_cast<float>(code - 8);
  }
  // kOther is dequantized with its scales.
  if (part.format != RowFormat::kOther && stored.scheme.quantized() && part.group_size == 0) {
    if (!row_scales_.size()) {
      row_scales_ = AlignedBuffer<float>(rows_);
      std::fill_n(row_scales_.data(), rows_, 1.0f);
    }
    const bool one = stored.scale.elements() == 1;
    for (std::int64_t row = 0; row < stored.rows; ++row)
      row_scales_[part.first_row + row] = float_at(stored.scale, one ? 0 : row);
  }
  if (!stored.bias.empty()) {
    if (!bias_.size()) bias_ = AlignedBuffer<float>(rows_);
    const std::vector<float> values = floats_of(stored.bias);
    std::copy(values.begin(), values.end(), bias_.data() + part.first_row);
  }
  part.stored = std::move(stored);
  parts_.push_back(std::move(part));
}

const LinearPart& CpuLinearWeight::part_of(std::int64_t row) const {
  for (const LinearPart& part : parts_)
    if (row < part.first_row + part.rows()) return part;
  check(false, "a row of the weight");
  return parts_.back();
}

bool CpuLinearWeight::has_whole_tiles() const {
  return isa_ == Isa::kAmx && std::all_of(parts_.begin(), parts_.end(), [&](const LinearPart& part) {
           return (integer_ || part.format == RowFormat::kBF16) && part.rows() % kTileRows == 0 &&
                  part.row_bytes % kTileRowBytes == 0;
         });
}

void CpuLinearWeight::arrange_tiles(ThreadPool& pool) {
  if (!has_whole_tiles()) return;
  row_bytes_ = parts_.front().row_bytes;
  tiles_ = AlignedBuffer<std::byte>(rows_ * row_bytes_);
  pool.parallel_for(rows_ / kTileRows, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin * kTileRows; row < end * kTileRows; ++row) {
      const LinearPart& part = part_of(row);
      const std::byte* in = part.row(row - part.first_row);
      std::byte* out =
          tiles_.data() + row / kTileRows * kTileRows * row_bytes_ + row % kTileRows * kTileRowBytes;
      for (std::int64_t c = 0; c < row_bytes_; c += kTileRowBytes, out += kTileRows * kTileRowBytes)
        std::memcpy(out, in + c, kTileRowBytes);
    }
  });
}

std::unique_ptr<LinearWeight> prepare_cpu_linear(std::vector<StoredLinear> parts, Isa isa, ThreadPool* pool) {
  auto weight = std::make_unique<CpuLinearWeight>(std::move(parts), isa);
  if (pool) weight->arrange_tiles(*pool);
  return weight;
}

}  // namespace bise
