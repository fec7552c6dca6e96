// GPTQ on a GPU against the host's: the same Hessian and weight in, the same scales and codes out, but where
// the rounding of a sum decides between two codes. Skipped without a GPU.
#include "quantize/device_gptq.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "tests/backend/conformance.h"
#include "tests/model/tiny_model.h"

namespace bise {
namespace {

constexpr std::int64_t kTokens = 700, kSequences = 7;

struct DeviceCase {
  std::string name, scheme;
  std::int64_t group_size, rows, columns;
  DType dtype = DType::kBF16;
  bool activation_order = true;
  Rounding rounding = Rounding::kFloat32;
};

const std::vector<DeviceCase> kCases = {
    {"W4A16 g128", "W4A16", 128, 256, 1536},
    {"W4A16 g64, 576 columns", "W4A16", 64, 192, 576},
    {"W4A16 g32, no order", "W4A16", 32, 100, 576, DType::kBF16, false},
    {"W4A16 g128, wide", "W4A16", 128, 96, 4096},
    {"W4A16_ASYM g64", "W4A16_ASYM", 64, 192, 576},
    {"W4A16_ASYM g128, F16", "W4A16_ASYM", 128, 96, 1536, DType::kF16},
    {"W8A16 g64", "W8A16", 64, 192, 576},
    {"W8A16 g128, F32", "W8A16", 128, 96, 1536, DType::kF32},
    {"W8A8", "W8A8", 0, 192, 1536},
    {"W8A8, 100 columns", "W8A8", 0, 48, 100},
    {"FP8", "FP8_DYNAMIC", 0, 192, 576},
    {"W4A16 g64, reference", "W4A16", 64, 192, 576, DType::kBF16, true, Rounding::kReference},
    {"W4A16_ASYM g64, reference", "W4A16_ASYM", 64, 192, 576, DType::kBF16, true, Rounding::kReference},
    {"W8A16 g64, F16, reference", "W8A16", 64, 96, 576, DType::kF16, true, Rounding::kReference},
    {"W8A8, reference", "W8A8", 0, 192, 576, DType::kBF16, false, Rounding::kReference},
    {"FP8, reference", "FP8_DYNAMIC", 0, 96, 576, DType::kBF16, true, Rounding::kReference},
};

// Inputs with a few large columns, correlated, three of them never reached and two equal; a weight.
struct DeviceProblem {
  Floats inputs;
  Tensor weight;
  Recipe recipe;

  explicit DeviceProblem(const DeviceCase& test) {
    recipe.scheme = parse_scheme(test.scheme);
    if (test.group_size > 0) recipe.scheme.group_size = test.group_size;
    recipe.rounding = test.rounding;
    recipe.gptq.static_activation_order = test.activation_order;
    recipe.gptq.derive_codes_again = test.rounding == Rounding::kReference;
    Random random(11);
    for (std::int64_t token = 0; token < kTokens; ++token) {
      const float shared = random.normal();
      for (std::int64_t c = 0; c < test.columns; ++c) {
        const float value = shared * static_cast<float>(c % 5) + random.normal(c % 61 == 7 ? 8 : 1);
        inputs.push_back(c % 97 == 3 ? 0 : round_to_bf16(value));
      }
      inputs.end()[-1] = inputs.end()[-2];
    }
    weight =
        from_float(random.normals(test.rows * test.columns, 0.02f), test.dtype, {test.rows, test.columns});
  }
};

class DeviceGptq : public testing::Test {
 protected:
  void SetUp() override {
    backend_ = cuda_or_null();
    if (!backend_) GTEST_SKIP() << "no GPU, or built without CUDA";
    solver_ = backend_->make_gptq_solver();
  }

  std::unique_ptr<DeviceHessian> hessian_of(const DeviceProblem& problem) {
    const std::int64_t columns = problem.weight.dim(1);
    auto hessian = solver_->make_hessian(columns);
    const auto in = encode(*backend_, problem.inputs, kTokens, columns, {});
    solver_->accumulate(*in, *hessian);
    return hessian;
  }
  DeviceGptqResult solve(const DeviceProblem& problem) {
    const auto factor = factor_on_device(*hessian_of(problem), kSequences, problem.recipe.gptq, *solver_);
    EXPECT_FALSE(factor->round_to_nearest());
    return quantize_on_device(problem.weight, *factor, problem.recipe, *solver_, pool_);
  }

