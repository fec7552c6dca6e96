#include "backend/cuda/cuda_backend.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>

#include "backend/check_batch.h"
#include "backend/cuda/streamed_linear.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/error.h"

namespace bise {
namespace {

cudaDeviceProp use_device(int device) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0)
    throw Error("no NVIDIA GPU can be used: {}",
                status == cudaSuccess ? "none is there" : cudaGetErrorString(status))
        .at("--device cuda");
  if (device < 0 || device >= count)
    throw Error("there is no such GPU")
        .expected("0 to " + std::to_string(count - 1))
        .got(std::to_string(device));
  cudaDeviceProp properties;
  cuda_check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  if (properties.major != 9)
    throw Error("this GPU is not of the Hopper generation")
        .expected("compute capability 9.0")
        .got(std::string(properties.name) + ", " + std::to_string(properties.major) + "." +
             std::to_string(properties.minor));
  cuda_check(cudaSetDevice(device), "cudaSetDevice");
  return properties;
}

void check_launch(const char* what) {
  cuda_check(cudaGetLastError(), what);
}

cudaStream_t make_stream() {
  cudaStream_t stream = nullptr;
  cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  return stream;
}

const CudaMatrix& cuda_matrix(const Matrix& matrix) {
  return dynamic_cast<const CudaMatrix&>(matrix);
}

}  // namespace

bool built_with_cuda() {
  return true;
}

std::unique_ptr<Backend> make_cuda_backend(int device) {
  return std::make_unique<CudaBackend>(device);
}

CudaBackend::CudaBackend(int device)
    : name_(std::string("cuda ") + use_device(device).name),
      stream_(make_stream()),
      experts_({[this](const LinearInput& in, const LinearWeight& weight, Matrix& out) {
                  linear(in, weight, out);
                },
                [this](const LinearInput& in, const LinearWeight& weight, InputEncoding encoding,
                       LinearInput& out) { gated_linear(in, weight, encoding, out); },
                [this](const Matrix& matrix, std::span<float> out) { read(matrix, out); }},
               stream_) {
  cuda_check(cudaEventCreateWithFlags(&uploaded_, cudaEventDisableTiming), "cudaEventCreate");
}

CudaBackend::~CudaBackend() {
  cudaStreamSynchronize(stream_);
  cudaEventDestroy(uploaded_);
  cudaStreamDestroy(stream_);
}

void CudaBackend::synchronize() {
  cuda_check(cudaStreamSynchronize(stream_), "waiting for the device");
}

double CudaBackend::read_bandwidth(std::int64_t bytes) {
  constexpr int kPasses = 10;
  const DeviceBuffer buffer(static_cast<std::size_t>(bytes)), sums(sizeof(std::uint32_t));
  cuda_check(cudaMemsetAsync(buffer.as<void>(), 1, buffer.size(), stream_), "cudaMemset");
  const auto pass = [&] { cuda::read_all(buffer.as<void>(), bytes, sums.as<std::uint32_t>(), stream_); };
  pass();
  synchronize();
  const Stopwatch watch;
  for (int i = 0; i < kPasses; ++i) pass();
  synchronize();
  check_launch("read_all");
  return static_cast<double>(bytes) * kPasses / watch.seconds() / 1e9;
}

std::unique_ptr<LinearWeight> CudaBackend::prepare_linear(std::vector<StoredLinear> parts) {
  return std::make_unique<CudaLinearWeight>(parts);
}

std::unique_ptr<DeviceTensor> CudaBackend::prepare_tensor(const Tensor& tensor) {
  check(is_float(tensor.dtype()), "an embedding or norm weight is a float tensor");
  // Vectors are small and read often in float32; tables stay as they are.
  const bool table = tensor.shape().size() > 1 && tensor.dtype() == DType::kBF16;
  return std::make_unique<CudaTensor>(tensor, table ? cuda::Float::kBf16 : cuda::Float::kF32);
}

std::unique_ptr<Matrix> CudaBackend::make_matrix(std::int64_t max_rows, std::int64_t columns) {
  return std::make_unique<CudaMatrix>(max_rows, columns, cuda::Float::kF32);
}

std::unique_ptr<LinearInput> CudaBackend::make_linear_input(std::int64_t max_rows, std::int64_t columns) {
  return std::make_unique<CudaLinearInput>(max_rows, columns);
}

std::unique_ptr<KvCache> CudaBackend::make_kv_cache(const KvCacheShape& shape) {
  return std::make_unique<CudaKvCache>(shape);
}

