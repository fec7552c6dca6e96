// The CUDA backend's products: which kernel multiplies an encoded input with a weight, best first.
#include <cuda_runtime.h>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/large_int8.h"
#include "backend/cuda/sliced_int4.h"
#include "backend/cuda/sliced_linear.h"
#include "backend/cuda/streamed_linear.h"
#include "backend/cuda/wide_panels.h"
#include "base/check.h"

namespace bise {

bool CudaBackend::leaves_sums(const CudaLinearWeight& weight, std::int64_t rows) {
  return weight.multiplies_codes() && rows < kScaledRows;
}

CudaBackend::LargeSums CudaBackend::multiply_to_sums(const cuda::Encoded& in, std::int64_t rows,
                                                     const CudaLinearWeight& linear) {
  const cuda::Weight& weight = linear.weight();
  const bool integers = weight.format == cuda::WeightFormat::kInt8;
  sums_.grow(static_cast<std::size_t>(rows * weight.rows) * 4);
  large_.multiply({.operands = integers ? LargeLinear::Operands::kInt8 : LargeLinear::Operands::kFp8Codes,
                   .in = in.codes,
                   .weight = weight.codes,
                   .rows = rows,
                   .columns = weight.rows,
                   .stride = weight.stride,
                   .out = {sums_.as<void>(), cuda::Float::kF32}},
                  stream_);
  return {integers, {in.scales, weight.scales, linear.bias()}};
}

bool CudaBackend::is_tiled(std::int64_t rows, const CudaLinearWeight& linear) {
  return rows >= kTiledRows && linear.multiplies_codes() &&
         linear.weight().format == cuda::WeightFormat::kInt8 && !linear.bias() &&
         cuda::supports_tiled(linear.rows());
}

void CudaBackend::multiply_large(const cuda::Encoded& in, std::int64_t rows, const CudaLinearWeight& linear,
                                 cuda::Values out, bool adds) {
  const cuda::Weight& weight = linear.weight();
  const bool integers = linear.multiplies_codes() && weight.format == cuda::WeightFormat::kInt8;
  if (integers && !leaves_sums(linear, rows) && !linear.bias() && out.type == cuda::Float::kBf16 &&
      cuda::supports_large_int8(weight.rows) &&
      cuda::large_int8({.in = in.codes,
                        .weight = weight.codes,
                        .row_scales = in.scales,
                        .column_scales = weight.scales,
                        .rows = rows,
                        .columns = weight.rows,
                        .stride = weight.stride,
                        .out = out.data,
                        .adds = adds},
                       stream_))
    return;
  if (integers || leaves_sums(linear, rows)) {
    check(!adds, "CUTLASS multiplies what adds_results() says");
    const LargeSums sums = multiply_to_sums(in, rows, linear);
    return cuda::scale_sums(sums_.as<void>(), sums.integers, rows, weight.rows, sums.scales, out, stream_);
  }
  LargeLinear::Product product{.in = in.codes,
                               .weight = weight.codes,
                               .in_scales = in.scales,
                               .weight_scales = weight.scales,
                               .rows = rows,
                               .columns = weight.rows,
                               .stride = weight.stride,
                               .out = out,
                               .adds = adds};
  const bool scaled_by_product = linear.multiplies_codes();
  if (scaled_by_product) {
    product.operands = LargeLinear::Operands::kFp8;
  } else if (weight.format != cuda::WeightFormat::kBf16) {
    expanded_.grow(static_cast<std::size_t>(weight.rows * weight.stride) * 2);
    if (weight.format == cuda::WeightFormat::kInt4Panels)
      cuda::dequantize_panels(weight, expanded_.as<void>(), stream_);
    else
      cuda::dequantize(weight, expanded_.as<void>(), stream_);
    product.weight = expanded_.as<void>();
  }
  const float* row_scales = scaled_by_product ? nullptr : in.scales;
  if (!linear.bias() && !row_scales) return large_.multiply(product, stream_);
  check(!adds, "what adds its results has nothing left to scale");
  sums_.grow(static_cast<std::size_t>(rows * weight.rows) * 4);
  product.out = {sums_.as<void>(), cuda::Float::kF32};
  large_.multiply(product, stream_);
  cuda::scale_sums(sums_.as<void>(), false, rows, weight.rows, {row_scales, nullptr, linear.bias()}, out,
                   stream_);
}

void CudaBackend::multiply_streamed(const cuda::Encoded& in, std::int64_t rows,
                                    const CudaLinearWeight& linear, bool gated, cuda::Values out,
                                    std::int64_t out_stride) {
  const cuda::Weight& weight = linear.weight();
  const bool has_panels = weight.format == cuda::WeightFormat::kInt4Panels;
  const int value_bytes = in.encoding == cuda::Encoding::kBf16 ? 2 : 1;
  const int slice = has_panels || rows > cuda::kStreamedRows
                        ? 0
                        : cuda::sliced_tile_rows(weight.rows, weight.stride * value_bytes);
  const bool wide = cuda::supports_wide_panels(weight, rows, gated);
  const int box_rows = wide ? cuda::wide_box_rows(rows) : cuda::input_tile_rows(rows);
  cuda::StreamedLinear task{.weight_tiles = {},
                            .input_tiles = cuda::tile_map(in.codes, value_bytes, rows, in.stride, box_rows),
                            .inputs = in.codes,
                            .panels = weight.panels,
                            .encoding = in.encoding,
                            .rows = rows,
                            .weight_rows = weight.rows,
                            .stride = weight.stride,
                            .gated = gated,
                            .in_scales = in.scales,
                            .weight_scales = weight.scales,
                            .bias = linear.bias(),
                            .out = out,
                            .out_stride = out_stride};
  if (!has_panels)
    task.weight_tiles =
        cuda::tile_map(weight.codes, value_bytes, cuda::padded_rows(weight.rows), weight.stride,
                       slice == 0 ? cuda::kWeightTileRows : slice / (gated ? 2 : 1));
  if (slice > 0) return cuda::sliced_linear(task, slice, stream_);
  if (streamed_.size() == 0) {
    streamed_.grow(cuda::streamed_workspace());
    cuda_check(cudaMemsetAsync(streamed_.as<void>(), 0, streamed_.size(), stream_), "cudaMemset");
  }
  task.workspace = streamed_.as<void>();
  if (has_panels && rows <= cuda::kSlicedInt4Rows)
    if (const auto slices = cuda::int4_slices(rows, weight.rows, weight.stride, gated); slices.row_blocks > 0)
      return cuda::sliced_int4(task, slices, stream_);
  if (wide) return cuda::wide_panels(task, stream_);
  cuda::streamed_linear(task, stream_);
}

cuda::Encoded CudaBackend::operand_of(cuda::Encoded encoded, std::int64_t rows,
                                      const CudaLinearWeight& linear) {
  check(encoded.columns == linear.columns() &&
            encoded.encoding == static_cast<cuda::Encoding>(linear.input_type()),
        "a linear layer's input has its columns and encoding");
  const std::size_t bytes = static_cast<std::size_t>(rows * encoded.stride) * 2;
  if (encoded.encoding != cuda::Encoding::kBf16 && !linear.multiplies_codes()) {
    inputs_.grow(bytes);
    cuda::codes_to_bf16(encoded, rows, inputs_.as<void>(), stream_);
    encoded.codes = inputs_.as<void>();
    encoded.encoding = cuda::Encoding::kBf16;
  }
  if (linear.permutation()) {
    check(encoded.encoding == cuda::Encoding::kBf16, "activation order comes with float inputs");
    inputs_.grow(bytes);
    cuda::permute_columns(encoded.codes, linear.permutation(), rows, encoded.stride, inputs_.as<void>(),
                          stream_);
    encoded.codes = inputs_.as<void>();
  }
  return encoded;
}

bool CudaBackend::is_streamed(const cuda::Encoded& in, std::int64_t rows, const CudaLinearWeight& linear) {
  const cuda::WeightFormat format = linear.weight().format;
  if (format == cuda::WeightFormat::kInt4Panels)
    return rows <= kPanelRows || !LargeLinear::supports(linear.rows());
  const bool same_operands = linear.multiplies_codes() ||
                             (format == cuda::WeightFormat::kBf16 && in.encoding == cuda::Encoding::kBf16);
  return same_operands && (rows <= cuda::kStreamedRows || !LargeLinear::supports(linear.rows()));
}

// Of what is not streamed.
bool CudaBackend::is_large(std::int64_t rows, const CudaLinearWeight& linear) {
  return LargeLinear::supports(linear.rows()) &&
         (rows > kSmallRows || linear.weight().format == cuda::WeightFormat::kBf16 ||
          linear.multiplies_codes());
}

void CudaBackend::multiply(const cuda::Encoded& in, std::int64_t rows, const CudaLinearWeight& linear,
                           cuda::Values out) {
  if (is_streamed(in, rows, linear))
    multiply_streamed(in, rows, linear, false, out, linear.rows());
  else if (is_large(rows, linear))
    multiply_large(in, rows, linear, out);
  else
    cuda::small_linear(in, rows, linear.weight(), linear.bias(), out, stream_);
  check_launch("linear");
}

void CudaBackend::linear(const LinearInput& in, const LinearWeight& weight, Matrix& out) {
  const auto& input = dynamic_cast<const CudaLinearInput&>(in);
  const auto& linear = dynamic_cast<const CudaLinearWeight&>(weight);
  auto& matrix = dynamic_cast<CudaMatrix&>(out);
  check(matrix.columns() == weight.rows(), "the output has a column per row of the weight");
  matrix.resize(in.rows());
  multiply(operand_of(input.encoded(), in.rows(), linear), in.rows(), linear, matrix.values());
}

bool CudaBackend::adds_results(const cuda::Encoded& in, std::int64_t rows, const CudaLinearWeight& linear) {
  if (linear.bias() || is_streamed(in, rows, linear) || !is_large(rows, linear)) return false;
  if (!linear.multiplies_codes()) return in.encoding == cuda::Encoding::kBf16;
  return !leaves_sums(linear, rows) &&
         (linear.weight().format != cuda::WeightFormat::kInt8 || cuda::supports_large_int8(linear.rows()));
}

bool CudaBackend::linear_add(const LinearInput& in, const LinearWeight& weight, Matrix& residual) {
  const cuda::Encoded input = dynamic_cast<const CudaLinearInput&>(in).encoded();
  const auto& linear = dynamic_cast<const CudaLinearWeight&>(weight);
  const cuda::Values sums = cuda_matrix(residual).values();
  if (sums.type != cuda::Float::kBf16 || !adds_results(input, in.rows(), linear)) return false;
  check(residual.rows() == in.rows() && residual.columns() == weight.rows(),
        "the residual has the product's shape");
  multiply_large(operand_of(input, in.rows(), linear), in.rows(), linear, sums, true);
  check_launch("linear_add");
  return true;
}

void CudaBackend::gated_linear(const LinearInput& in, const LinearWeight& gate_up, InputEncoding encoding,
                               LinearInput& out) {
  const auto& linear = dynamic_cast<const CudaLinearWeight&>(gate_up);
  auto& encoded = dynamic_cast<CudaLinearInput&>(out);
  check(gate_up.rows() == 2 * out.columns(), "gate and up have a row per column of the output");
  const std::int64_t rows = in.rows();
  const cuda::Encoded operand = operand_of(dynamic_cast<const CudaLinearInput&>(in).encoded(), rows, linear);
  encoded.resize(rows, encoding.type);
  const cuda::Encoded codes = encoded.encoded();
  gate_up_.grow(static_cast<std::size_t>(rows * gate_up.rows()) * sizeof(float));
  if (is_streamed(operand, rows, linear) && cuda::supports_streamed_gate(linear.weight())) {
    const bool in_place = encoding.type == InputType::kNone && codes.stride == out.columns();
    const cuda::Values gated = in_place ? cuda::Values{codes.codes, cuda::Float::kBf16}
                                        : cuda::Values{gate_up_.as<void>(), cuda::Float::kF32};
    multiply_streamed(operand, rows, linear, true, gated, out.columns());
    if (!in_place) cuda::encode(gated, rows, encoding.scale, codes, stream_);
  } else if (is_tiled(rows, linear)) {
    const cuda::Values gated{gate_up_.as<void>(), cuda::Float::kBf16};
    cuda::tiled_gated(tiled_task(operand, rows, linear, gated.data), stream_);
    cuda::encode(gated, rows, encoding.scale, codes, stream_);
  } else if (is_large(rows, linear) && leaves_sums(linear, rows) && cuda::supports_gate_of_sums(codes)) {
    const LargeSums sums = multiply_to_sums(operand, rows, linear);
    cuda::gate_sums_and_encode(sums_.as<void>(), sums.integers, sums.scales, rows, encoding.scale, codes,
                               stream_);
  } else {
    // Many rows are bound by the memory that gate and up pass through.
    const cuda::Values both{gate_up_.as<void>(), rows > kSmallRows ? cuda::Float::kBf16 : cuda::Float::kF32};
    multiply(operand, rows, linear, both);
    cuda::gate_and_encode(both, rows, encoding.scale, codes, stream_);
  }
  check_launch("gated_linear");
}

cuda::TiledLinear CudaBackend::tiled_task(const cuda::Encoded& in, std::int64_t rows,
                                          const CudaLinearWeight& linear, void* out) {
  return {.in = in,
          .rows = rows,
          .weight = linear.weight().codes,
          .weight_rows = linear.rows(),
          .weight_scales = linear.weight().scales,
          .out = out};
}

void CudaBackend::experts(const LinearInput& in, const ExpertWeights& weights, Matrix& out) {
  experts_.run(dynamic_cast<const CudaLinearInput&>(in), weights, dynamic_cast<CudaMatrix&>(out));
  check_launch("experts");
}

}  // namespace bise
