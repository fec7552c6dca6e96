// Whole models on a GPU against reference/.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "backend/reference/reference_backend.h"
#include "tests/cuda_backend.h"
#include "tests/model/tiny_model.h"

namespace bise {
namespace {

struct Case {
  std::string name;
  ModelConfig config;
  std::int64_t tokens = 100;
  std::vector<std::int64_t> chunks = {100, 37, 1};  // tokens a step
};

std::vector<Case> cases() {
  ModelConfig window = tiny_config(), experts = tiny_config(), wide = tiny_config();
  window.sliding_window = {0, 7};
  experts.architecture = "MixtralForCausalLM";
  experts.num_local_experts = 4;
  experts.num_experts_per_tok = 2;
  wide.hidden_size = 576;  // no multiple of what kernels pad to
  wide.intermediate_size = 1536;
  wide.num_attention_heads = 9;
  wide.num_key_value_heads = 3;
  wide.head_dim = 64;
  // The residual of the last three is rounded: in their only step, or in its first.
  return {{"dense", tiny_config()},
          {"window", window},
          {"experts", experts},
          {"SmolLM2's widths", wide},
          {"dense, long", tiny_config(), 700, {700}},
          {"experts, long", experts, 600, {600}},
          {"SmolLM2's widths, long", wide, 560, {560, 512}}};
}

// ||a - b|| / ||b|| of each row, ascending.
std::vector<double> relative_errors(const std::vector<float>& a, const std::vector<float>& b,
                                    std::int64_t columns) {
  std::vector<double> errors;
  for (std::size_t first = 0; first < b.size(); first += static_cast<std::size_t>(columns)) {
    double difference = 0, length = 0;
    for (std::size_t i = first; i < first + static_cast<std::size_t>(columns); ++i) {
      difference += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
      length += std::pow(static_cast<double>(b[i]), 2);
    }
    errors.push_back(std::sqrt(difference / length));
  }
  std::ranges::sort(errors);
  return errors;
}

// Steps of so many tokens keep their residual in bf16 (cuda/cuda_backend.h).
constexpr std::int64_t kShortResidualRows = 512;

// The reference with its values rounded to bf16 where the GPU's are: inputs of linear layers, products
// between operations, rotated queries and keys, the residual of long steps, once an addition (cuBLASLt rounds
// the product before as well: the bounds hold without). Sums stay in double.
class RoundedReference final : public ReferenceBackend {
 public:
  std::unique_ptr<Matrix> make_intermediate(std::int64_t max_rows, std::int64_t columns) override {
    auto matrix = make_matrix(max_rows, columns);
    intermediates_.insert(matrix.get());
    return matrix;
  }
  std::unique_ptr<Matrix> make_residual(std::int64_t max_rows, std::int64_t columns) override {
    auto matrix = make_matrix(max_rows, columns);
    residual_ = matrix.get();
    return matrix;
  }
  void add_rms_norm(const Matrix* delta, Matrix& residual, const DeviceTensor& weight, float eps,
                    InputEncoding encoding, LinearInput& out, std::span<const std::int32_t> rows) override {
    if (delta && is_short(residual)) {
      add(dynamic_cast<const ReferenceMatrix&>(*delta).values, residual);
      delta = nullptr;
    }
    ReferenceBackend::add_rms_norm(delta, residual, weight, eps, encoding, out, rows);
    round(out);
  }
  void linear(const LinearInput& in, const LinearWeight& weight, Matrix& out) override {
    ReferenceBackend::linear(in, weight, out);
    round(out);
  }
  bool linear_add(const LinearInput& in, const LinearWeight& weight, Matrix& residual) override {
    if (!is_short(residual)) return false;
    const auto product = make_matrix(in.rows(), weight.rows());
    ReferenceBackend::linear(in, weight, *product);
    add(dynamic_cast<const ReferenceMatrix&>(*product).values, residual);
    return true;
  }
  void gated_linear(const LinearInput& in, const LinearWeight& gate_up, InputEncoding encoding,
                    LinearInput& out) override {
    ReferenceBackend::gated_linear(in, gate_up, encoding, out);
    round(out);
  }
  void rope_and_store(const AttentionShape& shape, const RopeTable& rope, CacheLayer layer,
                      Matrix& qkv) override {
    ReferenceBackend::rope_and_store(shape, rope, layer, qkv);
    round(qkv);
  }
  void attention(const AttentionShape& shape, CacheLayer layer, std::int64_t sliding_window,
                 const Matrix& qkv, InputEncoding encoding, LinearInput& out) override {
    ReferenceBackend::attention(shape, layer, sliding_window, qkv, encoding, out);
    round(out);
  }
  void experts(const LinearInput& in, const ExpertWeights& weights, Matrix& out) override {
    ReferenceBackend::experts(in, weights, out);
    round(out);
  }

