// The backend for NVIDIA Hopper GPUs (sm_90a): one device, one stream. Operations are launched and return;
// read() waits. Linear layers of few rows are in sliced_linear.cu and streamed_linear.cu (weights of the
// inputs' own type), digit_int4.cu (int4, up to 2 rows), sliced_int4.cu (up to 16), wide_panels.cu (more than
// 32) and small_linear.cu (all others), of many rows in large_linear.cpp (cuBLASLt) and tiled_linear.cu;
// attention.cu, norm.cu, rope.cu, encode.cu, embed.cu and experts.cpp hold the operations of those names.
//
// cuda_backend.cpp makes things and brings values to the host and back, cuda_step.cpp begins a step and draws
// its tokens, cuda_products.cpp chooses the kernels of products, cuda_layers.cpp launches what stands
// between.
//
// Determinism: with up to 32 rows in a step a row's result depends on that row alone, and for int4 weights on
// whether there are more than 2 and more than 16 (experts that are not one launch: on how many of them are
// an expert's). Beyond, cuBLASLt takes an algorithm by the number of rows, and which one by time
// (large_linear.h); int4 products are cut by the number of rows; attention has another order of sums from 65
// tokens on (prompt_attention.cu); steps of 512 rows and more round the residual to bf16
// (kShortResidualRows) unless `float_residual` says otherwise.
//
// Workspace beyond what make_* allocates grows when a step is larger than any before it. Decode steps are
// recorded as graphs (cuda_step_recorder.h).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/cuda_matrix.h"
#include "backend/cuda/experts.h"
#include "backend/cuda/large_linear.h"
#include "backend/cuda/tiled_linear.h"

namespace bise {

class CudaBackend final : public Backend {
 public:
  static constexpr std::int64_t kSmallRows = 64;
  // Beyond, int4 weights are expanded for cuBLASLt.
  static constexpr std::int64_t kPanelRows = 512;
  // From so many rows on the products of codes scale their sums themselves.
  static constexpr std::int64_t kScaledRows = 384;
  // In steps of one token a sequence attention() turns queries and keys of up to so many.
  static constexpr std::int64_t kTurnedRows = 64;
  // From so many rows on gate and up, and queries, keys and values, of int8 are products of tiled_linear.h.
  static constexpr std::int64_t kTiledRows = 512;
  // From so many rows on embed() gives a residual in bf16, as vLLM and transformers have it at any number:
  // what passes through memory between products costs time, and power that the products then lack.
  static constexpr std::int64_t kShortResidualRows = 512;

  explicit CudaBackend(int device, bool float_residual = false);
  ~CudaBackend() override;

  std::string name() const override { return name_; }
  std::int64_t preferred_block_size() const override { return 16; }
  MemoryInfo memory() const override;
  void synchronize() override;
  double read_bandwidth(std::int64_t bytes) override;

  std::unique_ptr<LinearWeight> prepare_linear(std::vector<StoredLinear> parts) override;
  std::unique_ptr<DeviceTensor> prepare_tensor(const Tensor& tensor) override;
  std::unique_ptr<Matrix> make_matrix(std::int64_t max_rows, std::int64_t columns) override;
  // bf16.
  std::unique_ptr<Matrix> make_intermediate(std::int64_t max_rows, std::int64_t columns) override;
  std::unique_ptr<Matrix> make_residual(std::int64_t max_rows, std::int64_t columns) override;
  std::unique_ptr<LinearInput> make_linear_input(std::int64_t max_rows, std::int64_t columns) override;
  std::unique_ptr<KvCache> make_kv_cache(const KvCacheShape& shape) override;

  std::unique_ptr<RowStore> make_row_store(std::int64_t rows, std::int64_t columns) override;
  std::unique_ptr<GptqSolver> make_gptq_solver() override;

  void begin_step(const Batch& batch, KvCache& cache) override;
  // As begin_step() for a batch of one token a sequence, with sequences added up to `sequences` and launches
  // made for contexts of up to `longest_context`. (StepRecorder)
  void begin_padded_step(const Batch& batch, KvCache& cache, std::int64_t sequences,
                         std::int64_t longest_context);
  void copy_block(KvCache& cache, std::int64_t from, std::int64_t to) override;
  void embed(const DeviceTensor& table, Matrix& out) override;
  void add_rms_norm(const Matrix* delta, Matrix& residual, const DeviceTensor& weight, float eps,
                    InputEncoding encoding, LinearInput& out, std::span<const std::int32_t> rows) override;
  void linear(const LinearInput& in, const LinearWeight& weight, Matrix& out) override;
  // Where the residual holds bf16 and the product scales its sums itself.
  bool linear_add(const LinearInput& in, const LinearWeight& weight, Matrix& residual) override;
  void gated_linear(const LinearInput& in, const LinearWeight& gate_up, InputEncoding encoding,
                    LinearInput& out) override;
  void rope_and_store(const AttentionShape& shape, const RopeTable& rope, CacheLayer layer,
                      Matrix& qkv) override;
  void qkv_linear(const LinearInput& in, const LinearWeight& weight, const AttentionShape& shape,
                  const RopeTable& rope, CacheLayer layer, Matrix& qkv) override;
  void attention(const AttentionShape& shape, CacheLayer layer, std::int64_t sliding_window,
                 const Matrix& qkv, InputEncoding encoding, LinearInput& out) override;
  void experts(const LinearInput& in, const ExpertWeights& weights, Matrix& out) override;
  bool draws_tokens() const override { return true; }
  void draw(const Matrix& logits, std::int64_t first_draw) override;
  void draw_edited(const Matrix& logits, std::span<const EditedDraw> draws) override;
  void read_drawn(std::span<std::int32_t> out) override;
  void read_rows(const Matrix& matrix, std::span<const std::int32_t> rows, std::span<float> out) override;
  std::unique_ptr<StepRecorder> make_step_recorder() override;
  void read(const Matrix& matrix, std::span<float> out) override;
  void read(const LinearInput& input, std::span<float> out) override;
  void write(std::span<const float> values, std::int64_t rows, Matrix& matrix) override;
  void accumulate_hessian(const LinearInput& in, std::span<float> hessian) override;

