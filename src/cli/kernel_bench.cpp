#include "cli/kernel_bench.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <set>

#include "base/clock.h"
#include "cli/random_weights.h"
#include "model/rope.h"
#include "tensor/float_types.h"

namespace bise {
namespace {

// Prompts of this length make up steps of more rows than are recorded.
constexpr std::int64_t kMostRecorded = 512, kPromptTokens = 2048;
// What is taken in turn has so many bytes: no cache holds it.
constexpr double kWorkingSet = 512.0 * 1024 * 1024;
constexpr std::int64_t kMostCopies = 128, kRecordedCalls = 128;

double code_bytes(InputType type) {
  return type == InputType::kNone ? 2 : 1;
}

std::int64_t copies_of(double bytes) {
  return std::clamp<std::int64_t>(static_cast<std::int64_t>(kWorkingSet / bytes), 2, kMostCopies);
}

double stored(const StoredLinear& linear) {
  return static_cast<double>(stored_bytes(linear));
}

Tensor ones(std::int64_t count) {
  return Tensor::of<float>(DType::kF32, {count}, std::vector<float>(static_cast<std::size_t>(count), 1));
}

}  // namespace

// The tokens and the cache of a step of so many rows: sequences that decode, or prompts.
struct KernelBench::Step {
  std::int64_t sequences, queries, context, layers;
  std::unique_ptr<KvCache> cache;
  StepBatch batch;
  std::vector<TokenDraw> draws;
  Batch view;

  double tokens() const { return static_cast<double>(sequences * queries); }
  CacheLayer layer(std::int64_t call) const { return {.slot = call % layers}; }
};

KernelBench::KernelBench(Backend& backend, const LayerShape& shape, std::int64_t context, double seconds)
    : backend_(backend), shape_(shape), context_(context), seconds_(seconds) {}

KernelBench::Step KernelBench::make_step(std::int64_t rows) const {
  const bool decodes = rows <= kMostRecorded;
  const std::int64_t queries = decodes ? 1 : std::min(rows, kPromptTokens);
  const std::int64_t sequences = std::max<std::int64_t>(1, rows / queries);
  const std::int64_t context = decodes ? context_ : queries;
  const std::int64_t block = backend_.preferred_block_size(), blocks = (context + block - 1) / block;
  const double layer_bytes =
      static_cast<double>((1 + sequences * blocks) * block * shape_.kv_heads * shape_.head_dim * 4);
  Step step{.sequences = sequences,
            .queries = queries,
            .context = context,
            .layers = std::min<std::int64_t>(copies_of(layer_bytes), 36),
            .cache = nullptr,
            .batch = StepBatch(sequences * queries, sequences, blocks),
            .draws = std::vector<TokenDraw>(static_cast<std::size_t>(sequences * queries)),
            .view = {}};
  step.cache = backend_.make_kv_cache(
      {step.layers, 1 + sequences * blocks, block, shape_.kv_heads, shape_.head_dim, DType::kBF16});
  const std::vector<std::int32_t> tokens(static_cast<std::size_t>(queries));
  std::vector<std::int32_t> table(static_cast<std::size_t>(blocks));
  std::int32_t next = 1;
  for (std::int64_t s = 0; s < sequences; ++s) {
    std::iota(table.begin(), table.end(), next);
    next += static_cast<std::int32_t>(blocks);
    step.batch.add(tokens, context - queries, table);
  }
  step.view = step.batch.view();
  step.view.draws = step.draws;
  return step;
}

// Of one call.
double KernelBench::seconds_of(Step& step, const Call& call) const {
  std::int64_t calls = 4;
  std::function<void()> many = [&] {
    for (std::int64_t i = 0; i < calls; ++i) call(i);
  };
  const auto recorder = step.queries == 1 ? backend_.make_step_recorder() : nullptr;
  std::function<void()> run = many;
  if (recorder) {
    calls = kRecordedCalls;
    run = [&] { recorder->run(step.view, *step.cache, step.sequences, many); };
  } else {
    backend_.begin_step(step.view, *step.cache);
  }
  for (int i = 0; i < 3; ++i) run();
  backend_.synchronize();
  for (std::int64_t runs = 1;; runs *= 2) {
    const Stopwatch watch;
    for (std::int64_t i = 0; i < runs; ++i) run();
    backend_.synchronize();
    const double seconds = watch.seconds();
    if (seconds >= seconds_) return seconds / static_cast<double>(runs * calls);
  }
}

std::unique_ptr<Matrix> KernelBench::random_matrix(std::int64_t rows, std::int64_t columns,
                                                   bool intermediate) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(rows * columns));
  // Bits enough for any use, without a long wait.
  const std::size_t drawn = std::min<std::size_t>(values.size(), 1 << 20);
  for (std::size_t i = 0; i < drawn; ++i) values[i] = normal(random);
  for (std::size_t i = drawn; i < values.size(); ++i) values[i] = values[i - drawn];
  auto matrix =
      intermediate ? backend_.make_intermediate(rows, columns) : backend_.make_matrix(rows, columns);
  backend_.write(values, rows, *matrix);
  return matrix;
}

