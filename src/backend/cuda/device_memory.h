// Memory and errors of the CUDA runtime. A buffer belongs to the device that was current when it was made.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <utility>

namespace bise {

// Throw Error with the runtime's words; `what` says which call.
void cuda_check(cudaError_t status, const char* what);
void cublas_check(cublasStatus_t status, const char* what);
void check_launch(const char* what);  // of the kernels launched since the last one

// Returns when the bytes are there. (cudaMemcpy alone returns when they have left pageable memory, and no
// other stream waits for it.)
void copy_to_device(void* device, const void* host, std::size_t bytes);

// How often a buffer has moved because it grew: recorded steps hold addresses of before.
std::uint64_t buffer_moves();

class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  explicit DeviceBuffer(std::size_t bytes);
  DeviceBuffer(DeviceBuffer&& other) noexcept { swap(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~DeviceBuffer();

  std::size_t size() const { return size_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  // At least `bytes`; what it held is lost when it has to grow.
  void grow(std::size_t bytes);
  void upload(const void* host, std::size_t bytes, std::size_t offset = 0);

 private:
  void swap(DeviceBuffer& other) {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

// Memory for as long as a weight lives, taken from a pool of the process: cudaMalloc rounds each buffer up to
// 2 MiB, 5 % of an int4 model. Scratch memory would leave holes in the pool.
class PooledBuffer {
 public:
  PooledBuffer() = default;
  explicit PooledBuffer(std::size_t bytes);
  PooledBuffer(PooledBuffer&& other) noexcept { *this = std::move(other); }
  PooledBuffer& operator=(PooledBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~PooledBuffer();

  std::size_t size() const { return size_; }
  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

// Page-locked host memory, which the device copies from and to by itself.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;
  ~PinnedBuffer();

  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  void grow(std::size_t bytes);

 private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace bise
