// What a device must be able to do for a decoder: a few coarse, fused operations on opaque matrices.
// backend/reference defines each in plain float32 loops and is the oracle of every other backend.
//
// Ownership and threads: weights, matrices and caches are made by a backend and used only with it; all calls
// on one backend come from one thread. Memory is allocated by make_* and prepare_* only, never by an
// operation. Operations may run asynchronously; read() waits.
//
// Determinism: the result of a row depends on that row's inputs only, never on which or how many other rows
// are in the batch, nor on the number of threads, nor on how a prompt was cut into steps. CUDA keeps this for
// steps of up to 32 rows, with int4 weights among those of 1 and 2, of 3 to 16 and of 17 to 32
// (cuda/cuda_backend.h says what changes beyond); AMX with integer weights and float inputs among steps of up
// to 32 rows and among longer ones, but not from the one to the other (cpu/planes_amx.h).
//
// One step of a decoder (model/decoder.cpp):
//   begin_step(batch); embed; per layer {add_rms_norm, linear, rope_and_store, attention, linear,
//   add_rms_norm, gated_linear, linear}; add_rms_norm on the rows that need logits; linear; read
// Before a linear whose result the next add_rms_norm adds, linear_add is asked.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tensor/scheme.h"
#include "tensor/stored_linear.h"
#include "tensor/tensor.h"

namespace bise {

// How a device draws a token: the argmax of logit * factor + Gumbel noise, whose bits are a hash of the key
// and the token (engine/gumbel.h), among the tokens that min_p, then top_k, then top_p leave; the first of
// equals. With factor 0 the argmax of all logits alone.
//
// Host and device draw the same token from the same logits, because all of it is a function of float32
// numbers without an order: a token weighs exp((logit - largest) * factor), by the polynomial of
// engine/logit_kernels.h, rounded to a multiple of 2^-33, and sums of such weights are exact. Only the
// noise's logarithms may differ in their last bit of 53.
struct TokenDraw {
  float factor = 0;  // 1 / temperature; below 0: nothing is drawn
  std::uint32_t key_low = 0, key_high = 0;
  // min_p: logits of at least the largest plus this are left, all with -infinity.
  float smallest = -std::numeric_limits<float>::infinity();
  // The top_k largest are left and what equals the last of them; all with 0.
  std::int32_t top_k = 0;
  // (0, 1]; those are left before which, by descending logit and ascending token, stands less than top_p of
  // the weight that the other two left; all with 1.
  float top_p = 1;
};

// A token of a sequence, and how often its output has it.
struct TokenCount {
  std::int32_t token, output_count;
};

// What is done to a row's logits before a token is drawn, in this order, each operation rounded to float32 by
// itself (engine/sampler.h).
struct LogitEdits {
  std::span<const std::pair<std::int32_t, float>> biases;  // added; a token stands there once
  // Penalties, of logits above -infinity: what is positive is divided by `repetition`, all else multiplied,
  // and kept within +-1e30; tokens of the output lose frequency * output_count, then presence.
  std::span<const TokenCount> counts;  // a token stands there once
  float repetition = 1, frequency = 0, presence = 0;
  std::span<const std::int32_t> removed;  // to -infinity; what is no token is passed over
  // [ceil(vocabulary / 32)] unless empty: tokens i whose bit i % 32 of word i / 32 is 0 go to -infinity.
  std::span<const std::uint32_t> allowed;
};
struct EditedDraw {
  std::int32_t row = 0;
  TokenDraw draw;
  LogitEdits edits;
};

// The tokens of one step: for each sequence its next query tokens (a prompt's chunk or one token), ragged.
// Host memory that stays valid until the step's results have been read.
struct Batch {
  std::span<const std::int32_t> token_ids;     // [tokens]
  std::span<const std::int32_t> positions;     // [tokens] of each token in its sequence
  std::span<const std::int32_t> query_starts;  // [sequences + 1] first token of each sequence; last = tokens
  std::span<const std::int32_t> context_lengths;  // [sequences] tokens in the cache after this step
  // [sequences, groups, blocks_per_sequence], see blocks(). Layers of one group share a table (KV groups,
  // model/kv_layout.h).
  std::span<const std::int32_t> block_table;
  std::int64_t blocks_per_sequence = 0, groups = 1;
  std::span<const TokenDraw> draws = {};  // of the rows that draw() is called with, where it is

