// What bench kernels times: every operation at every number of rows, with the bytes and products that the
// shapes say.
#include "cli/kernel_bench.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "base/thread_pool.h"

namespace bise {
namespace {

constexpr LayerShape kShape{
    .hidden = 64, .intermediate = 96, .heads = 4, .kv_heads = 2, .head_dim = 16, .vocabulary = 160};

TEST(KernelBench, CountsBytesAndProducts) {
  ThreadPool pool(1);
  const auto backend = make_cpu_backend(pool, Isa::kScalar);
  KernelBench bench(*backend, kShape, 24, 1e-5);
  std::vector<KernelTime> times;
  bench.layer({}, {1, 3, 514}, times);
  bench.head({1, 514}, times);

  std::map<std::string, std::set<std::int64_t>> rows;
  std::map<std::string, KernelTime> of_three;
  for (const KernelTime& time : times) {
    EXPECT_GT(time.seconds, 0) << time.operation;
    EXPECT_TRUE(rows[time.operation].insert(time.rows).second) << time.operation;
    if (time.rows == 3) of_three.emplace(time.operation, time);
  }
  for (const char* operation : {"qkv_proj", "o_proj", "gate_up_proj", "down_proj", "add, norm, encode",
                                "rotary, cache write", "attention, encode"})
    EXPECT_EQ(rows[operation], (std::set<std::int64_t>{1, 3, 514})) << operation;
  EXPECT_EQ(rows["lm_head"], (std::set<std::int64_t>{1})) << "prompts have no logits but their last tokens'";

  // In bf16: q, k and v have 4, 2 and 2 heads of 16.
  EXPECT_EQ(of_three["qkv_proj"].bytes, 2 * (128 * 64 + 3 * (64 + 128)));
  EXPECT_EQ(of_three["qkv_proj"].operations, 2 * 3 * 128 * 64);
  EXPECT_EQ(of_three["gate_up_proj"].bytes, 2 * (192 * 64 + 3 * (64 + 96)));
  EXPECT_EQ(of_three["add, norm, encode"].bytes, 3 * 64 * (4 + 4 + 2 + 2));
  // Three sequences of 24 keys and values, queries and outputs of 64.
  EXPECT_EQ(of_three["attention, encode"].bytes, 2 * 2 * 3 * 24 * 32 + 3 * 64 * (2 + 2));
  EXPECT_EQ(of_three["attention, encode"].operations, 4 * 3 * 24 * 64);
}

}  // namespace
}  // namespace bise
