// Times single operations of a backend, with random values, as a decoder layer would call them. Where steps
// are recorded, many calls are replayed together, so that starting them costs nothing; weights and caches are
// taken in turn, so that no cache of the device holds them. Belongs to the backend's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "model/step_batch.h"
#include "tensor/scheme.h"

namespace bise {

struct LayerShape {
  std::int64_t hidden = 4096, intermediate = 12288, heads = 32, kv_heads = 8, head_dim = 128;
  std::int64_t vocabulary = 131072;
  AttentionShape attention() const { return {heads, kv_heads, head_dim}; }
};

// One operation at one number of rows.
struct KernelTime {
  std::string operation;
  std::int64_t rows = 0;
  double seconds = 0;
  double bytes = 0;       // that must be read and written at least, each once
  double operations = 0;  // multiplications and additions of products
};

class KernelBench {
 public:
  // A measurement takes at least `seconds`; the context of sequences that decode has `context` tokens.
  KernelBench(Backend& backend, const LayerShape& shape, std::int64_t context, double seconds);

  // The linear layers of a decoder layer with weights of `scheme`, gate and up with what joins them, and the
  // operations that encode their inputs.
  void layer(const Scheme& scheme, const std::vector<std::int64_t>& rows, std::vector<KernelTime>& times);
  // The output matrix in bf16 and the drawing of tokens by several rules.
  void head(const std::vector<std::int64_t>& rows, std::vector<KernelTime>& times);
  // Multiplications and additions a second of a product of 4096 rows with a matrix [4096, 4096].
  double product_rate(const Scheme& scheme);

 private:
  struct Step;
  using Call = std::function<void(std::int64_t)>;
  Step make_step(std::int64_t rows) const;
  double seconds_of(Step& step, const Call& call) const;
  void draw(Step& step, std::int64_t rows, std::vector<KernelTime>& times);
  // What a layer does with a product's results.
  enum class Use { kIntermediate, kGate, kAdd };
  struct ProductTime {
    double seconds = 0;
    bool added = false;  // by the product itself, or left to the next norm
  };
  ProductTime product_time(Step& step, const std::vector<std::unique_ptr<LinearWeight>>& weights,
                           std::int64_t rows, Use use);
  std::unique_ptr<LinearInput> encoded_rows(std::int64_t rows, std::int64_t columns, InputEncoding encoding);
  // As embed() gives it to a step.
  std::unique_ptr<Matrix> residual_of(Step& step);
  std::unique_ptr<Matrix> random_matrix(std::int64_t rows, std::int64_t columns, bool intermediate);

  Backend& backend_;
  LayerShape shape_;
  std::int64_t context_;
  double seconds_;
};

}  // namespace bise