  cudaStream_t stream() const { return stream_; }
  // How often an operation has waited for the device.
  std::uint64_t waits() const { return waits_; }

 private:
  // The input as the product takes it.
  cuda::Encoded operand_of(cuda::Encoded in, std::int64_t rows, const CudaLinearWeight& weight);
  static bool is_large(std::int64_t rows, const CudaLinearWeight& weight);
  static bool is_streamed(const cuda::Encoded& in, std::int64_t rows, const CudaLinearWeight& weight);
  // out [rows, weight.rows()] of either type.
  void multiply(const cuda::Encoded& in, std::int64_t rows, const CudaLinearWeight& weight, cuda::Values out);
  void multiply_streamed(const cuda::Encoded& in, std::int64_t rows, const CudaLinearWeight& weight,
                         bool gated, cuda::Values out, std::int64_t out_stride);
  // Sums that cuBLASLt leaves unscaled, in sums_.
  struct LargeSums {
    bool integers = false;
    cuda::SumScales scales;
  };
  // The product of few enough rows that sums may pass through memory, or of codes that no other product
  // scales.
  static bool leaves_sums(const CudaLinearWeight& weight, std::int64_t rows);
  LargeSums multiply_to_sums(const cuda::Encoded& in, std::int64_t rows, const CudaLinearWeight& weight);
  // `adds`: to what stands in `out`, of what adds_results() says.
  void multiply_large(const cuda::Encoded& in, std::int64_t rows, const CudaLinearWeight& weight,
                      cuda::Values out, bool adds = false);
  static bool adds_results(const cuda::Encoded& in, std::int64_t rows, const CudaLinearWeight& weight);
  // Whether tiled_linear.h takes the product.
  static bool is_tiled(std::int64_t rows, const CudaLinearWeight& weight);
  // Of what operand_of() gave.
  static cuda::TiledLinear tiled_task(const cuda::Encoded& in, std::int64_t rows,
                                      const CudaLinearWeight& weight, void* out);
  void copy_to_host(const void* device, void* host, std::size_t bytes);
  // A step's numbers, gathered in page-locked memory and copied together: of `sequences` sequences, of which
  // the batch has the first, with tables of `width` blocks.
  void upload_step(const Batch& batch, std::int64_t sequences, std::int64_t width);
  // To host_drawn_.
  void copy_drawn(std::size_t rows);
  const float* rope_table(const RopeTable& rope);
  // Of this step (cuda::rope_angles).
  const float* step_angles(const RopeTable& rope);

  std::string name_;
  bool float_residual_;
  cudaStream_t stream_ = nullptr;
  Uploader uploader_;
  LargeLinear large_;
  CudaExperts experts_;
  CudaKvCache* cache_ = nullptr;
  cuda::StepView step_;
  // The page-locked memory of steps, and of edits, may be filled again.
  cudaEvent_t uploaded_ = nullptr, edits_uploaded_ = nullptr;
  std::uint64_t waits_ = 0;
  PinnedBuffer host_step_, host_rows_, host_drawn_, host_edits_;
  DeviceBuffer device_step_, device_rows_, drawn_, device_edits_;
  // Of one operation: its inputs in another form, its sums before scaling, expanded weights, and partial
  // results of attention.
  DeviceBuffer streamed_, inputs_, sums_, expanded_, partial_, gate_up_;
  std::vector<std::pair<std::vector<float>, DeviceBuffer>> rope_tables_;
  DeviceBuffer angles_;
  std::vector<float> angles_of_;  // the frequencies; empty when the step has none yet
  float angles_factor_ = 1;
  // Of the last qkv_linear(), what attention() still has to turn (cuda::turns_in_attention).
  struct Unturned {
    const Matrix* qkv = nullptr;
    const float* angles = nullptr;
  };
  Unturned unturned_;
};

}  // namespace bise
