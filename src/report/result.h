// What was measured of one model on one machine: the schema that every command writes and every table, chart
// and page reads. Plain values; a quantity that was not measured is absent, never zero.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"

namespace bise {

// Where and how a result came about.
struct Environment {
  std::string device;   // "Intel(R) Xeon(R) Processor, 2 threads, cpu amx"
  std::string commit;   // of the program
  std::string date;     // ISO 8601, UTC
  std::string command;  // as typed
};

struct ModelResult {
  std::string name;    // of the checkpoint folder
  std::string scheme;  // "BF16", "W4A16 g64", ...
  Environment environment;
  std::int64_t disk_bytes = 0;               // of the whole folder
  std::optional<std::int64_t> memory_bytes;  // peak resident memory of a process that runs the model
  std::optional<double> prefill_tok_s, decode_tok_s;
  std::optional<double> decode_gb_s, bandwidth_gb_s;  // weights read while decoding; the machine's read limit
  std::optional<double> perplexity;
  std::optional<double> kl_divergence;   // mean KL(original || this) a token, in nats
  std::optional<double> top1_agreement;  // 0 to 1
  std::string answer;                    // to the prompt of the comparison
};

// The results of one comparison, the original first.
struct Comparison {
  std::string prompt;  // that the models answered
  std::string text;    // that perplexity and divergence were measured on: name and tokens
  std::int64_t prompt_tokens = 0, output_tokens = 0;  // of the speed measurement
  std::vector<ModelResult> models;
};

Json to_json(const Comparison& comparison);
// Throws Error naming `where` for a missing or mistyped field.
Comparison comparison_from_json(const Json& json, const std::string& where);

}  // namespace bise