void CudaBackend::upload_step(const Batch& batch) {
  const auto tokens = static_cast<std::size_t>(batch.tokens());
  const auto sequences = static_cast<std::size_t>(batch.sequences());
  const std::size_t count = 3 * tokens + 2 * sequences + 1 + batch.block_table.size();
  cuda_check(cudaEventSynchronize(uploaded_), "waiting for the step before");
  host_step_.grow(count * sizeof(std::int32_t));
  device_step_.grow(count * sizeof(std::int32_t));
  std::int32_t* host = host_step_.as<std::int32_t>();
  std::size_t used = 0;
  const auto put = [&](std::span<const std::int32_t> values) {
    std::copy(values.begin(), values.end(), host + used);
    const std::int32_t* at = device_step_.as<std::int32_t>() + used;
    used += values.size();
    return at;
  };
  step_.token_ids = put(batch.token_ids);
  step_.positions = put(batch.positions);
  step_.query_starts = put(batch.query_starts);
  step_.context_lengths = put(batch.context_lengths);
  step_.block_table = put(batch.block_table);
  step_.token_sequence = device_step_.as<std::int32_t>() + used;
  for (std::size_t s = 0; s < sequences; ++s)
    for (std::int32_t t = batch.query_starts[s]; t < batch.query_starts[s + 1]; ++t)
      host[used++] = static_cast<std::int32_t>(s);
  check(used == count, "every number of the step was copied");
  cuda_check(cudaMemcpyAsync(device_step_.as<void>(), host, count * sizeof(std::int32_t),
                             cudaMemcpyHostToDevice, stream_),
             "copying the step");
  cuda_check(cudaEventRecord(uploaded_, stream_), "cudaEventRecord");
}

void CudaBackend::begin_step(const Batch& batch, KvCache& cache) {
  check_batch(batch, cache.shape());
  cache_ = &dynamic_cast<CudaKvCache&>(cache);
  upload_step(batch);
  step_.tokens = batch.tokens();
  step_.sequences = batch.sequences();
  step_.groups = batch.groups;
  step_.blocks_per_sequence = batch.blocks_per_sequence;
  step_.longest_query = step_.longest_context = 0;
  for (std::size_t s = 0; s < batch.context_lengths.size(); ++s) {
    step_.longest_query =
        std::max<std::int64_t>(step_.longest_query, batch.query_starts[s + 1] - batch.query_starts[s]);
    step_.longest_context = std::max<std::int64_t>(step_.longest_context, batch.context_lengths[s]);
  }
}

void CudaBackend::embed(const DeviceTensor& table, Matrix& out) {
  auto& matrix = dynamic_cast<CudaMatrix&>(out);
  matrix.resize(step_.tokens);
  cuda::embed(dynamic_cast<const CudaTensor&>(table).values(), step_.token_ids, step_.tokens,
              matrix.columns(), matrix.values(), stream_);
  check_launch("embed");
}

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
  cuda::add_rms_norm(delta ? cuda_matrix(*delta).values() : cuda::Values{},
                     static_cast<float*>(cuda_matrix(residual).values().data), residual.rows(),
                     static_cast<const float*>(dynamic_cast<const CudaTensor&>(weight).values().data), eps,
                     encoding.scale, device_rows, count, input.encoded(), stream_);
  check_launch("add_rms_norm");
}

void CudaBackend::multiply_large(cuda::Encoded in, std::int64_t rows, const CudaLinearWeight& linear,
                                 cuda::Values out) {
  const cuda::Weight& weight = linear.weight();
  LargeLinear::Product product{.in = in.codes,
                               .weight = weight.codes,
                               .in_scales = in.scales,
                               .weight_scales = weight.scales,
                               .rows = rows,
                               .columns = weight.rows,
                               .stride = weight.stride,
                               .out = out};
  if (linear.multiplies_codes()) {
    product.operands = weight.format == cuda::WeightFormat::kInt8 ? LargeLinear::Operands::kInt8
                                                                  : LargeLinear::Operands::kFp8;
  } else if (weight.format != cuda::WeightFormat::kBf16) {
    expanded_.grow(static_cast<std::size_t>(weight.rows * weight.stride) * 2);
    cuda::dequantize(weight, expanded_.as<void>(), stream_);
    product.weight = expanded_.as<void>();
  }
  const bool integers = product.operands == LargeLinear::Operands::kInt8;
  const bool scaled_by_product = product.operands == LargeLinear::Operands::kFp8;
  const float* row_scales = scaled_by_product ? nullptr : in.scales;
  const bool scales_after = integers || linear.bias() || row_scales;
  if (!scales_after) return large_.multiply(product, stream_);
  sums_.grow(static_cast<std::size_t>(rows * weight.rows) * 4);
  product.out = {sums_.as<void>(), cuda::Float::kF32};
  large_.multiply(product, stream_);
  cuda::scale_sums(sums_.as<void>(), integers, rows, weight.rows, row_scales,
                   integers ? weight.scales : nullptr, linear.bias(), out, stream_);
}

