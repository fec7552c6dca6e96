// Tokens that a GPU draws by itself, in recorded steps: those that the sampler draws from the same logits.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "engine/generator.h"
#include "engine/sampler.h"
#include "tests/cuda_backend.h"
#include "tests/model/tiny_model.h"

namespace bise {
namespace {

// Token ids with the remainder 0, 1, 2, 0, ... by three.
class EveryThird final : public TokenConstraint {
 public:
  std::unique_ptr<TokenConstraint> clone() const override { return std::make_unique<EveryThird>(*this); }
  void fill_mask(std::span<std::uint32_t> bits) override {
    for (std::size_t i = 0; i < bits.size() * 32; ++i) {
      const std::uint32_t bit = 1u << (i % 32);
      bits[i / 32] = i % 3 == next_ % 3 ? bits[i / 32] | bit : bits[i / 32] & ~bit;
    }
  }
  bool accept(std::int32_t) override { return ++next_ > 0; }
  void rollback(std::int64_t count) override { next_ -= static_cast<std::size_t>(count); }

 private:
  std::size_t next_ = 0;
};

const std::vector<SamplingParams>& kinds_of_sampling() {
  static const std::vector<SamplingParams> kinds = {
      {.temperature = 0},
      {.temperature = 1, .seed = 5},
      {.temperature = 0.8, .top_p = 0.9, .top_k = 20, .seed = 6},
      {.temperature = 1.7, .seed = 7},
      {.temperature = 0, .repetition_penalty = 1.3},
      {.temperature = 0.3, .seed = 8},
      {.temperature = 1.2, .top_p = 0.8, .min_p = 0.01, .seed = 9},
      {.temperature = 0.9,
       .top_p = 0.95,
       .presence_penalty = 1.5,
       .frequency_penalty = 0.7,
       .seed = 10,
       .min_tokens = 4,
       .stop_token_ids = {3, 5},
       .logit_bias = {{7, 4.5f}, {300, -100.f}},
       .bad_words = {{11}, {7, 8}}},
      {.temperature = 1, .seed = 11, .constraint = std::make_shared<EveryThird>()},
      {.temperature = 0.5, .seed = 12, .allowed_token_ids = {1, 2, 50, 319}},
      // One token is allowed, and removed: the sampler draws it all the same.
      {.temperature = 1, .seed = 13, .allowed_token_ids = {17}, .bad_words = {{17}}},
      // A device adds one bias to a token: on the host.
      {.temperature = 0, .logit_bias = {{7, 1.f}, {7, 2.f}}},
      {.temperature = 0, .logit_bias = {{9, 2.f}}, .logprobs = 1},  // on the host
  };
  return kinds;
}

// One token at a time, from logits on the host: the definition.
std::vector<std::int32_t> expected_output(Decoder& decoder, const GenerationRequest& request) {
  const std::int64_t vocabulary = decoder.config().vocab_size;
  Sampler sampler(request.sampling, 0, request.prompt, vocabulary);
  Sampler::Scratch scratch(vocabulary);
  std::vector<std::int32_t> tokens = request.prompt, output;
  for (std::int64_t i = 0; i < request.sampling.max_tokens; ++i) {
    const auto logits = all_logits(decoder, tokens, 32);
    output.push_back(sampler.sample(std::span(logits).last(static_cast<std::size_t>(vocabulary)), scratch));
    sampler.accept(output.back());
    tokens.push_back(output.back());
    const auto& stops = request.sampling.stop_token_ids;
    if (i >= request.sampling.min_tokens && std::ranges::find(stops, output.back()) != stops.end()) break;
  }
  return output;
}

std::vector<ModelConfig> models() {
  ModelConfig windows = tiny_config(), experts = tiny_config();
  windows.sliding_window = {0, 7};  // two block tables
  experts.architecture = "MixtralForCausalLM";
  experts.num_local_experts = 4;
  experts.num_experts_per_tok = 2;
  return {windows, experts};
}

class DeviceDraw : public testing::TestWithParam<ModelConfig> {};

TEST_P(DeviceDraw, EqualsTheSamplersInBatchesOfEverySize) {
  const auto backend = cuda_or_null();
  if (!backend) GTEST_SKIP() << "no GPU, or built without CUDA";
  const ModelConfig& config = GetParam();
  const TinyModel model = tiny_model(*backend, config);
  // Up to 32 rows in a step a row's result depends on that row alone. With 5 rows of logits at once a step's
  // tokens are drawn in pieces.
  for (const std::int64_t max_logit_rows : {16, 5}) {
    Decoder decoder(*backend, model.config, model.weights,
                    {.max_tokens = 32, .max_logit_rows = max_logit_rows});
    ThreadPool pool(2);
    Generator generator(decoder, pool,
                        {.max_num_seqs = 13, .max_model_len = 64, .enable_prefix_caching = false});
    std::vector<GenerationRequest> requests;
    std::vector<std::vector<std::int32_t>> expected;
    for (std::size_t i = 0; i < 13; ++i) {
      GenerationRequest request;
      request.prompt = random_tokens(4 + 2 * static_cast<std::int64_t>(i), config.vocab_size,
                                     static_cast<std::uint32_t>(i));
      request.sampling = kinds_of_sampling()[i % kinds_of_sampling().size()];
      // They end one after the other: steps of 13, 12, ... sequences.
      request.sampling.max_tokens = 6 + static_cast<std::int64_t>(i);
      requests.push_back(request);
      expected.push_back(expected_output(decoder, request));
    }
    // The first time steps are run and captured, later they are replayed.
    for (int time = 0; time < 3; ++time) {
      const auto results = generator.generate(requests);
      for (std::size_t i = 0; i < requests.size(); ++i)
        EXPECT_EQ(results[i].token_ids, expected[i]) << "request " << i << ", time " << time;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, DeviceDraw, testing::ValuesIn(models()),
                         [](const auto& each) { return each.param.architecture; });

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Flat and steep, with many ties, rounded to bf16, half of it masked, or with one token far above.
std::vector<float> random_logits(std::size_t count, std::mt19937& random) {
  const float deviations[] = {0, 0.01f, 0.3f, 1, 3, 10, 1000}, means[] = {-20, 0, 20};
  const float deviation = deviations[random() % 7], mean = means[random() % 3];
  std::normal_distribution<float> normal;
  const auto kind = random() % 5;
  std::vector<float> row(count);
  for (float& logit : row) {
    logit = mean + deviation * normal(random);
    if (kind == 1) logit = std::round(logit * 4) / 4;
    std::uint32_t bits = 0;
    std::memcpy(&bits, &logit, sizeof bits);
    bits &= 0xffff0000u;
    if (kind == 2) std::memcpy(&logit, &bits, sizeof bits);
    if (kind == 3 && random() % 2 == 0) logit = -kInfinity;
  }
  if (kind == 4) row[random() % count] += 15;
  row[random() % count] = mean + deviation;  // one at least is no -infinity
  return row;
}

SamplingParams random_sampling(std::mt19937& random) {
  const double temperatures[] = {0, 0.01, 0.2, 0.7, 1, 1.5, 5};
  const double shares[] = {1, 1, 0.9999, 0.99, 0.9, 0.5, 0.05, 1e-9}, least[] = {0, 0, 0, 1e-6, 0.05, 0.3, 1};
  const std::int64_t numbers[] = {0, 0, 1, 2, 20, 50, 300, 5000};
  SamplingParams params;
  params.temperature = temperatures[random() % 7];
  params.top_p = shares[random() % 8];
  params.top_k = numbers[random() % 8];
  params.min_p = least[random() % 7];
  params.seed = random();
  return params;
}

// Steps of one token a sequence, of which draw() sees the draws alone.
class DrawingStep {
 public:
  DrawingStep(Backend& backend, std::int32_t rows)
      : backend_(backend), cache_(backend.make_kv_cache({1, rows + 1, 16, 1, 64, DType::kBF16})) {
    for (std::int32_t row = 0; row < rows; ++row) {
      starts_.push_back(row);
      lengths_.push_back(1);
      blocks_.push_back(row + 1);
    }
    starts_.push_back(rows);
  }

  std::vector<std::int32_t> draw(std::span<const float> logits, std::span<const TokenDraw> draws,
                                 std::span<const EditedDraw> edited = {}) {
    const auto rows = static_cast<std::int64_t>(draws.size());
    const std::vector<std::int32_t> zeros(draws.size());
    Batch batch{.token_ids = zeros,
                .positions = zeros,
                .query_starts = starts_,
                .context_lengths = lengths_,
                .block_table = blocks_,
                .blocks_per_sequence = 1,
                .draws = draws};
    const auto matrix = backend_.make_matrix(rows, static_cast<std::int64_t>(logits.size()) / rows);
    backend_.write(logits, rows, *matrix);
    backend_.begin_step(batch, *cache_);
    backend_.draw(*matrix, 0);
    if (!edited.empty()) backend_.draw_edited(*matrix, edited);
    std::vector<std::int32_t> tokens(draws.size());
    backend_.read_drawn(tokens);
    return tokens;
  }

 private:
  Backend& backend_;
  std::unique_ptr<KvCache> cache_;
  std::vector<std::int32_t> starts_, lengths_, blocks_;
};

TEST(DeviceDrawRule, DrawsTheSamplersTokenFromTheSameLogits) {
  const auto backend = cuda_or_null();
  if (!backend) GTEST_SKIP() << "no GPU, or built without CUDA";
  constexpr std::int32_t kRows = 96;
  DrawingStep step(*backend, kRows);
  std::mt19937 random(1);
  for (const std::size_t vocabulary : {5, 1000, 1003, 32768, 49152, 131072, 151669}) {
    const auto size = static_cast<std::int64_t>(vocabulary);
    Sampler::Scratch scratch(size);
    std::vector<float> logits;
    std::vector<TokenDraw> draws;
    std::vector<std::int32_t> expected;
    std::vector<SamplingParams> sampling;
    for (std::int32_t row = 0; row < kRows; ++row) {
      const auto values = random_logits(vocabulary, random);
      sampling.push_back(random_sampling(random));
      Sampler sampler(sampling.back(), 0, {}, size);
      draws.push_back(*sampler.device_draw());
      expected.push_back(sampler.sample(values, scratch));
      logits.insert(logits.end(), values.begin(), values.end());
    }
    const auto drawn = step.draw(logits, draws);
    for (std::size_t row = 0; row < kRows; ++row)
      EXPECT_EQ(drawn[row], expected[row])
          << "vocabulary " << vocabulary << ", row " << row << ": temperature " << sampling[row].temperature
          << ", top_k " << sampling[row].top_k << ", top_p " << sampling[row].top_p << ", min_p "
          << sampling[row].min_p;
    EXPECT_EQ(step.draw(logits, draws), drawn) << "a second time";
  }
}

// A random part of the vocabulary, most often a small one.
std::vector<std::int32_t> random_part(std::size_t vocabulary, std::mt19937& random) {
  const std::size_t counts[] = {0, 1, 3, 40, 900}, count = counts[random() % 5];
  std::vector<std::int32_t> tokens(count);
  for (std::int32_t& token : tokens) token = static_cast<std::int32_t>(random() % vocabulary);
  return tokens;
}

SamplingParams random_edits(std::size_t vocabulary, std::mt19937& random) {
  const double factors[] = {1, 1, 1.1, 2, 0.5}, penalties[] = {0, 0, 0.1, 2, -1.3};
  SamplingParams params = random_sampling(random);
  params.repetition_penalty = factors[random() % 5];
  params.presence_penalty = penalties[random() % 5];
  params.frequency_penalty = penalties[random() % 5];
  auto biased = random_part(vocabulary, random);
  std::ranges::sort(biased);
  biased.erase(std::unique(biased.begin(), biased.end()), biased.end());
  for (const std::int32_t token : biased)
    params.logit_bias.push_back({token, static_cast<float>(random() % 400) / 3 - 60});
  params.allowed_token_ids = random_part(vocabulary, random);
  for (const std::int32_t token : random_part(vocabulary, random)) params.bad_words.push_back({token});
  params.stop_token_ids = random_part(vocabulary, random);
  params.stop_token_ids.push_back(-1);
  params.min_tokens = static_cast<std::int64_t>(random() % 4);
  return params;
}

TEST(DeviceDrawRule, EditsLogitsAsTheSamplerDoes) {
  const auto backend = cuda_or_null();
  if (!backend) GTEST_SKIP() << "no GPU, or built without CUDA";
  constexpr std::int32_t kRows = 64;
  DrawingStep step(*backend, kRows);
  std::mt19937 random(2);
  std::int64_t all_masked = 0;
  for (const std::size_t vocabulary : {37, 1000, 1003, 32768, 131072, 151669}) {
    const auto size = static_cast<std::int64_t>(vocabulary);
    Sampler::Scratch scratch(size);
    std::vector<float> logits;
    std::vector<TokenDraw> draws;
    std::vector<EditedDraw> edited;
    std::vector<std::int32_t> expected;
    std::vector<std::unique_ptr<Sampler>> samplers;  // the edits are theirs
    for (std::int32_t row = 0; row < kRows; ++row) {
      auto values = random_logits(vocabulary, random);
      const bool plain = random() % 4 == 0;
      const SamplingParams params = plain ? random_sampling(random) : random_edits(vocabulary, random);
      // A sampler wants a number among those that are allowed.
      if (!params.allowed_token_ids.empty())
        values[static_cast<std::size_t>(params.allowed_token_ids.front())] = -3;
      logits.insert(logits.end(), values.begin(), values.end());
      samplers.push_back(std::make_unique<Sampler>(params, 0, random_part(vocabulary, random), size));
      Sampler& sampler = *samplers.back();
      for (const std::int32_t token : random_part(vocabulary, random)) sampler.accept(token);
      draws.push_back(*sampler.device_draw());
      expected.push_back(sampler.sample(values, scratch));
      if (!sampler.edits_logits()) continue;
      edited.push_back({row, draws.back(), sampler.device_edits()});
      draws.back().factor = -1;
    }
    auto drawn = step.draw(logits, draws, edited);
    for (std::size_t row = 0; row < kRows; ++row) {
      // Where all is masked the sampler undoes it: a device leaves that to it.
      if (drawn[row] == -1 && draws[row].factor < 0) {
        ++all_masked;
        EXPECT_FALSE(samplers[row]->device_edits().removed.empty())
            << "vocabulary " << vocabulary << ", row " << row;
      } else {
        EXPECT_EQ(drawn[row], expected[row]) << "vocabulary " << vocabulary << ", row " << row;
      }
    }
    EXPECT_EQ(step.draw(logits, draws, edited), drawn) << "a second time";
  }
  EXPECT_LT(all_masked, 60) << "of 384";
}

TEST(DeviceDrawRule, SaysWhereALogitIsNoNumber) {
  const auto backend = cuda_or_null();
  if (!backend) GTEST_SKIP() << "no GPU, or built without CUDA";
  constexpr std::size_t kRows = 4, kVocabulary = 5000;
  std::vector<float> logits(kRows * kVocabulary, 1);
  logits[kVocabulary + 4999] = logits[2 * kVocabulary] = std::nanf("");
  const TokenDraw greedy, filtered{.factor = 1, .top_k = 9, .top_p = 0.5f};
  const std::vector<TokenDraw> draws = {filtered, filtered, greedy, greedy};
  const auto drawn = DrawingStep(*backend, kRows).draw(logits, draws);
  EXPECT_GE(drawn[0], 0);
  EXPECT_EQ(std::vector(drawn.begin() + 1, drawn.end()), (std::vector<std::int32_t>{-1, -1, 0}));
}

}  // namespace
}  // namespace bise
