#include "backend/cpu/cpu_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "backend/check_batch.h"
#include "backend/cpu/bandwidth.h"
#include "backend/cpu/row_share.h"
#include "base/check.h"
#include "base/error.h"
#include "tensor/float_types.h"

namespace bise {
namespace {

// A step of fewer rows is done before another thread would wake.
constexpr std::int64_t kSerialRows = 4, kRowGrain = 4;

const CpuMatrix& as_cpu(const Matrix& matrix) {
  return dynamic_cast<const CpuMatrix&>(matrix);
}
CpuMatrix& as_cpu(Matrix& matrix) {
  return dynamic_cast<CpuMatrix&>(matrix);
}
const CpuLinearInput& as_cpu(const LinearInput& input) {
  return dynamic_cast<const CpuLinearInput&>(input);
}
CpuLinearInput& as_cpu(LinearInput& input) {
  return dynamic_cast<CpuLinearInput&>(input);
}

}  // namespace

CpuTensor::CpuTensor(const Tensor& source) : tensor_(source) {
  check(is_float(source.dtype()), "an embedding or norm weight is a float tensor");
  if (source.shape().size() != 1) return;
  values_ = AlignedBuffer<float>(source.elements());
  to_float(source, {values_.data(), static_cast<std::size_t>(source.elements())});
}

CpuBackend::CpuBackend(ThreadPool& pool, Isa isa, bool float_inputs)
    : pool_(pool),
      isa_(isa),
      float_inputs_(float_inputs),
      kernels_(row_kernels(isa)),
      linear_scratch_(pool.threads()),
      rope_(pool, isa),
      attention_(pool, isa),
      experts_(pool, linear_scratch_, isa, float_inputs),
      hessian_(pool, isa) {}

std::string CpuBackend::name() const {
  return fmt::format("cpu {}{}", isa_name(isa_), float_inputs_ && isa_ == Isa::kAmx ? " float32" : "");
}

double CpuBackend::read_bandwidth(std::int64_t bytes) {
  return measure_read_bandwidth(pool_, bytes);
}

std::unique_ptr<LinearWeight> CpuBackend::prepare_linear(std::vector<StoredLinear> parts) {
  return prepare_cpu_linear(std::move(parts), isa_, &pool_);
}

std::unique_ptr<LinearWeight> CpuBackend::prepare_head(StoredLinear head) {
  std::vector<StoredLinear> parts;
  parts.push_back(std::move(head));
  return prepare_cpu_linear(std::move(parts), isa_);
}

std::unique_ptr<DeviceTensor> CpuBackend::prepare_tensor(const Tensor& tensor) {
  return std::make_unique<CpuTensor>(tensor);
}

void CpuBackend::fit_thread_rows(std::int64_t columns) {
  if (columns <= thread_row_stride_) return;
  thread_row_stride_ = (columns + 31) / 32 * 32;
  thread_rows_ = AlignedBuffer<float>(thread_row_stride_ * pool_.threads());
}

std::unique_ptr<Matrix> CpuBackend::make_matrix(std::int64_t max_rows, std::int64_t columns) {
  return std::make_unique<CpuMatrix>(max_rows, columns);
}

std::unique_ptr<LinearInput> CpuBackend::make_linear_input(std::int64_t max_rows, std::int64_t columns) {
  fit_thread_rows(columns);
  // Attention's result waits here for its encoding.
  if (attended_.size() < max_rows * columns) attended_ = AlignedBuffer<float>(max_rows * columns);
  return std::make_unique<CpuLinearInput>(max_rows, columns, isa_, float_inputs_);
}

std::unique_ptr<KvCache> CpuBackend::make_kv_cache(const KvCacheShape& shape) {
  const BlockLayout layout = has_tile_attention(isa_, shape) ? BlockLayout::kTiles : BlockLayout::kVectors;
  return std::make_unique<CpuKvCache>(shape, layout);
}

void CpuBackend::begin_step(const Batch& batch, KvCache& cache) {
  check_batch(batch, cache.shape());
  batch_ = batch;
  cache_ = &dynamic_cast<CpuKvCache&>(cache);
  rope_.begin_step(batch, *cache_);
  attention_.begin_step(batch, *cache_);
}

template <class Body>
void CpuBackend::for_rows(std::int64_t rows, const Body& body) {
  const auto range = [&](std::int64_t begin, std::int64_t end, int thread) {
    for (std::int64_t row = begin; row < end; ++row) body(row, thread);
  };
  if (rows <= kSerialRows) return range(0, rows, 0);
  if (rows_are_shared(rows, pool_.threads())) {
    const auto share = [&](int thread) {
      const RowShare mine = share_of_rows(rows, thread, pool_.threads());
      range(mine.begin, mine.end, thread);
    };
    return pool_.run(std::ref(share));
  }
  pool_.parallel_for(rows, kRowGrain, range);
}

void CpuBackend::copy_block(KvCache& cache, std::int64_t from, std::int64_t to) {
  dynamic_cast<CpuKvCache&>(cache).copy_block(from, to);
}

void CpuBackend::embed(const DeviceTensor& table, Matrix& out) {
  const Tensor& tensor = dynamic_cast<const CpuTensor&>(table).tensor();
  CpuMatrix& matrix = as_cpu(out);
  const std::int64_t columns = out.columns();
  check(tensor.shape().size() == 2 && tensor.dim(1) == columns, "the embedding fits the matrix");
  for (const std::int32_t id : batch_.token_ids)
    check(id >= 0 && id < tensor.dim(0), "a token id is in the vocabulary");
  matrix.set_rows(batch_.tokens());
  for_rows(batch_.tokens(), [&](std::int64_t row, int) {
    const std::int64_t id = batch_.token_ids[static_cast<std::size_t>(row)];
    if (tensor.dtype() == DType::kBF16) {
      kernels_.from_bf16(tensor.data<bf16>() + id * columns, matrix.row(row), columns);
    } else if (tensor.dtype() == DType::kF32) {
      std::copy_n(tensor.data<float>() + id * columns, columns, matrix.row(row));
    } else {
      to_float(tensor.rows(id, id + 1), {matrix.row(row), static_cast<std::size_t>(columns)});
    }
  });
}

void CpuBackend::add_rms_norm(const Matrix* delta, Matrix& residual, const DeviceTensor& weight, float eps,
                              InputEncoding encoding, LinearInput& out, std::span<const std::int32_t> rows) {
  CpuMatrix& stream = as_cpu(residual);
  CpuLinearInput& encoded = as_cpu(out);
  const CpuMatrix* addend = delta ? &as_cpu(*delta) : nullptr;
  const auto& gain = dynamic_cast<const CpuTensor&>(weight);
  const std::int64_t columns = stream.columns();
  check(out.columns() == columns && gain.tensor().elements() == columns, "a norm keeps the columns");
  check(!addend || (addend->rows() == stream.rows() && addend->columns() == columns),
        "the delta has the residual's shape");
  const auto norm = [&](std::int64_t from, const float* added, std::int64_t to, int thread) {
    const float squares = kernels_.add_and_sum_squares(stream.row(from), added, columns);
    const float factor = 1.0f / std::sqrt(squares / static_cast<float>(columns) + eps);
    kernels_.scale_row(stream.row(from), factor, gain.vector(), thread_row(thread), columns);
    encoded.encode_row(to, thread_row(thread));
  };
  if (rows.empty()) {
    encoded.begin(stream.rows(), encoding);
    for_rows(stream.rows(), [&](std::int64_t row, int thread) {
      norm(row, addend ? addend->row(row) : nullptr, row, thread);
    });
    return;
  }
  if (addend) {
    for_rows(stream.rows(), [&](std::int64_t row, int) {
      kernels_.add_and_sum_squares(stream.row(row), addend->row(row), columns);
    });
  }
  const auto chosen = static_cast<std::int64_t>(rows.size());
  encoded.begin(chosen, encoding);
  for_rows(chosen, [&](std::int64_t i, int thread) {
    const std::int64_t row = rows[static_cast<std::size_t>(i)];
    check(row >= 0 && row < stream.rows(), "a normed row is in the residual");
    norm(row, nullptr, i, thread);
  });
}

void CpuBackend::linear(const LinearInput& in, const LinearWeight& weight, Matrix& out) {
  bise::linear(pool_, linear_scratch_, as_cpu(in), weight, as_cpu(out));
}

void CpuBackend::gated_linear(const LinearInput& in, const LinearWeight& gate_up, InputEncoding encoding,
                              LinearInput& out) {
  bise::gated_linear(pool_, linear_scratch_, as_cpu(in), gate_up, encoding, as_cpu(out));
}

void CpuBackend::check_attention(const AttentionShape& shape, CacheLayer layer, const Matrix& qkv) const {
  check(cache_ != nullptr, "begin_step came first");
  check(layer.slot >= 0 && layer.slot < cache_->shape().layers && layer.group >= 0 &&
            layer.group < batch_.groups,
        "the layer is in the cache and has a table");
  check(shape.num_kv_heads == cache_->shape().num_kv_heads && shape.head_dim == cache_->shape().head_dim,
        "the cache has the attention's heads");
  check(shape.num_heads % shape.num_kv_heads == 0, "heads are shared evenly");
  check(qkv.columns() == shape.qkv_columns() && qkv.rows() == batch_.tokens(), "qkv has a row per token");
}

void CpuBackend::rope_and_store(const AttentionShape& shape, const RopeTable& rope, CacheLayer layer,
                                Matrix& qkv) {
  check_attention(shape, layer, qkv);
  check(static_cast<std::int64_t>(rope.inv_freq.size()) * 2 == shape.head_dim, "a frequency per pair");
  rope_.run(shape, rope, layer, as_cpu(qkv).data());
}

void CpuBackend::attention(const AttentionShape& shape, CacheLayer layer, std::int64_t sliding_window,
                           const Matrix& qkv, InputEncoding encoding, LinearInput& out) {
  check_attention(shape, layer, qkv);
  CpuLinearInput& encoded = as_cpu(out);
  const std::int64_t tokens = batch_.tokens(), columns = shape.num_heads * shape.head_dim;
  check(out.columns() == columns, "the output has a column per head and dimension");
  encoded.begin(tokens, encoding);
  const float* rows = as_cpu(qkv).data();
  // Rounded rows need no place to wait in.
  if (bf16* rounded = attention_.rounds() ? encoded.bf16_row(0) : nullptr) {
    const auto stride = encoded.row_bytes() / static_cast<std::int64_t>(sizeof(bf16));
    attention_.run(shape, layer, sliding_window, rows, {nullptr, rounded, stride});
    return for_rows(tokens, [&](std::int64_t row, int) { encoded.end_row(row); });
  }
  attention_.run(shape, layer, sliding_window, rows, {attended_.data(), nullptr, columns});
  for_rows(tokens, [&](std::int64_t row, int) { encoded.encode_row(row, attended_.data() + row * columns); });
}

void CpuBackend::experts(const LinearInput& in, const ExpertWeights& weights, Matrix& out) {
  experts_.run(as_cpu(in), weights, as_cpu(out));
}

void CpuBackend::read(const Matrix& matrix, std::span<float> out) {
  check(out.size() == static_cast<std::size_t>(matrix.rows() * matrix.columns()), "the output has the size");
  std::copy_n(as_cpu(matrix).data(), out.size(), out.begin());
}

void CpuBackend::read(const LinearInput& input, std::span<float> out) {
  check(out.size() == static_cast<std::size_t>(input.rows() * input.columns()), "the output has the size");
  for (std::int64_t row = 0; row < input.rows(); ++row)
    as_cpu(input).decode_row(row, out.data() + row * input.columns());
}

void CpuBackend::write(std::span<const float> values, std::int64_t rows, Matrix& matrix) {
  check(values.size() == static_cast<std::size_t>(rows * matrix.columns()), "the values fill the rows");
  as_cpu(matrix).set_rows(rows);
  std::copy(values.begin(), values.end(), as_cpu(matrix).data());
}

void CpuBackend::accumulate_hessian(const LinearInput& in, std::span<float> hessian) {
  hessian_.accumulate(as_cpu(in), hessian);
}

std::unique_ptr<Backend> make_cpu_backend(ThreadPool& pool, Isa isa, bool float_inputs) {
  const std::vector<Isa> available = available_isas();
  if (std::find(available.begin(), available.end(), isa) == available.end())
    throw Error("this processor lacks the instruction set {}", isa_name(isa))
        .expected(fmt::format("at most {}", isa_name(available.back())));
  return std::make_unique<CpuBackend>(pool, isa, float_inputs);
}

}  // namespace bise
