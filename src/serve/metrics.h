// The server's metrics under vLLM's names (spec/serving.md section 2): what the request handlers and the
// engine tell, and the text that GET /metrics answers. Any thread.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>

#include "serve/http_metrics.h"
#include "serve/metric_types.h"
#include "serve/request_observer.h"

namespace bise {

struct MetricsOptions {
  std::string model_name;          // label model_name
  std::int64_t max_model_len = 0;  // the largest bucket of token counts
  MetricLabels cache_config;       // labels of vllm:cache_config_info
};

class Metrics : public RequestObserver {
 public:
  explicit Metrics(MetricsOptions options);

  void on_accepted(std::int64_t n, std::int64_t max_tokens) override;
  void on_first_token(double seconds_since_arrival) override;
  void on_next_tokens(double seconds_since_previous) override;
  void on_finished(const FinishedSequence& sequence) override;
  void on_rejected(Admission admission) override;

  // Engine::OnStep.
  void on_step(std::int64_t tokens) { iteration_tokens_.observe(static_cast<double>(tokens)); }

  HttpMetrics& http() { return http_; }
  // Share of the prompt tokens of the last 1000 requests that the prefix cache served, 0 to 1.
  double recent_prefix_hit_rate() const;
  // The whole page. `stats` are the engine's at this moment.
  std::string text(const EngineStats& stats) const;

 private:
  void write_engine(MetricsWriter& out, const EngineStats& stats) const;
  void write_requests(MetricsWriter& out) const;
  void write_speculation(MetricsWriter& out, const EngineStats& stats) const;

  MetricsOptions options_;
  HttpMetrics http_;
  std::array<Counter, 4> finished_;  // by FinishReason
  Counter rejected_requests_, rejected_tokens_;
  Histogram prompt_tokens_, generation_tokens_, max_generation_tokens_, max_tokens_, computed_tokens_;
  Histogram iteration_tokens_, params_n_;
  Histogram time_to_first_token_, inter_token_, time_per_output_token_;
  Histogram fine_inter_token_, fine_time_per_output_token_;
  Histogram e2e_, queue_, inference_, prefill_, decode_;

  struct PromptUse {
    std::int64_t tokens = 0, cached = 0;
  };
  mutable std::mutex recent_mutex_;
  std::deque<PromptUse> recent_;
  PromptUse recent_sum_;
};

}  // namespace bise
