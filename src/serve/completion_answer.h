// The answer of /v1/completions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "serve/answer.h"
#include "serve/completion_request.h"

namespace bise {

class CompletionAnswer : public Answer {
 public:
  // `request` outlives the answer.
  CompletionAnswer(const CompletionRequest& request, std::int64_t created, const ServedModel& model);

  void append_start(std::string&) override {}
  void append_delta(std::size_t index, ChoiceStream& choice, std::string& out) override;
  std::string whole(std::vector<ChoiceStream>& choices, const Usage& usage) override;

 private:
  struct Shown {
    bool started = false;
    std::int64_t offset = 0;  // characters of text that the tokens so far stand for
  };
  const Prompt& prompt_of(std::size_t index) const;
  // text, logprobs, finish_reason, stop_reason of what is new.
  void append_choice(std::size_t index, ChoiceStream& choice, std::string& out);
  void append_logprobs(std::size_t index, ChoiceStream& choice, std::string& out);

  const CompletionRequest& request_;
  std::vector<Shown> shown_;  // by choice
};

}  // namespace bise
