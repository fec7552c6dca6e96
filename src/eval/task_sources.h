// The texts of the built-in tasks in lm-evaluation-harness's keys: whole tasks, and what the members of a
// family (arc, mmlu, bbh) have in common.
#pragma once

#include <span>
#include <string_view>

namespace bise {

// gsm8k, gsm8k_cot, hellaswag, piqa, winogrande; arc, mmlu, bbh without task and data set. Another name is a
// broken invariant.
std::string_view task_source(std::string_view name);

std::span<const std::string_view> mmlu_subjects();

struct BbhTask {
  std::string_view name;
  // Choices (A), (B), ...: how many; 0 = those of `choices`, with "|" between them.
  int letters;
  std::string_view choices;
};
std::span<const BbhTask> bbh_tasks();

}  // namespace bise
