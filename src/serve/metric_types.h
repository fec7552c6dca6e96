// Counts and distributions that any number of threads observe without waiting for each other, and the text
// format 0.0.4 in which Prometheus reads them.
//
// Written here rather than taken from prometheus-cpp: Debian's prometheus-cpp-dev brings the civetweb web
// server and libcurl's headers along, its counters cannot show sums that the engine keeps itself, and what
// remains of it is these lines.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bise {

class Counter {
 public:
  void add(std::int64_t count = 1) { value_.fetch_add(count, std::memory_order_relaxed); }
  std::int64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::int64_t> value_{0};
};

class Histogram {
 public:
  // Upper bounds of the buckets, ascending; one for the rest is added.
  explicit Histogram(std::span<const double> bounds);

  void observe(double value);
  std::int64_t count() const;
  double sum() const { return sum_.load(std::memory_order_relaxed); }
  std::span<const double> bounds() const { return bounds_; }
  // How many observations lie in bucket `index` alone, bounds().size() being the last.
  std::int64_t in_bucket(std::size_t index) const { return counts_[index].load(std::memory_order_relaxed); }

 private:
  std::vector<double> bounds_;
  std::unique_ptr<std::atomic<std::int64_t>[]> counts_;  // [bounds + 1]
  std::atomic<double> sum_{0};
};

// 1, 2, 5, 10, 20, 50, ... up to `largest`.
std::vector<double> bounds_1_2_5(std::int64_t largest);

using MetricLabels = std::vector<std::pair<std::string, std::string>>;

// Writes families one after the other. `base_labels` stand before those of each sample.
class MetricsWriter {
 public:
  explicit MetricsWriter(MetricLabels base_labels);

  // Begins a family; `type` is "counter", "gauge", "histogram" or "summary".
  void family(std::string_view name, std::string_view type, std::string_view help);
  void sample(std::string_view name, double value, const MetricLabels& labels = {});
  // The samples of one histogram of the family begun last.
  void buckets(std::string_view name, const Histogram& histogram, const MetricLabels& labels = {});
  void histogram(std::string_view name, std::string_view help, const Histogram& histogram);
  // A family with one sample.
  void gauge(std::string_view name, std::string_view help, double value, const MetricLabels& labels = {});
  // The same; "_total" is added to the name.
  void counter(std::string_view name, std::string_view help, double value, const MetricLabels& labels = {});

  std::string take() { return std::move(text_); }

 private:
  void put_labels(const MetricLabels& labels);

  MetricLabels base_labels_;
  std::string text_;
};

}  // namespace bise
