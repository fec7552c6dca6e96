#include "text/pre_tokenizer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "text/utf8.h"

namespace bise {
namespace {

// GPT-2's split into words (openai/gpt-2, encoder.py), as tokenizers' ByteLevel has it.
constexpr const char* kGpt2Words =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

SplitBehavior behavior_named(const std::string& name, const std::string& where) {
  constexpr std::pair<const char*, SplitBehavior> kNames[] = {
      {"Removed", SplitBehavior::kRemoved},
      {"Isolated", SplitBehavior::kIsolated},
      {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
      {"MergedWithNext", SplitBehavior::kMergedWithNext},
      {"Contiguous", SplitBehavior::kContiguous}};
  for (const auto& [known, behavior] : kNames)
    if (name == known) return behavior;
  throw Error("unknown split behavior").at(where).got(name);
}

struct Piece {
  TextRange range;
  bool is_match;
};

// Calls take(piece) for the pieces of `text` in order: matches and what lies between them. Some may be empty.
template <class Take>
void for_each_piece(std::string_view text, const TextPattern& pattern, RegexScratch& scratch, Take&& take) {
  std::size_t done = 0, from = 0;
  while (from < text.size()) {
    const auto match = pattern.find(text, from, scratch);
    if (!match) break;
    if (match->begin > done) take(Piece{{done, match->begin}, false});
    take(Piece{*match, true});
    done = from = match->end;
    if (match->begin == match->end && from < text.size()) from += utf8_step(text.substr(from)).length;
  }
  if (done < text.size()) take(Piece{{done, text.size()}, false});
}

// Joins neighbours as `behavior` says (tokenizers, normalizer.rs, NormalizedString::split).
std::vector<TextRange> joined(const std::vector<Piece>& pieces, SplitBehavior behavior) {
  std::vector<TextRange> ranges;
  bool previous_match = false;
  const auto add = [&](const Piece& piece, bool join) {
    if (join && !ranges.empty()) {
      ranges.back() = {std::min(ranges.back().begin, piece.range.begin),
                       std::max(ranges.back().end, piece.range.end)};
    } else {
      ranges.push_back(piece.range);
    }
    previous_match = piece.is_match;
  };
  switch (behavior) {
    case SplitBehavior::kIsolated:
      for (const Piece& piece : pieces) ranges.push_back(piece.range);
      break;
    case SplitBehavior::kRemoved:
      for (const Piece& piece : pieces)
        if (!piece.is_match) ranges.push_back(piece.range);
      break;
    case SplitBehavior::kContiguous:
      for (const Piece& piece : pieces) add(piece, piece.is_match == previous_match);
      break;
    case SplitBehavior::kMergedWithPrevious:
      for (const Piece& piece : pieces) add(piece, piece.is_match && !previous_match);
      break;
    case SplitBehavior::kMergedWithNext:
      for (auto piece = pieces.rbegin(); piece != pieces.rend(); ++piece)
        add(*piece, piece->is_match && !previous_match);
      std::reverse(ranges.begin(), ranges.end());
      break;
  }
  return ranges;
}

}  // namespace

PreTokenizer::PreTokenizer(const Json& json, const std::string& where) {
  if (!json.is_null()) add(json, where, 0);
}

void PreTokenizer::add(const Json& json, const std::string& where, int depth) {
  if (byte_level_) throw Error("a pre-tokenizer after ByteLevel is unsupported").at(where);
  const std::string type = require_string(json, "type", where);
  if (type == "Sequence") {
    if (depth >= 8) throw Error("sequences are nested too deeply").at(where);
    const Json& members = require(json, "pretokenizers", where);
    if (!members.is_array()) throw Error("wrong type").at(where + ".pretokenizers").expected("an array");
    for (const Json& member : members) add(member, where, depth + 1);
  } else if (type == "Split") {
    add_split(TextPattern::from_json(require(json, "pattern", where), where + ".pattern"),
              behavior_named(require_string(json, "behavior", where), where + ".behavior"),
              find_bool(json, "invert", false, where));
  } else if (type == "Digits") {
    add_split(TextPattern::regex("\\p{N}", where),
              find_bool(json, "individual_digits", false, where) ? SplitBehavior::kIsolated
                                                                 : SplitBehavior::kContiguous,
              false);
  } else if (type == "WhitespaceSplit") {
    add_split(TextPattern::regex("\\s", where), SplitBehavior::kRemoved, false);
  } else if (type == "Metaspace") {
    add_metaspace(json, where);
  } else if (type == "ByteLevel") {
    add_byte_level(json, where);
  } else {
    throw Error("unsupported pre-tokenizer")
        .at(where + ".type")
        .expected("Sequence, Split, Digits, WhitespaceSplit, Metaspace or ByteLevel")
        .got(type);
  }
}

void PreTokenizer::add_metaspace(const Json& json, const std::string& where) {
  Metaspace step{find_string(json, "replacement", "\xE2\x96\x81", where), Metaspace::kAlways,
                 find_bool(json, "split", true, where)};
  if (step.replacement.empty() || utf8_step(step.replacement).length != step.replacement.size())
    throw Error("wrong value").at(where + ".replacement").expected("one character").got(step.replacement);
  // Files from before tokenizers 0.15 say add_prefix_space instead of prepend_scheme.
  const bool add_prefix_space = find_bool(json, "add_prefix_space", true, where);
  const std::string scheme =
      find_string(json, "prepend_scheme", add_prefix_space ? "always" : "never", where);
  if (scheme == "first")
    step.prepend = Metaspace::kFirst;
  else if (scheme == "never")
    step.prepend = Metaspace::kNever;
  else if (scheme != "always")
    throw Error("unknown value").at(where + ".prepend_scheme").expected("always, first or never").got(scheme);
  steps_.emplace_back(std::move(step));
}

void PreTokenizer::add_byte_level(const Json& json, const std::string& where) {
  if (find_bool(json, "add_prefix_space", true, where)) steps_.emplace_back(PrefixSpace{});
  if (find_bool(json, "use_regex", true, where))
    add_split(TextPattern::regex(kGpt2Words, where), SplitBehavior::kIsolated, false);
  set_byte_level();
}

void PreTokenizer::add_split(TextPattern pattern, SplitBehavior behavior, bool invert) {
  steps_.emplace_back(Split{std::move(pattern), behavior, invert});
}

PreTokenizer::Words PreTokenizer::words(std::string_view text, bool at_start, RegexScratch& scratch,
                                        std::deque<std::string>& storage) const {
  Words words{text}, next;
  for (const Step& step : steps_) {
    next.clear();
    for (std::size_t i = 0; i < words.size(); ++i) {
      Context context{at_start && i == 0, scratch, storage};
      std::visit([&](const auto& kind) { apply_step(kind, words[i], context, next); }, step);
    }
    words.swap(next);
  }
  return words;
}

void PreTokenizer::apply_step(const Split& step, std::string_view word, Context& context, Words& out) {
  const auto push = [&](const TextRange& range) {
    if (range.begin < range.end) out.push_back(word.substr(range.begin, range.end - range.begin));
  };
  // By far the most common: every piece is a word.
  if (step.behavior == SplitBehavior::kIsolated) {
    for_each_piece(word, step.pattern, context.scratch, [&](const Piece& piece) { push(piece.range); });
    return;
  }
  std::vector<Piece> pieces;
  for_each_piece(word, step.pattern, context.scratch, [&](const Piece& piece) {
    pieces.push_back({piece.range, piece.is_match != step.invert});
  });
  for (const TextRange& range : joined(pieces, step.behavior)) push(range);
}

void PreTokenizer::apply_step(const Metaspace& step, std::string_view word, Context& context, Words& out) {
  std::string text;
  for (const char byte : word) {
    if (byte == ' ')
      text += step.replacement;
    else
      text += byte;
  }
  const bool prepend =
      step.prepend == Metaspace::kAlways || (step.prepend == Metaspace::kFirst && context.at_start);
  if (prepend && !text.starts_with(step.replacement)) text.insert(0, step.replacement);
  const std::string_view whole = context.storage.emplace_back(std::move(text));
  if (!step.split) {
    out.push_back(whole);
    return;
  }
  // Each mark starts a word.
  for (std::size_t begin = 0; begin < whole.size();) {
    const std::size_t end = std::min(whole.find(step.replacement, begin + 1), whole.size());
    out.push_back(whole.substr(begin, end - begin));
    begin = end;
  }
}

void PreTokenizer::apply_step(const PrefixSpace&, std::string_view word, Context& context, Words& out) {
  if (word.starts_with(' '))
    out.push_back(word);
  else
    out.push_back(context.storage.emplace_back(1, ' ').append(word));
}

}  // namespace bise
