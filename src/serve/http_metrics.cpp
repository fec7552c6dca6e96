#include "serve/http_metrics.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace bise {
namespace {

constexpr std::array kDurationBounds = {0.1, 0.5, 1.0};
constexpr std::array kFineDurationBounds = {0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0,  1.5, 2.0,
                                            2.5,  3.0,   3.5,  4.0,   4.5, 5.0,  7.5, 10.0, 30.0, 60.0};

// The kernel's boot time in unix seconds; 0 when it is not told.
double boot_time() {
  std::ifstream stat("/proc/stat");
  for (std::string line; std::getline(stat, line);)
    if (line.starts_with("btime ")) return std::stod(line.substr(6));
  return 0;
}

}  // namespace

HttpMetrics::HttpMetrics() : all_durations_(kFineDurationBounds) {}

void HttpMetrics::on_done(const std::string& handler, const std::string& method, int status,
                          std::size_t request_bytes, std::size_t response_bytes, double seconds) {
  all_durations_.observe(seconds);
  const std::lock_guard lock(mutex_);
  ++calls_[{handler, method, fmt::format("{}xx", status / 100)}];
  Sizes& sizes = sizes_[handler];
  ++sizes.calls;
  sizes.request_bytes += static_cast<double>(request_bytes);
  sizes.response_bytes += static_cast<double>(response_bytes);
  std::unique_ptr<Histogram>& durations = durations_[{handler, method}];
  if (!durations) durations = std::make_unique<Histogram>(kDurationBounds);
  durations->observe(seconds);
}

void HttpMetrics::write(MetricsWriter& out) const {
  const std::lock_guard lock(mutex_);
  out.family("http_requests_total", "counter", "Total number of requests by method, status and handler.");
  for (const auto& [key, count] : calls_)
    out.sample("http_requests_total", static_cast<double>(count),
               {{"handler", key[0]}, {"method", key[1]}, {"status", key[2]}});
  const auto sizes = [&](const char* name, const char* help, double Sizes::*bytes) {
    out.family(name, "summary", help);
    for (const auto& [handler, of_handler] : sizes_) {
      out.sample(fmt::format("{}_count", name), static_cast<double>(of_handler.calls),
                 {{"handler", handler}});
      out.sample(fmt::format("{}_sum", name), of_handler.*bytes, {{"handler", handler}});
    }
  };
  sizes("http_request_size_bytes", "Content length of incoming requests by handler.", &Sizes::request_bytes);
  sizes("http_response_size_bytes", "Bytes sent in answer to requests by handler, headers included.",
        &Sizes::response_bytes);
  out.histogram("http_request_duration_highr_seconds",
                "Latency with many buckets but no API specific labels.", all_durations_);
  out.family("http_request_duration_seconds", "histogram",
             "Latency with only few buckets by handler and method.");
  for (const auto& [key, durations] : durations_)
    out.buckets("http_request_duration_seconds", *durations, {{"handler", key[0]}, {"method", key[1]}});
}

void write_process_metrics(MetricsWriter& out) {
  std::ifstream file("/proc/self/stat");
  std::stringstream content;
  content << file.rdbuf();
  const std::string stat = content.str();
  // The name in parentheses may hold anything; field 3 (state) follows it.
  std::istringstream fields(stat.substr(std::min(stat.size(), stat.rfind(')') + 1)));
  std::vector<std::string> values;
  for (std::string value; fields >> value;) values.push_back(value);
  const auto field = [&](std::size_t number) { return std::stod(values[number - 3]); };  // as proc(5) counts
  if (values.size() > 21) {
    const auto ticks = static_cast<double>(::sysconf(_SC_CLK_TCK));
    out.gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", field(23));
    out.gauge("process_resident_memory_bytes", "Resident memory size in bytes.",
              field(24) * static_cast<double>(::sysconf(_SC_PAGESIZE)));
    out.gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.",
              boot_time() + field(22) / ticks);
    out.counter("process_cpu_seconds", "Total user and system CPU time spent in seconds.",
                (field(14) + field(15)) / ticks);
    out.gauge("process_threads", "Number of threads.", field(20));
  }
  std::error_code problem;
  const std::filesystem::directory_iterator open_files("/proc/self/fd", problem);
  if (!problem)
    out.gauge("process_open_fds", "Number of open file descriptors.",
              static_cast<double>(std::distance(begin(open_files), end(open_files))));
  struct rlimit limit {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0)
    out.gauge("process_max_fds", "Maximum number of open file descriptors.",
              static_cast<double>(limit.rlim_cur));
}

}  // namespace bise
