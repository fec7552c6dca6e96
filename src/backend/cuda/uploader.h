// Brings weights from mapped files to the device: several threads copy pieces into page-locked memory, each
// into one of its two buffers while the copy engine empties the other. Belongs to the backend's thread.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "backend/cuda/device_memory.h"
#include "base/thread_pool.h"

namespace bise {

class Uploader {
 public:
  explicit Uploader(int device);
  ~Uploader();
  Uploader(const Uploader&) = delete;
  Uploader& operator=(const Uploader&) = delete;

  // Returns when the bytes are on the device.
  void upload(void* device, std::span<const std::byte> host);

 private:
  struct Lane {
    cudaStream_t stream = nullptr;
    PinnedBuffer buffers[2];
    cudaEvent_t emptied[2] = {nullptr, nullptr};
    int next = 0;
  };
  void start();
  void copy_pieces(std::byte* device, std::span<const std::byte> host, std::size_t begin, std::size_t end,
                   Lane& lane);

  int device_;
  std::unique_ptr<ThreadPool> threads_;  // made with the lanes, by the first large upload
  std::vector<Lane> lanes_;              // one a thread
};

}  // namespace bise
