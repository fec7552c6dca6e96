// Linear layers: out = W x + bias over the dequantized weight (tensor/stored_linear.h).
#include <algorithm>
#include <cmath>

#include "backend/reference/reference_backend.h"
#include "base/check.h"
#include "tensor/float_types.h"

namespace bise {
namespace {

// Rows of the input that are multiplied together, so that the inner loop runs over independent sums.
constexpr std::int64_t kLanes = 8;

std::vector<float> floats_of(const Tensor& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
  to_float(tensor, values);
  return values;
}

// One scale a row (Strategy::kChannel) or one for all (kTensor), as [rows].
std::vector<float> scales_by_row(const StoredLinear& linear) {
  std::vector<float> scales = floats_of(linear.scale);
  scales.resize(static_cast<std::size_t>(linear.rows), scales.front());
  return scales;
}

ReferenceLinearWeight::Part prepare_part(StoredLinear linear) {
  const auto rows = static_cast<std::size_t>(linear.rows);
  ReferenceLinearWeight::Part part;
  part.bias = linear.bias.empty() ? std::vector<float>(rows) : floats_of(linear.bias);
  part.row_scales.assign(rows, 1.0f);
  const Scheme& scheme = linear.scheme;
  if (scheme.type == WeightType::kInt && scheme.input == InputType::kInt8Token &&
      (scheme.strategy == Strategy::kChannel || scheme.strategy == Strategy::kTensor)) {
    part.row_scales = scales_by_row(linear);
    const std::vector<float> ones(static_cast<std::size_t>(linear.scale.elements()), 1.0f);
    linear.scale = from_float(ones, DType::kF32, linear.scale.shape());
  }
  part.linear = std::move(linear);
  return part;
}

// The codes of `in` as [rows / kLanes, columns, kLanes], missing rows zero.
std::vector<double> interleave(const ReferenceLinearInput& in) {
  const std::int64_t blocks = (in.rows() + kLanes - 1) / kLanes, columns = in.columns();
  std::vector<double> lanes(static_cast<std::size_t>(blocks * columns * kLanes));
  for (std::int64_t r = 0; r < in.rows(); ++r)
    for (std::int64_t k = 0; k < columns; ++k)
      lanes[static_cast<std::size_t>((r / kLanes * columns + k) * kLanes + r % kLanes)] =
          in.codes[static_cast<std::size_t>(r * columns + k)];
  return lanes;
}

// sums[lane] = sum over k of weight[k] * lanes[k, lane], in the order of k.
void dot_lanes(std::span<const double> weight, const double* lanes, double (&sums)[kLanes]) {
  std::fill_n(sums, kLanes, 0.0);
  for (std::size_t k = 0; k < weight.size(); ++k)
    for (std::int64_t lane = 0; lane < kLanes; ++lane)
      sums[lane] += weight[k] * lanes[static_cast<std::int64_t>(k) * kLanes + lane];
}

}  // namespace

ReferenceLinearWeight::ReferenceLinearWeight(std::vector<StoredLinear> stored) {
  check(!stored.empty(), "a linear layer has at least one part");
  columns_ = stored.front().columns;
  input_type_ = stored.front().scheme.input;
  for (StoredLinear& linear : stored) {
    check(linear.columns == columns_ && linear.scheme.input == input_type_,
          "joined parts agree in columns and input type");
    if (input_type_ == InputType::kFp8Tensor)
      input_scale_ = std::max(input_scale_, floats_of(linear.input_scale).front());
    rows_ += linear.rows;
    parts.push_back(prepare_part(std::move(linear)));
  }
}

void reference_product(const ReferenceLinearInput& in, const ReferenceLinearWeight& weight,
                       std::span<float> out) {
  check(in.columns() == weight.columns() && in.type() == weight.input_type(),
        "a linear layer's input has its columns and encoding");
  check(out.size() == static_cast<std::size_t>(in.rows() * weight.rows()), "the output has the size");
  const std::vector<double> lanes = interleave(in);
  std::vector<float> row(static_cast<std::size_t>(in.columns()));
  std::vector<double> wide(row.size());
  std::int64_t column = 0;
  for (const ReferenceLinearWeight::Part& part : weight.parts) {
    for (std::int64_t n = 0; n < part.linear.rows; ++n, ++column) {
      dequantize_row(part.linear, n, row);
      std::copy(row.begin(), row.end(), wide.begin());
      const double row_scale = part.row_scales[static_cast<std::size_t>(n)];
      const double bias = part.bias[static_cast<std::size_t>(n)];
      for (std::int64_t first = 0; first < in.rows(); first += kLanes) {
        double sums[kLanes];
        dot_lanes(wide, lanes.data() + first * in.columns(), sums);
        for (std::int64_t r = first; r < std::min(first + kLanes, in.rows()); ++r)
          out[static_cast<std::size_t>(r * weight.rows() + column)] =
              static_cast<float>(sums[r - first] * row_scale * in.scales[static_cast<std::size_t>(r)] + bias);
      }
    }
  }
}

void ReferenceBackend::linear(const LinearInput& in, const LinearWeight& weight, Matrix& out) {
  auto& matrix = dynamic_cast<ReferenceMatrix&>(out);
  check(matrix.columns() == weight.rows(), "the output has a column per row of the weight");
  matrix.resize(in.rows());
  reference_product(dynamic_cast<const ReferenceLinearInput&>(in),
                    dynamic_cast<const ReferenceLinearWeight&>(weight),
                    std::span(matrix.values).first(static_cast<std::size_t>(in.rows() * matrix.columns())));
}

float reference_gated(float gate, float up) {
  return static_cast<float>(gate / (1.0 + std::exp(-static_cast<double>(gate))) * up);
}

void ReferenceBackend::gated_linear(const LinearInput& in, const LinearWeight& gate_up,
                                    InputEncoding encoding, LinearInput& out) {
  auto& encoded = dynamic_cast<ReferenceLinearInput&>(out);
  const std::int64_t intermediate = gate_up.rows() / 2;
  check(gate_up.rows() == 2 * out.columns(), "gate and up have a row per column of the output");
  std::vector<float> product(static_cast<std::size_t>(in.rows() * gate_up.rows()));
  reference_product(dynamic_cast<const ReferenceLinearInput&>(in),
                    dynamic_cast<const ReferenceLinearWeight&>(gate_up), product);
  encoded.resize(in.rows(), encoding.type);
  std::vector<float> values(static_cast<std::size_t>(intermediate));
  for (std::int64_t r = 0; r < in.rows(); ++r) {
    const float* gate = product.data() + r * gate_up.rows();
    for (std::int64_t i = 0; i < intermediate; ++i)
      values[static_cast<std::size_t>(i)] = reference_gated(gate[i], gate[intermediate + i]);
    encoded.encode_row(r, values, encoding);
  }
}

void ReferenceBackend::accumulate_hessian(const LinearInput& in, std::span<float> hessian) {
  const std::int64_t columns = in.columns();
  check(hessian.size() == static_cast<std::size_t>(columns * columns), "the hessian is [columns, columns]");
  std::vector<float> rows(static_cast<std::size_t>(in.rows() * columns));
  read(in, rows);
  std::vector<double> sums(static_cast<std::size_t>(columns));
  for (std::int64_t i = 0; i < columns; ++i) {
    std::fill(sums.begin(), sums.end(), 0.0);
    for (std::int64_t r = 0; r < in.rows(); ++r) {
      const float* x = rows.data() + r * columns;
      for (std::int64_t j = i; j < columns; ++j)
        sums[static_cast<std::size_t>(j)] += 2.0 * static_cast<double>(x[i]) * static_cast<double>(x[j]);
    }
    for (std::int64_t j = i; j < columns; ++j)
      hessian[static_cast<std::size_t>(i * columns + j)] +=
          static_cast<float>(sums[static_cast<std::size_t>(j)]);
  }
}

}  // namespace bise
