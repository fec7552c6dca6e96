// Rewrites of a text before it is split: the normalizers of tokenizer.json that Llama-like tokenizers use,
// and SentencePiece's own. Never changes; safe from any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/json.h"
#include "text/regex.h"

namespace bise {

// A string or a regular expression to look for ("pattern" in tokenizer.json: {"String"|"Regex": ...}).
class TextPattern {
 public:
  static TextPattern literal(std::string text);
  static TextPattern regex(const std::string& pattern, const std::string& where);
  static TextPattern from_json(const Json& json, const std::string& where);

  std::optional<TextRange> find(std::string_view text, std::size_t from, RegexScratch& scratch) const;

 private:
  std::variant<std::string, Regex> pattern_;
  explicit TextPattern(std::variant<std::string, Regex> pattern) : pattern_(std::move(pattern)) {}
};

class Normalizer {
 public:
  Normalizer() = default;
  // "normalizer" of tokenizer.json; null means none. Throws Error naming an unsupported type.
  Normalizer(const Json& json, const std::string& where);

  void add_prepend(std::string text);                       // to texts that are not empty
  void add_replace(TextPattern pattern, std::string with);  // every match
  void add_strip(bool left, bool right);                    // white space
  void
  add_collapse_spaces();  // SentencePiece's remove_extra_whitespaces: no U+0020 at the ends, none doubled

  bool empty() const { return steps_.empty(); }
  std::string apply(std::string_view text, RegexScratch& scratch) const;

 private:
  struct Prepend {
    std::string text;
  };
  struct Replace {
    TextPattern pattern;
    std::string with;
  };
  struct Strip {
    bool left, right;
  };
  struct CollapseSpaces {};
  using Step = std::variant<Prepend, Replace, Strip, CollapseSpaces>;

  void add(const Json& json, const std::string& where, int depth);
  static void apply_step(const Prepend& step, std::string& text, RegexScratch& scratch);
  static void apply_step(const Replace& step, std::string& text, RegexScratch& scratch);
  static void apply_step(const Strip& step, std::string& text, RegexScratch& scratch);
  static void apply_step(const CollapseSpaces& step, std::string& text, RegexScratch& scratch);

  std::vector<Step> steps_;
};

}  // namespace bise
