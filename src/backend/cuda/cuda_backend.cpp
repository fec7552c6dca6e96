#include "backend/cuda/cuda_backend.h"

#include <cuda_runtime.h>

#include "backend/cuda/cuda_gptq_solver.h"
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

cudaStream_t make_stream() {
  cudaStream_t stream = nullptr;
  cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  return stream;
}

}  // namespace

bool built_with_cuda() {
  return true;
}

std::unique_ptr<Backend> make_cuda_backend(int device, bool float_residual) {
  return std::make_unique<CudaBackend>(device, float_residual);
}

CudaBackend::CudaBackend(int device, bool float_residual)
    : name_(std::string("cuda ") + use_device(device).name),
      float_residual_(float_residual),
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
  for (cudaEvent_t* event : {&uploaded_, &edits_uploaded_})
    cuda_check(cudaEventCreateWithFlags(event, cudaEventDisableTiming), "cudaEventCreate");
}

CudaBackend::~CudaBackend() {
  cudaStreamSynchronize(stream_);
  cudaEventDestroy(uploaded_);
  cudaEventDestroy(edits_uploaded_);
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

std::unique_ptr<Matrix> CudaBackend::make_residual(std::int64_t max_rows, std::int64_t columns) {
  return std::make_unique<CudaMatrix>(max_rows, columns, cuda::Float::kF32, true);
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
  target.fill_as(cuda::Float::kF32);
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
