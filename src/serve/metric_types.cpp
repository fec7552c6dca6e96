#include "serve/metric_types.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace bise {
namespace {

// As the Python client writes it: whole numbers with ".0", so that le="1.0" matches vLLM's labels.
std::string number_text(double value) {
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  if (std::isnan(value)) return "NaN";
  if (value == std::floor(value) && std::fabs(value) < 1e15) return fmt::format("{:.1f}", value);
  return fmt::format("{}", value);
}

std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '\\' || c == '"') result += '\\';
    if (c == '\n') {
      result += "\\n";
    } else {
      result += c;
    }
  }
  return result;
}

}  // namespace

Histogram::Histogram(std::span<const double> bounds)
    : bounds_(bounds.begin(), bounds.end()),
      counts_(std::make_unique<std::atomic<std::int64_t>[]>(bounds.size() + 1)) {}

void Histogram::observe(double value) {
  const auto bucket = std::ranges::lower_bound(bounds_, value) - bounds_.begin();
  counts_[static_cast<std::size_t>(bucket)].fetch_add(1, std::memory_order_relaxed);
  sum_.fetch_add(value, std::memory_order_relaxed);
}

std::int64_t Histogram::count() const {
  std::int64_t count = 0;
  for (std::size_t i = 0; i <= bounds_.size(); ++i) count += in_bucket(i);
  return count;
}

std::vector<double> bounds_1_2_5(std::int64_t largest) {
  std::vector<double> bounds;
  for (double power = 1; power <= static_cast<double>(largest); power *= 10)
    for (const double digit : {1, 2, 5})
      if (digit * power <= static_cast<double>(largest)) bounds.push_back(digit * power);
  return bounds;
}

MetricsWriter::MetricsWriter(MetricLabels base_labels) : base_labels_(std::move(base_labels)) {}

void MetricsWriter::family(std::string_view name, std::string_view type, std::string_view help) {
  fmt::format_to(std::back_inserter(text_), "# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
}

void MetricsWriter::put_labels(const MetricLabels& labels) {
  char before = '{';
  const auto put = [&](const MetricLabels& list) {
    for (const auto& [name, value] : list) {
      fmt::format_to(std::back_inserter(text_), "{}{}=\"{}\"", before, name, escaped(value));
      before = ',';
    }
  };
  put(base_labels_);
  put(labels);
  if (before == ',') text_ += '}';
}

void MetricsWriter::sample(std::string_view name, double value, const MetricLabels& labels) {
  text_ += name;
  put_labels(labels);
  fmt::format_to(std::back_inserter(text_), " {}\n", number_text(value));
}

void MetricsWriter::buckets(std::string_view name, const Histogram& histogram, const MetricLabels& labels) {
  const std::string bucket = fmt::format("{}_bucket", name);
  std::int64_t below = 0;
  for (std::size_t i = 0; i <= histogram.bounds().size(); ++i) {
    below += histogram.in_bucket(i);
    const double bound =
        i < histogram.bounds().size() ? histogram.bounds()[i] : std::numeric_limits<double>::infinity();
    MetricLabels with_bound = labels;
    with_bound.emplace_back("le", number_text(bound));
    sample(bucket, static_cast<double>(below), with_bound);
  }
  // The buckets' own sum, so that count and last bucket agree while others observe.
  sample(fmt::format("{}_count", name), static_cast<double>(below), labels);
  sample(fmt::format("{}_sum", name), histogram.sum(), labels);
}

void MetricsWriter::histogram(std::string_view name, std::string_view help, const Histogram& histogram) {
  family(name, "histogram", help);
  buckets(name, histogram);
}

void MetricsWriter::gauge(std::string_view name, std::string_view help, double value,
                          const MetricLabels& labels) {
  family(name, "gauge", help);
  sample(name, value, labels);
}

void MetricsWriter::counter(std::string_view name, std::string_view help, double value,
                            const MetricLabels& labels) {
  const std::string total = fmt::format("{}_total", name);
  family(total, "counter", help);
  sample(total, value, labels);
}

}  // namespace bise
