#include "engine/memory_plan.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "tests/model/test_backends.h"
#include "tests/model/tiny_model.h"

namespace bise {
namespace {

constexpr std::int64_t kGiB = std::int64_t{1} << 30;

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(MemoryPlan, BlocksOfASequence) {
  struct Case {
    std::vector<std::int64_t> windows;
    std::int64_t tokens, in_flight, expected;
  };
  const std::vector<Case> cases = {
      {{0}, 1, 8192, 1},
      {{0}, 16, 8192, 1},
      {{0}, 17, 8192, 2},
      {{0}, 32768, 8192, 2048},
      {{4096}, 32768, 8192, (4095 + 8192 + 15) / 16 + 1},  // the window and what is in flight, and one
      {{4096}, 100, 8192, 7},                              // all of a short one
      {{0, 1024, 1024, 1024}, 32768, 2048, 2048 + 3 * ((1023 + 2048 + 15) / 16 + 1)},
  };
  for (const Case& one : cases)
    EXPECT_EQ((KvCost{1, 16, one.windows}.blocks_for(one.tokens, one.in_flight)), one.expected)
        << one.windows.size() << " groups, " << one.tokens << " tokens";
}

TEST(MemoryPlan, SizesAsVllmDoes) {
  // 80 GiB, 16 GiB of weights and peak; 32 layers of 8 heads of 128 in bf16: 2 MiB a block of 16.
  const KvCost cost{2 << 20, 16, {0}};
  const MemoryInfo device{80 * kGiB, 79 * kGiB, 0, false};
  MemoryOptions options{.max_model_len = 32768, .longest_context = 131072, .max_num_batched_tokens = 8192};
  const std::int64_t requested = check_memory_at_start(options, device);
  EXPECT_EQ(requested, static_cast<std::int64_t>(std::ceil(0.92 * 80 * kGiB)));
  const MemoryPlan plan = plan_memory(options, cost, requested, 16 * kGiB);
  EXPECT_EQ(plan.num_blocks, (requested - 16 * kGiB) / (2 << 20));
  EXPECT_DOUBLE_EQ(plan.max_concurrency, static_cast<double>(plan.num_blocks - 1) / 2048);
  EXPECT_EQ(plan.lines("GPU"), (std::vector<std::string>{
                                   "Available KV cache memory: 57.60 GiB",
                                   "GPU KV cache size: 471,840 tokens, Maximum concurrency for 32,768 tokens "
                                   "per request: 14.40x"}));

  options.max_model_len = -1;
  EXPECT_EQ(plan_memory(options, cost, requested, 16 * kGiB).max_model_len, 131072);
  options.num_gpu_blocks_override = 101;
  const MemoryPlan small = plan_memory(options, cost, requested, 16 * kGiB);
  EXPECT_EQ(small.num_blocks, 101);
  EXPECT_EQ(small.max_model_len, 1600);
  EXPECT_DOUBLE_EQ(small.max_concurrency, 1);
  options.num_gpu_blocks_override = 0;
  options.kv_cache_memory_bytes = 4 * kGiB;
  EXPECT_EQ(plan_memory(options, cost, requested, 16 * kGiB).num_blocks, 2048);
}

TEST(MemoryPlan, TheHostSharesItsMemory) {
  const MemoryInfo host{64 * kGiB, 40 * kGiB, 0, true};
  EXPECT_EQ(check_memory_at_start({}, host), 20 * kGiB);
  EXPECT_EQ(check_memory_at_start({.gpu_memory_utilization = 0.5}, host), 32 * kGiB);
}

TEST(MemoryPlan, ErrorsNameBothFigures) {
  const KvCost cost{2 << 20, 16, {0}};
  MemoryOptions options{.gpu_memory_utilization = 0.9, .max_model_len = 32768, .longest_context = 32768};
  const std::string not_free = error_of([&] {
    check_memory_at_start(options, {80 * kGiB, 40 * kGiB, 0, false});
  });
  EXPECT_NE(not_free.find("(40.00 GiB of 80.00 GiB)"), std::string::npos) << not_free;
  EXPECT_NE(not_free.find("(0.9, 72.00 GiB)"), std::string::npos) << not_free;

  const std::string nothing = error_of([&] { plan_memory(options, cost, 10 * kGiB, 12 * kGiB); });
  EXPECT_NE(nothing.find("No available memory for the cache blocks"), std::string::npos) << nothing;

  // 2048 blocks and the null block are wanted, 512 are there.
  const std::string too_long = error_of([&] { plan_memory(options, cost, 17 * kGiB, 16 * kGiB); });
  for (const char* part : {"(32768), 4.00 GiB KV cache is needed", "memory (1.00 GiB)", "length is 8176"})
    EXPECT_NE(too_long.find(part), std::string::npos) << too_long;
  options.max_model_len = 0;
  EXPECT_EQ(plan_memory(options, cost, 17 * kGiB, 16 * kGiB).max_model_len, 8176);
  for (const double utilization : {0.0, 1.5, -1.0, std::nan("")}) {
    options.gpu_memory_utilization = utilization;
    EXPECT_THROW(check_memory_at_start(options, {kGiB, kGiB, 0, true}), Error) << utilization;
  }
}

// Whatever is planned: a sequence of max_model_len fits, one token more would not or is not wanted.
TEST(MemoryPlan, AutoLengthIsTheLongestThatFits) {
  for (const std::vector<std::int64_t>& windows :
       {std::vector<std::int64_t>{0}, {100}, {0, 100, 100}, {50, 200}})
    for (const std::int64_t blocks : {2, 3, 10, 31, 100, 1000}) {
      const KvCost cost{1000, 16, windows};
      MemoryOptions options{
          .num_gpu_blocks_override = blocks, .longest_context = 5000, .max_num_batched_tokens = 64};
      if (cost.blocks_for(1, 64) > blocks - 1) {
        EXPECT_THROW(plan_memory(options, cost, 0, 0), Error);
        continue;
      }
      const MemoryPlan plan = plan_memory(options, cost, 0, 0);
      EXPECT_LE(cost.blocks_for(plan.max_model_len, 64), blocks - 1);
      EXPECT_TRUE(plan.max_model_len == 5000 || cost.blocks_for(plan.max_model_len + 1, 64) > blocks - 1);
      EXPECT_GE(plan.max_concurrency, 1);
    }
}

TEST(MemoryPlan, MeasuresADecoder) {
  ThreadPool pool(2);
  for (const auto& backend : test_backends(pool)) {
    ModelConfig config = tiny_config();
    config.sliding_window = {0, 7};
    const TinyModel model = tiny_model(*backend, config);
    Decoder decoder(*backend, model.config, model.weights, {.max_tokens = 64, .max_logit_rows = 8});
    const KvCost cost = measure_kv_cost(decoder, DType::kBF16);
    EXPECT_EQ(cost.sliding_windows, (std::vector<std::int64_t>{0, 7}));
    EXPECT_EQ(cost.block_size, backend->preferred_block_size());
    // One layer a block; the reference backend keeps floats.
    const std::int64_t element = backend->name() == "reference" ? 4 : 2;
    EXPECT_EQ(cost.block_bytes, 2 * cost.block_size * 2 * 32 * element) << backend->name();
    EXPECT_GT(profile_run(decoder, 64, 40, 8), decoder.memory_use(nullptr).total() - 1);
  }
  const MemoryInfo host = host_memory();
  EXPECT_GT(host.total, kGiB / 4);
  EXPECT_GT(host.free, 0);
  EXPECT_GT(host.peak_used, 1 << 20);
  EXPECT_LE(host.free, host.total);
}

}  // namespace
}  // namespace bise