void CudaBackend::multiply_streamed(const cuda::Encoded& in, std::int64_t rows,
                                    const CudaLinearWeight& linear, cuda::Values out) {
  const cuda::Weight& weight = linear.weight();
  const std::size_t needed = cuda::streamed_workspace(weight.rows);
  if (streamed_.size() < needed) {
    streamed_.grow(needed);
    cuda_check(cudaMemsetAsync(streamed_.as<void>(), 0, streamed_.size(), stream_), "cudaMemset");
  }
  const int value_bytes = in.encoding == cuda::Encoding::kBf16 ? 2 : 1;
  cuda::streamed_linear(
      {.weight_tiles = cuda::tile_map(weight.codes, value_bytes, cuda::padded_rows(weight.rows),
                                      weight.stride, cuda::kWeightTileRows),
       .input_tiles = cuda::tile_map(in.codes, value_bytes, rows, in.stride, cuda::input_tile_rows(rows)),
       .encoding = in.encoding,
       .rows = rows,
       .columns = weight.rows,
       .stride = weight.stride,
       .in_scales = in.scales,
       .weight_scales = weight.scales,
       .bias = linear.bias(),
       .out = out,
       .workspace = streamed_.as<void>()},
      stream_);
}

void CudaBackend::multiply(const CudaLinearInput& in, const CudaLinearWeight& linear, cuda::Values out) {
  check(in.columns() == linear.columns() && in.type() == linear.input_type(),
        "a linear layer's input has its columns and encoding");
  cuda::Encoded encoded = in.encoded();
  const std::int64_t rows = in.rows();
  const std::size_t bytes = static_cast<std::size_t>(rows * encoded.stride) * 2;
  if (encoded.encoding != cuda::Encoding::kBf16 && !linear.multiplies_codes()) {
    inputs_.grow(bytes);
    cuda::codes_to_bf16(encoded, rows, inputs_.as<void>(), stream_);
    encoded.codes = inputs_.as<void>();
    encoded.encoding = cuda::Encoding::kBf16;
  }
  if (linear.permutation()) {
    check(in.type() == InputType::kNone, "activation order comes with float inputs");
    inputs_.grow(bytes);
    cuda::permute_columns(encoded.codes, linear.permutation(), rows, encoded.stride, inputs_.as<void>(),
                          stream_);
    encoded.codes = inputs_.as<void>();
  }
  const bool same_operands =
      linear.multiplies_codes() ||
      (linear.weight().format == cuda::WeightFormat::kBf16 && encoded.encoding == cuda::Encoding::kBf16);
  if (same_operands && rows <= cuda::kStreamedRows)
    multiply_streamed(encoded, rows, linear, out);
  else if (rows > kSmallRows && LargeLinear::supports(linear.rows()))
    multiply_large(encoded, rows, linear, out);
  else
    cuda::small_linear(encoded, rows, linear.weight(), linear.bias(), out, stream_);
  check_launch("linear");
}

void CudaBackend::linear(const LinearInput& in, const LinearWeight& weight, Matrix& out) {
  auto& matrix = dynamic_cast<CudaMatrix&>(out);
  check(matrix.columns() == weight.rows(), "the output has a column per row of the weight");
  matrix.resize(in.rows());
  multiply(dynamic_cast<const CudaLinearInput&>(in), dynamic_cast<const CudaLinearWeight&>(weight),
           matrix.values());
}

