// Regular expressions as grammars: the syntax that ECMAScript, Python and RE2 share. Look-around, back
// references, word boundaries, possessive quantifiers and \p{...} are refused by name. "." is any character
// but a line break; \d, \w and \s are ASCII. Lazy quantifiers match the same texts as greedy ones.
#pragma once

#include <string_view>

#include "grammar/expression.h"
#include "grammar/text_reader.h"
#include "grammar/unicode_set.h"

namespace bise {

// How a character set becomes bytes: utf8_character or json_string_character.
using CharacterEncoder = Expr (*)(const UnicodeSet&);

struct RegexOptions {
  CharacterEncoder encode = utf8_character;
  // The match may lie anywhere in the text, as JSON Schema's `pattern` has it, unless "^" and "$" say
  // otherwise. Otherwise the whole text has to match.
  bool search = false;
  bool ignore_case = false;  // of ASCII letters
  bool dot_all = false;      // "." is also a line break
};

// Throws Error when `pattern` is invalid or unsupported.
Expr parse_regex(std::string_view pattern, const RegexOptions& options = {});

// A character class, with the reader after its "[": what GBNF and regular expressions share.
UnicodeSet take_character_class(TextReader& reader);

}  // namespace bise
