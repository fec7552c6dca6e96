// Counts of HTTP calls under the names that prometheus-fastapi-instrumentator gives them in vLLM, and the
// process's own figures under those of the Prometheus clients. Any thread.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "serve/metric_types.h"

namespace bise {

class HttpMetrics {
 public:
  HttpMetrics();

  // A call that was answered or given up. `handler` is the route's path, "none" for an unknown one; `status`
  // is written as its class, "2xx".
  void on_done(const std::string& handler, const std::string& method, int status, std::size_t request_bytes,
               std::size_t response_bytes, double seconds);
  void write(MetricsWriter& out) const;

 private:
  struct Sizes {
    std::int64_t calls = 0;
    double request_bytes = 0, response_bytes = 0;
  };
  mutable std::mutex mutex_;
  std::map<std::array<std::string, 3>, std::int64_t> calls_;                    // handler, method, status
  std::map<std::string, Sizes> sizes_;                                          // handler
  std::map<std::array<std::string, 2>, std::unique_ptr<Histogram>> durations_;  // handler, method
  Histogram all_durations_;
};

// process_cpu_seconds_total, process_resident_memory_bytes and so on; what /proc does not tell is left out.
void write_process_metrics(MetricsWriter& out);

}  // namespace bise
