#include "text/detokenizer.h"

#include <algorithm>

#include "text/tokenizer_parts.h"
#include "text/utf8.h"

namespace bise {

StreamDetokenizer::StreamDetokenizer(const Tokenizer& tokenizer, bool skip_special_tokens)
    : parts_(*tokenizer.parts_), skip_special_tokens_(skip_special_tokens), strip_left_(parts_.strip_left) {}

std::string StreamDetokenizer::push(std::int32_t id) {
  if (id < 0 || static_cast<std::size_t>(id) >= parts_.decoded.size()) return {};
  const DecodedToken& token = parts_.decoded[id];
  if (token.kind == DecodedToken::kAbsent) return {};
  std::string out;
  if (token.special && skip_special_tokens_) {
    if (parts_.special_ends_character) append_text({}, out);
    return out;
  }
  if (!at_start_ && !parts_.separator.empty()) append_text(parts_.separator, out);
  std::string_view bytes = token.bytes;
  if (at_start_ && parts_.strip_first_token)
    bytes.remove_prefix(std::min(bytes.find_first_not_of(' '), bytes.size()));
  if (at_start_ && parts_.strip_marks_only && token.kind == DecodedToken::kBytes) strip_left_ = 0;
  at_start_ = false;
  if (token.kind == DecodedToken::kText)
    append_text(bytes, out);
  else
    append_bytes(bytes, out);
  strip_start(out);
  return out;
}

std::string StreamDetokenizer::flush() {
  std::string out;
  append_text({}, out);
  strip_start(out);
  at_start_ = true;
  strip_left_ = parts_.strip_left;
  return out;
}

void StreamDetokenizer::append_text(std::string_view text, std::string& out) {
  // What is pending can no longer become a character.
  const std::size_t bad = parts_.replace_each_byte ? pending_.size() : pending_.empty() ? 0 : 1;
  for (std::size_t i = 0; i < bad; ++i) out += kReplacementCharacter;
  pending_.clear();
  out += text;
}

void StreamDetokenizer::append_bytes(std::string_view bytes, std::string& out) {
  pending_ += bytes;
  std::string_view rest = pending_;
  while (!rest.empty()) {
    const Utf8Step step = utf8_step(rest);
    if (step.status == Utf8Status::kIncomplete) break;
    if (step.status == Utf8Status::kCharacter) {
      out += rest.substr(0, step.length);
      rest.remove_prefix(step.length);
    } else {
      out += kReplacementCharacter;
      rest.remove_prefix(parts_.replace_each_byte ? 1 : step.length);
    }
  }
  pending_.erase(0, pending_.size() - rest.size());
}

void StreamDetokenizer::strip_start(std::string& fresh) {
  std::size_t drop = 0;
  while (drop < fresh.size() && strip_left_ > 0) {
    if (fresh[drop] == ' ') {
      ++drop;
      --strip_left_;
    } else {
      strip_left_ = 0;
    }
  }
  fresh.erase(0, drop);
}

}  // namespace bise
