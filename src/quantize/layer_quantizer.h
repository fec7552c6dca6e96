// Quantizes the linear layers of one decoder layer: each by itself (round to nearest), or from what the
// calibration tokens show it (GPTQ).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/thread_pool.h"
#include "quantize/calibrate.h"
#include "quantize/recipe.h"

namespace bise {

// One line of the summary.
struct ModuleReport {
  std::string module;
  double relative_error = 0;      // |W - Q| / |W|, Frobenius norms
  double loss = 0;                // GPTQ only: its quadratic error on the calibration inputs
  bool round_to_nearest = false;  // GPTQ gave up: the Hessian was not positive definite
};
using ModuleObserver = std::function<void(const ModuleReport&)>;

// Puts `stored` in the place of the original, whose bias stays.
void replace_linear(NamedLinear& linear, StoredLinear stored);
void warn_round_to_nearest(const std::string& module);

struct SolveSeconds {
  double factor = 0;   // Hessians to Cholesky factors
  double columns = 0;  // column loops
};

// Replaces every linear layer of `layer` that the recipe does not ignore by its round-to-nearest form.
void quantize_layer_rtn(LayerTensors& layer, const Recipe& recipe, ThreadPool& pool,
                        const ModuleObserver& done);

// Linear layers that read the same input, (site, expert), share one Hessian.
struct Hessian {
  std::int64_t columns = 0;
  std::vector<float> values;  // [columns, columns], upper triangle
};
using LayerHessians = std::map<std::pair<InputSite, std::int64_t>, Hessian>;

// Runs layer `index` on all tokens of `run`. `weights` is the layer as it was, ready to compute.
LayerHessians observe_hessians(const LayerWeights& weights, std::int64_t index, CalibrationRun& run,
                               Backend& backend);

// The same as quantize_layer_rtn by GPTQ.
SolveSeconds quantize_layer_gptq(LayerTensors& layer, const LayerHessians& hessians, const Recipe& recipe,
                                 ThreadPool& pool, const ModuleObserver& done);

}  // namespace bise
