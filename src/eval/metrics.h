// Scores of answered samples, as lm-evaluation-harness defines them (spec/evaluation.md sections 2.4 and 4).
// Pure functions.
#pragma once

#include "eval/evaluate.h"

namespace bise {

// The value of `metric` for one answered sample; `filter` is the index of the filter its response went
// through. Throws Error for an unknown metric.
double sample_metric(const TaskConfig& task, const MetricConfig& metric, const Sample& sample,
                     std::size_t filter);

// Mean, and the standard error of the mean: sqrt(sum (x - mean)^2 / (n - 1)) / sqrt(n).
void aggregate_mean(MetricResult& result);

}  // namespace bise
