// Times of everything but linear layers at SmolLM2-135M's and a 1.1B Llama's shapes: attention, rotation and
// storing, norms, the Hessian. One iteration is a whole model's layers for attention, rotation and norms.
#include <benchmark/benchmark.h>

#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/bandwidth.h"
#include "base/thread_pool.h"
#include "tensor/float_types.h"

namespace bise {
namespace {

struct Model {
  const char* name;
  AttentionShape shape;
  std::int64_t layers, hidden, intermediate;
};
const Model kModels[] = {{"smollm2", {9, 3, 64}, 30, 576, 1536}, {"1.1b", {32, 4, 64}, 22, 2048, 5632}};

std::vector<float> normals(std::int64_t count) {
  std::mt19937 engine(1);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(engine);
  return values;
}

// `sequences` sequences of `context` tokens, the last `queries` of each computed in one step.
class Step {
 public:
  Step(const Model& model, Isa isa, int threads, std::int64_t sequences, std::int64_t context,
       std::int64_t queries)
      : model_(model), pool_(threads), backend_(make_cpu_backend(pool_, isa)) {
    const std::int64_t block_size = backend_->preferred_block_size();
    const std::int64_t blocks = (context + block_size - 1) / block_size;
    cache_ = backend_->make_kv_cache({model.layers, blocks * sequences, block_size, model.shape.num_kv_heads,
                                      model.shape.head_dim, DType::kBF16});
    qkv_ = backend_->make_matrix(sequences * context, model.shape.qkv_columns());
    out_ = backend_->make_linear_input(sequences * context, model.shape.num_heads * model.shape.head_dim);
    rope_.inv_freq.assign(static_cast<std::size_t>(model.shape.head_dim / 2), 0.01f);
    for (std::int64_t i = 0; i < blocks * sequences; ++i) table_.push_back(static_cast<std::int32_t>(i));
    begin(sequences, context, context, blocks);
    for (std::int64_t layer = 0; layer < model.layers; ++layer) {
      fill();
      store(layer);
    }
    begin(sequences, context, queries, blocks);
    fill();
  }

  void fill() {
    static const std::vector<float> values = normals(8192 * 3072);
    const std::int64_t rows = batch_.tokens();
    backend_->write(std::span(values).first(static_cast<std::size_t>(rows * qkv_->columns())), rows, *qkv_);
  }
  void store(std::int64_t layer) { backend_->rope_and_store(model_.shape, rope_, {0, layer}, *qkv_); }
  void attend(std::int64_t layer) { backend_->attention(model_.shape, {0, layer}, 0, *qkv_, {}, *out_); }
  const Model& model() const { return model_; }

 private:
  void begin(std::int64_t sequences, std::int64_t context, std::int64_t queries, std::int64_t blocks) {
    const auto tokens = static_cast<std::size_t>(sequences * queries);
    ids_.assign(tokens, 0);
    positions_.clear(), starts_.clear(), contexts_.clear();
    for (std::int64_t s = 0; s <= sequences; ++s) starts_.push_back(static_cast<std::int32_t>(s * queries));
    for (std::int64_t s = 0; s < sequences; ++s) {
      contexts_.push_back(static_cast<std::int32_t>(context));
      for (std::int64_t q = context - queries; q < context; ++q)
        positions_.push_back(static_cast<std::int32_t>(q));
    }
    batch_ = {ids_, positions_, starts_, contexts_, table_, blocks};
    backend_->begin_step(batch_, *cache_);
  }

