#include "backend/cuda/uploader.h"

#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>

namespace bise {
namespace {

constexpr std::size_t kPiece = std::size_t{2} << 20, kSmall = std::size_t{1} << 20;
// More do not read the page cache faster.
constexpr unsigned kMostThreads = 16;

}  // namespace

Uploader::Uploader(int device) : device_(device) {}

Uploader::~Uploader() {
  for (Lane& lane : lanes_) {
    for (cudaEvent_t event : lane.emptied)
      if (event) cudaEventDestroy(event);
    if (lane.stream) cudaStreamDestroy(lane.stream);
  }
}

void Uploader::start() {
  threads_ = std::make_unique<ThreadPool>(
      static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, kMostThreads)));
  lanes_ = std::vector<Lane>(static_cast<std::size_t>(threads_->threads()));
  threads_->run([this](int thread) {
    Lane& lane = lanes_[static_cast<std::size_t>(thread)];
    cuda_check(cudaSetDevice(device_), "cudaSetDevice");
    cuda_check(cudaStreamCreateWithFlags(&lane.stream, cudaStreamNonBlocking), "cudaStreamCreate");
    for (int i = 0; i < 2; ++i) {
      lane.buffers[i].grow(kPiece);
      cuda_check(cudaEventCreateWithFlags(&lane.emptied[i], cudaEventDisableTiming), "cudaEventCreate");
    }
  });
}

void Uploader::upload(void* device, std::span<const std::byte> host) {
  if (host.size() <= kSmall) {
    copy_to_device(device, host.data(), host.size());
    return;
  }
  if (!threads_) start();
  const auto pieces = static_cast<std::int64_t>((host.size() + kPiece - 1) / kPiece);
  threads_->parallel_for(pieces, 1, [&](std::int64_t begin, std::int64_t end, int thread) {
    copy_pieces(static_cast<std::byte*>(device), host, static_cast<std::size_t>(begin),
                static_cast<std::size_t>(end), lanes_[static_cast<std::size_t>(thread)]);
  });
  threads_->run([this](int thread) {
    cuda_check(cudaStreamSynchronize(lanes_[static_cast<std::size_t>(thread)].stream), "waiting for a copy");
  });
}

void Uploader::copy_pieces(std::byte* device, std::span<const std::byte> host, std::size_t begin,
                           std::size_t end, Lane& lane) {
  for (std::size_t piece = begin; piece < end; ++piece) {
    const std::size_t first = piece * kPiece, bytes = std::min(kPiece, host.size() - first);
    const int side = std::exchange(lane.next, 1 - lane.next);
    cuda_check(cudaEventSynchronize(lane.emptied[side]), "waiting for a copy");
    std::memcpy(lane.buffers[side].as<void>(), host.data() + first, bytes);
    cuda_check(cudaMemcpyAsync(device + first, lane.buffers[side].as<void>(), bytes, cudaMemcpyHostToDevice,
                               lane.stream),
               "copying to the device");
    cuda_check(cudaEventRecord(lane.emptied[side], lane.stream), "cudaEventRecord");
  }
}

}  // namespace bise
