#include "serve/tool_parser.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>

#include "base/json.h"
#include "text/stop_strings.h"

namespace bise {
namespace {

constexpr std::string_view kMark = "[TOOL_CALLS]", kArgs = "[ARGS]", kCallId = "[CALL_ID]";
constexpr std::string_view kBlanks = " \t\r\n";

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

void drop_blanks(std::string& text) {
  text.erase(0, std::min(text.find_first_not_of(kBlanks), text.size()));
}

// The text of a JSON string, or `json` itself when it is something else.
std::string unquoted(const std::string& json) {
  const Json value = Json::parse(json, nullptr, false);
  return value.is_string() ? value.get<std::string>() : json;
}

}  // namespace

std::string random_tool_call_id() {
  constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
  thread_local std::mt19937_64 random{std::random_device{}()};
  std::uniform_int_distribution<std::size_t> pick(0, kAlphabet.size() - 1);
  std::string id;
  for (int i = 0; i < 9; ++i) id += kAlphabet[pick(random)];
  return id;
}

ToolParser::ToolParser(Form form, std::string name)
    : state_(form == Form::kMarked  ? State::kContent
             : form == Form::kArray ? State::kAfterMark
                                    : State::kArguments),
      key_(std::move(name)) {}

void ToolParser::push(std::string_view text, std::string& content, std::vector<ToolCallPiece>& pieces) {
  held_ += text;
  while (step(content, pieces)) {
  }
}

void ToolParser::finish(std::string& content, std::vector<ToolCallPiece>& pieces) {
  while (step(content, pieces)) {
  }
  if (state_ == State::kContent) content += held_;
  if (calls_ == 0 && (state_ == State::kAfterMark || state_ == State::kName))
    content += (marked_ ? std::string(kMark) : std::string()) + held_;
  held_.clear();
}

// One transition; false when more text is needed.
bool ToolParser::step(std::string& content, std::vector<ToolCallPiece>& pieces) {
  switch (state_) {
    case State::kContent: return read_content(content);
    case State::kAfterMark: return read_after_mark();
    case State::kName: return read_name(pieces);
    case State::kArguments: return read_arguments(pieces);
    case State::kArray: return read_array();
    case State::kCall: return read_call(pieces);
    case State::kAfterCall: return skip_to_mark();
  }
  return false;
}

bool ToolParser::read_content(std::string& content) {
  const std::size_t mark = held_.find(kMark);
  const bool found = mark != std::string::npos;
  const std::size_t certain = found ? mark : held_.size() - partial_match_length(held_, kMark);
  content.append(held_, 0, certain);
  held_.erase(0, found ? certain + kMark.size() : certain);
  if (!found) return false;
  marked_ = true;
  state_ = State::kAfterMark;
  return true;
}

// What the first character after the mark tells: an array of calls, a single one, or a name.
bool ToolParser::read_after_mark() {
  drop_blanks(held_);
  if (held_.starts_with(kMark)) {
    held_.erase(0, kMark.size());
    marked_ = true;
    return true;
  }
  if (kMark.starts_with(held_)) return false;
  if (held_[0] == '[') {
    held_.erase(0, 1);
    state_ = State::kArray;
  } else {
    state_ = held_[0] == '{' ? State::kArray : State::kName;
  }
  return true;
}

bool ToolParser::read_name(std::vector<ToolCallPiece>& pieces) {
  const std::size_t brace = held_.find('{');
  const std::size_t args = held_.find(kArgs);
  const std::size_t end = std::min(brace, args);
  if (end == std::string::npos) return false;
  std::string_view head = trimmed(std::string_view(held_).substr(0, end));
  std::string id;
  if (const std::size_t at = head.find(kCallId); at != std::string_view::npos) {
    id = trimmed(head.substr(at + kCallId.size()));
    head = trimmed(head.substr(0, at));
  }
  const std::string name(head);
  held_.erase(0, args < brace ? args + kArgs.size() : brace);
  begin_call(std::move(id), name, pieces);
  state_ = State::kArguments;
  return true;
}

bool ToolParser::read_arguments(std::vector<ToolCallPiece>& pieces) {
  if (calls_ == 0) begin_call({}, key_, pieces);
  if (!in_value_) drop_blanks(held_);
  if (held_.empty()) return false;
  in_value_ = true;
  const std::size_t taken = value_.scan(held_);
  append_arguments(std::string_view(held_).substr(0, taken), pieces);
  held_.erase(0, taken);
  if (!value_.done()) return false;
  in_value_ = false;
  state_ = State::kAfterCall;
  return true;
}

// Between the calls of an array.
bool ToolParser::read_array() {
  const std::size_t begin = held_.find_first_not_of(std::string(kBlanks) + ",");
  held_.erase(0, std::min(begin, held_.size()));
  if (held_.empty()) return false;
  if (held_[0] == '{') {
    held_.erase(0, 1);
    named_ = in_value_ = false;
    key_.clear();
    early_.clear();
    state_ = State::kCall;
  } else {
    held_.erase(0, 1);
    state_ = State::kAfterCall;  // "]", or something that is no call
  }
  return true;
}

// Members of a call's object: only name and arguments matter. Arguments stream as they come, unless the name
// comes after them or they are a string that holds JSON.
bool ToolParser::read_call(std::vector<ToolCallPiece>& pieces) {
  if (!in_value_) {
    const std::size_t begin = held_.find_first_not_of(std::string(kBlanks) + ",:");
    held_.erase(0, std::min(begin, held_.size()));
    if (held_.empty()) return false;
    if (held_[0] == '}' || held_[0] == ']') {
      held_.erase(0, 1);
      state_ = State::kArray;
      return true;
    }
    value_.reset();
    scanned_ = 0;
    in_value_ = true;
    is_arguments_ = key_ == "arguments" || key_ == "parameters";
    streams_ = is_arguments_ && named_ && held_[0] != '"';
  }
  const std::size_t taken = value_.scan(std::string_view(held_).substr(scanned_));
  if (streams_) {
    append_arguments(std::string_view(held_).substr(0, taken), pieces);
    held_.erase(0, taken);
  } else {
    scanned_ += taken;
  }
  if (!value_.done()) return false;
  in_value_ = false;
  if (!streams_) end_member(pieces);
  if (streams_) key_.clear();
  streams_ = false;
  return true;
}

// held_[0, scanned_) is a whole key, or a value that did not stream.
void ToolParser::end_member(std::vector<ToolCallPiece>& pieces) {
  const std::string text = unquoted(held_.substr(0, scanned_));
  held_.erase(0, scanned_);
  if (key_.empty()) {
    key_ = text.empty() ? "?" : text;
    return;
  }
  if (key_ == "name" && !named_) {
    begin_call({}, text, pieces);
    append_arguments(early_, pieces);
    named_ = true;
  } else if (is_arguments_ && named_) {
    append_arguments(text, pieces);
  } else if (is_arguments_) {
    early_ = text;
  }
  key_.clear();
}

bool ToolParser::skip_to_mark() {
  const std::size_t mark = held_.find(kMark);
  if (mark == std::string::npos) {
    held_.erase(0, held_.size() - partial_match_length(held_, kMark));
    return false;
  }
  held_.erase(0, mark + kMark.size());
  state_ = State::kAfterMark;
  return true;
}

void ToolParser::begin_call(std::string id, std::string name, std::vector<ToolCallPiece>& pieces) {
  value_.reset();
  in_value_ = false;
  if (id.empty()) id = random_tool_call_id();
  pieces.push_back({calls_++, std::move(id), std::move(name), {}});
}

void ToolParser::append_arguments(std::string_view text, std::vector<ToolCallPiece>& pieces) const {
  if (text.empty()) return;
  if (pieces.empty() || pieces.back().index != calls_ - 1) pieces.push_back({calls_ - 1, {}, {}, {}});
  pieces.back().arguments += text;
}

}  // namespace bise