  std::int64_t tokens() const { return static_cast<std::int64_t>(token_ids.size()); }
  std::int64_t sequences() const { return static_cast<std::int64_t>(context_lengths.size()); }
  // [blocks_per_sequence] block i holds positions [i, i+1) * block_size. -1 stands for a block freed behind
  // the group's sliding window, whose positions are not read; entries beyond the context have no meaning.
  std::span<const std::int32_t> blocks(std::int64_t sequence, std::int64_t group) const {
    return block_table.subspan(static_cast<std::size_t>((sequence * groups + group) * blocks_per_sequence),
                               static_cast<std::size_t>(blocks_per_sequence));
  }
};

// Where a layer's keys and values stand: in slot `slot` of the blocks of group `group`.
struct CacheLayer {
  std::int64_t group = 0, slot = 0;
  // Caches of kF8E4M3 hold e4m3(key / key_scale) and e4m3(value / value_scale), saturated.
  float key_scale = 1, value_scale = 1;
};

struct AttentionShape {
  std::int64_t num_heads = 0, num_kv_heads = 0, head_dim = 0;
  // Columns of a row [q heads | k heads | v heads].
  std::int64_t qkv_columns() const { return (num_heads + 2 * num_kv_heads) * head_dim; }
};

struct KvCacheShape {
  // Layers that one block holds; with several KV groups fewer than the model has.
  std::int64_t layers = 0, num_blocks = 0, block_size = 0, num_kv_heads = 0, head_dim = 0;
  DType dtype = DType::kBF16;  // kBF16; kF32 and kF8E4M3 where the backend says so
};

// Frequencies of the rotary embedding, scaling applied (model/rope.h computes them). Position p turns the
// pair (i, i + head_dim/2) by p * inv_freq[i]; cos and sin are multiplied by `attention_factor`.
struct RopeTable {
  std::vector<float> inv_freq;  // [head_dim / 2]
  float attention_factor = 1;
};

// A row-major float matrix [rows, columns] of intermediate values, in the backend's own float type.
class Matrix {
 public:
  virtual ~Matrix() = default;
  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }
  std::int64_t max_rows() const { return max_rows_; }

 protected:
  Matrix(std::int64_t max_rows, std::int64_t columns) : max_rows_(max_rows), columns_(columns) {}
  std::int64_t max_rows_, columns_, rows_ = 0;
};

// The input of linear layers [rows, columns], encoded as their scheme wants it (InputType) in the backend's
// own layout: rounded, quantized with its scales, or packed into tiles.
class LinearInput {
 public:
  virtual ~LinearInput() = default;
  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }
  std::int64_t max_rows() const { return max_rows_; }
  InputType type() const { return type_; }

 protected:
  LinearInput(std::int64_t max_rows, std::int64_t columns) : max_rows_(max_rows), columns_(columns) {}
  std::int64_t max_rows_, columns_, rows_ = 0;
  InputType type_ = InputType::kNone;
};

// One or more stored matrices with the same input, joined along rows, ready to multiply.
class LinearWeight {
 public:
  virtual ~LinearWeight() = default;
  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }
  InputType input_type() const { return input_type_; }
  // InputType::kFp8Tensor: the largest input_scale of the joined parts.
  float input_scale() const { return input_scale_; }

 protected:
  std::int64_t rows_ = 0, columns_ = 0;
  InputType input_type_ = InputType::kNone;
  float input_scale_ = 0;
};

// How add_rms_norm, attention and gated_linear shall encode their output for the linear layer that follows.
struct InputEncoding {
  InputType type = InputType::kNone;
  float scale = 0;  // kFp8Tensor only
};
inline InputEncoding encoding_for(const LinearWeight& next) {
  return {next.input_type(), next.input_scale()};
}

// The token embedding [vocabulary, hidden] or a norm's weight [hidden], on the device.
class DeviceTensor {
 public:
  virtual ~DeviceTensor() = default;
};

// One expert layer: router [experts, hidden] and for each expert its gate and up (joined) and its down
// matrix.
struct ExpertWeights {
  std::unique_ptr<LinearWeight> router;
  std::vector<std::unique_ptr<LinearWeight>> gate_up, down;
  std::int64_t experts_per_token = 0;
};

class KvCache {
 public:
  virtual ~KvCache() = default;
  const KvCacheShape& shape() const { return shape_; }
  virtual std::int64_t bytes() const = 0;

 protected:
  explicit KvCache(const KvCacheShape& shape) : shape_(shape) {}
  KvCacheShape shape_;
};

// The memory that a backend computes in, in bytes.
struct MemoryInfo {
  std::int64_t total = 0, free = 0;
  std::int64_t peak_used = 0;  // the most that this process has had so far
  bool host = false;           // shared with everything else on the machine
};
// Memory of this process's machine, or of the container that limits it.
MemoryInfo host_memory();

