#include "backend/cuda/cuda_backend.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>

#include "backend/check_batch.h"
#include "backend/cuda/cuda_gptq_solver.h"
#include "backend/cuda/cuda_step_recorder.h"
#include "backend/cuda/large_int8.h"
#include "backend/cuda/sliced_linear.h"
#include "backend/cuda/streamed_linear.h"
#include "backend/cuda/tile_attention.h"
#include "backend/cuda/wide_panels.h"
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
      uploader_(device),
      experts_(
          {[this](const LinearInput& in, const LinearWeight& weight, Matrix& out) {
             linear(in, weight, out);
           },
           [this](const cuda::Encoded& in, std::int64_t rows, const CudaLinearWeight& weight,
                  cuda::Values out) { multiply(operand_of(in, rows, weight), rows, weight, out); },
           [this](const void* device, void* host, std::size_t bytes) { copy_to_host(device, host, bytes); }},
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

// Other processes' share counts as used by this one: it cannot be told apart.
MemoryInfo CudaBackend::memory() const {
  std::size_t free = 0, total = 0;
  cuda_check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  MemoryInfo info;
  info.total = static_cast<std::int64_t>(total);
  info.free = static_cast<std::int64_t>(free);
  // Nothing is given back while a model is there.
  info.peak_used = info.total - info.free;
  return info;
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
  return std::make_unique<CudaLinearWeight>(parts, uploader_);
}

std::unique_ptr<DeviceTensor> CudaBackend::prepare_tensor(const Tensor& tensor) {
  check(is_float(tensor.dtype()), "an embedding or norm weight is a float tensor");
  // Vectors are small and read often in float32; tables stay as they are.
  const bool table = tensor.shape().size() > 1 && tensor.dtype() == DType::kBF16;
  return std::make_unique<CudaTensor>(tensor, table ? cuda::Float::kBf16 : cuda::Float::kF32, uploader_);
}

std::unique_ptr<Matrix> CudaBackend::make_matrix(std::int64_t max_rows, std::int64_t columns) {
  return std::make_unique<CudaMatrix>(max_rows, columns, cuda::Float::kF32);
}

std::unique_ptr<Matrix> CudaBackend::make_intermediate(std::int64_t max_rows, std::int64_t columns) {
  return std::make_unique<CudaMatrix>(max_rows, columns, cuda::Float::kBf16);
}

std::unique_ptr<LinearInput> CudaBackend::make_linear_input(std::int64_t max_rows, std::int64_t columns) {
  return std::make_unique<CudaLinearInput>(max_rows, columns);
}

std::unique_ptr<KvCache> CudaBackend::make_kv_cache(const KvCacheShape& shape) {
  return std::make_unique<CudaKvCache>(shape);
}

// On the device unless that takes more than half of what is free.
std::unique_ptr<RowStore> CudaBackend::make_row_store(std::int64_t rows, std::int64_t columns) {
  if (rows * columns * 2 > memory().free / 2) return Backend::make_row_store(rows, columns);
  return std::make_unique<CudaRowStore>(rows, columns, stream_);
}

std::unique_ptr<GptqSolver> CudaBackend::make_gptq_solver() {
  large_.take_first_algorithms();
  return std::make_unique<CudaGptqSolver>(uploader_, stream_);
}

void CudaBackend::upload_step(const Batch& batch, std::int64_t sequences, std::int64_t width) {
  const std::int64_t added = sequences - batch.sequences();  // of one token each
  const auto tokens = static_cast<std::size_t>(batch.tokens() + added);
  const auto rows = static_cast<std::size_t>(sequences);
  const std::size_t draws = batch.draws.empty() ? 0 : batch.draws.size() + static_cast<std::size_t>(added);
  const std::size_t count =
      3 * tokens + 2 * rows + 1 + 3 * draws + rows * static_cast<std::size_t>(batch.groups * width);
  cuda_check(cudaEventSynchronize(uploaded_), "waiting for the step before");
  constexpr std::size_t kLeast = std::size_t{1} << 20;  // so that it seldom grows: recorded steps are in it
  const std::size_t bytes = std::max(kLeast, 2 * count * sizeof(std::int32_t));
  if (device_step_.size() < count * sizeof(std::int32_t)) {
    host_step_.grow(bytes);
    device_step_.grow(bytes);
  }
  std::int32_t* host = host_step_.as<std::int32_t>();
  std::size_t used = 0;
  const auto put = [&](std::span<const std::int32_t> values, std::int32_t filler) {
    const std::int32_t* at = device_step_.as<std::int32_t>() + used;
    std::copy(values.begin(), values.end(), host + used);
    used += values.size();
    for (std::int64_t i = 0; i < added; ++i) host[used++] = filler;
    return at;
  };
  step_.token_ids = put(batch.token_ids, 0);
  step_.positions = put(batch.positions, 0);
  step_.query_starts = put(batch.query_starts, 0);
  for (std::int64_t i = 0; i < added; ++i)
    host[used - static_cast<std::size_t>(i) - 1] = static_cast<std::int32_t>(batch.tokens() + added - i);
  step_.context_lengths = put(batch.context_lengths, 1);
  step_.token_sequence = device_step_.as<std::int32_t>() + used;
  for (std::int64_t s = 0; s < sequences; ++s) {
    const std::int32_t queries = s < batch.sequences() ? batch.query_starts[static_cast<std::size_t>(s) + 1] -
                                                             batch.query_starts[static_cast<std::size_t>(s)]
                                                       : 1;
    for (std::int32_t i = 0; i < queries; ++i) host[used++] = static_cast<std::int32_t>(s);
  }
  static_assert(sizeof(TokenDraw) == sizeof(cuda::TokenDraw) &&
                sizeof(TokenDraw) == 3 * sizeof(std::int32_t));
  step_.draws = reinterpret_cast<const cuda::TokenDraw*>(device_step_.as<std::int32_t>() + used);
  if (draws > 0) {
    std::memset(host + used, 0, 3 * draws * sizeof(std::int32_t));
    std::memcpy(host + used, batch.draws.data(), batch.draws.size_bytes());
    used += 3 * draws;
  }
  step_.block_table = device_step_.as<std::int32_t>() + used;
  const std::int64_t taken = std::min(width, batch.blocks_per_sequence);
  for (std::int64_t row = 0; row < sequences * batch.groups; ++row, used += static_cast<std::size_t>(width)) {
    std::int64_t filled = 0;
    if (row < batch.sequences() * batch.groups) {
      const auto blocks = batch.blocks(row / batch.groups, row % batch.groups);
      std::copy_n(blocks.begin(), taken, host + used);
      filled = taken;
    }
    std::fill_n(host + used + filled, width - filled, 0);
  }
  check(used == count, "every number of the step was copied");
  cuda_check(cudaMemcpyAsync(device_step_.as<void>(), host, count * sizeof(std::int32_t),
                             cudaMemcpyHostToDevice, stream_),
             "copying the step");
  cuda_check(cudaEventRecord(uploaded_, stream_), "cudaEventRecord");
  step_.tokens = static_cast<std::int64_t>(tokens);
  step_.sequences = sequences;
  step_.groups = batch.groups;
  step_.blocks_per_sequence = width;
  angles_of_.clear();
}

void CudaBackend::copy_block(KvCache& cache, std::int64_t from, std::int64_t to) {
  const auto& made = dynamic_cast<CudaKvCache&>(cache);
  const KvCacheShape& shape = cache.shape();
  check(from >= 0 && from < shape.num_blocks && to >= 0 && to < shape.num_blocks, "blocks are in the cache");
  const auto bytes =
      static_cast<std::size_t>(cache.bytes() / (2 * shape.layers * shape.num_blocks));  // keys or values
  for (std::int64_t slot = 0; slot < shape.layers; ++slot) {
    const cuda::CacheView view = made.layer(slot);
    for (void* base : {view.keys, view.values}) {
      auto* blocks = static_cast<char*>(base);
      cuda_check(cudaMemcpyAsync(blocks + static_cast<std::size_t>(to) * bytes,
                                 blocks + static_cast<std::size_t>(from) * bytes, bytes,
                                 cudaMemcpyDeviceToDevice, stream_),
                 "copying a block of the KV cache");
    }
  }
}

void CudaBackend::begin_step(const Batch& batch, KvCache& cache) {
  check_batch(batch, cache.shape());
  cache_ = &dynamic_cast<CudaKvCache&>(cache);
  step_.longest_query = step_.longest_context = 0;
  for (std::size_t s = 0; s < batch.context_lengths.size(); ++s) {
    step_.longest_query =
        std::max<std::int64_t>(step_.longest_query, batch.query_starts[s + 1] - batch.query_starts[s]);
    step_.longest_context = std::max<std::int64_t>(step_.longest_context, batch.context_lengths[s]);
  }
  const std::int64_t block_size = cache.shape().block_size;
  upload_step(batch, batch.sequences(), (step_.longest_context + block_size - 1) / block_size);
}

void CudaBackend::begin_padded_step(const Batch& batch, KvCache& cache, std::int64_t sequences,
                                    std::int64_t longest_context) {
  check_batch(batch, cache.shape());
  cache_ = &dynamic_cast<CudaKvCache&>(cache);
  step_.longest_query = 1;
  step_.longest_context = longest_context;
  const std::int64_t block_size = cache.shape().block_size;
  upload_step(batch, sequences, (longest_context + block_size - 1) / block_size);
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
                                 cuda::Values out) {
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
                        .out = out.data},
                       stream_))
    return;
  if (integers || leaves_sums(linear, rows)) {
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
                               .out = out};
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
                       step_, layer.group, cache_->layer(layer), stream_);
  check_launch("rope_and_store");
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
  if (matrix.values().type != cuda::Float::kBf16 || cache.type != cuda::Float::kBf16 ||
      shape.head_dim != cuda::kTiledHeadDim || !is_tiled(in.rows(), linear))
    return Backend::qkv_linear(in, weight, shape, rope, layer, qkv);
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
  const auto attend = [&](cuda::Values values) {
    cuda::attention(cuda_matrix(qkv).values(), shape.num_heads, step_, layer.group, sliding_window, cache,
                    values, out.columns(), partial_.as<void>(), stream_);
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

void CudaBackend::experts(const LinearInput& in, const ExpertWeights& weights, Matrix& out) {
  experts_.run(dynamic_cast<const CudaLinearInput&>(in), weights, dynamic_cast<CudaMatrix&>(out));
  check_launch("experts");
}

void CudaBackend::draw(const Matrix& logits, std::int64_t first_draw) {
  const cuda::Values values = cuda_matrix(logits).values();
  check(values.type == cuda::Float::kF32, "tokens are drawn from float32");
  const auto rows = static_cast<std::size_t>(logits.rows());
  const std::size_t most = static_cast<std::size_t>(logits.max_rows());
  drawn_.grow(most * sizeof(std::int32_t));
  host_drawn_.grow(most * sizeof(std::int32_t));
  draw_parts_.grow(cuda::draw_workspace(logits.max_rows(), logits.columns()));
  cuda::draw(static_cast<const float*>(values.data), logits.rows(), logits.columns(),
             step_.draws + first_draw, draw_parts_.as<void>(), drawn_.as<std::int32_t>(), stream_);
  check_launch("draw");
  cuda_check(cudaMemcpyAsync(host_drawn_.as<void>(), drawn_.as<void>(), rows * sizeof(std::int32_t),
                             cudaMemcpyDeviceToHost, stream_),
             "copying the tokens");
}

void CudaBackend::read_drawn(std::span<std::int32_t> out) {
  synchronize();
  std::copy_n(host_drawn_.as<std::int32_t>(), out.size(), out.begin());
}

void CudaBackend::read_rows(const Matrix& matrix, std::span<const std::int32_t> rows, std::span<float> out) {
  const auto columns = static_cast<std::size_t>(matrix.columns());
  const cuda::Values values = cuda_matrix(matrix).values();
  check(values.type == cuda::Float::kF32 && out.size() == rows.size() * columns, "the rows fill the output");
  for (std::size_t i = 0; i < rows.size(); ++i) {
    check(rows[i] >= 0 && rows[i] < matrix.max_rows(), "the row is in the matrix");
    const float* row = static_cast<const float*>(values.data) + static_cast<std::size_t>(rows[i]) * columns;
    cuda_check(cudaMemcpyAsync(out.data() + i * columns, row, columns * sizeof(float), cudaMemcpyDeviceToHost,
                               stream_),
               "copying to the host");
  }
  synchronize();
}

std::unique_ptr<StepRecorder> CudaBackend::make_step_recorder() {
  return std::make_unique<CudaStepRecorder>(*this);
}

void CudaBackend::copy_to_host(const void* device, void* host, std::size_t bytes) {
  ++waits_;
  cuda_check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_), "copying to the host");
  cuda_check(cudaStreamSynchronize(stream_), "waiting for the device");
}

