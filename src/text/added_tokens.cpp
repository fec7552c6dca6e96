#include "text/added_tokens.h"

#include <algorithm>

#include "text/unicode.h"
#include "text/utf8.h"

namespace bise {
namespace {

std::uint64_t edge(std::uint32_t node, char byte) {
  return std::uint64_t{node} << 8 | static_cast<unsigned char>(byte);
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  for (std::size_t index = 0; index < tokens_.size(); ++index) {
    std::uint32_t node = 0;
    for (const char byte : tokens_[index].content) {
      const auto [next, fresh] =
          edges_.try_emplace(edge(node, byte), static_cast<std::uint32_t>(token_at_.size()));
      if (fresh) token_at_.push_back(-1);
      node = next->second;
    }
    token_at_[node] = static_cast<std::int32_t>(index);
    starts_[static_cast<unsigned char>(tokens_[index].content.front())] = true;
  }
}

bool AddedTokens::stands_alone(std::string_view text, std::size_t begin, std::size_t end) {
  const bool word_before = begin > 0 && is_word_character(last_character(text.substr(0, begin)));
  const bool word_after = end < text.size() && is_word_character(utf8_step(text.substr(end)).code);
  return !word_before && !word_after;
}

const AddedToken* AddedTokens::longest_match(std::string_view text, std::size_t begin,
                                             std::span<const TextRange> trusted) const {
  const AddedToken* longest = nullptr;
  std::uint32_t node = 0;
  for (std::size_t end = begin; end < text.size();) {
    const auto next = edges_.find(edge(node, text[end]));
    if (next == edges_.end()) break;
    node = next->second;
    ++end;
    if (token_at_[node] < 0) continue;
    const AddedToken& token = tokens_[token_at_[node]];
    if (token.special) {
      // The last trusted range that starts at `begin` or before.
      const auto after =
          std::upper_bound(trusted.begin(), trusted.end(), begin,
                           [](std::size_t at, const TextRange& range) { return at < range.begin; });
      if (after == trusted.begin() || std::prev(after)->end < end) continue;
    }
    if (token.single_word && !stands_alone(text, begin, end)) continue;
    longest = &token;
  }
  return longest;
}

std::vector<AddedTokenPart> AddedTokens::split(std::string_view text,
                                               std::span<const TextRange> trusted) const {
  std::vector<AddedTokenPart> parts;
  std::size_t done = 0;  // everything before is in `parts`
  for (std::size_t at = 0; !tokens_.empty() && at < text.size();) {
    const AddedToken* token = nullptr;
    if (starts_[static_cast<unsigned char>(text[at])]) token = longest_match(text, at, trusted);
    if (!token) {
      ++at;
      continue;
    }
    std::size_t begin = at, end = at + token->content.size();
    if (token->lstrip)
      while (begin > done && is_white_space(last_character(text.substr(done, begin - done))))
        begin -= last_character_length(text.substr(done, begin - done));
    if (token->rstrip)
      while (end < text.size() && is_white_space(utf8_step(text.substr(end)).code))
        end += utf8_step(text.substr(end)).length;
    if (begin > done) parts.push_back({text.substr(done, begin - done), -1});
    parts.push_back({text.substr(begin, end - begin), token->id});
    done = at = end;
  }
  if (done < text.size()) parts.push_back({text.substr(done), -1});
  return parts;
}

}  // namespace bise
