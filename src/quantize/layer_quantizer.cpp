#include "quantize/layer_quantizer.h"

#include <cmath>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "quantize/rtn.h"

namespace bise {
namespace {

std::vector<float> widened(const Tensor& weight) {
  std::vector<float> values(static_cast<std::size_t>(weight.elements()));
  to_float(weight, values);
  return values;
}

double relative_error(std::span<const float> weight, const StoredLinear& stored) {
  std::vector<float> row(static_cast<std::size_t>(stored.columns));
  double difference = 0, total = 0;
  for (std::int64_t r = 0; r < stored.rows; ++r) {
    dequantize_row(stored, r, row);
    for (std::int64_t i = 0; i < stored.columns; ++i) {
      const double value = weight[static_cast<std::size_t>(r * stored.columns + i)];
      difference += (value - row[static_cast<std::size_t>(i)]) * (value - row[static_cast<std::size_t>(i)]);
      total += value * value;
    }
  }
  return total > 0 ? std::sqrt(difference / total) : 0;
}

}  // namespace

void replace_linear(NamedLinear& linear, StoredLinear stored) {
  stored.bias = linear.linear.bias;
  linear.linear = std::move(stored);
}

void warn_round_to_nearest(const std::string& module) {
  log_warning(
      "{}: the Hessian is not positive definite, so the weights are rounded to nearest; more "
      "calibration samples or a larger --dampening-frac may help",
      module);
}

void quantize_layer_rtn(LayerTensors& layer, const Recipe& recipe, ThreadPool& pool,
                        const ModuleObserver& done) {
  for (NamedLinear* linear : layer.linears()) {
    if (is_ignored(recipe, linear->module)) continue;
    const std::vector<float> weight = widened(linear->linear.weight);
    const Arithmetic arithmetic(linear->linear.weight.dtype(), recipe.rounding);
    replace_linear(*linear, quantize_rtn(weight, linear->linear.rows, linear->linear.columns, recipe.scheme,
                                         arithmetic, pool));
    ModuleReport report;
    report.module = linear->module;
    report.relative_error = relative_error(weight, linear->linear);
    done(report);
  }
}

LayerHessians observe_hessians(const LayerWeights& weights, std::int64_t index, CalibrationRun& run,
                               Backend& backend) {
  LayerHessians hessians;
  run.observe(weights, index, [&](InputSite site, std::int64_t expert, const LinearInput& input) {
    Hessian& hessian = hessians[{site, expert}];
    hessian.columns = input.columns();
    hessian.values.resize(static_cast<std::size_t>(input.columns() * input.columns()));
    backend.accumulate_hessian(input, hessian.values);
  });
  // The mean over the sequences: the codes do not change, and the loss compares with the reference's.
  for (auto& [key, hessian] : hessians)
    for (float& value : hessian.values) value /= static_cast<float>(run.sequences());
  return hessians;
}

SolveSeconds quantize_layer_gptq(LayerTensors& layer, const LayerHessians& hessians, const Recipe& recipe,
                                 ThreadPool& pool, const ModuleObserver& done) {
  SolveSeconds seconds;
  for (const auto& [key, hessian] : hessians) {
    Stopwatch watch;
    const GptqFactor factor = factor_hessian(hessian.values, hessian.columns, recipe.gptq);
    seconds.factor += watch.seconds();
    watch.restart();
    for (NamedLinear* linear : layer.linears_at(key.first, key.second)) {
      if (is_ignored(recipe, linear->module)) continue;
      if (factor.round_to_nearest) warn_round_to_nearest(linear->module);
      const std::vector<float> weight = widened(linear->linear.weight);
      const Arithmetic arithmetic(linear->linear.weight.dtype(), recipe.rounding);
      GptqResult result =
          quantize_gptq(weight, linear->linear.rows, factor, recipe.scheme, arithmetic, recipe.gptq, pool);
      replace_linear(*linear, std::move(result.stored));
      ModuleReport report;
      report.module = linear->module;
      report.relative_error = relative_error(weight, linear->linear);
      report.loss = result.loss;
      report.round_to_nearest = factor.round_to_nearest;
      done(report);
    }
    seconds.columns += watch.seconds();
  }
  return seconds;
}

}  // namespace bise