 private:
  bool is_short(const Matrix& residual) const {
    return &residual == residual_ && residual.rows() >= kShortResidualRows;
  }
  static void add(const std::vector<float>& values, Matrix& residual) {
    std::vector<float>& sums = dynamic_cast<ReferenceMatrix&>(residual).values;
    for (std::int64_t i = 0; i < residual.rows() * residual.columns(); ++i) {
      const auto at = static_cast<std::size_t>(i);
      sums[at] = round_to_bf16(sums[at] + values[at]);
    }
  }
  void round(Matrix& matrix) const {
    if (!intermediates_.contains(&matrix)) return;
    for (float& value : dynamic_cast<ReferenceMatrix&>(matrix).values) value = round_to_bf16(value);
  }
  static void round(LinearInput& input) {
    for (float& value : dynamic_cast<ReferenceLinearInput&>(input).codes) value = round_to_bf16(value);
  }

  std::set<const Matrix*> intermediates_;
  const Matrix* residual_ = nullptr;  // of the decoder made last
};

// Rounding to bf16 alone, each time a relative error of up to 2^-9, grows in two layers of random weights
// with their residuals to a percent of a row's logits, and to two or three in the worst of 100 rows: that is
// measured, on the same model and tokens. The GPU's own order of sums, and the weights of attention in bf16,
// may add a quarter to the usual row and a half to the worst. Where a router finds two experts nearly equal,
// rounding changes its choice, that token's logits and a little of those after it: with experts, only the
// usual row is held.
constexpr double kUsual = 1.25, kWorst = 1.5;

TEST(CudaDecoder, LogitsAgreeWithReference) {
  const auto cuda = cuda_or_null();
  if (!cuda) GTEST_SKIP() << "no GPU, or built without CUDA";
  const auto reference = make_reference_backend();
  RoundedReference rounded;
  for (const Case& each : cases()) {
    SCOPED_TRACE(each.name);
    const TinyModel expected_model = tiny_model(*reference, each.config),
                    rounded_model = tiny_model(rounded, each.config), model = tiny_model(*cuda, each.config);
    const DecoderLimits limits{.max_tokens = std::max<std::int64_t>(128, each.tokens), .max_logit_rows = 128};
    Decoder expected_decoder(*reference, each.config, expected_model.weights, limits);
    Decoder rounded_decoder(rounded, each.config, rounded_model.weights, limits);
    Decoder decoder(*cuda, each.config, model.weights, limits);
    const auto tokens = random_tokens(each.tokens, each.config.vocab_size, 3);
    const auto expected = all_logits(expected_decoder, tokens, each.tokens);
    const auto by_rounding =
        relative_errors(all_logits(rounded_decoder, tokens, each.tokens), expected, each.config.vocab_size);
    const std::size_t usual = by_rounding.size() / 2;
    for (const std::int64_t chunk : each.chunks) {
      const auto errors =
          relative_errors(all_logits(decoder, tokens, chunk), expected, each.config.vocab_size);
      EXPECT_LT(errors[usual], kUsual * by_rounding[usual]) << chunk << " tokens a step";
      if (each.config.num_local_experts == 0) {
        EXPECT_LT(errors.back(), kWorst * by_rounding.back()) << chunk << " tokens a step";
      }
      RecordProperty(each.name + ", " + std::to_string(chunk),
                     std::to_string(errors[usual] / by_rounding[usual]) + " usual, " +
                         std::to_string(errors.back() / by_rounding.back()) + " worst");
    }
  }
}

}  // namespace
}  // namespace bise
