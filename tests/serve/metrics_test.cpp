#include "serve/metrics.h"

#include <gtest/gtest.h>

#include <thread>

#include "serve/stats_logger.h"

namespace bise {
namespace {

bool has_line(const std::string& text, const std::string& line) {
  return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}

FinishedSequence finished(FinishReason reason, std::int64_t prompt, std::int64_t cached, std::int64_t out) {
  FinishedSequence sequence;
  sequence.reason = reason;
  sequence.prompt_tokens = prompt;
  sequence.cached_tokens = cached;
  sequence.generated_tokens = out;
  sequence.arrival = 1;
  sequence.times = {.queued = 1.5, .scheduled = 2, .first_token = 4, .last_token = 4 + 0.02 * (out - 1)};
  return sequence;
}

TEST(Metrics, HasVllmsNamesLabelsAndBuckets) {
  Metrics metrics({"m", 4096, {{"block_size", "16"}}});
  metrics.on_accepted(2, 100);
  metrics.on_first_token(0.03);
  metrics.on_next_tokens(0.02);
  metrics.on_finished(finished(FinishReason::kLength, 10, 4, 101));
  metrics.on_finished(finished(FinishReason::kStop, 10, 0, 1));
  metrics.on_rejected(Admission::kQueueFull);
  metrics.on_step(7);
  EngineStats stats;
  stats.running = 3;
  stats.waiting = 2;
  stats.used_blocks = 5;
  stats.total_blocks = 20;
  stats.prompt_tokens = 30;
  stats.prompt_tokens_cached = 12;
  stats.generation_tokens = 9;
  const std::string text = metrics.text(stats);
  const std::string labels = "model_name=\"m\",engine=\"0\"";
  for (const std::string& line : std::vector<std::string>{
           "vllm:num_requests_running{" + labels + "} 3.0",
           "vllm:num_requests_waiting{" + labels + "} 2.0",
           "vllm:num_requests_waiting_by_reason{" + labels + ",reason=\"capacity\"} 2.0",
           "vllm:kv_cache_usage_perc{" + labels + "} 0.25",
           "vllm:cache_config_info{" + labels + ",block_size=\"16\"} 1.0",
           "vllm:prompt_tokens_total{" + labels + "} 30.0",
           "vllm:prompt_tokens_by_source_total{" + labels + ",source=\"local_compute\"} 18.0",
           "vllm:generation_tokens_total{" + labels + "} 9.0",
           "vllm:iteration_tokens_total_bucket{" + labels + ",le=\"8.0\"} 1.0",
           "vllm:request_success_total{" + labels + ",finished_reason=\"length\"} 1.0",
           "vllm:request_success_total{" + labels + ",finished_reason=\"abort\"} 0.0",
           "vllm:request_params_n_bucket{" + labels + ",le=\"2.0\"} 1.0",
           "vllm:request_prompt_tokens_bucket{" + labels + ",le=\"5.0\"} 0.0",
           "vllm:request_prompt_tokens_bucket{" + labels + ",le=\"10.0\"} 2.0",
           "vllm:request_prompt_tokens_bucket{" + labels + ",le=\"2000.0\"} 2.0",
           "vllm:request_prompt_tokens_sum{" + labels + "} 20.0",
           "vllm:request_prefill_kv_computed_tokens_sum{" + labels + "} 16.0",
           "vllm:time_to_first_token_seconds_bucket{" + labels + ",le=\"0.02\"} 0.0",
           "vllm:time_to_first_token_seconds_bucket{" + labels + ",le=\"0.04\"} 1.0",
           "vllm:inter_token_latency_seconds_bucket{" + labels + ",le=\"0.025\"} 1.0",
           "bise:inter_token_latency_seconds_bucket{" + labels + ",le=\"0.015\"} 0.0",
           "vllm:request_time_per_output_token_seconds_count{" + labels + "} 1.0",
           "vllm:request_queue_time_seconds_bucket{" + labels + ",le=\"0.3\"} 0.0",
           "vllm:request_queue_time_seconds_bucket{" + labels + ",le=\"0.5\"} 2.0",
           "vllm:request_prefill_time_seconds_sum{" + labels + "} 4.0",
           "vllm:request_decode_time_seconds_sum{" + labels + "} 2.0",
           "vllm:request_inference_time_seconds_sum{" + labels + "} 6.0",
           "vllm:e2e_request_latency_seconds_sum{" + labels + "} 8.0",
           "vllm:admission_rejections_total{model_name=\"m\",reason=\"max_num_queued_reqs\"} 1.0",
           "# TYPE vllm:e2e_request_latency_seconds histogram",
           "# TYPE vllm:prompt_tokens_total counter"})
    EXPECT_TRUE(has_line(text, line)) << line << "\n" << text;
  EXPECT_EQ(text.find("le=\"5000.0\""), std::string::npos);
  EXPECT_NE(text.find("\nprocess_resident_memory_bytes "), std::string::npos);
  EXPECT_EQ(text.find("spec_decode"), std::string::npos);
}

TEST(Metrics, ARequestThatNeverRanTookNoTime) {
  Metrics metrics({"m", 100, {}});
  FinishedSequence sequence;
  sequence.arrival = 5;
  sequence.times.queued = 5;
  metrics.on_finished(sequence);
  const std::string text = metrics.text({});
  EXPECT_NE(text.find("vllm:request_queue_time_seconds_count{model_name=\"m\",engine=\"0\"} 0.0"),
            std::string::npos);
  EXPECT_NE(text.find("finished_reason=\"abort\"} 1.0"), std::string::npos);
}

TEST(Metrics, HitRateIsOverTheLastThousandRequests) {
  Metrics metrics({"m", 100, {}});
  EXPECT_EQ(metrics.recent_prefix_hit_rate(), 0);
  for (int i = 0; i < 500; ++i) metrics.on_finished(finished(FinishReason::kStop, 10, 0, 1));
  for (int i = 0; i < 500; ++i) metrics.on_finished(finished(FinishReason::kStop, 10, 8, 1));
  EXPECT_DOUBLE_EQ(metrics.recent_prefix_hit_rate(), 0.4);
  for (int i = 0; i < 500; ++i) metrics.on_finished(finished(FinishReason::kStop, 10, 8, 1));
  EXPECT_DOUBLE_EQ(metrics.recent_prefix_hit_rate(), 0.8);
}

TEST(Metrics, LosesNothingBetweenThreads) {
  Histogram histogram(std::vector<double>{1, 2});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 10'000; ++i) histogram.observe(i % 4);
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(histogram.count(), 40'000);
  EXPECT_EQ(histogram.sum(), 60'000);
  EXPECT_EQ(histogram.in_bucket(0), 20'000);  // 0 and 1: bounds are included
  EXPECT_EQ(histogram.in_bucket(1), 10'000);
}

TEST(Metrics, EscapesLabels) {
  MetricsWriter out(MetricLabels{{"model_name", "a\"b\\c\nd"}});
  out.sample("x", 1.5);
  EXPECT_EQ(out.take(), "x{model_name=\"a\\\"b\\\\c\\nd\"} 1.5\n");
}

TEST(StatsLine, SaysWhatVllmSays) {
  EngineStats before, now;
  now.prompt_tokens = 120;
  now.generation_tokens = 55;
  now.running = 2;
  now.used_blocks = 1;
  now.total_blocks = 8;
  now.steps = 9;
  EXPECT_EQ(stats_line(before, now, 10, 0.25, "GPU"),
            "Engine 000: Avg prompt throughput: 12.0 tokens/s, Avg generation throughput: 5.5 tokens/s, "
            "Running: 2 reqs, Waiting: 0 reqs, GPU KV cache usage: 12.5%, Prefix cache hit rate: 25.0%");
  now.preemptions = 3;
  EXPECT_NE(stats_line(before, now, 10, 0, "CPU").find("Preemptions: 3, CPU KV cache usage"),
            std::string::npos);
}

}  // namespace
}  // namespace bise
