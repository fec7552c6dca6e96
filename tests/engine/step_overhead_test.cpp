// What a decoding step costs besides the backend's operations: measured with a backend that does nothing.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>
#include <vector>

#include "base/clock.h"
#include "engine/generator.h"
#include "tests/model/tiny_model.h"

// Counts the allocations of this test program. (g++ does not see that the pair below belongs together.)
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
namespace {
std::atomic<std::int64_t> allocations = 0;
}
void* operator new(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}

namespace bise {
namespace {

struct IdleMatrix final : Matrix {
  IdleMatrix(std::int64_t max_rows, std::int64_t columns) : Matrix(max_rows, columns) {}
};
struct IdleInput final : LinearInput {
  IdleInput(std::int64_t max_rows, std::int64_t columns) : LinearInput(max_rows, columns) {}
};
struct IdleWeight final : LinearWeight {};
struct IdleTensor final : DeviceTensor {};
struct IdleCache final : KvCache {
  explicit IdleCache(const KvCacheShape& shape) : KvCache(shape) {}
  std::int64_t bytes() const override { return 0; }
};

class IdleBackend final : public Backend {
 public:
  std::string name() const override { return "idle"; }
  std::int64_t preferred_block_size() const override { return 16; }
  double read_bandwidth(std::int64_t) override { return 0; }
  std::unique_ptr<LinearWeight> prepare_linear(std::vector<StoredLinear>) override {
    return std::make_unique<IdleWeight>();
  }
  std::unique_ptr<DeviceTensor> prepare_tensor(const Tensor&) override {
    return std::make_unique<IdleTensor>();
  }
  std::unique_ptr<Matrix> make_matrix(std::int64_t max_rows, std::int64_t columns) override {
    return std::make_unique<IdleMatrix>(max_rows, columns);
  }
  std::unique_ptr<LinearInput> make_linear_input(std::int64_t max_rows, std::int64_t columns) override {
    return std::make_unique<IdleInput>(max_rows, columns);
  }
  std::unique_ptr<KvCache> make_kv_cache(const KvCacheShape& shape) override {
    return std::make_unique<IdleCache>(shape);
  }
  void begin_step(const Batch&, KvCache&) override {}
  void copy_block(KvCache&, std::int64_t, std::int64_t) override {}
  void embed(const DeviceTensor&, Matrix&) override {}
  void add_rms_norm(const Matrix*, Matrix&, const DeviceTensor&, float, InputEncoding, LinearInput&,
                    std::span<const std::int32_t>) override {}
  void linear(const LinearInput&, const LinearWeight&, Matrix&) override {}
  void gated_linear(const LinearInput&, const LinearWeight&, InputEncoding, LinearInput&) override {}
  void rope_and_store(const AttentionShape&, const RopeTable&, CacheLayer, Matrix&) override {}
  void attention(const AttentionShape&, CacheLayer, std::int64_t, const Matrix&, InputEncoding,
                 LinearInput&) override {}
  void experts(const LinearInput&, const ExpertWeights&, Matrix&) override {}
  void read(const Matrix&, std::span<float>) override {}
  void read(const LinearInput&, std::span<float>) override {}
  void write(std::span<const float>, std::int64_t, Matrix&) override {}
  void accumulate_hessian(const LinearInput&, std::span<float>) override {}
};

TEST(StepOverhead, NoAllocationAndUnderTwentyMicroseconds) {
  constexpr std::int64_t kTokens = 400;
  ThreadPool pool(2);
  IdleBackend backend;
  ModelConfig config = tiny_config();
  config.num_hidden_layers = 32;
  config.sliding_window.assign(32, 0);
  config.vocab_size = 1000;
  const TinyModel model = tiny_model(backend, config);
  Decoder decoder(backend, model.config, model.weights, {.max_tokens = 64, .max_logit_rows = 8});
  for (const bool sampled : {false, true}) {
    for (const std::int64_t sequences : {1, 8}) {
      Generator generator(decoder, pool, {.max_num_seqs = 8, .max_model_len = 4096});
      GenerationRequest request;
      request.prompt = {1, 2, 3};
      request.sampling.temperature = sampled ? 1 : 0;
      request.sampling.top_p = sampled ? 0.9 : 1;
      request.sampling.max_tokens = kTokens;
      const std::vector<GenerationRequest> requests(static_cast<std::size_t>(sequences), request);
      std::vector<double> seconds;
      seconds.reserve(kTokens);
      std::int64_t first_count = -1, last_count = -1;
      Stopwatch watch;
      generator.generate(requests, [&](std::size_t which, std::int32_t) {
        if (which != 0) return true;
        seconds.push_back(watch.seconds());
        watch.restart();
        last_count = allocations;
        // Queues and threads have their memory after the first steps.
        if (seconds.size() == 10) first_count = last_count;
        return true;
      });
      ASSERT_EQ(static_cast<std::int64_t>(seconds.size()), kTokens);
      EXPECT_EQ(last_count, first_count) << sequences << " sequences, sampled " << sampled;
      std::nth_element(seconds.begin(), seconds.begin() + kTokens / 2, seconds.end());
      const double median = seconds[kTokens / 2] * 1e6;
      RecordProperty(sampled ? "sampled_" + std::to_string(sequences) : "greedy_" + std::to_string(sequences),
                     std::to_string(median) + " us");
      // Sampling is counted apart: it grows with vocabulary and batch.
      if (!sampled && sequences == 1) {
        EXPECT_LT(median, 20);
      }
    }
  }
}

}  // namespace
}  // namespace bise
