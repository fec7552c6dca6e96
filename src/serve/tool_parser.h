// Finds tool calls in what a model writes, while it writes. Three forms:
//   [TOOL_CALLS] [{"name": ..., "arguments": {...}}, ...]     Mistral's tokenizers before v11
//   [TOOL_CALLS]name[CALL_ID]id[ARGS]{...}                    v11 and later; id and [ARGS] may be absent
//   [{"name": ..., "parameters" | "arguments": {...}}, ...]   enforced by tool_choice "required"
// One object serves one choice.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "serve/json_scanner.h"

namespace bise {

// A piece of a call. The first of each call has id and name, the others only arguments.
struct ToolCallPiece {
  std::size_t index = 0;
  std::string id, name, arguments;
};

// 9 characters of [a-zA-Z0-9], as Mistral's templates want them.
std::string random_tool_call_id();

class ToolParser {
 public:
  enum class Form {
    kMarked,    // content up to [TOOL_CALLS], then calls in either form
    kArray,     // the whole text is the array, with or without [TOOL_CALLS] before it
    kArguments  // the whole text is the arguments of one call of the function `name`
  };
  explicit ToolParser(Form form, std::string name = {});

  // Appends what is certain now. Text that stands after a call is dropped.
  void push(std::string_view text, std::string& content, std::vector<ToolCallPiece>& pieces);
  // What is still held back; a mark that no call followed becomes content.
  void finish(std::string& content, std::vector<ToolCallPiece>& pieces);
  std::size_t calls() const { return calls_; }

 private:
  enum class State { kContent, kAfterMark, kName, kArguments, kArray, kCall, kAfterCall };

  bool step(std::string& content, std::vector<ToolCallPiece>& pieces);
  bool read_content(std::string& content);
  bool read_after_mark();
  bool read_name(std::vector<ToolCallPiece>& pieces);
  bool read_arguments(std::vector<ToolCallPiece>& pieces);
  bool read_array();
  bool read_call(std::vector<ToolCallPiece>& pieces);
  void end_member(std::vector<ToolCallPiece>& pieces);
  bool skip_to_mark();
  void begin_call(std::string id, std::string name, std::vector<ToolCallPiece>& pieces);
  void append_arguments(std::string_view text, std::vector<ToolCallPiece>& pieces) const;

  State state_;
  std::string held_;
  bool marked_ = false;     // a mark came
  JsonValueScanner value_;  // what is being read
  bool in_value_ = false;
  // In an array: the member whose value is being read ("" while a key is), and how.
  std::string key_;    // with Form::kArguments: the name of the function
  std::string early_;  // arguments that came before the name
  bool named_ = false, is_arguments_ = false, streams_ = false;
  std::size_t scanned_ = 0;  // bytes of held_ that value_ has seen
  std::size_t calls_ = 0;
};

}  // namespace bise
