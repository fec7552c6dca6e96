// Stored weights brought into the device's layout. Codes whose rows already have the padded width go from the
// mapped file to the device as they are; others are laid out again on the host.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "backend/cuda/cuda_matrix.h"
#include "base/check.h"
#include "base/error.h"
#include "tensor/float_types.h"
#include "tensor/pack.h"

namespace bise {
namespace {

using cuda::WeightFormat;

std::vector<float> floats_of(const Tensor& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
  to_float(tensor, values);
  return values;
}

// NF4 blocks of 64 run over the flat weight; only where they do not cross rows can the device address them.
bool blocks_stay_in_rows(const StoredLinear& part) {
  return part.columns % 64 == 0;
}

WeightFormat format_of(const StoredLinear& part) {
  const Scheme& scheme = part.scheme;
  switch (scheme.type) {
    case WeightType::kFloat:
      if (scheme.num_bits != 8 || scheme.strategy == Strategy::kBlock) return WeightFormat::kBf16;
      return WeightFormat::kFp8;
    case WeightType::kNf4: return blocks_stay_in_rows(part) ? WeightFormat::kNf4 : WeightFormat::kBf16;
    case WeightType::kInt:
      if (scheme.num_bits == 4) return WeightFormat::kInt4;
      if (scheme.num_bits == 8) return WeightFormat::kInt8;
  }
  throw Error("the CUDA backend cannot multiply this scheme").got(scheme_text(scheme));
}

std::int64_t bits_of(WeightFormat format) {
  switch (format) {
    case WeightFormat::kBf16: return 16;
    case WeightFormat::kFp8:
    case WeightFormat::kInt8: return 8;
    case WeightFormat::kInt4:
    case WeightFormat::kInt4Panels:
    case WeightFormat::kNf4: return 4;
  }
  return 0;
}

// Host copies of what will be uploaded, filled part after part.
struct Image {
  cuda::Weight shape;  // pointers unused
  std::vector<std::byte> codes;
  std::vector<float> scales;
  std::vector<std::int8_t> zero_points;
  std::vector<std::int32_t> order;  // stored column -> input column; empty: as they are

  std::int64_t row_bytes() const { return shape.stride * bits_of(shape.format) / 8; }
  std::byte* row(std::int64_t row) { return codes.data() + row * row_bytes(); }
};

// Columns sorted by their group, so that groups are runs. Throws Error when groups differ in size.
std::vector<std::int32_t> columns_by_group(const StoredLinear& part) {
  const auto* groups = part.g_idx.data<std::int32_t>();
  std::vector<std::int32_t> order(static_cast<std::size_t>(part.columns));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int32_t a, std::int32_t b) { return groups[a] < groups[b]; });
  for (std::size_t i = 0; i < order.size(); ++i)
    if (groups[order[i]] != static_cast<std::int64_t>(i) / part.scheme.group_size)
      throw Error("activation order with groups of unequal size is not supported on CUDA").at("g_idx");
  return order;
}

bool same_order(const StoredLinear& a, const StoredLinear& b) {
  return std::ranges::equal(a.g_idx.bytes(), b.g_idx.bytes());
}

// The values in float32, rounded to bf16: for what the device has no format for.
void fill_bf16(const StoredLinear& part, std::int64_t first_row, Image& image) {
  std::vector<float> values(static_cast<std::size_t>(part.columns));
  for (std::int64_t r = 0; r < part.rows; ++r) {
    dequantize_row(part, r, values);
    std::transform(values.begin(), values.end(), reinterpret_cast<bf16*>(image.row(first_row + r)),
                   [](float value) { return float_to_bf16(value); });
  }
}

void set_nibble(std::byte* row, std::int64_t column, unsigned code) {
  row[column / 2] |= static_cast<std::byte>(code << (column % 2 * 4));
}

// Whether a row's codes stand in the checkpoint as on the device, padding aside.
bool codes_as_stored(const StoredLinear& part, const Image& image) {
  if (!image.order.empty()) return false;
  switch (image.shape.format) {
    case WeightFormat::kBf16: return part.weight.dtype() == DType::kBF16;
    case WeightFormat::kFp8:
    case WeightFormat::kNf4: return true;
    case WeightFormat::kInt4:
    case WeightFormat::kInt4Panels: return part.packed() && part.columns % 8 == 0;
    case WeightFormat::kInt8: return !part.packed();
  }
  return false;
}