// Steps of one token a sequence with little work on the host: what a step launches is recorded once for each
// size of step and replayed for later ones. Made by a backend and used with it alone.
class StepRecorder {
 public:
  virtual ~StepRecorder() = default;
  // begin_step(batch, cache), then `operations`, which are the same at every call of this recorder and
  // compute all rows of the step. Rows are added up to a size that was recorded, at most `most_rows` in all:
  // they write into block 0 of the cache, which no sequence may have, and draw tokens that nobody reads.
  virtual void run(const Batch& batch, KvCache& cache, std::int64_t most_rows,
                   const std::function<void()>& operations) = 0;
};

// Hidden states of many tokens that wait between operations, [rows, columns], rounded to bf16.
class RowStore {
 public:
  virtual ~RowStore() = default;
  // Rows [first, first + matrix.rows()) become those of the matrix.
  virtual void save(const Matrix& matrix, std::int64_t first) = 0;
  // `matrix` gets rows [first, first + count).
  virtual void load(std::int64_t first, std::int64_t count, Matrix& matrix) = 0;
};

class GptqSolver;

class Backend {
 public:
  virtual ~Backend() = default;

  // "reference", "cpu amx", "cpu avx512", ..., "cuda H200".
  virtual std::string name() const = 0;
  // The block size of KV caches that suits the attention kernels, in tokens.
  virtual std::int64_t preferred_block_size() const = 0;
  virtual MemoryInfo memory() const { return host_memory(); }
  // Waits for all operations before it.
  virtual void synchronize() {}
  // GB/s (1e9 bytes) at which the device reads `bytes` of its memory: the limit that decoding is compared
  // with. Allocates them.
  virtual double read_bandwidth(std::int64_t bytes) = 0;

  // Weights. Tensors may be views of a mapped file; the result keeps them alive where it still needs them.
  // Parts must agree in columns and input type; throws Error where the backend cannot compute with a scheme.
  virtual std::unique_ptr<LinearWeight> prepare_linear(std::vector<StoredLinear> parts) = 0;
  // A weight whose stored tensor stays in use, as the embedding may, and whose products are mostly of a few
  // rows: the language model's head.
  virtual std::unique_ptr<LinearWeight> prepare_head(StoredLinear head) {
    std::vector<StoredLinear> parts;
    parts.push_back(std::move(head));
    return prepare_linear(std::move(parts));
  }
  virtual std::unique_ptr<DeviceTensor> prepare_tensor(const Tensor& tensor) = 0;

  virtual std::unique_ptr<Matrix> make_matrix(std::int64_t max_rows, std::int64_t columns) = 0;
  // For products that the next operation reads; the backend may keep them in a shorter float type.
  virtual std::unique_ptr<Matrix> make_intermediate(std::int64_t max_rows, std::int64_t columns) {
    return make_matrix(max_rows, columns);
  }
  // For the residual. A backend may keep it in bf16 during steps of many rows: what fills it settles the
  // type. embed() may choose the shorter one, write() and RowStore::load() give float32.
  virtual std::unique_ptr<Matrix> make_residual(std::int64_t max_rows, std::int64_t columns) {
    return make_matrix(max_rows, columns);
  }
  virtual std::unique_ptr<LinearInput> make_linear_input(std::int64_t max_rows, std::int64_t columns) = 0;
  virtual std::unique_ptr<KvCache> make_kv_cache(const KvCacheShape& shape) = 0;

  // In host memory where the backend has no better place.
  virtual std::unique_ptr<RowStore> make_row_store(std::int64_t rows, std::int64_t columns);
  // Null where GPTQ is solved on the host (backend/gptq_solver.h). Once there is a solver, linear layers of
  // this backend give the same results in every run.
  virtual std::unique_ptr<GptqSolver> make_gptq_solver();

  // Starts a step: the operations that follow refer to this batch. Sizes and table entries are checked
  // (check()) against `cache`.
  virtual void begin_step(const Batch& batch, KvCache& cache) = 0;

  // Block `to` of every layer becomes a copy of block `from`: for sequences that part inside a block.
  virtual void copy_block(KvCache& cache, std::int64_t from, std::int64_t to) = 0;

  // out[t] = table[token_ids[t]]; out gets batch.tokens() rows.
  virtual void embed(const DeviceTensor& table, Matrix& out) = 0;

  // residual += delta (when delta is given, of make_intermediate()), rounded to the residual's type, then for
  // the rows in `rows` (all when empty): out = encode(residual * weight / sqrt(mean(residual^2) + eps)).
  // (Zhang and Sennrich 2019.)
  virtual void add_rms_norm(const Matrix* delta, Matrix& residual, const DeviceTensor& weight, float eps,
                            InputEncoding encoding, LinearInput& out,
                            std::span<const std::int32_t> rows = {}) = 0;

  // out[r, :] = W x[r, :] + bias
  virtual void linear(const LinearInput& in, const LinearWeight& weight, Matrix& out) = 0;

