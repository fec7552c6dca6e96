// The backend for NVIDIA Hopper GPUs (sm_90a): one device, one stream. Operations are launched and return;
// read() waits. Linear layers of few rows are in streamed_linear.cu (weights of the inputs' own type) and
// small_linear.cu (all others), of many rows in large_linear.cpp (cuBLASLt); attention.cu, norm.cu, rope.cu,
// encode.cu, embed.cu and experts.cpp hold the operations of those names.
//
// Determinism: with up to kSmallRows rows in a step, a row's result depends on that row alone. Beyond,
// cuBLASLt chooses by the number of rows.
//
// Workspace beyond what make_* allocates grows when a step is larger than any before it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/cuda_matrix.h"
#include "backend/cuda/experts.h"
#include "backend/cuda/large_linear.h"

namespace bise {

class CudaBackend final : public Backend {
 public:
  static constexpr std::int64_t kSmallRows = 64;

  explicit CudaBackend(int device);
  ~CudaBackend() override;

  std::string name() const override { return name_; }
  std::int64_t preferred_block_size() const override { return 16; }
  void synchronize() override;
  double read_bandwidth(std::int64_t bytes) override;

  std::unique_ptr<LinearWeight> prepare_linear(std::vector<StoredLinear> parts) override;
  std::unique_ptr<DeviceTensor> prepare_tensor(const Tensor& tensor) override;
  std::unique_ptr<Matrix> make_matrix(std::int64_t max_rows, std::int64_t columns) override;
  std::unique_ptr<LinearInput> make_linear_input(std::int64_t max_rows, std::int64_t columns) override;
  std::unique_ptr<KvCache> make_kv_cache(const KvCacheShape& shape) override;

  void begin_step(const Batch& batch, KvCache& cache) override;
  void embed(const DeviceTensor& table, Matrix& out) override;
  void add_rms_norm(const Matrix* delta, Matrix& residual, const DeviceTensor& weight, float eps,
                    InputEncoding encoding, LinearInput& out, std::span<const std::int32_t> rows) override;
  void linear(const LinearInput& in, const LinearWeight& weight, Matrix& out) override;
  void gated_linear(const LinearInput& in, const LinearWeight& gate_up, InputEncoding encoding,
                    LinearInput& out) override;
  void rope_and_store(const AttentionShape& shape, const RopeTable& rope, CacheLayer layer,
                      Matrix& qkv) override;
  void attention(const AttentionShape& shape, CacheLayer layer, std::int64_t sliding_window,
                 const Matrix& qkv, InputEncoding encoding, LinearInput& out) override;
  void experts(const LinearInput& in, const ExpertWeights& weights, Matrix& out) override;
  void read(const Matrix& matrix, std::span<float> out) override;
  void read(const LinearInput& input, std::span<float> out) override;
  void write(std::span<const float> values, std::int64_t rows, Matrix& matrix) override;
  void accumulate_hessian(const LinearInput& in, std::span<float> hessian) override;

 private:
  // out [in.rows(), weight.rows()] of either type.
  void multiply(const CudaLinearInput& in, const CudaLinearWeight& weight, cuda::Values out);
  void multiply_streamed(const cuda::Encoded& in, std::int64_t rows, const CudaLinearWeight& weight,
                         cuda::Values out);
  void multiply_large(cuda::Encoded in, std::int64_t rows, const CudaLinearWeight& weight, cuda::Values out);
  void copy_to_host(const float* device, std::span<float> out);
  // A step's numbers, gathered in page-locked memory and copied together.
  void upload_step(const Batch& batch);
  const float* rope_table(const RopeTable& rope);

  std::string name_;
  cudaStream_t stream_ = nullptr;
  LargeLinear large_;
  CudaExperts experts_;
  CudaKvCache* cache_ = nullptr;
  cuda::StepView step_;
  cudaEvent_t uploaded_ = nullptr;  // the page-locked memory may be filled again
  PinnedBuffer host_step_, host_rows_;
  DeviceBuffer device_step_, device_rows_;
  // Of one operation: its inputs in another form, its sums before scaling, expanded weights, and partial
  // results of attention.
  DeviceBuffer streamed_, inputs_, sums_, expanded_, partial_, gate_up_;
  std::vector<std::pair<std::vector<float>, DeviceBuffer>> rope_tables_;
};

}  // namespace bise