void fill_codes(const StoredLinear& part, std::int64_t first_row, Image& image) {
  const WeightFormat format = image.shape.format;
  const auto bytes = static_cast<std::size_t>(part.columns * bits_of(format) / 8);
  if (codes_as_stored(part, image)) {
    for (std::int64_t r = 0; r < part.rows; ++r)
      std::memcpy(image.row(first_row + r), part.weight.bytes().data() + static_cast<std::size_t>(r) * bytes,
                  bytes);
    return;
  }
  if (format == WeightFormat::kBf16) return fill_bf16(part, first_row, image);
  const Tensor codes =
      part.packed() ? unpack_rows(part.weight, part.scheme.num_bits, part.columns) : part.weight;
  check(codes.dtype() == DType::kI8, "integer codes");
  for (std::int64_t r = 0; r < part.rows; ++r) {
    const std::int8_t* in = codes.data<std::int8_t>() + r * part.columns;
    std::byte* out = image.row(first_row + r);
    for (std::int64_t c = 0; c < part.columns; ++c) {
      const std::int8_t code = in[image.order.empty() ? c : image.order[static_cast<std::size_t>(c)]];
      if (format == WeightFormat::kInt4)
        set_nibble(out, c, static_cast<unsigned>(code + 8));
      else
        out[c] = static_cast<std::byte>(code);
    }
  }
}

std::vector<float> scales_of(const StoredLinear& part) {
  if (part.scheme.type == WeightType::kNf4) return floats_of(part.absmax);
  std::vector<float> scales = floats_of(part.scale);
  if (part.scheme.strategy == Strategy::kTensor)
    scales.assign(static_cast<std::size_t>(part.rows), scales.front());
  return scales;
}

void fill_scales(const StoredLinear& part, std::int64_t first_row, Image& image) {
  const std::vector<float> scales = scales_of(part);
  const std::int64_t groups = static_cast<std::int64_t>(scales.size()) / part.rows;
  check(groups <= image.shape.groups, "the groups of a row fit the padded row");
  Tensor zero_points = part.zero_point;
  if (!zero_points.empty() && zero_points.dtype() == DType::kI32)
    zero_points = unpack_columns(zero_points, part.scheme.num_bits, part.rows);
  for (std::int64_t r = 0; r < part.rows; ++r)
    for (std::int64_t g = 0; g < groups; ++g) {
      const auto to = static_cast<std::size_t>((first_row + r) * image.shape.groups + g);
      image.scales[to] = scales[static_cast<std::size_t>(r * groups + g)];
      if (!zero_points.empty()) image.zero_points[to] = zero_points.data<std::int8_t>()[r * groups + g];
    }
}

std::int64_t group_size_of(const StoredLinear& part, std::int64_t stride) {
  if (part.scheme.type == WeightType::kNf4) return 64;
  return part.scheme.strategy == Strategy::kGroup ? part.scheme.group_size : stride;
}

Image make_image(const std::vector<StoredLinear>& parts, std::int64_t rows) {
  const StoredLinear& first = parts.front();
  Image image;
  cuda::Weight& shape = image.shape;
  shape.format = format_of(first);
  // Parts of different formats, or of different activation orders (none are known to exist), meet in bf16.
  for (const StoredLinear& part : parts)
    if (format_of(part) != shape.format || part.scheme != first.scheme || !same_order(part, first))
      shape.format = WeightFormat::kBf16;
  shape.rows = rows;
  shape.columns = first.columns;
  shape.stride = cuda::padded(first.columns);
  if (shape.format == WeightFormat::kBf16) return image;

  shape.group_size = group_size_of(first, shape.stride);
  shape.groups = (shape.stride + shape.group_size - 1) / shape.group_size;
  const auto scales = static_cast<std::size_t>(cuda::padded_rows(rows) * shape.groups);
  image.scales.resize(scales);
  if (!first.scheme.symmetric) image.zero_points.resize(scales);
  if (!first.g_idx.empty()) image.order = columns_by_group(first);
  return image;
}

// The codes of all parts, zero in the padding.
DeviceBuffer uploaded_codes(const std::vector<StoredLinear>& parts, Image& image, Uploader& uploader) {
  const auto row_bytes = static_cast<std::size_t>(image.row_bytes());
  const std::size_t size = static_cast<std::size_t>(cuda::padded_rows(image.shape.rows)) * row_bytes;
  DeviceBuffer codes(size);
  const bool as_stored =
      image.shape.columns == image.shape.stride &&
      std::ranges::all_of(parts, [&](const StoredLinear& part) { return codes_as_stored(part, image); });
  if (!as_stored) {
    image.codes.resize(size);
    std::int64_t row = 0;
    for (const StoredLinear& part : parts) {
      fill_codes(part, row, image);
      row += part.rows;
    }
    uploader.upload(codes.as<void>(), image.codes);
    return codes;
  }
  std::size_t at = 0;
  for (const StoredLinear& part : parts) {
    const std::size_t bytes = static_cast<std::size_t>(part.rows) * row_bytes;
    check(part.weight.bytes().size() == bytes, "the codes fill the rows");
    uploader.upload(codes.as<std::byte>() + at, part.weight.bytes());
    at += bytes;
  }
  if (at < size) {
    cuda_check(cudaMemset(codes.as<std::byte>() + at, 0, size - at), "cudaMemset");
    cuda_check(cudaStreamSynchronize(nullptr), "cudaMemset");
  }
  return codes;
}

