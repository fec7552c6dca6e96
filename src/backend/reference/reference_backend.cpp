#include "backend/reference/reference_backend.h"

#include <algorithm>

#include "backend/check_batch.h"
#include "backend/cpu/bandwidth.h"
#include "base/check.h"
#include "base/error.h"
#include "tensor/float_types.h"

namespace bise {

ReferenceMatrix::ReferenceMatrix(std::int64_t max_rows, std::int64_t columns)
    : Matrix(max_rows, columns), values(static_cast<std::size_t>(max_rows * columns)) {}

void ReferenceMatrix::resize(std::int64_t rows) {
  check(rows >= 0 && rows <= max_rows_, "the rows fit the matrix");
  rows_ = rows;
}

std::span<float> ReferenceMatrix::row(std::int64_t row) {
  return std::span(values).subspan(static_cast<std::size_t>(row * columns_),
                                   static_cast<std::size_t>(columns_));
}

std::span<const float> ReferenceMatrix::row(std::int64_t row) const {
  return std::span(values).subspan(static_cast<std::size_t>(row * columns_),
                                   static_cast<std::size_t>(columns_));
}

ReferenceKvCache::ReferenceKvCache(const KvCacheShape& shape)
    : KvCache(shape), keys(offset(shape.layers, 0, 0, 0)), values(keys.size()) {}

std::int64_t ReferenceKvCache::bytes() const {
  return static_cast<std::int64_t>((keys.size() + values.size()) * sizeof(float));
}

std::size_t ReferenceKvCache::offset(std::int64_t layer, std::int64_t block, std::int64_t slot,
                                     std::int64_t head) const {
  const std::int64_t token = (layer * shape_.num_blocks + block) * shape_.block_size + slot;
  return static_cast<std::size_t>((token * shape_.num_kv_heads + head) * shape_.head_dim);
}

double ReferenceBackend::read_bandwidth(std::int64_t bytes) {
  ThreadPool pool(1);
  return measure_read_bandwidth(pool, bytes);
}

std::unique_ptr<LinearWeight> ReferenceBackend::prepare_linear(std::vector<StoredLinear> parts) {
  return std::make_unique<ReferenceLinearWeight>(std::move(parts));
}

std::unique_ptr<DeviceTensor> ReferenceBackend::prepare_tensor(const Tensor& tensor) {
  check(is_float(tensor.dtype()), "an embedding or norm weight is a float tensor");
  return std::make_unique<ReferenceTensor>(tensor);
}

std::unique_ptr<Matrix> ReferenceBackend::make_matrix(std::int64_t max_rows, std::int64_t columns) {
  return std::make_unique<ReferenceMatrix>(max_rows, columns);
}

std::unique_ptr<LinearInput> ReferenceBackend::make_linear_input(std::int64_t max_rows,
                                                                 std::int64_t columns) {
  return std::make_unique<ReferenceLinearInput>(max_rows, columns);
}

std::unique_ptr<KvCache> ReferenceBackend::make_kv_cache(const KvCacheShape& shape) {
  if (shape.dtype != DType::kBF16 && shape.dtype != DType::kF32 && shape.dtype != DType::kF8E4M3)
    throw Error("the reference backend has no KV cache of this type")
        .expected("BF16, F32 or F8_E4M3")
        .got(std::string(dtype_name(shape.dtype)));
  return std::make_unique<ReferenceKvCache>(shape);
}

void ReferenceBackend::begin_step(const Batch& batch, KvCache& cache) {
  check_batch(batch, cache.shape());
  batch_ = batch;
  cache_ = &dynamic_cast<ReferenceKvCache&>(cache);
}

void ReferenceBackend::copy_block(KvCache& cache, std::int64_t from, std::int64_t to) {
  auto& made = dynamic_cast<ReferenceKvCache&>(cache);
  const KvCacheShape& shape = made.shape();
  check(from >= 0 && from < shape.num_blocks && to >= 0 && to < shape.num_blocks, "blocks are in the cache");
  for (std::int64_t layer = 0; layer < shape.layers; ++layer)
    for (std::vector<float>* values : {&made.keys, &made.values})
      std::copy_n(values->begin() + static_cast<std::ptrdiff_t>(made.offset(layer, from, 0, 0)),
                  made.offset(0, 1, 0, 0),
                  values->begin() + static_cast<std::ptrdiff_t>(made.offset(layer, to, 0, 0)));
}

void ReferenceBackend::embed(const DeviceTensor& table, Matrix& out) {
  const Tensor& tensor = dynamic_cast<const ReferenceTensor&>(table).tensor;
  auto& matrix = dynamic_cast<ReferenceMatrix&>(out);
  check(tensor.shape().size() == 2 && tensor.dim(1) == out.columns(), "the embedding fits the matrix");
  matrix.resize(batch_.tokens());
  for (std::int64_t t = 0; t < batch_.tokens(); ++t) {
    const std::int64_t id = batch_.token_ids[static_cast<std::size_t>(t)];
    check(id >= 0 && id < tensor.dim(0), "a token id is in the vocabulary");
    to_float(tensor.rows(id, id + 1), matrix.row(t));
  }
}

void ReferenceBackend::read(const Matrix& matrix, std::span<float> out) {
  check(out.size() == static_cast<std::size_t>(matrix.rows() * matrix.columns()), "the output has the size");
  const auto& values = dynamic_cast<const ReferenceMatrix&>(matrix).values;
  std::copy_n(values.begin(), out.size(), out.begin());
}

void ReferenceBackend::read(const LinearInput& input, std::span<float> out) {
  check(out.size() == static_cast<std::size_t>(input.rows() * input.columns()), "the output has the size");
  const auto& encoded = dynamic_cast<const ReferenceLinearInput&>(input);
  for (std::int64_t r = 0, i = 0; r < input.rows(); ++r)
    for (std::int64_t c = 0; c < input.columns(); ++c, ++i)
      out[static_cast<std::size_t>(i)] = encoded.decoded(r, c);
}

void ReferenceBackend::write(std::span<const float> values, std::int64_t rows, Matrix& matrix) {
  check(values.size() == static_cast<std::size_t>(rows * matrix.columns()), "the values fill the rows");
  auto& target = dynamic_cast<ReferenceMatrix&>(matrix);
  target.resize(rows);
  std::copy(values.begin(), values.end(), target.values.begin());
}

std::unique_ptr<Backend> make_reference_backend() {
  return std::make_unique<ReferenceBackend>();
}

}  // namespace bise
