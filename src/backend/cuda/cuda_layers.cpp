// The CUDA backend's operations between a layer's products.
#include <cuda_runtime.h>

#include <algorithm>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/short_residual.h"
#include "backend/cuda/tile_attention.h"
#include "base/check.h"

namespace bise {

void CudaBackend::add_rms_norm(const Matrix* delta, Matrix& residual, const DeviceTensor& weight, float eps,
                               InputEncoding encoding, LinearInput& out, std::span<const std::int32_t> rows) {
  auto& input = dynamic_cast<CudaLinearInput&>(out);
  check(out.columns() == residual.columns(), "a norm keeps the number of columns");
  check(!delta || (delta->rows() == residual.rows() && delta->columns() == residual.columns()),
        "the delta has the residual's shape");
  const std::int32_t* device_rows = nullptr;
  if (!rows.empty()) {
    for (const std::int32_t row : rows)
      check(row >= 0 && row < residual.rows(), "a normed row is in the residual");
    cuda_check(cudaEventSynchronize(uploaded_), "waiting for the rows before");
    host_rows_.grow(rows.size_bytes());
    device_rows_.grow(rows.size_bytes());
    std::copy(rows.begin(), rows.end(), host_rows_.as<std::int32_t>());
    cuda_check(cudaMemcpyAsync(device_rows_.as<void>(), host_rows_.as<void>(), rows.size_bytes(),
                               cudaMemcpyHostToDevice, stream_),
               "copying the rows");
    cuda_check(cudaEventRecord(uploaded_, stream_), "cudaEventRecord");
    device_rows = device_rows_.as<std::int32_t>();
  }
  const std::int64_t count = rows.empty() ? residual.rows() : static_cast<std::int64_t>(rows.size());
  input.resize(count, encoding.type);
  const cuda::Values sums = cuda_matrix(residual).values(),
                     addend = delta ? cuda_matrix(*delta).values() : cuda::Values{};
  const auto* gain = static_cast<const float*>(dynamic_cast<const CudaTensor&>(weight).values().data);
  if (sums.type == cuda::Float::kBf16) {
    check(!delta || addend.type == cuda::Float::kBf16, "what is added to a residual in bf16 is bf16");
    cuda::add_rms_norm({.delta = addend.data,
                        .residual = sums.data,
                        .residual_rows = residual.rows(),
                        .weight = gain,
                        .eps = eps,
                        .static_scale = encoding.scale,
                        .rows = device_rows,
                        .count = count},
                       input.encoded(), stream_);
  } else {
    cuda::add_rms_norm(addend, static_cast<float*>(sums.data), residual.rows(), gain, eps, encoding.scale,
                       device_rows, count, input.encoded(), stream_);
  }
  check_launch("add_rms_norm");
}

const float* CudaBackend::rope_table(const RopeTable& rope) {
  for (const auto& [frequencies, buffer] : rope_tables_)
    if (frequencies == rope.inv_freq) return buffer.as<float>();
  DeviceBuffer buffer(rope.inv_freq.size() * sizeof(float));
  buffer.upload(rope.inv_freq.data(), rope.inv_freq.size() * sizeof(float));
  return rope_tables_.emplace_back(rope.inv_freq, std::move(buffer)).second.as<float>();
}

void CudaBackend::rope_and_store(const AttentionShape& shape, const RopeTable& rope, CacheLayer layer,
                                 Matrix& qkv) {
  check(cache_ != nullptr, "begin_step came first");
  check(qkv.columns() == shape.qkv_columns() && qkv.rows() == step_.tokens, "qkv has a row per token");
  check(static_cast<std::int64_t>(rope.inv_freq.size()) * 2 == shape.head_dim, "a frequency per pair");
  unturned_ = {};
  cuda::rope_and_store(cuda_matrix(qkv).values(), shape.num_heads, rope_table(rope), rope.attention_factor,
                       step_, layer.group, cache_->layer(layer), stream_);
  check_launch("rope_and_store");
}

const float* CudaBackend::step_angles(const RopeTable& rope) {
  if (angles_of_ == rope.inv_freq && angles_factor_ == rope.attention_factor) return angles_.as<float>();
  const auto half = static_cast<std::int64_t>(rope.inv_freq.size());
  angles_.grow(static_cast<std::size_t>(step_.tokens * half) * 2 * sizeof(float));
  cuda::rope_angles(rope_table(rope), half, rope.attention_factor, step_, angles_.as<float>(), stream_);
  angles_of_ = rope.inv_freq;
  angles_factor_ = rope.attention_factor;
  return angles_.as<float>();
}

void CudaBackend::qkv_linear(const LinearInput& in, const LinearWeight& weight, const AttentionShape& shape,
                             const RopeTable& rope, CacheLayer layer, Matrix& qkv) {
  check(cache_ != nullptr, "begin_step came first");
  const auto& linear = dynamic_cast<const CudaLinearWeight&>(weight);
  auto& matrix = dynamic_cast<CudaMatrix&>(qkv);
  const cuda::Encoded encoded = dynamic_cast<const CudaLinearInput&>(in).encoded();
  const cuda::CacheView cache = cache_->layer(layer);
  unturned_ = {};  // of the layer before
  if (matrix.values().type != cuda::Float::kBf16 || cache.type != cuda::Float::kBf16 ||
      shape.head_dim != cuda::kTiledHeadDim || !is_tiled(in.rows(), linear)) {
    const bool is_single = step_.longest_query == 1;
    if (matrix.values().type != cuda::Float::kBf16 || (is_single && step_.tokens > kTurnedRows) ||
        !cuda::turns_in_attention(shape.num_heads, step_, cache))
      return Backend::qkv_linear(in, weight, shape, rope, layer, qkv);
    this->linear(in, weight, qkv);
    unturned_ = {&qkv, step_angles(rope)};
    if (is_single) return;
    cuda::turn_and_store(matrix.values().data, shape.num_heads, unturned_.angles, step_, layer.group, cache,
                         stream_);
    return check_launch("qkv_linear");
  }
  check(qkv.columns() == shape.qkv_columns() && weight.rows() == qkv.columns() && in.rows() == step_.tokens,
        "qkv has a row per token");
  check(static_cast<std::int64_t>(rope.inv_freq.size()) * 2 == shape.head_dim, "a frequency per pair");
  matrix.resize(in.rows());
  cuda::tiled_qkv(tiled_task(operand_of(encoded, in.rows(), linear), in.rows(), linear, matrix.values().data),
                  {.num_heads = shape.num_heads,
                   .angles = step_angles(rope),
                   .step = step_,
                   .group = layer.group,
                   .cache = cache},
                  stream_);
  check_launch("qkv_linear");
}

void CudaBackend::attention(const AttentionShape& shape, CacheLayer layer, std::int64_t sliding_window,
                            const Matrix& qkv, InputEncoding encoding, LinearInput& out) {
  check(cache_ != nullptr, "begin_step came first");
  check(qkv.columns() == shape.qkv_columns() && qkv.rows() == step_.tokens, "qkv has a row per token");
  check(out.columns() == shape.num_heads * shape.head_dim, "the output has a column per head and dimension");
  const cuda::CacheView cache = cache_->layer(layer);
  check(shape.head_dim % 8 == 0 && shape.head_dim <= 256 &&
            (shape.num_heads / shape.num_kv_heads <= 8 ||
             cuda::supports_tile_attention(shape.num_heads, step_, cache)),
        "the attention kernels have this shape");
  auto& encoded = dynamic_cast<CudaLinearInput&>(out);
  encoded.resize(step_.tokens, encoding.type);
  const std::size_t workspace = cuda::attention_workspace(step_, shape.num_heads, cache);
  if (partial_.size() < workspace) {
    partial_.grow(workspace);
    cuda_check(cudaMemsetAsync(partial_.as<void>(), 0, partial_.size(), stream_), "cudaMemset");
  }
  const cuda::Encoded codes = encoded.encoded();
  const float* angles = unturned_.qkv == &qkv ? unturned_.angles : nullptr;
  const auto attend = [&](cuda::Values values) {
    cuda::attention(cuda_matrix(qkv).values(), angles, shape.num_heads, step_, layer.group, sliding_window,
                    cache, values, out.columns(), partial_.as<void>(), stream_);
  };
  if (encoding.type == InputType::kNone && codes.stride == out.columns()) {
    attend({codes.codes, cuda::Float::kBf16});
  } else {
    // Many rows are bound by the memory that they pass through.
    sums_.grow(static_cast<std::size_t>(step_.tokens * out.columns()) * sizeof(float));
    const cuda::Values values{sums_.as<void>(),
                              step_.tokens > kSmallRows ? cuda::Float::kBf16 : cuda::Float::kF32};
    attend(values);
    cuda::encode(values, step_.tokens, encoding.scale, codes, stream_);
  }
  check_launch("attention");
}

}  // namespace bise