  const Model& model_;
  ThreadPool pool_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<Matrix> qkv_;
  std::unique_ptr<LinearInput> out_;
  RopeTable rope_;
  std::vector<std::int32_t> ids_, positions_, starts_, contexts_, table_;
  Batch batch_;
};

void attention(benchmark::State& state, const Model& model, Isa isa, std::int64_t sequences,
               std::int64_t context, std::int64_t queries) {
  Step step(model, isa, static_cast<int>(state.range(0)), sequences, context, queries);
  for (auto _ : state)
    for (std::int64_t layer = 0; layer < model.layers; ++layer) step.attend(layer);
  const auto bytes = sequences * context * model.layers * model.shape.num_kv_heads * model.shape.head_dim * 4;
  state.counters["cache"] =
      benchmark::Counter(static_cast<double>(bytes), benchmark::Counter::kIsIterationInvariantRate,
                         benchmark::Counter::OneK::kIs1024);
}

void rope_and_store(benchmark::State& state, const Model& model, Isa isa, std::int64_t sequences,
                    std::int64_t context, std::int64_t queries) {
  Step step(model, isa, static_cast<int>(state.range(0)), sequences, context, queries);
  for (auto _ : state)
    for (std::int64_t layer = 0; layer < model.layers; ++layer) step.store(layer);
}

void norms(benchmark::State& state, const Model& model, Isa isa, std::int64_t rows) {
  ThreadPool pool(static_cast<int>(state.range(0)));
  const auto backend = make_cpu_backend(pool, isa);
  const auto residual = backend->make_matrix(rows, model.hidden),
             delta = backend->make_matrix(rows, model.hidden);
  const auto out = backend->make_linear_input(rows, model.hidden);
  const std::vector<float> values = normals(rows * model.hidden),
                           gain(static_cast<std::size_t>(model.hidden), 1);
  backend->write(values, rows, *residual);
  backend->write(values, rows, *delta);
  const auto weight = backend->prepare_tensor(from_float(gain, DType::kF32, {model.hidden}));
  for (auto _ : state)
    for (std::int64_t i = 0; i < 2 * model.layers + 1; ++i)
      backend->add_rms_norm(delta.get(), *residual, *weight, 1e-5f, {}, *out);
}

void hessian(benchmark::State& state, Isa isa, std::int64_t rows, std::int64_t columns) {
  ThreadPool pool(static_cast<int>(state.range(0)));
  const auto backend = make_cpu_backend(pool, isa);
  const auto residual = backend->make_matrix(rows, columns);
  const auto in = backend->make_linear_input(rows, columns);
  backend->write(normals(rows * columns), rows, *residual);
  const std::vector<float> gain(static_cast<std::size_t>(columns), 1);
  const auto weight = backend->prepare_tensor(from_float(gain, DType::kF32, {columns}));
  backend->add_rms_norm(nullptr, *residual, *weight, 1e-5f, {}, *in);
  std::vector<float> result(static_cast<std::size_t>(columns * columns));
  for (auto _ : state) backend->accumulate_hessian(*in, result);
  // Of the triangle that is kept.
  state.counters["FLOP"] = benchmark::Counter(static_cast<double>(rows * columns * columns),
                                              benchmark::Counter::kIsIterationInvariantRate);
}

void bandwidth(benchmark::State& state, std::int64_t bytes) {
  ThreadPool pool(static_cast<int>(state.range(0)));
  double best = 0;
  for (auto _ : state) best = measure_read_bandwidth(pool, bytes) * 1e9;
  state.counters["bytes"] = best;
}

void add(benchmark::internal::Benchmark* one) {
  one->Arg(1)->Arg(2)->ArgName("threads")->UseRealTime()->Unit(benchmark::kMicrosecond);
}

void register_all() {
  for (const Isa isa : available_isas()) {
    const std::string suffix = "/" + std::string(isa_name(isa));
    for (const Model& model : kModels) {
      const std::string name = model.name + suffix;
      for (const auto& [kind, sequences, context, queries] : {std::tuple{"prefill512/", 1, 512, 512},
                                                              {"decode600/", 1, 600, 1},
                                                              {"decode4096/", 1, 4096, 1},
                                                              {"decode32x300/", 32, 300, 1}}) {
        add(benchmark::RegisterBenchmark(("attention/" + (kind + name)).c_str(), attention, std::cref(model),
                                         isa, sequences, context, queries));
        add(benchmark::RegisterBenchmark(("rope_and_store/" + (kind + name)).c_str(), rope_and_store,
                                         std::cref(model), isa, sequences, context, queries));
      }
      for (const std::int64_t rows : {1, 512})
        add(benchmark::RegisterBenchmark(("norms" + std::to_string(rows) + "/" + name).c_str(), norms,
                                         std::cref(model), isa, rows));
    }
    for (const std::int64_t columns : {576, 1536})
      add(benchmark::RegisterBenchmark(("hessian512/" + std::to_string(columns) + suffix).c_str(), hessian,
                                       isa, std::int64_t{512}, columns));
  }
  for (const std::int64_t bytes : {std::int64_t{96} << 20, std::int64_t{1} << 30})
    add(benchmark::RegisterBenchmark(("read/MiB:" + std::to_string(bytes >> 20)).c_str(), bandwidth, bytes)
            ->Iterations(1));
}

}  // namespace
}  // namespace bise

int main(int argc, char** argv) {
  bise::register_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