  ThreadPool pool_{4};
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<GptqSolver> solver_;
};

Floats floats_of(const Tensor& tensor) {
  Floats values(as_size(tensor.elements()));
  to_float(tensor, values);
  return values;
}

Floats dequantized(const StoredLinear& stored) {
  Floats values(as_size(stored.rows * stored.columns));
  for (std::int64_t row = 0; row < stored.rows; ++row)
    dequantize_row(stored, row,
                   std::span(values).subspan(as_size(row * stored.columns), as_size(stored.columns)));
  return values;
}

// Of every row (w - q) H (w - q)^T, summed.
double proxy_loss(const Floats& weight, const StoredLinear& stored, const Floats& hessian) {
  const Floats values = dequantized(stored);
  const std::int64_t columns = stored.columns;
  double total = 0;
  std::vector<double> off(as_size(columns));
  for (std::int64_t row = 0; row < stored.rows; ++row) {
    for (std::int64_t i = 0; i < columns; ++i)
      off[as_size(i)] = weight[as_size(row * columns + i)] - values[as_size(row * columns + i)];
    for (std::int64_t i = 0; i < columns; ++i) {
      double sum = 0;
      for (std::int64_t j = 0; j < columns; ++j) sum += hessian[as_size(i * columns + j)] * off[as_size(j)];
      total += sum * off[as_size(i)];
    }
  }
  return total;
}

// Sums of 4096 products on the tensor cores are cut to float32 256 times, each time by up to 2^-23 of what
// they have come to.
TEST_F(DeviceGptq, HessiansAreExactToSeventeenBits) {
  const DeviceProblem problem(kCases[1]);
  const std::int64_t columns = problem.weight.dim(1);
  auto hessian = solver_->make_hessian(columns);
  const auto in = encode(*backend_, problem.inputs, kTokens, columns, {});
  constexpr int kCalls = 9;
  for (int call = 0; call < kCalls; ++call) solver_->accumulate(*in, *hessian);
  const Floats actual = solver_->read(*hessian);
  std::vector<double> expected(actual.size());
  for (std::int64_t i = 0; i < columns; ++i)
    for (std::int64_t j = i; j < columns; ++j) {
      double sum = 0;
      for (std::int64_t token = 0; token < kTokens; ++token)
        sum += static_cast<double>(problem.inputs[as_size(token * columns + i)]) *
               problem.inputs[as_size(token * columns + j)];
      expected[as_size(i * columns + j)] = expected[as_size(j * columns + i)] = 2 * kCalls * sum;
    }
  double worst = 0;
  for (std::int64_t i = 0; i < columns; ++i)
    for (std::int64_t j = 0; j < columns; ++j) {
      const double length =
          std::sqrt(expected[as_size(i * (columns + 1))] * expected[as_size(j * (columns + 1))]);
      const double off = std::abs(actual[as_size(i * columns + j)] - expected[as_size(i * columns + j)]);
      if (length > 0)
        worst = std::max(worst, off / length);
      else
        EXPECT_EQ(off, 0);
    }
  EXPECT_LT(worst, 0x1p-17);
  RecordProperty("worst", std::to_string(worst * 1e9) + "e-9");
}

TEST_F(DeviceGptq, CodesAreTheHosts) {
  for (const DeviceCase& test : kCases) {
    SCOPED_TRACE(test.name);
    const DeviceProblem problem(test);
    const auto hessian = hessian_of(problem);
    const Recipe& recipe = problem.recipe;
    const auto factor = factor_on_device(*hessian, kSequences, recipe.gptq, *solver_);
    ASSERT_FALSE(factor->round_to_nearest());
    const DeviceGptqResult actual = quantize_on_device(problem.weight, *factor, recipe, *solver_, pool_);

    Floats sums = solver_->read(*hessian);
    for (float& value : sums) value /= static_cast<float>(kSequences);
    const GptqFactor host_factor = factor_hessian(sums, test.columns, recipe.gptq);
    const Floats weight = floats_of(problem.weight);
    const GptqResult expected = quantize_gptq(weight, test.rows, host_factor, recipe.scheme,
                                              Arithmetic(test.dtype, test.rounding), recipe.gptq, pool_);

    EXPECT_TRUE(std::ranges::equal(actual.stored.scale.bytes(), expected.stored.scale.bytes()));
    EXPECT_TRUE(std::ranges::equal(actual.stored.zero_point.bytes(), expected.stored.zero_point.bytes()));
    const Floats a = dequantized(actual.stored), b = dequantized(expected.stored);
    std::int64_t differing = 0;
    for (std::size_t i = 0; i < a.size(); ++i) differing += a[i] != b[i];
    EXPECT_LE(static_cast<double>(differing), 0.001 * static_cast<double>(a.size()));
    EXPECT_NEAR(actual.loss, expected.loss, 1e-4 * expected.loss);
    const double proxy = proxy_loss(weight, expected.stored, sums);
    EXPECT_NEAR(proxy_loss(weight, actual.stored, sums), proxy, 1e-4 * proxy);
    double difference = 0, total = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      difference += (static_cast<double>(weight[i]) - a[i]) * (static_cast<double>(weight[i]) - a[i]);
      total += static_cast<double>(weight[i]) * weight[i];
    }
    EXPECT_NEAR(actual.relative_error, std::sqrt(difference / total), 1e-6);
    RecordProperty(test.name, std::to_string(differing) + " codes differ");
  }
}

TEST_F(DeviceGptq, TwoRunsAgreeToTheBit) {
  for (const int index : {0, 3, 4}) {
    const DeviceCase& test = kCases[static_cast<std::size_t>(index)];
    SCOPED_TRACE(test.name);
    const DeviceProblem problem(test);
    const DeviceGptqResult first = solve(problem);
    auto other_backend = make_cuda_backend(0);
    auto other_solver = other_backend->make_gptq_solver();
    std::swap(solver_, other_solver);
    std::swap(backend_, other_backend);
    const DeviceGptqResult second = solve(problem);
    EXPECT_TRUE(std::ranges::equal(first.stored.weight.bytes(), second.stored.weight.bytes()));
    EXPECT_EQ(first.loss, second.loss);
  }
}

TEST_F(DeviceGptq, WithoutAFactorItRoundsToNearest) {
  DeviceProblem problem(kCases[1]);
  problem.recipe.gptq.dampening_frac = -2;  // no Hessian is positive definite after this
  const auto hessian = hessian_of(problem);
  const auto factor = factor_on_device(*hessian, kSequences, problem.recipe.gptq, *solver_);
  ASSERT_TRUE(factor->round_to_nearest());
  const StoredLinear actual =
      quantize_on_device(problem.weight, *factor, problem.recipe, *solver_, pool_).stored;
  const GptqFactor host_factor =
      factor_hessian(solver_->read(*hessian), problem.weight.dim(1), problem.recipe.gptq);
  ASSERT_TRUE(host_factor.round_to_nearest);
  const StoredLinear expected =
      quantize_gptq(floats_of(problem.weight), problem.weight.dim(0), host_factor, problem.recipe.scheme,
                    Arithmetic(DType::kBF16, Rounding::kFloat32), problem.recipe.gptq, pool_)
          .stored;
  EXPECT_TRUE(std::ranges::equal(actual.weight.bytes(), expected.weight.bytes()));
}

// A layer of Mixtral, each of whose experts has a Hessian of its own, quantized on the device and on the
// host.
class DeviceGptqExperts : public DeviceGptq {
 protected:
  void SetUp() override {
    DeviceGptq::SetUp();
    config_.architecture = "MixtralForCausalLM";
    config_.num_local_experts = 4;
    config_.num_experts_per_tok = 2;
    config_.num_hidden_layers = 1;
    config_.sliding_window.assign(1, 0);
    for (std::uint32_t i = 0; i < kSequences; ++i)
      sequences_.push_back(random_tokens(60 + 7 * i, config_.vocab_size, i));
    recipe_.scheme = parse_scheme("W4A16");
    recipe_.scheme.group_size = 64;
    recipe_.algorithm = Algorithm::kGptq;
  }

