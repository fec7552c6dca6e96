// The CPU backend: the operations of backend.h on row-major float32 matrices, threads through one pool. This
// class checks arguments and divides rows among threads; the arithmetic is in the files named for each
// operation. A row is always computed by the same kernels in the same order, whatever the batch.
#pragma once

#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/attention.h"
#include "backend/cpu/experts.h"
#include "backend/cpu/hessian.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/linear.h"
#include "backend/cpu/rope.h"

namespace bise {

// A norm's weight or a table of rows; vectors are kept in float32.
class CpuTensor final : public DeviceTensor {
 public:
  explicit CpuTensor(const Tensor& source);
  const Tensor& tensor() const { return tensor_; }
  // [elements] of a tensor with one dimension.
  const float* vector() const { return values_.data(); }

 private:
  Tensor tensor_;
  AlignedBuffer<float> values_;
};

class CpuBackend final : public Backend {
 public:
  // `float_inputs`: see make_cpu_backend.
  CpuBackend(ThreadPool& pool, Isa isa, bool float_inputs = false);

  std::string name() const override;
  std::int64_t preferred_block_size() const override { return 64; }
  double read_bandwidth(std::int64_t bytes) override;

  std::unique_ptr<LinearWeight> prepare_linear(std::vector<StoredLinear> parts) override;
  std::unique_ptr<LinearWeight> prepare_head(StoredLinear head) override;
  std::unique_ptr<DeviceTensor> prepare_tensor(const Tensor& tensor) override;
  std::unique_ptr<Matrix> make_matrix(std::int64_t max_rows, std::int64_t columns) override;
  std::unique_ptr<LinearInput> make_linear_input(std::int64_t max_rows, std::int64_t columns) override;
  std::unique_ptr<KvCache> make_kv_cache(const KvCacheShape& shape) override;

  void begin_step(const Batch& batch, KvCache& cache) override;
  void copy_block(KvCache& cache, std::int64_t from, std::int64_t to) override;
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
  // body(row, thread) for every row; a few rows stay on the calling thread.
  template <class Body>
  void for_rows(std::int64_t rows, const Body& body);
  void check_attention(const AttentionShape& shape, CacheLayer layer, const Matrix& qkv) const;
  // A row of `columns` floats for each thread.
  float* thread_row(int thread) { return thread_rows_.data() + thread * thread_row_stride_; }
  void fit_thread_rows(std::int64_t columns);

  ThreadPool& pool_;
  Isa isa_;
  bool float_inputs_;
  const RowKernels& kernels_;
  LinearScratch linear_scratch_;
  Rope rope_;
  Attention attention_;
  Experts experts_;
  Hessian hessian_;
  Batch batch_;
  CpuKvCache* cache_ = nullptr;
  AlignedBuffer<float> thread_rows_;
  std::int64_t thread_row_stride_ = 0;
  AlignedBuffer<float> attended_;  // [tokens, heads * head_dim] before its encoding
};

}  // namespace bise
