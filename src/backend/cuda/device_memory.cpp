#include "backend/cuda/device_memory.h"

#include <atomic>
#include <map>
#include <mutex>

#include "base/error.h"

namespace bise {
namespace {

std::atomic<std::uint64_t> moves = 0;

// Of the current device.
cudaMemPool_t weight_pool() {
  int device = 0;
  cuda_check(cudaGetDevice(&device), "cudaGetDevice");
  static std::mutex mutex;
  static std::map<int, cudaMemPool_t> pools;
  const std::lock_guard lock(mutex);
  cudaMemPool_t& pool = pools[device];
  if (pool) return pool;
  cudaMemPoolProps properties = {};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = device;
  cuda_check(cudaMemPoolCreate(&pool, &properties), "cudaMemPoolCreate");
  return pool;
}

}  // namespace

std::uint64_t buffer_moves() {
  return moves;
}

void cuda_check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // so that the next launch does not report it again
  throw Error("CUDA failed: {}", cudaGetErrorString(status)).at(what);
}

void check_launch(const char* what) {
  cuda_check(cudaGetLastError(), what);
}

void cublas_check(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw Error("cuBLAS failed: {}", cublasLtGetStatusString(status)).at(what);
}

DeviceBuffer::DeviceBuffer(std::size_t bytes) {
  grow(bytes);
}

DeviceBuffer::~DeviceBuffer() {
  if (data_) cudaFree(data_);
}

void DeviceBuffer::grow(std::size_t bytes) {
  if (bytes <= size_) return;
  if (data_) {
    ++moves;
    cuda_check(cudaFree(data_), "cudaFree");
  }
  data_ = nullptr;
  size_ = 0;
  cuda_check(cudaMalloc(&data_, bytes), "cudaMalloc");
  size_ = bytes;
}

void copy_to_device(void* device, const void* host, std::size_t bytes) {
  cuda_check(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice), "cudaMemcpy to the device");
  cuda_check(cudaStreamSynchronize(cudaStreamLegacy), "waiting for a copy");
}

void DeviceBuffer::upload(const void* host, std::size_t bytes, std::size_t offset) {
  copy_to_device(as<char>() + offset, host, bytes);
}

PooledBuffer::PooledBuffer(std::size_t bytes) {
  cuda_check(cudaMallocFromPoolAsync(&data_, bytes, weight_pool(), cudaStreamLegacy),
             "cudaMallocFromPoolAsync");
  size_ = bytes;
  // Other streams than the one it was asked on use it.
  cuda_check(cudaStreamSynchronize(cudaStreamLegacy), "waiting for memory");
}

// What still uses it was launched before, on whatever stream.
PooledBuffer::~PooledBuffer() {
  if (!data_) return;
  cudaDeviceSynchronize();
  cudaFreeAsync(data_, cudaStreamLegacy);
}

PinnedBuffer::~PinnedBuffer() {
  if (data_) cudaFreeHost(data_);
}

void PinnedBuffer::grow(std::size_t bytes) {
  if (bytes <= size_) return;
  if (data_) {
    ++moves;
    cuda_check(cudaFreeHost(data_), "cudaFreeHost");
  }
  data_ = nullptr;
  size_ = 0;
  cuda_check(cudaMallocHost(&data_, bytes), "cudaMallocHost");
  size_ = bytes;
}

}  // namespace bise
