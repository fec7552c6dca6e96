// GPTQ of one decoder layer on a device that solves it itself (backend/gptq_solver.h): what gptq.h and
// layer_quantizer.h do on the host. Scales and the order of columns are decided here, by the same functions;
// only codes and sums of errors come back from the device.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <utility>

#include "backend/gptq_solver.h"
#include "base/thread_pool.h"
#include "quantize/layer_quantizer.h"

namespace bise {

using DeviceHessians = std::map<std::pair<InputSite, std::int64_t>, std::unique_ptr<DeviceHessian>>;

// observe_hessians() with the sums left on the device; they are not divided by the number of sequences yet.
DeviceHessians observe_on_device(const LayerWeights& weights, std::int64_t index, CalibrationRun& run,
                                 GptqSolver& solver);

// The columns' order and the factor of hessian / sequences.
std::unique_ptr<DeviceFactor> factor_on_device(const DeviceHessian& hessian, std::int64_t sequences,
                                               const GptqOptions& options, GptqSolver& solver);

struct DeviceGptqResult {
  StoredLinear stored;
  double loss = 0;
  double relative_error = 0;  // |W - Q| / |W|
};

// quantize_gptq() of `weight` [rows, columns] (BF16, F16 or F32) with the recipe's scheme and rounding.
DeviceGptqResult quantize_on_device(const Tensor& weight, const DeviceFactor& factor, const Recipe& recipe,
                                    GptqSolver& solver, ThreadPool& pool);

// quantize_layer_gptq() of a layer whose inputs were `sequences` sequences. Hessians are freed one by one.
SolveSeconds quantize_layer_on_device(LayerTensors& layer, DeviceHessians hessians, std::int64_t sequences,
                                      const Recipe& recipe, GptqSolver& solver, ThreadPool& pool,
                                      const ModuleObserver& done);

}  // namespace bise
