// Documents to prompts: the examples drawn for each, and the text around them, as lm-evaluation-harness
// builds it (spec/evaluation.md sections 1.2 to 1.4). Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "eval/document.h"
#include "eval/python_random.h"

namespace bise {

// Draws the examples of one task's documents. Call shots() once for each document, in order: the draws go on
// from one stream of random numbers.
class FewshotSampler {
 public:
  // `pool` outlives the sampler. Throws Error when it is too small.
  FewshotSampler(const TaskConfig& task, const std::vector<Document>& pool, std::int64_t num_fewshot,
                 std::uint64_t seed);

  std::vector<const Document*> shots(const Document& document);

 private:
  const std::vector<Document>& pool_;
  std::size_t count_;
  bool first_n_, avoid_document_;
  PythonRandom random_;
};

// Description, examples and question as one text. `choice` picks the context where choices are contexts.
std::string plain_prompt(const TaskConfig& task, const std::string& system,
                         const std::vector<const Document*>& shots, const Document& document,
                         std::size_t choice);
// Instruction and description, joined by the task's fewshot_delimiter where neither has a blank at the seam.
std::string system_text(const TaskConfig& task, const std::string& instruction,
                        const std::string& description);
// The same as a conversation: with `multiturn` each example is a user's and an assistant's message, else
// examples and question are one user's message. A gen_prefix begins the assistant's answer.
Json chat_messages(const TaskConfig& task, const std::string& system,
                   const std::vector<const Document*>& shots, const Document& document, std::size_t choice,
                   bool multiturn);
// What choice `choice` is continued with; behind a chat template no delimiter comes before it.
std::string continuation(const TaskConfig& task, const Document& document, std::size_t choice, bool chat);

}  // namespace bise
