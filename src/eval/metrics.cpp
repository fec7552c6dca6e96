#include "eval/metrics.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <numbers>
#include <span>

#include "base/error.h"
#include "eval/filters.h"
#include "eval/instructions.h"
#include "eval/math_answers.h"
#include "eval/python_random.h"
#include "eval/python_regex.h"

namespace bise {
namespace {

using Values = std::vector<double>;

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

std::optional<Values> multiple_choice(const MetricConfig& metric, const Sample& sample) {
  std::function<double(const std::string&)> length;
  if (metric.name == "acc") length = [](const std::string&) { return 1.0; };
  if (metric.name == "acc_norm") length = [](const auto& choice) { return double(code_points(choice)); };
  if (metric.name == "acc_bytes") length = [](const auto& choice) { return double(choice.size()); };
  if (!length) return std::nullopt;
  return Values{best_choice(sample, length) == sample.document.gold ? 1.0 : 0.0};
}

// Probability of the choices with label 1 among all.
Values truthfulqa_mc2(const TaskConfig& task, const Sample& sample) {
  const std::string where = task.task + ": mc2_targets";
  const Json& labels = require(require(*sample.document.row, "mc2_targets", where), "labels", where);
  if (!labels.is_array() || labels.size() != sample.likelihoods.size())
    throw Error("not a label for each choice").at(where);
  double all = 0, right = 0;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const double probability = std::exp(sample.likelihoods[i].logprob);
    all += probability;
    if (labels[i] == 1) right += probability;
  }
  return {right / all};
}

// Words and bytes are those of the row's text, which the harness takes before it is detokenized.
std::optional<Values> rolling(const TaskConfig& task, const MetricConfig& metric, const Sample& sample) {
  const Json& row = *sample.document.row;
  const std::string text =
      task.process_docs == "wikitext" ? require_string(row, "page", task.task) : sample.document.target;
  const double logprob = sample.likelihoods.front().logprob;
  if (metric.name == "word_perplexity") return Values{logprob, double(python_split(R"(\s+)", text).size())};
  if (metric.name == "byte_perplexity" || metric.name == "bits_per_byte")
    return Values{logprob, double(text.size())};
  return std::nullopt;
}

std::optional<Values> instructions(const TaskConfig& task, const MetricConfig& metric, const Sample& sample) {
  const bool loose = metric.name.find("loose") != std::string::npos;
  if (!metric.name.ends_with("_acc")) return std::nullopt;
  const std::vector<bool> followed =
      followed_instructions(*sample.document.row, sample.response, loose, task.task);
  if (metric.name.starts_with("inst_level")) return Values(followed.begin(), followed.end());
  return Values{std::ranges::all_of(followed, [](bool one) { return one; }) ? 1.0 : 0.0};
}

// The harness takes math-verify for one of the two metrics of each MATH task; here what it would take out of
// the text is compared by value.
bool verified_math_answer(const Sample& sample) {
  const auto gold = boxed_answer(require_string(*sample.document.row, "solution", "solution"));
  if (!gold) return false;
  const auto normal = [](const std::string& text) {
    return normalized_math_answer(text, MathRules::kMinerva);
  };
  return same_math_answer(normal(extracted_math_answer(sample.response)), normal(*gold));
}

std::optional<Values> math(const TaskConfig& task, const MetricConfig& metric, const Sample& sample) {
  const bool leaderboard = task.process_results == "leaderboard_math";
  const auto value = [](bool right) { return Values{right ? 1.0 : 0.0}; };
  if (metric.name == (leaderboard ? "exact_match" : "math_verify"))
    return value(verified_math_answer(sample));
  if (metric.name != (leaderboard ? "exact_match_original" : "exact_match")) return std::nullopt;
  const MathRules rules = leaderboard ? MathRules::kLeaderboard : MathRules::kMinerva;
  std::string gold = require_string(*sample.document.row, "answer", task.task);
  if (leaderboard) gold = normalized_math_answer(gold, rules);
  const std::string answer = normalized_math_answer(stated_final_answer(sample.response), rules);
  return value(answer != kInvalidMathAnswer && same_math_answer(answer, gold));
}

std::optional<Values> generated(const TaskConfig& task, const MetricConfig& metric, const Sample& sample,
                                std::size_t filter) {
  const auto value = [](bool right) { return Values{right ? 1.0 : 0.0}; };
  if (task.process_results == "ifeval") return instructions(task, metric, sample);
  if (task.process_results.ends_with("_math")) return math(task, metric, sample);
  if (task.process_results == "aime" && metric.name == "exact_match")
    return value(same_aime_answer(aime_answer(sample.response), sample.document.target));
  if (task.process_results == "code" && metric.name == "pass@1") return value(sample.passed);
  if (metric.name == "exact_match")
    return value(exact_match(metric, sample.filtered[filter], sample.document.target));
  return std::nullopt;
}

double mean(std::span<const double> values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

// numpy.median
double median(std::span<const double> values) {
  std::vector<double> sorted(values.begin(), values.end());
  std::ranges::sort(sorted);
  const std::size_t middle = sorted.size() / 2;
  return sorted.size() % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

double deviation(std::span<const double> values) {
  const double center = mean(values);
  double squares = 0;
  for (const double value : values) squares += (value - center) * (value - center);
  return std::sqrt(squares / static_cast<double>(values.size() - 1));
}

double bootstrapped_error(std::span<const double> values, double (*statistic)(std::span<const double>),
                          std::int64_t draws) {
  const std::int64_t chunk = std::min<std::int64_t>(1000, draws);
  std::vector<double> results, drawn(values.size());
  for (std::int64_t i = 0; i < draws / chunk; ++i) {
    PythonRandom random(static_cast<std::uint64_t>(i));
    for (std::int64_t draw = 0; draw < chunk; ++draw) {
      for (double& value : drawn)
        value = values[static_cast<std::size_t>(random.random() * static_cast<double>(values.size()))];
      results.push_back(statistic(drawn));
    }
  }
  return deviation(results);
}

double perplexity(std::span<const double> values) {
  return std::exp(-mean(values));
}

// Sum of the first values over the sum of the second ones.
double per_weight(const std::vector<Values>& pairs) {
  double sum = 0, weight = 0;
  for (const Values& pair : pairs) {
    sum += pair.at(0);
    weight += pair.at(1);
  }
  return sum / weight;
}

}  // namespace

std::vector<double> sample_metric(const TaskConfig& task, const MetricConfig& metric, const Sample& sample,
                                  std::size_t filter) {
  std::optional<Values> values;
  switch (task.output_type) {
    case OutputType::kMultipleChoice:
      if (task.process_results == "truthfulqa_mc2") return truthfulqa_mc2(task, sample);
      values = multiple_choice(metric, sample);
      break;
    case OutputType::kLoglikelihood:
      if (metric.name == "acc") values = Values{sample.likelihoods.front().greedy ? 1.0 : 0.0};
      if (metric.name == "perplexity") values = Values{sample.likelihoods.front().logprob};
      break;
    case OutputType::kLoglikelihoodRolling: values = rolling(task, metric, sample); break;
    case OutputType::kGenerateUntil: values = generated(task, metric, sample, filter); break;
  }
  if (!values) throw Error("the metric \"{}\" does not fit this kind of task", metric.name).at(task.task);
  return *values;
}

void aggregate(MetricResult& result, Aggregation how, std::int64_t bootstrap_draws) {
  result.standard_error.reset();
  if (result.values.empty()) return;
  std::vector<double> flat;
  for (const Values& values : result.values) flat.insert(flat.end(), values.begin(), values.end());
  const bool errors = result.values.size() > 1 && bootstrap_draws > 0;
  switch (how) {
    case Aggregation::kMean:
      result.value = mean(flat);
      if (errors) result.standard_error = deviation(flat) / std::sqrt(static_cast<double>(flat.size()));
      break;
    case Aggregation::kMedian:
    case Aggregation::kPerplexity: {
      const auto statistic = how == Aggregation::kMedian ? median : perplexity;
      result.value = statistic(flat);
      if (errors) result.standard_error = bootstrapped_error(flat, statistic, bootstrap_draws);
      break;
    }
    case Aggregation::kPooledMean: result.value = flat.empty() ? 0 : mean(flat); break;
    case Aggregation::kWeightedPerplexity: result.value = std::exp(-per_weight(result.values)); break;
    case Aggregation::kBitsPerByte: result.value = -per_weight(result.values) / std::numbers::ln2; break;
  }
}

}  // namespace bise