DeviceBuffer uploaded(const void* data, std::size_t bytes) {
  DeviceBuffer buffer;
  if (bytes == 0) return buffer;
  buffer.grow(bytes);
  buffer.upload(data, bytes);
  return buffer;
}

template <class T>
DeviceBuffer uploaded(const std::vector<T>& values) {
  return uploaded(values.data(), values.size() * sizeof(T));
}

std::vector<float> biases(const std::vector<StoredLinear>& parts) {
  std::vector<float> all;
  bool any = false;
  for (const StoredLinear& part : parts) {
    std::vector<float> bias(static_cast<std::size_t>(part.rows));
    if (!part.bias.empty()) to_float(part.bias, bias);
    any |= !part.bias.empty();
    all.insert(all.end(), bias.begin(), bias.end());
  }
  return any ? all : std::vector<float>();
}

}  // namespace

CudaLinearWeight::CudaLinearWeight(const std::vector<StoredLinear>& parts, Uploader& uploader) {
  check(!parts.empty(), "a linear layer has at least one part");
  const StoredLinear& first = parts.front();
  columns_ = first.columns;
  input_type_ = first.scheme.input;
  for (const StoredLinear& part : parts) {
    check(part.columns == columns_ && part.scheme.input == input_type_,
          "joined parts agree in columns and input type");
    if (input_type_ == InputType::kFp8Tensor)
      input_scale_ = std::max(input_scale_, floats_of(part.input_scale).front());
    rows_ += part.rows;
  }
  Image image = make_image(parts, rows_);
  std::int64_t row = 0;
  for (const StoredLinear& part : parts) {
    if (image.shape.format != WeightFormat::kBf16) fill_scales(part, row, image);
    row += part.rows;
  }
  const bool one_scale_a_row = image.shape.group_size == image.shape.stride && image.zero_points.empty();
  multiplies_codes_ = one_scale_a_row &&
                      ((input_type_ == InputType::kInt8Token && image.shape.format == WeightFormat::kInt8) ||
                       ((input_type_ == InputType::kFp8Token || input_type_ == InputType::kFp8Tensor) &&
                        image.shape.format == WeightFormat::kFp8));
  codes_ = uploaded_codes(parts, image, uploader);
  scales_ = uploaded(image.scales);
  zero_points_ = uploaded(image.zero_points);
  bias_ = uploaded(biases(parts));
  if (image.shape.format == WeightFormat::kNf4) levels_ = uploaded(floats_of(first.quant_map));
  if (!image.order.empty()) {
    image.order.resize(static_cast<std::size_t>(image.shape.stride), -1);
    permutation_ = uploaded(image.order);
  }
  weight_ = image.shape;
  weight_.codes = codes_.as<void>();
  weight_.scales = scales_.as<float>();
  weight_.zero_points = zero_points_.as<std::int8_t>();
  weight_.levels = levels_.as<float>();
  // The products with panels know no input scales.
  if (input_type_ == InputType::kNone && cuda::supports_panels(weight_)) make_panels();
}

// Trades the codes as stored, with their scales and zero points, for panels.
void CudaLinearWeight::make_panels() {
  const DeviceBuffer scratch(sizeof(int));
  const cuda::PanelScale scale = cuda::exact_panel_scale(weight_, scratch.as<void>(), nullptr);
  cuda::Int4Panels panels = cuda::panels_of(weight_, scale);
  panels_ = PooledBuffer(cuda::panel_bytes(weight_, panels));
  cuda::make_panels(weight_, panels, panels_.data(), nullptr);
  cuda_check(cudaStreamSynchronize(nullptr), "packing int4 weights");
  panels.data = panels_.data();
  codes_ = DeviceBuffer();
  zero_points_ = DeviceBuffer();
  if (scale != cuda::PanelScale::kNone) scales_ = DeviceBuffer();
  weight_.format = WeightFormat::kInt4Panels;
  weight_.panels = panels;
  weight_.codes = nullptr;
  weight_.zero_points = nullptr;
  weight_.scales = scales_.as<float>();
}

std::int64_t CudaLinearWeight::bytes() const {
  return static_cast<std::int64_t>(codes_.size() + scales_.size() + zero_points_.size() + levels_.size() +
                                   bias_.size() + permutation_.size() + panels_.size());
}

}  // namespace bise
