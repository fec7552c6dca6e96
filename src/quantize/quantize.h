// A checkpoint in, a quantized checkpoint out: compressed-tensors, or bitsandbytes for NF4. One decoder layer
// (and the calibration's hidden states) is in memory at a time. The output folder appears only when it is
// complete.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "base/thread_pool.h"
#include "model/loader.h"
#include "quantize/layer_quantizer.h"
#include "quantize/recipe.h"

namespace bise {

struct QuantizeRequest {
  std::filesystem::path output;
  bool replace_output = false;
  Recipe recipe;
  // Token ids of the calibration sequences; only for GPTQ.
  std::vector<std::vector<std::int32_t>> calibration;
};

struct QuantizeSummary {
  std::vector<ModuleReport> modules;
  double prepare_seconds = 0;    // weights on their way to the backend, as they were and quantized
  double calibrate_seconds = 0;  // two passes of every layer over the calibration tokens, with the Hessians
  double factor_seconds = 0;     // GPTQ only
  double solve_seconds = 0;      // column loops, rounding
  double write_seconds = 0;      // waited for: files are written while the next layer is quantized
  double total_seconds = 0;
  std::int64_t calibration_tokens = 0;
  std::int64_t device_peak_bytes = 0;  // 0 on the host
};

// Called after each decoder layer.
using LayerObserver = std::function<void(std::int64_t layers_done, std::int64_t layers)>;

// Throws Error when the model is quantized already, when the group size does not divide a layer's width, when
// the output exists, or for any bad input file; then nothing is left behind.
QuantizeSummary quantize_checkpoint(const ModelLoader& model, const QuantizeRequest& request,
                                    Backend& backend, ThreadPool& pool, const LayerObserver& layer_done);

}  // namespace bise
