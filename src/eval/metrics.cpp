#include "eval/metrics.h"

#include <cmath>
#include <functional>

#include "base/error.h"
#include "eval/filters.h"

namespace bise {
namespace {

std::size_t code_points(const std::string& text) {
  std::size_t count = 0;
  for (const char byte : text) count += (static_cast<unsigned char>(byte) & 0xc0) != 0x80;
  return count;
}

// Index of the first largest log-likelihood divided by `length` of its choice.
std::int64_t best_choice(const Sample& sample, const std::function<double(const std::string&)>& length) {
  std::int64_t best = 0;
  double best_value = 0;
  for (std::size_t i = 0; i < sample.likelihoods.size(); ++i) {
    const double value = sample.likelihoods[i].logprob / length(sample.document.choices[i]);
    if (i > 0 && !(value > best_value)) continue;
    best = static_cast<std::int64_t>(i);
    best_value = value;
  }
  return best;
}

}  // namespace

double sample_metric(const TaskConfig& task, const MetricConfig& metric, const Sample& sample,
                     std::size_t filter) {
  const Document& document = sample.document;
  if (task.output_type == OutputType::kMultipleChoice) {
    if (metric.name == "acc")
      return best_choice(sample, [](const std::string&) { return 1.0; }) == document.gold;
    if (metric.name == "acc_norm")
      return best_choice(sample, [](const std::string& choice) {
               return static_cast<double>(code_points(choice));
             }) == document.gold;
    if (metric.name == "acc_bytes")
      return best_choice(sample, [](const std::string& choice) {
               return static_cast<double>(choice.size());
             }) == document.gold;
  }
  if (task.output_type == OutputType::kLoglikelihood && metric.name == "acc")
    return sample.likelihoods.front().greedy;
  if (task.output_type == OutputType::kGenerateUntil && metric.name == "exact_match")
    return exact_match(metric, sample.filtered[filter], document.target);
  throw Error("the metric \"{}\" does not fit this kind of task", metric.name).at(task.task);
}

void aggregate_mean(MetricResult& result) {
  const auto n = static_cast<double>(result.values.size());
  double sum = 0, squares = 0;
  for (const double value : result.values) sum += value;
  result.value = sum / n;
  for (const double value : result.values) squares += (value - result.value) * (value - result.value);
  result.standard_error.reset();
  if (result.values.size() > 1) result.standard_error = std::sqrt(squares / (n - 1)) / std::sqrt(n);
}

}  // namespace bise
