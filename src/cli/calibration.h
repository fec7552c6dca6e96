// Where calibration sequences come from: a file of rows or text, or the model itself.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/runtime.h"

namespace bise {

struct CalibrationOptions {
  std::string source = "self";  // a JSONL or text file, or "self"
  std::int64_t num_calibration_samples = 128;
  std::int64_t max_seq_length = 512;
  std::int64_t seed = 0;  // of "self"
};

// Token ids, each sequence at most max_seq_length long.
//   FILE.jsonl  the first num_calibration_samples rows {"text"}, {"messages"} or {"token_ids"}; messages go
//               through the chat template
//   other file  one text, cut into pieces of max_seq_length tokens
//   self        sampled from the model at temperature 1, starting from BOS (or the end-of-sequence token), so
//               that no data is needed (as data-free quantization does it: LLM-QAT, Liu et al. 2023)
// Throws Error when a row has none of the three fields or nothing is left.
std::vector<std::vector<std::int32_t>> calibration_sequences(const std::string& model,
                                                             const CalibrationOptions& options,
                                                             Runtime& runtime);

}  // namespace bise
