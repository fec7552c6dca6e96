#include "quantize/device_gptq.h"

#include <cmath>

#include "base/clock.h"
#include "quantize/rtn.h"

namespace bise {

DeviceHessians observe_on_device(const LayerWeights& weights, std::int64_t index, CalibrationRun& run,
                                 GptqSolver& solver) {
  DeviceHessians hessians;
  run.observe(weights, index, [&](InputSite site, std::int64_t expert, const LinearInput& input) {
    auto& hessian = hessians[{site, expert}];
    if (!hessian) hessian = solver.make_hessian(input.columns());
    solver.accumulate(input, *hessian);
  });
  return hessians;
}

std::unique_ptr<DeviceFactor> factor_on_device(const DeviceHessian& hessian, std::int64_t sequences,
                                               const GptqOptions& options, GptqSolver& solver) {
  std::vector<float> diagonal = solver.diagonal(hessian);
  for (float& value : diagonal) value /= static_cast<float>(sequences);
  const GptqColumns columns = plan_columns(diagonal, options);
  return solver.factor(
      hessian,
      {.divisor = static_cast<float>(sequences), .order = columns.order, .damping = columns.damping});
}

DeviceGptqResult quantize_on_device(const Tensor& weight, const DeviceFactor& factor, const Recipe& recipe,
                                    GptqSolver& solver, ThreadPool& pool) {
  const Scheme& scheme = recipe.scheme;
  const std::int64_t rows = weight.dim(0), columns = weight.dim(1);
  const Arithmetic arithmetic(weight.dtype(), recipe.rounding);
  const auto matrix = solver.load(weight);
  const QuantParameters parameters = parameters_from_ranges(
      solver.ranges(*matrix, columns_per_group(scheme, columns)), rows, scheme, arithmetic, pool);
  ColumnsResult result = solver.quantize(
      *matrix, factor,
      {.scheme = scheme,
       .groups = parameters.groups,
       .scale = parameters.scale,
       .zero_point = parameters.zero_point,
       .product_dtype = recipe.rounding == Rounding::kReference ? weight.dtype() : DType::kF32,
       .derive_codes_again = recipe.gptq.derive_codes_again});
  return {.stored = store_packed(std::move(result.codes), rows, columns, scheme, parameters, weight.dtype()),
          .loss = result.loss,
          .relative_error =
              result.squared_weights > 0 ? std::sqrt(result.squared_error / result.squared_weights) : 0};
}

SolveSeconds quantize_layer_on_device(LayerTensors& layer, DeviceHessians hessians, std::int64_t sequences,
                                      const Recipe& recipe, GptqSolver& solver, ThreadPool& pool,
                                      const ModuleObserver& done) {
  SolveSeconds seconds;
  for (auto& [key, hessian] : hessians) {
    Stopwatch watch;
    const auto factor = factor_on_device(*hessian, sequences, recipe.gptq, solver);
    hessian.reset();
    seconds.factor += watch.seconds();
    watch.restart();
    for (NamedLinear* linear : layer.linears_at(key.first, key.second)) {
      if (is_ignored(recipe, linear->module)) continue;
      if (factor->round_to_nearest()) warn_round_to_nearest(linear->module);
      DeviceGptqResult result = quantize_on_device(linear->linear.weight, *factor, recipe, solver, pool);
      replace_linear(*linear, std::move(result.stored));
      ModuleReport report;
      report.module = linear->module;
      report.relative_error = result.relative_error;
      report.loss = result.loss;
      report.round_to_nearest = factor->round_to_nearest();
      done(report);
    }
    seconds.columns += watch.seconds();
  }
  return seconds;
}

}  // namespace bise
