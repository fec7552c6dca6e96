// The line that vLLM logs every ten seconds while requests run, and once more when they have ended:
//   Engine 000: Avg prompt throughput: 12.0 tokens/s, Avg generation throughput: ..., Running: 3 reqs, ...
// A thread of its own.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "engine/engine.h"
#include "serve/metrics.h"

namespace bise {

// The line for the time since `before`.
std::string stats_line(const EngineStats& before, const EngineStats& now, double seconds,
                       double prefix_hit_rate, std::string_view device);

class StatsLogger {
 public:
  // `device` ("CPU", "GPU") names the cache. Engine and metrics outlive the logger.
  StatsLogger(const Engine& engine, const Metrics& metrics, std::string device, double interval_seconds = 10);
  ~StatsLogger();

 private:
  void run();

  const Engine& engine_;
  const Metrics& metrics_;
  std::string device_;
  double interval_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace bise
