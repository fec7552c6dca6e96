#include "quantize/rtn.h"

#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "tensor/pack.h"

namespace bise {
namespace {

constexpr std::int64_t kNf4Block = 64;

// The first code whose upper midpoint is not below `value`: nearest, a midpoint takes the lower code.
std::uint8_t nearest_nf4(float value) {
  std::uint8_t code = 0;
  for (std::size_t i = 0; i + 1 < kNf4Values.size(); ++i)
    code += value > (kNf4Values[i] + kNf4Values[i + 1]) * 0.5f;
  return code;
}

StoredLinear empty_linear(const Scheme& scheme, std::int64_t rows, std::int64_t columns) {
  StoredLinear stored;
  stored.scheme = scheme;
  stored.rows = rows;
  stored.columns = columns;
  return stored;
}

StoredLinear quantize_nf4(std::span<const float> weight, std::int64_t rows, std::int64_t columns,
                          const Scheme& scheme, ThreadPool& pool) {
  const std::int64_t count = rows * columns, blocks = (count + kNf4Block - 1) / kNf4Block;
  check(count % 2 == 0, "NF4 stores two codes a byte");
  StoredLinear stored = empty_linear(scheme, rows, columns);
  stored.weight = Tensor::allocate(DType::kU8, {count / 2, 1});
  stored.absmax = Tensor::allocate(DType::kF32, {blocks});
  stored.quant_map = Tensor::of<float>(DType::kF32, {16}, kNf4Values);
  auto* bytes = stored.weight.mutable_data<std::uint8_t>();
  auto* absmax = stored.absmax.mutable_data<float>();
  pool.parallel_for(blocks, 256, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t block = begin; block < end; ++block) {
      const std::int64_t first = block * kNf4Block, last = std::min(first + kNf4Block, count);
      float largest = 0;
      for (std::int64_t i = first; i < last; ++i)
        largest = std::max(largest, std::fabs(weight[static_cast<std::size_t>(i)]));
      absmax[block] = largest;
      const float inverse = largest > 0 ? 1.0f / largest : 0.0f;
      for (std::int64_t i = first; i < last; i += 2) {
        const std::uint8_t high = nearest_nf4(weight[static_cast<std::size_t>(i)] * inverse);
        const std::uint8_t low = nearest_nf4(weight[static_cast<std::size_t>(i + 1)] * inverse);
        bytes[i / 2] = static_cast<std::uint8_t>(high << 4 | low);
      }
    }
  });
  return stored;
}

bool is_packed(const Scheme& scheme) {
  return scheme.type == WeightType::kInt && scheme.input == InputType::kNone;
}

Tensor scale_tensor(const QuantParameters& parameters, DType dtype) {
  return from_float(parameters.scale, dtype, {parameters.rows, parameters.groups});
}

}  // namespace

StoredLinear store_codes(std::span<const std::uint8_t> codes, std::int64_t rows, std::int64_t columns,
                         const Scheme& scheme, const QuantParameters& parameters, DType scale_dtype) {
  check(static_cast<std::int64_t>(codes.size()) == rows * columns, "there is one code per weight");
  if (scheme.type == WeightType::kFloat)
    return store_packed(Tensor::of(DType::kF8E4M3, {rows, columns}, codes), rows, columns, scheme, parameters,
                        scale_dtype);
  const Tensor bytes = Tensor::of(DType::kI8, {rows, columns}, codes);
  return store_packed(is_packed(scheme) ? pack_rows(bytes, scheme.num_bits) : bytes, rows, columns, scheme,
                      parameters, scale_dtype);
}

StoredLinear store_packed(Tensor codes, std::int64_t rows, std::int64_t columns, const Scheme& scheme,
                          const QuantParameters& parameters, DType scale_dtype) {
  StoredLinear stored = empty_linear(scheme, rows, columns);
  stored.weight = std::move(codes);
  stored.scale = scale_tensor(parameters, scale_dtype);
  if (!scheme.symmetric) {
    const Tensor zero_points =
        Tensor::of<std::int8_t>(DType::kI8, {rows, parameters.groups}, parameters.zero_point);
    stored.zero_point = is_packed(scheme) ? pack_columns(zero_points, scheme.num_bits) : zero_points;
  }
  return stored;
}

StoredLinear quantize_rtn(std::span<const float> weight, std::int64_t rows, std::int64_t columns,
                          const Scheme& scheme, const Arithmetic& arithmetic, ThreadPool& pool) {
  if (scheme.type == WeightType::kNf4) return quantize_nf4(weight, rows, columns, scheme, pool);
  const QuantParameters parameters = observe_minmax(weight, rows, columns, scheme, arithmetic);
  const std::int64_t width = columns / parameters.groups;
  const Coder coder(scheme, arithmetic);
  std::vector<std::uint8_t> codes(weight.size());
  pool.parallel_for(rows * parameters.groups, 64, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t group = begin; group < end; ++group) {
      const float scale = parameters.scale[static_cast<std::size_t>(group)];
      const float zero_point = parameters.zero_point_at(group);
      for (std::int64_t i = group * width; i < (group + 1) * width; ++i)
        codes[static_cast<std::size_t>(i)] =
            coder.encode(weight[static_cast<std::size_t>(i)], scale, zero_point);
    }
  });
  return store_codes(codes, rows, columns, scheme, parameters, arithmetic.dtype());
}

}  // namespace bise