  // residual[r, :] += W x[r, :] + bias, rounded to the residual's type, as the product may be before. False,
  // and nothing done, where linear() and the addition of the next add_rms_norm() are as good.
  virtual bool linear_add(const LinearInput&, const LinearWeight&, Matrix&) { return false; }

  // `gate_up` joins gate and up, each [intermediate, hidden]:
  // out = encode(silu(gate x) * (up x)), silu(v) = v / (1 + exp(-v)).
  virtual void gated_linear(const LinearInput& in, const LinearWeight& gate_up, InputEncoding encoding,
                            LinearInput& out) = 0;

  // Rotates q and k of qkv [tokens, qkv_columns] in place and writes k and v into the cache.
  virtual void rope_and_store(const AttentionShape& shape, const RopeTable& rope, CacheLayer layer,
                              Matrix& qkv) = 0;

  // linear() into `qkv`, then rope_and_store(), which may be left to the attention() that follows: nothing
  // else reads qkv afterwards, and the cache not before it.
  virtual void qkv_linear(const LinearInput& in, const LinearWeight& weight, const AttentionShape& shape,
                          const RopeTable& rope, CacheLayer layer, Matrix& qkv) {
    linear(in, weight, qkv);
    rope_and_store(shape, rope, layer, qkv);
  }

  // Causal attention of every query over its sequence's cached keys, softmax(q k / sqrt(head_dim)) v.
  // With sliding_window w > 0 a query at position p sees positions (p - w, p]. out [tokens, heads *
  // head_dim].
  virtual void attention(const AttentionShape& shape, CacheLayer layer, std::int64_t sliding_window,
                         const Matrix& qkv, InputEncoding encoding, LinearInput& out) = 0;

  // Mixtral's sparse MLP: softmax over the router's logits, the top experts_per_token kept and renormalized
  // to sum 1, out = sum of weight * down(silu(gate x) * up x). `in` has InputType::kNone.
  virtual void experts(const LinearInput& in, const ExpertWeights& weights, Matrix& out) = 0;

  // Whether draw() and what follows it work, so that tokens are drawn without bringing logits to the host.
  virtual bool draws_tokens() const { return false; }
  // Draws a token for each row of `logits`, as batch.draws[first_draw], ... say.
  virtual void draw(const Matrix& logits, std::int64_t first_draw);
  // Draws for some rows of the matrix of the draw() launched last, from edited copies of their logits. The
  // spans may change once it has returned.
  virtual void draw_edited(const Matrix& logits, std::span<const EditedDraw> draws);
  // The tokens of the draw() launched last, and of draw_edited(): as many as `out` holds; -1 where a logit
  // was no number or none was above -infinity.
  virtual void read_drawn(std::span<std::int32_t> out);
  // Some rows of the matrix of the draw() launched last [rows, columns].
  virtual void read_rows(const Matrix& matrix, std::span<const std::int32_t> rows, std::span<float> out);
  // Null where steps are not recorded.
  virtual std::unique_ptr<StepRecorder> make_step_recorder() { return nullptr; }

  // Host access, after all operations before it. Row-major float32, exactly rows * columns values.
  virtual void read(const Matrix& matrix, std::span<float> out) = 0;
  virtual void read(const LinearInput& input, std::span<float> out) = 0;  // decoded
  virtual void write(std::span<const float> values, std::int64_t rows, Matrix& matrix) = 0;

  // hessian [columns, columns] += 2 X^T X for the rows X of `in` (GPTQ, Frantar et al. 2022, eq. 2); the
  // upper triangle (column >= row) is kept, host memory, float32.
  virtual void accumulate_hessian(const LinearInput& in, std::span<float> hessian) = 0;
};

enum class Isa { kScalar, kAvx2, kAvx512, kAmx };
// "scalar", "avx2", "avx512", "amx"; throws Error for another name.
Isa parse_isa(std::string_view name);
std::string_view isa_name(Isa isa);
// What this processor, and the kernel it runs under, can do; ascending.
std::vector<Isa> available_isas();

class ThreadPool;

// The plain float32 definition. Slow.
std::unique_ptr<Backend> make_reference_backend();
// The fast CPU backend. `pool` outlives it. Throws Error when the processor lacks `isa`. AMX rounds the
// inputs of linear layers to bf16, and for integer codes in a few rows then to 16-bit fixed point; with
// `float_inputs` it multiplies what is lost as well, for twice the products.
std::unique_ptr<Backend> make_cpu_backend(ThreadPool& pool, Isa isa, bool float_inputs = false);
bool built_with_cuda();
// Throws Error when this program was built without CUDA or there is no such device. With `float_residual`
// steps of many rows keep the residual in float32, too.
std::unique_ptr<Backend> make_cuda_backend(int device, bool float_residual = false);

}  // namespace bise
