// Splits normalized text into the words that byte-pair encoding works on: the pre-tokenizers of
// tokenizer.json. Never changes; safe from any thread.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/json.h"
#include "text/normalizer.h"
#include "text/regex.h"

namespace bise {

enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

class PreTokenizer {
 public:
  PreTokenizer() = default;
  // "pre_tokenizer" of tokenizer.json; null means none: the text is one word. Throws Error naming an
  // unsupported type or field.
  PreTokenizer(const Json& json, const std::string& where);

  void add_split(TextPattern pattern, SplitBehavior behavior, bool invert);
  // Words are bytes from here on (a Bpe with byte_symbols). Must be the last step.
  void set_byte_level() { byte_level_ = true; }
  bool byte_level() const { return byte_level_; }

  using Words = std::vector<std::string_view>;
  // The words of `text` in order, none empty. `at_start`: nothing comes before `text`. Words lie in `text`
  // or, where a step adds characters, in a new element of `storage`.
  Words words(std::string_view text, bool at_start, RegexScratch& scratch,
              std::deque<std::string>& storage) const;

 private:
  struct Split {
    TextPattern pattern;
    SplitBehavior behavior;
    bool invert;
  };
  struct Metaspace {
    std::string replacement;
    enum { kAlways, kFirst, kNever } prepend;
    bool split;
  };
  struct PrefixSpace {};  // a space before every word that does not start with one
  using Step = std::variant<Split, Metaspace, PrefixSpace>;
  struct Context {
    bool at_start;
    RegexScratch& scratch;
    std::deque<std::string>& storage;
  };

  void add(const Json& json, const std::string& where, int depth);
  void add_metaspace(const Json& json, const std::string& where);
  void add_byte_level(const Json& json, const std::string& where);
  static void apply_step(const Split& step, std::string_view word, Context& context, Words& out);
  static void apply_step(const Metaspace& step, std::string_view word, Context& context, Words& out);
  static void apply_step(const PrefixSpace& step, std::string_view word, Context& context, Words& out);

  std::vector<Step> steps_;
  bool byte_level_ = false;
};

}  // namespace bise