std::unique_ptr<LinearInput> KernelBench::encoded_rows(std::int64_t rows, std::int64_t columns,
                                                       InputEncoding encoding) {
  const auto residual = random_matrix(rows, columns, false);
  const auto weight = backend_.prepare_tensor(ones(columns));
  auto in = backend_.make_linear_input(rows, columns);
  backend_.add_rms_norm(nullptr, *residual, *weight, 1e-5f, encoding, *in);
  return in;
}

std::unique_ptr<Matrix> KernelBench::residual_of(Step& step) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(shape_.hidden));
  for (float& value : values) value = normal(random);
  const auto table = backend_.prepare_tensor(from_float(values, DType::kBF16, {1, shape_.hidden}));
  auto residual = backend_.make_residual(step.view.tokens(), shape_.hidden);
  backend_.begin_step(step.view, *step.cache);
  backend_.embed(*table, *residual);
  backend_.synchronize();
  return residual;
}

KernelBench::ProductTime KernelBench::product_time(Step& step,
                                                   const std::vector<std::unique_ptr<LinearWeight>>& weights,
                                                   std::int64_t rows, Use use) {
  const LinearWeight& first = *weights.front();
  const auto in = encoded_rows(rows, first.columns(), encoding_for(first));
  const auto inner = backend_.make_linear_input(rows, use == Use::kGate ? first.rows() / 2 : 1);
  const auto out = backend_.make_intermediate(rows, use == Use::kGate ? 1 : first.rows());
  const auto residual = use == Use::kAdd ? residual_of(step) : nullptr;
  ProductTime time;
  time.seconds = seconds_of(step, [&](std::int64_t i) {
    const LinearWeight& weight = *weights[static_cast<std::size_t>(i) % weights.size()];
    if (use == Use::kGate) return backend_.gated_linear(*in, weight, encoding_for(weight), *inner);
    time.added = residual && backend_.linear_add(*in, weight, *residual);
    if (!time.added) backend_.linear(*in, weight, *out);
  });
  return time;
}

void KernelBench::layer(const Scheme& scheme, const std::vector<std::int64_t>& all_rows,
                        std::vector<KernelTime>& times) {
  const AttentionShape attention = shape_.attention();
  const std::int64_t attended = attention.num_heads * attention.head_dim;
  struct Linear {
    std::string name;
    std::int64_t rows, columns;
    Use use = Use::kIntermediate;
  };
  const std::vector<Linear> linears = {{"qkv_proj", attention.qkv_columns(), shape_.hidden},
                                       {"o_proj", shape_.hidden, attended, Use::kAdd},
                                       {"gate_up_proj", 2 * shape_.intermediate, shape_.hidden, Use::kGate},
                                       {"down_proj", shape_.hidden, shape_.intermediate, Use::kAdd}};
  InputEncoding encoding;
  std::set<std::int64_t> added;  // numbers of rows whose products add to the residual
  for (const Linear& linear : linears) {
    const StoredLinear weight = random_linear(scheme, linear.rows, linear.columns, 1);
    std::vector<std::unique_ptr<LinearWeight>> copies(static_cast<std::size_t>(copies_of(stored(weight))));
    for (auto& copy : copies) copy = backend_.prepare_linear({weight});
    encoding = encoding_for(*copies.front());
    const bool gates = linear.use == Use::kGate;
    const auto outputs = static_cast<double>(gates ? linear.rows / 2 : linear.rows);
    const double code = code_bytes(encoding.type);
    for (const std::int64_t rows : all_rows) {
      Step step = make_step(rows);
      const ProductTime time = product_time(step, copies, rows, linear.use);
      if (time.added) added.insert(rows);
      const double result = gates ? code : time.added ? 2 + 2 : 2;
      times.push_back({linear.name, rows, time.seconds,
                       stored(weight) + static_cast<double>(rows) *
                                            (static_cast<double>(linear.columns) * code + outputs * result),
                       2.0 * static_cast<double>(rows * linear.rows * linear.columns)});
    }
  }

  const double code = code_bytes(encoding.type), hidden = static_cast<double>(shape_.hidden);
  const double key_columns = static_cast<double>(attention.num_kv_heads * attention.head_dim);
  const RopeTable rope = make_rope_table({}, shape_.head_dim);
  const auto gain = backend_.prepare_tensor(ones(shape_.hidden));
  for (const std::int64_t rows : all_rows) {
    Step step = make_step(rows);
    const double tokens = step.tokens();
    const auto residual = residual_of(step);
    const auto delta = added.contains(rows) ? nullptr : random_matrix(rows, shape_.hidden, true);
    const auto normed = backend_.make_linear_input(rows, shape_.hidden);
    times.push_back({delta ? "add, norm, encode" : "norm, encode", rows,
                     seconds_of(step,
                                [&](std::int64_t) {
                                  backend_.add_rms_norm(delta.get(), *residual, *gain, 1e-5f, encoding,
                                                        *normed);
                                }),
                     tokens * hidden * (delta ? 4 + 4 + 2 + code : 2 + code), 0});
    const auto qkv = random_matrix(rows, attention.qkv_columns(), true);
    const double columns = static_cast<double>(attention.qkv_columns());
    times.push_back(
        {"rotary, cache write", rows,
         seconds_of(step,
                    [&](std::int64_t i) { backend_.rope_and_store(attention, rope, step.layer(i), *qkv); }),
         tokens * (columns + columns - key_columns + 2 * key_columns) * 2, 0});
    const auto out = backend_.make_linear_input(rows, attended);
    const double context = static_cast<double>(step.context), queries = static_cast<double>(step.queries);
    const double seen = context - (queries - 1) / 2;  // keys of a query on average
    times.push_back({"attention, encode", rows,
                     seconds_of(step,
                                [&](std::int64_t i) {
                                  backend_.attention(attention, step.layer(i), 0, *qkv, encoding, *out);
                                }),
                     static_cast<double>(step.sequences) * context * key_columns * 4 +
                         tokens * static_cast<double>(attended) * (2 + code),
                     4 * tokens * seen * static_cast<double>(attended)});
  }
}