void CudaBackend::read(const Matrix& matrix, std::span<float> out) {
  check(out.size() == static_cast<std::size_t>(matrix.rows() * matrix.columns()),
        "the values fill the matrix");
  if (out.empty()) return;
  const cuda::Values values = cuda_matrix(matrix).values();
  if (values.type == cuda::Float::kF32) return copy_to_host(values.data, out.data(), out.size_bytes());
  sums_.grow(out.size_bytes());
  cuda::to_float(values, static_cast<std::int64_t>(out.size()), sums_.as<float>(), stream_);
  check_launch("read");
  copy_to_host(sums_.as<void>(), out.data(), out.size_bytes());
}

void CudaBackend::read(const LinearInput& input, std::span<float> out) {
  check(out.size() == static_cast<std::size_t>(input.rows() * input.columns()), "the values fill the input");
  if (out.empty()) return;
  sums_.grow(out.size_bytes());
  cuda::decode(dynamic_cast<const CudaLinearInput&>(input).encoded(), input.rows(), sums_.as<float>(),
               stream_);
  check_launch("read");
  copy_to_host(sums_.as<void>(), out.data(), out.size_bytes());
}

void CudaBackend::write(std::span<const float> values, std::int64_t rows, Matrix& matrix) {
  auto& target = dynamic_cast<CudaMatrix&>(matrix);
  check(values.size() == static_cast<std::size_t>(rows * matrix.columns()), "the values fill the rows");
  target.resize(rows);
  if (rows == 0) return;
  sums_.grow(values.size_bytes());
  cuda_check(
      cudaMemcpyAsync(sums_.as<void>(), values.data(), values.size_bytes(), cudaMemcpyHostToDevice, stream_),
      "copying to the device");
  cuda::from_float(sums_.as<float>(), static_cast<std::int64_t>(values.size()), target.values(), stream_);
  check_launch("write");
  cuda_check(cudaStreamSynchronize(stream_), "waiting for the device");
}

}  // namespace bise
