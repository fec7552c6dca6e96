#include "serve/logprobs_json.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_set>

#include "serve/json_text.h"

namespace bise {
namespace {

// JSON has no infinity: vLLM writes this for what cannot come.
constexpr double kLowest = -9999;

void append_logprob(std::string& out, double logprob) {
  append_number(out, std::isnan(logprob) ? kLowest : std::max(logprob, kLowest));
}

// The token that stands there, then the alternatives, each once.
template <class Visit>
void for_each_candidate(const PositionLogprobs& position, Visit&& visit) {
  visit(position.token, position.rank);
  for (std::size_t i = 0; i < position.top.size(); ++i)
    if (position.top[i].token != position.token.token)
      visit(position.top[i], static_cast<std::int64_t>(i) + 1);
}

std::int64_t count_characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

}  // namespace

PositionLogprobs unscored(std::int32_t token) {
  PositionLogprobs position;
  position.token = {token, std::numeric_limits<double>::quiet_NaN()};
  return position;
}

std::string LogprobsFormat::token_text(std::int32_t token) const {
  if (as_ids_) return "token_id:" + std::to_string(token);
  return valid_utf8(tokenizer_.token_bytes(token));
}

void LogprobsFormat::append_token(std::string& out, std::int32_t token) const {
  append_json_string(out, token_text(token));
}

void LogprobsFormat::append_completion(std::string& out, std::span<const PositionLogprobs> positions,
                                       std::int64_t& offset) const {
  std::string offsets, logprobs, tokens, tops;
  const char* comma = "";
  for (const PositionLogprobs& position : positions) {
    offsets += comma;
    append_number(offsets, offset);
    offset += count_characters(valid_utf8(tokenizer_.token_bytes(position.token.token)));
    tokens += comma;
    append_token(tokens, position.token.token);
    logprobs += comma;
    tops += comma;
    comma = ",";
    if (std::isnan(position.token.logprob)) {
      logprobs += "null";
      tops += "null";
      continue;
    }
    append_logprob(logprobs, position.token.logprob);
    tops += '{';
    std::unordered_set<std::string> seen;  // tokens may have the same text: the first, more likely, stays
    for_each_candidate(position, [&](const TokenLogprob& candidate, std::int64_t) {
      std::string text = token_text(candidate.token);
      if (seen.contains(text)) return;
      if (!seen.empty()) tops += ',';
      append_json_string(tops, text);
      tops += ':';
      append_logprob(tops, candidate.logprob);
      seen.insert(std::move(text));
    });
    tops += '}';
  }
  out += R"({"text_offset":[)" + offsets + R"(],"token_logprobs":[)" + logprobs + R"(],"tokens":[)" + tokens +
         R"(],"top_logprobs":[)" + tops + "]}";
}

// {"token", "logprob", "bytes" without the closing brace
void LogprobsFormat::append_chat_entry(std::string& out, const TokenLogprob& entry) const {
  out += R"({"token":)";
  append_token(out, entry.token);
  out += R"(,"logprob":)";
  append_logprob(out, entry.logprob);
  out += R"(,"bytes":[)";
  const char* comma = "";
  for (const char byte : tokenizer_.token_bytes(entry.token)) {
    out += comma;
    append_number(out, std::int64_t{static_cast<unsigned char>(byte)});
    comma = ",";
  }
  out += ']';
}

void LogprobsFormat::append_chat(std::string& out, std::span<const PositionLogprobs> positions,
                                 std::int64_t top) const {
  out += R"({"content":[)";
  const char* comma = "";
  for (const PositionLogprobs& position : positions) {
    out += comma;
    comma = ",";
    append_chat_entry(out, position.token);
    out += R"(,"top_logprobs":[)";
    std::int64_t written = 0;
    for_each_candidate(position, [&](const TokenLogprob& candidate, std::int64_t) {
      if (top >= 0 && written >= top) return;
      if (written++ > 0) out += ',';
      append_chat_entry(out, candidate);
      out += '}';
    });
    out += "]}";
  }
  out += "]}";
}

void LogprobsFormat::append_prompt(std::string& out, std::span<const PositionLogprobs> positions) const {
  out += "[null";
  for (const PositionLogprobs& position : positions) {
    out += ",{";
    const char* comma = "";
    for_each_candidate(position, [&](const TokenLogprob& candidate, std::int64_t rank) {
      out += comma;
      comma = ",";
      out += '"';
      append_number(out, std::int64_t{candidate.token});
      out += R"(":{"logprob":)";
      append_logprob(out, candidate.logprob);
      out += R"(,"rank":)";
      append_number(out, rank);
      out += R"(,"decoded_token":)";
      append_json_string(out, valid_utf8(tokenizer_.token_bytes(candidate.token)));
      out += '}';
    });
    out += '}';
  }
  out += ']';
}

}  // namespace bise