void KernelBench::head(const std::vector<std::int64_t>& all_rows, std::vector<KernelTime>& times) {
  const StoredLinear weight = random_linear({}, shape_.vocabulary, shape_.hidden, 1);
  std::vector<std::unique_ptr<LinearWeight>> copies(2);
  for (auto& copy : copies) copy = backend_.prepare_linear({weight});
  for (const std::int64_t rows : all_rows) {
    if (rows > kMostRecorded) continue;  // prompts have logits for their last tokens alone
    Step step = make_step(rows);
    const auto in = encoded_rows(rows, shape_.hidden, {});
    const auto logits = backend_.make_matrix(rows, shape_.vocabulary);
    const double values = static_cast<double>(rows * shape_.vocabulary);
    times.push_back({"lm_head", rows,
                     seconds_of(step,
                                [&](std::int64_t i) {
                                  backend_.linear(*in, *copies[static_cast<std::size_t>(i % 2)], *logits);
                                }),
                     stored(weight) + values * 4 + static_cast<double>(rows * shape_.hidden) * 2,
                     2 * values * static_cast<double>(shape_.hidden)});
    if (backend_.draws_tokens()) draw(step, rows, times);
  }
}

void KernelBench::draw(Step& step, std::int64_t rows, std::vector<KernelTime>& times) {
  // Flat as a trained model's logits never are: top_p and min_p leave many thousands of tokens.
  const auto logits = random_matrix(rows, shape_.vocabulary, false);
  const double bytes = static_cast<double>(rows * shape_.vocabulary) * 4;
  const TokenDraw noise{.factor = 1, .key_low = 1, .key_high = 2};
  TokenDraw top_k = noise, top_p = noise, min_p = noise;
  top_k.top_k = 50;
  top_p.top_p = 0.9f;
  min_p.smallest = std::log(0.05f);
  TokenDraw chat = top_k;
  chat.top_p = top_p.top_p;
  struct Kind {
    std::string name;
    std::vector<TokenDraw> draws;  // of rows in turn
  };
  const std::vector<Kind> kinds = {{"draw greedy", {TokenDraw{}}},
                                   {"draw temperature", {noise}},
                                   {"draw min_p 0.05", {min_p}},
                                   {"draw top_k 50", {top_k}},
                                   {"draw top_p 0.9", {top_p}},
                                   {"draw top_k, top_p", {chat}},
                                   {"draw mixed", {TokenDraw{}, noise, min_p, top_k, top_p, chat}}};
  for (const Kind& kind : kinds) {
    for (std::size_t row = 0; row < step.draws.size(); ++row) {
      step.draws[row] = kind.draws[row % kind.draws.size()];
      step.draws[row].key_low += static_cast<std::uint32_t>(row);
    }
    times.push_back(
        {kind.name, rows, seconds_of(step, [&](std::int64_t) { backend_.draw(*logits, 0); }), bytes, 0});
  }
}

double KernelBench::product_rate(const Scheme& scheme) {
  constexpr std::int64_t kSide = 4096;
  std::vector<std::unique_ptr<LinearWeight>> weight;
  weight.push_back(backend_.prepare_linear({random_linear(scheme, kSide, kSide, 1)}));
  Step step = make_step(kSide);
  return 2.0 * std::pow(static_cast<double>(kSide), 3) /
         product_time(step, weight, kSide, Use::kIntermediate).seconds;
}

}  // namespace bise
