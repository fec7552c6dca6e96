// The flags of `bise eval`, in lm-evaluation-harness's spelling where it has the same, and what they say.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cli/flags.h"
#include "cli/runtime.h"
#include "eval/evaluate.h"

namespace bise {

struct EvalOptions {
  std::string model, typed_model, tasks, include_path, data_dir = "data", output_path;
  std::string limit, num_fewshot, seed, system_instruction, gen_kwargs, batch_size = "auto";
  std::string python;
  std::string base_url, served_model, tokenizer;
  std::int64_t max_length = 0, num_concurrent = 8, max_retries = 3, bootstrap_iters = 100000;
  double timeout = 300;
  bool chat = false, multiturn = true, log_samples = false, list_tasks = false, json = false;
  bool allow_code = false, resume = true;
  DeviceFlags device = {.precision = "float32"};            // as the reference runs
  std::vector<std::int64_t> seeds = {0, 1234, 1234, 1234};  // random, numpy, torch, few-shot
};

// Returns false when --help was printed. Names with "_" stand for those with "-". Throws Error for flags that
// contradict one another and values that are none.
bool parse_eval_options(const std::vector<std::string>& arguments, EvalOptions& options);

// What the flags say about the tasks; reads the chat template.
EvaluationOptions evaluation_options(const EvalOptions& options);

// Names with commas or blanks between them.
std::vector<std::string> split_names(const std::string& text);

// "temperature=0.7,top_p=0.9" or a JSON object. Throws Error.
Json parse_gen_kwargs(const std::string& text);

// Answers generated at the same time: --batch-size, where "auto" is what a quarter of the free memory holds
// of `token_bytes` * max_length, 4 to 32.
std::int64_t sequences_at_once(const EvalOptions& options, std::int64_t token_bytes, std::int64_t max_length,
                               const MemoryInfo& memory);

}  // namespace bise
