#include "quantize/quantize.h"

#include <memory>

#include "base/clock.h"
#include "quantize/checkpoint_output.h"

namespace bise {
namespace {

// The quantized layer as it computes during calibration: its weights rounded, its inputs not.
LayerWeights prepare_for_calibration(Backend& backend, const ModelConfig& config, LayerTensors layer) {
  for (NamedLinear* linear : layer.linears()) linear->linear.scheme.input = InputType::kNone;
  return prepare_layer(backend, config, std::move(layer));
}

class CheckpointQuantizer {
 public:
  CheckpointQuantizer(const ModelLoader& model, const QuantizeRequest& request, Backend& backend,
                      ThreadPool& pool)
      : model_(model),
        recipe_(request.recipe),
        backend_(backend),
        pool_(pool),
        output_(model, request.recipe, request.output, request.replace_output) {
    if (recipe_.algorithm != Algorithm::kGptq) return;
    const Stopwatch watch;
    run_ = std::make_unique<CalibrationRun>(backend, model.config(), request.calibration);
    run_->embed(*backend.prepare_tensor(model.read_embed_tokens()),
                *backend.prepare_tensor(model.read_norm()));
    summary_.calibrate_seconds += watch.seconds();
  }

  void quantize_layer(std::int64_t index) {
    LayerTensors layer = model_.read_layer(index);
    LayerTensors original = layer;
    if (run_) {
      quantize_calibrated(index, layer);
    } else {
      const Stopwatch watch;
      quantize_layer_rtn(layer, recipe_, pool_, keep_report_);
      summary_.solve_seconds += watch.seconds();
    }
    output_.write_layer(layer);
    model_.release_layer(original);
  }

  QuantizeSummary finish() {
    output_.finish();
    summary_.total_seconds = total_.seconds();
    return std::move(summary_);
  }

 private:
  void quantize_calibrated(std::int64_t index, LayerTensors& layer) {
    Stopwatch watch;
    const LayerWeights before = prepare_layer(backend_, model_.config(), layer);
    const LayerHessians hessians = observe_hessians(before, index, *run_, backend_);
    summary_.calibrate_seconds += watch.seconds();
    watch.restart();
    quantize_layer_gptq(layer, hessians, recipe_, pool_, keep_report_);
    summary_.solve_seconds += watch.seconds();
    watch.restart();
    run_->advance(prepare_for_calibration(backend_, model_.config(), layer), index);
    summary_.calibrate_seconds += watch.seconds();
  }

  Stopwatch total_;
  const ModelLoader& model_;
  const Recipe& recipe_;
  Backend& backend_;
  ThreadPool& pool_;
  CheckpointOutput output_;
  std::unique_ptr<CalibrationRun> run_;  // only for GPTQ
  QuantizeSummary summary_;
  const ModuleObserver keep_report_ = [this](const ModuleReport& report) {
    summary_.modules.push_back(report);
  };
};

}  // namespace

QuantizeSummary quantize_checkpoint(const ModelLoader& model, const QuantizeRequest& request,
                                    Backend& backend, ThreadPool& pool, const LayerObserver& layer_done) {
  CheckpointQuantizer quantizer(model, request, backend, pool);
  const std::int64_t layers = model.config().num_hidden_layers;
  for (std::int64_t index = 0; index < layers; ++index) {
    quantizer.quantize_layer(index);
    layer_done(index + 1, layers);
  }
  return quantizer.finish();
}

}  // namespace bise
