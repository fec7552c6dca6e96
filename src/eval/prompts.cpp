#include "eval/prompts.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace bise {
namespace {

bool is_blank(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

const std::string& question(const TaskConfig& task, const Document& document, std::size_t choice) {
  return task.multiple_inputs ? document.choices[choice] : document.text;
}

// With contexts for choices, the right one.
const std::string& example_question(const TaskConfig& task, const Document& document) {
  if (!task.multiple_inputs) return document.text;
  if (document.gold < 0) throw Error("an example has no right choice").at(task.task);
  return document.choices[static_cast<std::size_t>(document.gold)];
}

// What stands between a question and the begin of its answer.
std::string prefix_seam(const TaskConfig& task, const std::string& before, const std::string& prefix) {
  const bool blank = prefix.empty() || before.empty() || is_blank(before.back()) || is_blank(prefix.front());
  return blank ? "" : task.target_delimiter;
}

// With the delimiter before it.
std::string example_answer(const TaskConfig& task, const Document& shot) {
  if (shot.gen_prefix.empty()) return task.target_delimiter + shot.target;
  const bool blank =
      is_blank(shot.gen_prefix.back()) || (!shot.target.empty() && is_blank(shot.target.front()));
  return prefix_seam(task, shot.text, shot.gen_prefix) + shot.gen_prefix + (blank ? "" : " ") + shot.target;
}

Json message(const char* role, const std::string& content) {
  return {{"role", role}, {"content", content}};
}

}  // namespace

FewshotSampler::FewshotSampler(const TaskConfig& task, const std::vector<Document>& pool,
                               std::int64_t num_fewshot, std::uint64_t seed)
    : pool_(pool),
      count_(static_cast<std::size_t>(num_fewshot)),
      first_n_(task.fewshot.sampler == "first_n"),
      // The harness compares the two names, and both are absent in many tasks.
      avoid_document_(!first_n_ && task.fewshot_split == task.test_split),
      random_(seed) {
  if (count_ + (avoid_document_ ? 1 : 0) > pool.size() && count_ > 0)
    throw Error("the task has too few examples for {} shots", num_fewshot)
        .at(task.task)
        .expected(std::to_string(count_ + (avoid_document_ ? 1 : 0)))
        .got(std::to_string(pool.size()));
}

std::vector<const Document*> FewshotSampler::shots(const Document& document) {
  std::vector<const Document*> result;
  if (count_ == 0) return result;
  if (first_n_) {
    for (std::size_t i = 0; i < count_; ++i) result.push_back(&pool_[i]);
    return result;
  }
  const auto same = [&](std::size_t i) { return avoid_document_ && *pool_[i].row == *document.row; };
  for (const std::size_t i : random_.sample(pool_.size(), count_ + (avoid_document_ ? 1 : 0)))
    if (!same(i) && result.size() < count_) result.push_back(&pool_[i]);
  if (result.size() == count_) return result;
  // The document stands in the pool more than once: draw again from the rest.
  std::vector<const Document*> rest;
  for (std::size_t i = 0; i < pool_.size(); ++i)
    if (!same(i)) rest.push_back(&pool_[i]);
  if (rest.size() < count_) throw Error("the task has too few examples that differ from the document");
  result.clear();
  for (const std::size_t i : random_.sample(rest.size(), count_)) result.push_back(rest[i]);
  return result;
}

std::string system_text(const TaskConfig& task, const std::string& instruction,
                        const std::string& description) {
  if (instruction.empty() || description.empty()) return instruction + description;
  const bool seam = is_blank(instruction.back()) || is_blank(description.front());
  return instruction + (seam ? "" : task.fewshot_delimiter) + description;
}

std::string plain_prompt(const TaskConfig& task, const std::string& system,
                         const std::vector<const Document*>& shots, const Document& document,
                         std::size_t choice) {
  std::string prompt = system;
  for (const Document* shot : shots)
    prompt += example_question(task, *shot) + example_answer(task, *shot) + task.fewshot_delimiter;
  prompt += question(task, document, choice);
  return prompt + prefix_seam(task, prompt, document.gen_prefix) + document.gen_prefix;
}

Json chat_messages(const TaskConfig& task, const std::string& system,
                   const std::vector<const Document*>& shots, const Document& document, std::size_t choice,
                   bool multiturn) {
  Json messages = Json::array();
  if (!system.empty()) messages.push_back(message("system", system));
  if (multiturn) {
    for (const Document* shot : shots) {
      messages.push_back(message("user", example_question(task, *shot)));
      messages.push_back(message("assistant", shot->target));
    }
    messages.push_back(message("user", question(task, document, choice)));
  } else {
    Document open = document;
    open.gen_prefix.clear();
    messages.push_back(message("user", plain_prompt(task, "", shots, open, choice)));
  }
  if (!document.gen_prefix.empty()) messages.push_back(message("assistant", document.gen_prefix));
  return messages;
}

std::string continuation(const TaskConfig& task, const Document& document, std::size_t choice, bool chat) {
  const bool delimited = !chat || (!document.gen_prefix.empty() && !is_blank(document.gen_prefix.back()));
  return (delimited ? task.target_delimiter : "") +
         (task.multiple_inputs ? document.target : document.choices[choice]);
}

}  // namespace bise
