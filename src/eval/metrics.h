// Scores of answered samples, as lm-evaluation-harness defines them (spec/evaluation.md sections 2.4 and 4).
// Pure functions.
#pragma once

#include "eval/evaluate.h"

namespace bise {

// The values of `metric` for one answered sample: one number, or what its aggregation takes (task.h);
// `filter` is the index of the filter its response went through. Throws Error for a metric that does not fit
// the task.
std::vector<double> sample_metric(const TaskConfig& task, const MetricConfig& metric, const Sample& sample,
                                  std::size_t filter);

// The aggregate of result.values and its standard error: of a mean sqrt(sum (x - mean)^2 / (n - 1)) /
// sqrt(n); of a median or perplexity by `bootstrap_draws` draws with replacement, of which 1000 come from one
// random.Random(i) each; none for the others, for one sample, and without draws.
void aggregate(MetricResult& result, Aggregation how, std::int64_t bootstrap_draws);

}  // namespace bise
