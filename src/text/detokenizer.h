// Ids to text as they arrive, without ever giving half a character. One object serves one sequence and one
// thread; the Tokenizer must outlive it.
#pragma once

#include <cstdint>
#include <string>

#include "text/tokenizer.h"

namespace bise {

class StreamDetokenizer {
 public:
  explicit StreamDetokenizer(const Tokenizer& tokenizer, bool skip_special_tokens = true);

  // The text that `id` completes; may be empty. Valid UTF-8.
  std::string push(std::int32_t id);
  // What is still held back, with U+FFFD for an unfinished character. Starts anew afterwards. All pushes
  // and the flush joined equal Tokenizer::decode of all ids.
  std::string flush();

 private:
  void append_text(std::string_view text, std::string& out);
  void append_bytes(std::string_view bytes, std::string& out);
  void strip_start(std::string& fresh);

  const TokenizerParts& parts_;
  bool skip_special_tokens_;
  // Bytes of a character that is not complete.
  std::string pending_;
  // Whether a token was seen, and how many leading spaces may still be dropped from the text.
  bool at_start_ = true;
  int strip_left_ = 0;
};

}  // namespace bise
