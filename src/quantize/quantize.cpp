#include "quantize/quantize.h"

#include <algorithm>
#include <future>
#include <memory>
#include <utility>

#include "base/clock.h"
#include "quantize/checkpoint_output.h"
#include "quantize/device_gptq.h"

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
    write([this] { output_.write_unquantized(); });
    if (recipe_.algorithm != Algorithm::kGptq) return;
    solver_ = backend.make_gptq_solver();
    const Stopwatch watch;
    run_ = std::make_unique<CalibrationRun>(backend, model.config(), request.calibration);
    run_->embed(*backend.prepare_tensor(model.read_embed_tokens()),
                *backend.prepare_tensor(model.read_norm()));
    summary_.calibration_tokens = run_->tokens();
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
    // A device leaves the host's memory to the files, and dropping their pages takes time.
    const bool release = backend_.memory().host;
    write([this, release, quantized = std::move(layer), original = std::move(original)]() mutable {
      output_.write_layer(quantized);
      if (release) model_.release_layer(original);
    });
  }

  QuantizeSummary finish() {
    wait_for_writing();
    const Stopwatch watch;
    output_.finish();
    summary_.write_seconds += watch.seconds();
    summary_.total_seconds = total_.seconds();
    return std::move(summary_);
  }

 private:
  void quantize_calibrated(std::int64_t index, LayerTensors& layer) {
    Stopwatch watch;
    const auto lap = [&](double& seconds) {
      backend_.synchronize();
      seconds += watch.seconds();
      watch.restart();
    };
    LayerWeights weights = prepare_layer(backend_, model_.config(), layer);
    lap(summary_.prepare_seconds);
    SolveSeconds solving;
    if (solver_) {
      DeviceHessians hessians = observe_on_device(weights, index, *run_, *solver_);
      lap(summary_.calibrate_seconds);
      solving = quantize_layer_on_device(layer, std::move(hessians), run_->sequences(), recipe_, *solver_,
                                         pool_, keep_report_);
    } else {
      const LayerHessians hessians = observe_hessians(weights, index, *run_, backend_);
      lap(summary_.calibrate_seconds);
      solving = quantize_layer_gptq(layer, hessians, recipe_, pool_, keep_report_);
    }
    summary_.factor_seconds += solving.factor;
    summary_.solve_seconds += solving.columns;
    watch.restart();
    weights = prepare_for_calibration(backend_, model_.config(), layer);
    lap(summary_.prepare_seconds);
    run_->advance(weights, index);
    lap(summary_.calibrate_seconds);
  }

  // One piece of writing at a time, beside the computation.
  void write(std::function<void()> piece) {
    wait_for_writing();
    writing_ = std::async(std::launch::async, std::move(piece));
  }
  void wait_for_writing() {
    if (!writing_.valid()) return;
    const Stopwatch watch;
    writing_.get();
    summary_.write_seconds += watch.seconds();
  }

  Stopwatch total_;
  const ModelLoader& model_;
  const Recipe& recipe_;
  Backend& backend_;
  ThreadPool& pool_;
  CheckpointOutput output_;
  std::unique_ptr<GptqSolver> solver_;   // where the backend has one
  std::unique_ptr<CalibrationRun> run_;  // only for GPTQ
  QuantizeSummary summary_;
  std::future<void> writing_;  // ends before what it uses
  const ModuleObserver keep_report_ = [this](const ModuleReport& report) {
    summary_.modules.push_back(report);
    if (const MemoryInfo memory = backend_.memory(); !memory.host)
      summary_.device_peak_bytes = std::max(summary_.device_peak_bytes, memory.total - memory.free);
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
