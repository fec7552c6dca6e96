// Answers taken out of generated text, with lm-evaluation-harness's filters. Pure functions.
#pragma once

#include <string>

#include "eval/document.h"
#include "eval/task.h"

namespace bise {

// Runs the chain on one generated text; `document` is the one that was asked about.
std::string apply_filters(const FilterConfig& filter, const std::string& text, const Document& document,
                          const std::string& task);

// HF's exact_match on one pair: the ignored patterns removed from both, then letter case, punctuation and
// digits where the metric says so.
bool exact_match(const MetricConfig& metric, std::string prediction, std::string reference);

}  // namespace bise
