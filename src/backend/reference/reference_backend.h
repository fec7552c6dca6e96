// The definition of every operation of backend.h in plain loops: the oracle of all other backends. Values
// are float32; every sum is taken in double and rounded once, so that its own error (about 1e-7 of each
// value) never excuses another backend's. One thread; operations are synchronous and, unlike those of the
// fast backends, may allocate.
#pragma once

#include <vector>

#include "backend/backend.h"

namespace bise {

struct ReferenceMatrix final : Matrix {
  ReferenceMatrix(std::int64_t max_rows, std::int64_t columns);
  void resize(std::int64_t rows);
  std::span<float> row(std::int64_t row);
  std::span<const float> row(std::int64_t row) const;

  std::vector<float> values;  // [max_rows, columns]
};

// Row r stands for codes[r, :] * scales[r]: the values themselves with scale 1 (kNone), integers
// (kInt8Token) or e4m3 values (kFp8Token, kFp8Tensor).
struct ReferenceLinearInput final : LinearInput {
  ReferenceLinearInput(std::int64_t max_rows, std::int64_t columns);
  void resize(std::int64_t rows, InputType type);
  void encode_row(std::int64_t row, std::span<const float> values, InputEncoding encoding);
  float decoded(std::int64_t row, std::int64_t column) const;

  std::vector<float> codes;   // [max_rows, columns]
  std::vector<float> scales;  // [max_rows]
};

struct ReferenceLinearWeight final : LinearWeight {
  explicit ReferenceLinearWeight(std::vector<StoredLinear> stored);

  struct Part {
    // For integer inputs with one scale a row, the scales stand in `row_scales` and `linear` has ones, so
    // that the product over integers is exact. Otherwise `row_scales` are ones.
    StoredLinear linear;
    std::vector<float> row_scales, bias;  // [rows]
  };
  std::vector<Part> parts;
};

struct ReferenceTensor final : DeviceTensor {
  explicit ReferenceTensor(const Tensor& source) : tensor(source) {}
  Tensor tensor;
};

struct ReferenceKvCache final : KvCache {
  explicit ReferenceKvCache(const KvCacheShape& shape);
  std::int64_t bytes() const override;
  // Where the head_dim values of (layer, block, slot, head) start.
  std::size_t offset(std::int64_t layer, std::int64_t block, std::int64_t slot, std::int64_t head) const;

  // [layers, num_blocks, block_size, num_kv_heads, head_dim], rounded to the cache's dtype when written; of
  // kF8E4M3 the codes' values, without the layer's scale.
  std::vector<float> keys, values;
};

class ReferenceBackend : public Backend {
 public:
  std::string name() const override { return "reference"; }
  std::int64_t preferred_block_size() const override { return 16; }
  double read_bandwidth(std::int64_t bytes) override;

  std::unique_ptr<LinearWeight> prepare_linear(std::vector<StoredLinear> parts) override;
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
  // Where in the cache the token at `position` of `sequence` stands for the layers of `group`.
  struct Slot {
    std::int64_t block, slot;
  };
  Slot slot_of(std::int64_t sequence, std::int64_t group, std::int64_t position) const;

  Batch batch_;
  ReferenceKvCache* cache_ = nullptr;
};

// out[r, n] = sum over k of W[n, k] x[r, k] + bias[n], out [in.rows, weight.rows].
void reference_product(const ReferenceLinearInput& in, const ReferenceLinearWeight& weight,
                       std::span<float> out);
// silu(gate) * up
float reference_gated(float gate, float up);

}  // namespace bise
