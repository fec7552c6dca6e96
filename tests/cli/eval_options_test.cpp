// The flags of bise eval in lm_eval's spellings, and what is wrong with them.
#include "cli/eval_options.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "tests/test_support.h"

namespace bise {
namespace {

EvalOptions parsed(std::vector<std::string> arguments) {
  EvalOptions options;
  const ScratchFolder folder;  // stands for a checkpoint
  arguments.insert(arguments.begin(), {folder.path().string(), "--tasks", "gsm8k"});
  EXPECT_TRUE(parse_eval_options(arguments, options));
  return options;
}

TEST(EvalOptions, HarnessSpellings) {
  const EvalOptions options = parsed({"--num_fewshot=5", "-L", "250", "-b", "8", "--log_samples", "-o", "out",
                                      "--fewshot_as_multiturn", "False", "--gen_kwargs", "a=1",
                                      "--confirm_run_unsafe_code", "--seed", "1,2,3,4"});
  EXPECT_EQ(options.num_fewshot, "5");
  EXPECT_EQ(options.limit, "250");
  EXPECT_EQ(options.batch_size, "8");
  EXPECT_TRUE(options.log_samples);
  EXPECT_EQ(options.output_path, "out");
  EXPECT_FALSE(options.multiturn);
  EXPECT_TRUE(options.allow_code);
  EXPECT_EQ(options.seeds, (std::vector<std::int64_t>{1, 2, 3, 4}));
  EXPECT_EQ(parsed({"--seed", "7"}).seeds, (std::vector<std::int64_t>{7, 7, 7, 7}));
}

TEST(EvalOptions, Float32UnlessServing) {
  EXPECT_TRUE(parsed({}).device.float32());
  EXPECT_EQ(parsed({}).device.cache_dtype(), DType::kF32);
  EXPECT_EQ(parsed({"--kv-cache-dtype", "bfloat16"}).device.cache_dtype(), DType::kBF16);
  EXPECT_FALSE(parsed({"--precision", "serving"}).device.float32());
  EXPECT_EQ(parsed({"--precision", "serving"}).device.cache_dtype(), DType::kBF16);
}

TEST(EvalOptions, AutoFollowsWhatTheCheckpointSaysOfItsCache) {
  constexpr KvCacheScheme kDeclared = KvCacheScheme::kFp8Tensor;
  EXPECT_EQ(parsed({"--precision", "serving"}).device.cache_dtype(kDeclared), DType::kF8E4M3);
  EXPECT_EQ(parsed({}).device.cache_dtype(kDeclared), DType::kF32);
  EXPECT_EQ(parsed({"--kv-cache-dtype", "bfloat16"}).device.cache_dtype(kDeclared), DType::kBF16);
}

TEST(EvalOptions, WrongOnesAreErrors) {
  for (const std::vector<std::string>& wrong : {std::vector<std::string>{"--precision", "half"},
                                                {"--batch-size", "-1"},
                                                {"--batch-size", "x"},
                                                {"--log-samples"},
                                                {"--base-url", "http://h"},
                                                {"--seed", "1,2"},
                                                {"--seed", "a"},
                                                {"--num-concurrent", "0"},
                                                {"--timeout", "0"},
                                                {"--no-such-flag"}})
    EXPECT_THROW(parsed(wrong), Error) << wrong[0];
}

TEST(EvalOptions, GenerationArguments) {
  EXPECT_EQ(parse_gen_kwargs("temperature=0.7,do_sample=True,until=stop,max_gen_toks=5"),
            Json::parse(R"({"temperature": 0.7, "do_sample": true, "until": "stop", "max_gen_toks": 5})"));
  EXPECT_EQ(parse_gen_kwargs(R"({"until": ["a", "b"]})"), Json::parse(R"({"until": ["a", "b"]})"));
  for (const char* wrong : {"temperature", "{", "{\"a\": 1", "=1,b"})
    EXPECT_THROW(parse_gen_kwargs(wrong), Error);
}

TEST(EvalOptions, BatchSize) {
  EvalOptions options;
  const MemoryInfo memory{std::int64_t{64} << 30, std::int64_t{16} << 30, 0, true};
  EXPECT_EQ(sequences_at_once(options, 1 << 20, 1024, memory), 4);
  EXPECT_EQ(sequences_at_once(options, 256 << 10, 1024, memory), 16);
  EXPECT_EQ(sequences_at_once(options, 1, 1, memory), 32);
  options.batch_size = "64";
  EXPECT_EQ(sequences_at_once(options, 1 << 20, 1024, memory), 64);
}

}  // namespace
}  // namespace bise
