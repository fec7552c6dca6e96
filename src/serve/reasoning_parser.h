// Splits what a model writes into what it thinks and what it answers: "[THINK]...[/THINK]" (Mistral's
// tokenizer v13) or "<think>...</think>" (v11). One object serves one choice.
#pragma once

#include <string>
#include <string_view>

namespace bise {

class ReasoningParser {
 public:
  // `thinking`: the prompt has opened a thought that the text goes on with.
  explicit ReasoningParser(bool thinking = false) : state_(thinking ? State::kThought : State::kStart) {}

  // Appends what is certain now. A thought comes first or not at all: only blanks may stand before its mark.
  void push(std::string_view text, std::string& reasoning, std::string& content);
  // What is still held back.
  void finish(std::string& reasoning, std::string& content);

 private:
  enum class State { kStart, kThought, kAnswer };
  State state_;
  std::string held_;
};

}  // namespace bise