void CudaBackend::gated_linear(const LinearInput& in, const LinearWeight& gate_up, InputEncoding encoding,
                               LinearInput& out) {
  auto& encoded = dynamic_cast<CudaLinearInput&>(out);
  check(gate_up.rows() == 2 * out.columns(), "gate and up have a row per column of the output");
  gate_up_.grow(static_cast<std::size_t>(in.rows() * gate_up.rows()) * sizeof(float));
  const cuda::Values product{gate_up_.as<void>(), cuda::Float::kF32};
  multiply(dynamic_cast<const CudaLinearInput&>(in), dynamic_cast<const CudaLinearWeight&>(gate_up), product);
  encoded.resize(in.rows(), encoding.type);
  cuda::gate_and_encode(product, in.rows(), encoding.scale, encoded.encoded(), stream_);
  check_launch("gated_linear");
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
  cuda::rope_and_store(cuda_matrix(qkv).values(), shape.num_heads, rope_table(rope), rope.attention_factor,
                       step_, layer.group, cache_->layer(layer.slot), stream_);
  check_launch("rope_and_store");
}

void CudaBackend::attention(const AttentionShape& shape, CacheLayer layer, std::int64_t sliding_window,
                            const Matrix& qkv, InputEncoding encoding, LinearInput& out) {
  check(cache_ != nullptr, "begin_step came first");
  check(qkv.columns() == shape.qkv_columns() && qkv.rows() == step_.tokens, "qkv has a row per token");
  check(out.columns() == shape.num_heads * shape.head_dim, "the output has a column per head and dimension");
  check(shape.head_dim % 8 == 0 && shape.head_dim <= 256 && shape.num_heads / shape.num_kv_heads <= 8,
        "the attention kernels have this shape");
  auto& encoded = dynamic_cast<CudaLinearInput&>(out);
  encoded.resize(step_.tokens, encoding.type);
  sums_.grow(static_cast<std::size_t>(step_.tokens * out.columns()) * sizeof(float));
  partial_.grow(cuda::attention_workspace(step_.longest_context, shape.num_heads, shape.head_dim));
  cuda::attention(cuda_matrix(qkv).values(), shape.num_heads, step_, layer.group, sliding_window,
                  cache_->layer(layer.slot), sums_.as<float>(), partial_.as<void>(), stream_);
  cuda::encode({sums_.as<void>(), cuda::Float::kF32}, step_.tokens, encoding.scale, encoded.encoded(),
               stream_);
  check_launch("attention");
}

void CudaBackend::experts(const LinearInput& in, const ExpertWeights& weights, Matrix& out) {
  experts_.run(dynamic_cast<const CudaLinearInput&>(in), weights, dynamic_cast<CudaMatrix&>(out));
  check_launch("experts");
}

void CudaBackend::copy_to_host(const float* device, std::span<float> out) {
  cuda_check(cudaMemcpyAsync(out.data(), device, out.size_bytes(), cudaMemcpyDeviceToHost, stream_),
             "copying to the host");
  cuda_check(cudaStreamSynchronize(stream_), "waiting for the device");
}

void CudaBackend::read(const Matrix& matrix, std::span<float> out) {
  check(out.size() == static_cast<std::size_t>(matrix.rows() * matrix.columns()),
        "the values fill the matrix");
  const cuda::Values values = cuda_matrix(matrix).values();
  if (values.type == cuda::Float::kF32) return copy_to_host(static_cast<const float*>(values.data), out);
  sums_.grow(out.size_bytes());
  cuda::to_float(values, static_cast<std::int64_t>(out.size()), sums_.as<float>(), stream_);
  copy_to_host(sums_.as<float>(), out);
}

void CudaBackend::read(const LinearInput& input, std::span<float> out) {
  check(out.size() == static_cast<std::size_t>(input.rows() * input.columns()), "the values fill the input");
  sums_.grow(out.size_bytes());
  cuda::decode(dynamic_cast<const CudaLinearInput&>(input).encoded(), input.rows(), sums_.as<float>(),
               stream_);
  copy_to_host(sums_.as<float>(), out);
}

void CudaBackend::write(std::span<const float> values, std::int64_t rows, Matrix& matrix) {
  auto& target = dynamic_cast<CudaMatrix&>(matrix);
  check(values.size() == static_cast<std::size_t>(rows * matrix.columns()), "the values fill the rows");
  target.resize(rows);
  sums_.grow(values.size_bytes());
  cuda_check(
      cudaMemcpyAsync(sums_.as<void>(), values.data(), values.size_bytes(), cudaMemcpyHostToDevice, stream_),
      "copying to the device");
  cuda::from_float(sums_.as<float>(), static_cast<std::int64_t>(values.size()), target.values(), stream_);
  cuda_check(cudaStreamSynchronize(stream_), "waiting for the device");
}

}  // namespace bise