  // Before layer 0.
  CalibrationRun embedded(Backend& backend) {
    CalibrationRun run(backend, config_, sequences_);
    RandomTensors random(3);
    run.embed(*backend.prepare_tensor(random.tensor({config_.vocab_size, config_.hidden_size}, 1)),
              *backend.prepare_tensor(random.tensor({config_.hidden_size}, 0.2f, 1)));
    return run;
  }
  LayerTensors layer() {
    RandomTensors random(4);
    return tiny_layer(config_, 0, random);
  }
  ModuleObserver keep_in(std::vector<ModuleReport>& reports) {
    return [&reports](const ModuleReport& report) { reports.push_back(report); };
  }

  ModelConfig config_ = tiny_config();
  std::vector<std::vector<std::int32_t>> sequences_;
  Recipe recipe_;
};

TEST_F(DeviceGptqExperts, FromTheSameHessiansCodesAreTheHosts) {
  for (const Rounding rounding : {Rounding::kFloat32, Rounding::kReference}) {
    recipe_.rounding = rounding;
    recipe_.gptq.derive_codes_again = rounding == Rounding::kReference;
    CalibrationRun run = embedded(*backend_);
    LayerTensors actual = layer(), expected = layer();
    DeviceHessians hessians = observe_on_device(prepare_layer(*backend_, config_, layer()), 0, run, *solver_);
    ASSERT_EQ(hessians.size(), 3 + as_size(config_.num_local_experts));
    LayerHessians sums;
    for (const auto& [key, hessian] : hessians) {
      sums[key] = {hessian->columns(), solver_->read(*hessian)};
      for (float& value : sums[key].values) value /= static_cast<float>(run.sequences());
    }
    std::vector<ModuleReport> reports, expected_reports;
    quantize_layer_on_device(actual, std::move(hessians), run.sequences(), recipe_, *solver_, pool_,
                             keep_in(reports));
    quantize_layer_gptq(expected, sums, recipe_, pool_, keep_in(expected_reports));
    ASSERT_EQ(reports.size(), 4 + 3 * as_size(config_.num_local_experts));
    ASSERT_EQ(reports.size(), expected_reports.size());
    for (std::size_t i = 0; i < reports.size(); ++i) {
      const ModuleReport &a = reports[i], &b = expected_reports[i];
      EXPECT_EQ(a.module, b.module);
      EXPECT_NEAR(a.loss, b.loss, 1e-4 * b.loss) << a.module;
      EXPECT_NEAR(a.relative_error, b.relative_error, 1e-4 * b.relative_error) << a.module;
      EXPECT_FALSE(a.round_to_nearest) << a.module;
    }
    const auto linears = actual.linears(), expected_linears = expected.linears();
    for (std::size_t i = 0; i < linears.size(); ++i) {
      const StoredLinear &a = linears[i]->linear, &b = expected_linears[i]->linear;
      EXPECT_TRUE(std::ranges::equal(a.scale.bytes(), b.scale.bytes())) << linears[i]->module;
      const Floats values = dequantized(a), expected_values = dequantized(b);
      std::int64_t differing = 0;
      for (std::size_t k = 0; k < values.size(); ++k) differing += values[k] != expected_values[k];
      EXPECT_LE(static_cast<double>(differing), 0.001 * static_cast<double>(values.size()))
          << linears[i]->module;
    }
    // The quantized experts compute the next layer's inputs.
    run.advance(prepare_layer(*backend_, config_, actual), 0);
    DeviceHessians next = observe_on_device(prepare_layer(*backend_, config_, layer()), 0, run, *solver_);
    for (const float value : solver_->diagonal(*next[{InputSite::kDown, 3}]))
      EXPECT_TRUE(std::isfinite(value) && value >= 0);
  }
}

// Inputs differ by the rounding of the layer's products.
TEST_F(DeviceGptqExperts, FromTheSameTokensTheLossIsTheReferences) {
  CalibrationRun run = embedded(*backend_), host_run = embedded(reference());
  LayerTensors actual = layer(), expected = layer();
  std::vector<ModuleReport> reports, expected_reports;
  quantize_layer_on_device(actual,
                           observe_on_device(prepare_layer(*backend_, config_, layer()), 0, run, *solver_),
                           run.sequences(), recipe_, *solver_, pool_, keep_in(reports));
  quantize_layer_gptq(
      expected, observe_hessians(prepare_layer(reference(), config_, layer()), 0, host_run, reference()),
      recipe_, pool_, keep_in(expected_reports));
  ASSERT_EQ(reports.size(), expected_reports.size());
  for (std::size_t i = 0; i < reports.size(); ++i) {
    EXPECT_EQ(reports[i].module, expected_reports[i].module);
    EXPECT_NEAR(reports[i].loss, expected_reports[i].loss, 0.01 * expected_reports[i].loss)
        << reports[i].module;
  }
}

}  // namespace
}  // namespace bise
