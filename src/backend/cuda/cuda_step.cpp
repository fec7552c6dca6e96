// The CUDA backend's steps: their numbers on the way to the device, the tokens drawn at their end.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>

#include "backend/check_batch.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/cuda_step_recorder.h"
#include "backend/cuda/draw.h"
#include "backend/cuda/short_residual.h"
#include "base/check.h"
#include "base/error.h"

namespace bise {

void CudaBackend::upload_step(const Batch& batch, std::int64_t sequences, std::int64_t width) {
  const std::int64_t added = sequences - batch.sequences();  // of one token each
  const auto tokens = static_cast<std::size_t>(batch.tokens() + added);
  const auto rows = static_cast<std::size_t>(sequences);
  const std::size_t draws = batch.draws.empty() ? 0 : batch.draws.size() + static_cast<std::size_t>(added);
  constexpr std::size_t kDraw = sizeof(TokenDraw) / sizeof(std::int32_t);
  static_assert(sizeof(TokenDraw) == sizeof(cuda::TokenDraw));
  const std::size_t count =
      3 * tokens + 2 * rows + 1 + kDraw * draws + rows * static_cast<std::size_t>(batch.groups * width);
  cuda_check(cudaEventSynchronize(uploaded_), "waiting for the step before");
  constexpr std::size_t kLeast = std::size_t{1} << 20;  // so that it seldom grows: recorded steps are in it
  const std::size_t bytes = std::max(kLeast, 2 * count * sizeof(std::int32_t));
  if (device_step_.size() < count * sizeof(std::int32_t)) {
    host_step_.grow(bytes);
    device_step_.grow(bytes);
  }
  std::int32_t* host = host_step_.as<std::int32_t>();
  std::size_t used = 0;
  const auto put = [&](std::span<const std::int32_t> values, std::int32_t filler) {
    const std::int32_t* at = device_step_.as<std::int32_t>() + used;
    std::copy(values.begin(), values.end(), host + used);
    used += values.size();
    for (std::int64_t i = 0; i < added; ++i) host[used++] = filler;
    return at;
  };
  step_.token_ids = put(batch.token_ids, 0);
  step_.positions = put(batch.positions, 0);
  step_.query_starts = put(batch.query_starts, 0);
  for (std::int64_t i = 0; i < added; ++i)
    host[used - static_cast<std::size_t>(i) - 1] = static_cast<std::int32_t>(batch.tokens() + added - i);
  step_.context_lengths = put(batch.context_lengths, 1);
  step_.token_sequence = device_step_.as<std::int32_t>() + used;
  for (std::int64_t s = 0; s < sequences; ++s) {
    const std::int32_t queries = s < batch.sequences() ? batch.query_starts[static_cast<std::size_t>(s) + 1] -
                                                             batch.query_starts[static_cast<std::size_t>(s)]
                                                       : 1;
    for (std::int32_t i = 0; i < queries; ++i) host[used++] = static_cast<std::int32_t>(s);
  }
  step_.draws = reinterpret_cast<const cuda::TokenDraw*>(device_step_.as<std::int32_t>() + used);
  if (draws > 0) {
    std::memset(host + used, 0, draws * sizeof(TokenDraw));
    std::memcpy(host + used, batch.draws.data(), batch.draws.size_bytes());
    used += kDraw * draws;
  }
  step_.block_table = device_step_.as<std::int32_t>() + used;
  const std::int64_t taken = std::min(width, batch.blocks_per_sequence);
  for (std::int64_t row = 0; row < sequences * batch.groups; ++row, used += static_cast<std::size_t>(width)) {
    std::int64_t filled = 0;
    if (row < batch.sequences() * batch.groups) {
      const auto blocks = batch.blocks(row / batch.groups, row % batch.groups);
      std::copy_n(blocks.begin(), taken, host + used);
      filled = taken;
    }
    std::fill_n(host + used + filled, width - filled, 0);
  }
  check(used == count, "every number of the step was copied");
  cuda_check(cudaMemcpyAsync(device_step_.as<void>(), host, count * sizeof(std::int32_t),
                             cudaMemcpyHostToDevice, stream_),
             "copying the step");
  cuda_check(cudaEventRecord(uploaded_, stream_), "cudaEventRecord");
  step_.tokens = static_cast<std::int64_t>(tokens);
  step_.sequences = sequences;
  step_.groups = batch.groups;
  step_.blocks_per_sequence = width;
  angles_of_.clear();
  unturned_ = {};
}

void CudaBackend::copy_block(KvCache& cache, std::int64_t from, std::int64_t to) {
  const auto& made = dynamic_cast<CudaKvCache&>(cache);
  const KvCacheShape& shape = cache.shape();
  check(from >= 0 && from < shape.num_blocks && to >= 0 && to < shape.num_blocks, "blocks are in the cache");
  const auto bytes =
      static_cast<std::size_t>(cache.bytes() / (2 * shape.layers * shape.num_blocks));  // keys or values
  for (std::int64_t slot = 0; slot < shape.layers; ++slot) {
    const cuda::CacheView view = made.layer(slot);
    for (void* base : {view.keys, view.values}) {
      auto* blocks = static_cast<char*>(base);
      cuda_check(cudaMemcpyAsync(blocks + static_cast<std::size_t>(to) * bytes,
                                 blocks + static_cast<std::size_t>(from) * bytes, bytes,
                                 cudaMemcpyDeviceToDevice, stream_),
                 "copying a block of the KV cache");
    }
  }
}

void CudaBackend::begin_step(const Batch& batch, KvCache& cache) {
  check_batch(batch, cache.shape());
  cache_ = &dynamic_cast<CudaKvCache&>(cache);
  step_.longest_query = step_.longest_context = 0;
  for (std::size_t s = 0; s < batch.context_lengths.size(); ++s) {
    step_.longest_query =
        std::max<std::int64_t>(step_.longest_query, batch.query_starts[s + 1] - batch.query_starts[s]);
    step_.longest_context = std::max<std::int64_t>(step_.longest_context, batch.context_lengths[s]);
  }
  const std::int64_t block_size = cache.shape().block_size;
  upload_step(batch, batch.sequences(), (step_.longest_context + block_size - 1) / block_size);
}

void CudaBackend::begin_padded_step(const Batch& batch, KvCache& cache, std::int64_t sequences,
                                    std::int64_t longest_context) {
  check_batch(batch, cache.shape());
  cache_ = &dynamic_cast<CudaKvCache&>(cache);
  step_.longest_query = 1;
  step_.longest_context = longest_context;
  const std::int64_t block_size = cache.shape().block_size;
  upload_step(batch, sequences, (longest_context + block_size - 1) / block_size);
}

void CudaBackend::embed(const DeviceTensor& table, Matrix& out) {
  auto& matrix = dynamic_cast<CudaMatrix&>(out);
  const bool is_short = !float_residual_ && step_.tokens >= kShortResidualRows &&
                        cuda::supports_short_residual(matrix.columns());
  matrix.fill_as(is_short ? cuda::Float::kBf16 : cuda::Float::kF32);
  matrix.resize(step_.tokens);
  cuda::embed(dynamic_cast<const CudaTensor&>(table).values(), step_.token_ids, step_.tokens,
              matrix.columns(), matrix.values(), stream_);
  check_launch("embed");
}

void CudaBackend::draw(const Matrix& logits, std::int64_t first_draw) {
  const cuda::Values values = cuda_matrix(logits).values();
  check(values.type == cuda::Float::kF32, "tokens are drawn from float32");
  if (!cuda::supports_draw(logits.columns()))
    throw Error("the vocabulary is too large for drawing on the GPU").got(fmt::to_string(logits.columns()));
  const auto rows = static_cast<std::size_t>(logits.rows());
  const std::size_t most = static_cast<std::size_t>(logits.max_rows());
  drawn_.grow(most * sizeof(std::int32_t));
  host_drawn_.grow(most * sizeof(std::int32_t));
  cuda::draw(static_cast<const float*>(values.data), logits.rows(), logits.columns(),
             step_.draws + first_draw, drawn_.as<std::int32_t>(), stream_);
  check_launch("draw");
  copy_drawn(rows);
}

void CudaBackend::copy_drawn(std::size_t rows) {
  cuda_check(cudaMemcpyAsync(host_drawn_.as<void>(), drawn_.as<void>(), rows * sizeof(std::int32_t),
                             cudaMemcpyDeviceToHost, stream_),
             "copying the tokens");
}

// All draws, then the words of their edits, are copied together. Never part of a recorded step: what is
// edited is known late, while the device computes.
void CudaBackend::draw_edited(const Matrix& logits, std::span<const EditedDraw> draws) {
  const auto* data = static_cast<const float*>(cuda_matrix(logits).values().data);
  const auto columns = static_cast<std::size_t>(logits.columns());
  std::size_t words = 0, end = 0;
  for (const auto& [row, draw, edits] : draws) {
    check(row >= 0 && row < logits.max_rows(), "the row is in the matrix");
    end = std::max(end, static_cast<std::size_t>(row) + 1);
    check(edits.allowed.empty() || edits.allowed.size() == (columns + 31) / 32, "the mask is of all tokens");
    words += 2 * edits.biases.size() + 2 * edits.counts.size() + edits.removed.size() + edits.allowed.size();
  }
  const std::size_t bytes = draws.size() * sizeof(cuda::EditedDraw) + words * sizeof(std::int32_t);
  cuda_check(cudaEventSynchronize(edits_uploaded_), "waiting for the edits before");
  if (device_edits_.size() < bytes) {
    constexpr std::size_t kLeast = std::size_t{1} << 20;  // so that it seldom grows
    host_edits_.grow(std::max(kLeast, 2 * bytes));
    device_edits_.grow(std::max(kLeast, 2 * bytes));
  }
  auto* rows = host_edits_.as<cuda::EditedDraw>();
  auto* host = reinterpret_cast<std::int32_t*>(rows + draws.size());
  std::size_t used = 0;
  const auto put = [&](const auto& values) {
    static_assert(sizeof(values[0]) % sizeof(std::int32_t) == 0);
    if (!values.empty())
      std::memcpy(host + used, static_cast<const void*>(values.data()), values.size_bytes());
    used += values.size_bytes() / sizeof(std::int32_t);
    return static_cast<std::int32_t>(values.size());
  };
  for (const auto& [row, draw, edits] : draws) {
    cuda::EditedDraw& own = *rows++;
    std::memcpy(&own.draw, &draw, sizeof own.draw);
    own.repetition = edits.repetition;
    own.frequency = edits.frequency;
    own.presence = edits.presence;
    own.row = row;
    own.first = static_cast<std::int32_t>(used);
    own.biases = put(edits.biases);
    own.counts = put(edits.counts);
    own.removed = put(edits.removed);
    own.allowed = put(edits.allowed);
  }
  cuda_check(cudaMemcpyAsync(device_edits_.as<void>(), host_edits_.as<void>(), bytes, cudaMemcpyHostToDevice,
                             stream_),
             "copying the edits");
  cuda_check(cudaEventRecord(edits_uploaded_, stream_), "cudaEventRecord");
  const auto* device = device_edits_.as<cuda::EditedDraw>();
  cuda::draw_edited(data, logits.columns(), device, static_cast<std::int64_t>(draws.size()),
                    reinterpret_cast<const std::int32_t*>(device + draws.size()), drawn_.as<std::int32_t>(),
                    stream_);
  check_launch("draw of edited logits");
  copy_drawn(end);
}

void CudaBackend::read_drawn(std::span<std::int32_t> out) {
  synchronize();
  std::copy_n(host_drawn_.as<std::int32_t>(), out.size(), out.begin());
}

void CudaBackend::read_rows(const Matrix& matrix, std::span<const std::int32_t> rows, std::span<float> out) {
  const auto columns = static_cast<std::size_t>(matrix.columns());
  const cuda::Values values = cuda_matrix(matrix).values();
  check(values.type == cuda::Float::kF32 && out.size() == rows.size() * columns, "the rows fill the output");
  for (std::size_t i = 0; i < rows.size(); ++i) {
    check(rows[i] >= 0 && rows[i] < matrix.max_rows(), "the row is in the matrix");
    const float* row = static_cast<const float*>(values.data) + static_cast<std::size_t>(rows[i]) * columns;
    cuda_check(cudaMemcpyAsync(out.data() + i * columns, row, columns * sizeof(float), cudaMemcpyDeviceToHost,
                               stream_),
               "copying to the host");
  }
  synchronize();
}

std::unique_ptr<StepRecorder> CudaBackend::make_step_recorder() {
  return std::make_unique<CudaStepRecorder>(*this);
}

}  // namespace bise
