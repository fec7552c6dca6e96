// Masks against the definition: a token is allowed when its bytes, one by one, lead somewhere. Small made-up
// vocabularies, with tokens that split characters, against every kind of grammar.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "tests/grammar/grammar_support.h"
#include "text/utf8.h"

namespace bise {
namespace {

// All bytes, and random pieces of texts that the grammars below may produce.
std::vector<TokenText> vocabulary(std::uint32_t seed) {
  const std::string pieces =
      "{\"name\": \"J\xC3\xBCrgen \xE2\x82\xAC\", \"age\": -12.5e3, \"tags\": [true,false,null, "
      "\"a\\\"b\\n\"]},"
      "\"kids\":[{\"name\":\"\"},{}],\n\n        \t<f=a>x</f> \xF0\x9F\x98\x80 ((1+2)*3) 2024-02-29 aaab}}]]";
  std::mt19937 random(seed);
  std::vector<TokenText> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.push_back({std::string(1, static_cast<char>(byte)), false});
  for (int i = 0; i < 400; ++i) {
    const std::size_t begin = random() % pieces.size();
    tokens.push_back({pieces.substr(begin, 1 + random() % (i % 20 == 0 ? 40 : 6)), false});
  }
  tokens.push_back({"", false});
  tokens.push_back({"{\"", true});
  tokens.push_back({"</s>", true});
  return tokens;
}

std::vector<GrammarPtr> grammars() {
  const auto schema = [](const char* text) { return compile_json_schema(std::string_view(text)); };
  return {
      compile_json_object(),
      compile_json_object({.any_whitespace = false}),
      schema(R"({"properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "number"},
                 "tags": {"type": "array", "items": {"enum": ["a", "ab", true, null]}},
                 "kids": {"type": "array", "items": {"$ref": "#"}}}, "required": ["name"]})"),
      schema(
          R"({"anyOf": [{"type": "integer", "minimum": -20, "maximum": 2024}, {"type": "string", "pattern": "^[a-zJ\u00fcr]*$"},
                 {"type": "object", "additionalProperties": {"type": "number"}}]})"),
      schema(R"({"type": "array", "items": {"type": "string", "format": "date"}, "maxItems": 3})"),
      compile_regex("(a|b)*a(a|b){4}|\\w+@\xC3\xA9?.{0,30}"),
      compile_ebnf(
          "root ::= root \"+\" term | term\nterm ::= term \"*\" f | f\nf ::= [0-9]+ | \"(\" root \")\""),
      compile_ebnf("root ::= \"a\" x \"b\" | \"a\" y \"b\" | root root | \"\"\nx ::= root\ny ::= root | x x"),
      compile_structural_tag(parse_json(
          R"({"triggers": ["<f"], "structures": [{"begin": "<f=a>", "schema": {"type": "integer"}, "end": "</f>"}]})",
          "test")),
      compile_choice(std::vector<std::string>{"", "aaab", "a", "\xF0\x9F\x98\x80"}),
  };
}

bool stepped(Matcher matcher, std::string_view bytes) {
  // The byte tokens come first, so that token b is the byte b.
  for (const char c : bytes)
    if (!matcher.accept(static_cast<std::uint8_t>(c))) return false;
  return true;
}

TEST(Mask, IsWhatSteppingThroughTheBytesGives) {
  std::mt19937 random(7);
  int kind = 0;
  for (const GrammarPtr& grammar : grammars()) {
    SCOPED_TRACE(kind++);
    for (std::uint32_t seed = 1; seed <= 3; ++seed) {
      const std::vector<TokenText> tokens = vocabulary(seed);
      const auto count = static_cast<std::int32_t>(tokens.size());
      const std::int32_t stop = count - 1;
      // More rows than tokens: those are never allowed.
      const auto trie = std::make_shared<const TokenTrie>(tokens, count + 100);
      Matcher matcher(grammar, trie, {stop});
      std::vector<std::uint32_t> bits(trie->mask_words() + 1, ~0u);
      for (int step = 0; step < 60 && !matcher.finished(); ++step) {
        matcher.fill_mask(bits);
        std::vector<std::int32_t> allowed;
        for (std::int32_t token = 0; token < static_cast<std::int32_t>(32 * bits.size()); ++token) {
          bool expected = false;
          if (token == stop) {
            expected = matcher.accepts();
          } else if (token < count && !tokens[static_cast<std::size_t>(token)].special) {
            const std::string& bytes = tokens[static_cast<std::size_t>(token)].bytes;
            expected = !bytes.empty() && stepped(matcher, bytes);
          }
          ASSERT_EQ(mask_bit(bits, token), expected) << "token " << token << " at step " << step;
          if (expected) allowed.push_back(token);
          if (token == stop || step % 10 == 0) {
            ASSERT_EQ(Matcher(matcher).accept(token), expected) << token;
          }
        }
        ASSERT_FALSE(allowed.empty());
        // Longer tokens lead deeper.
        const std::int32_t a = allowed[random() % allowed.size()], b = allowed[random() % allowed.size()];
        ASSERT_TRUE(matcher.accept(trie->bytes(a).size() > trie->bytes(b).size() ? a : b));
      }
    }
  }
}

TEST(Mask, RollbackAndCopiesGoBackExactly) {
  const std::vector<TokenText> tokens = vocabulary(5);
  const auto trie = std::make_shared<const TokenTrie>(tokens, static_cast<std::int64_t>(tokens.size()));
  const auto stop = static_cast<std::int32_t>(tokens.size()) - 1;
  std::mt19937 random(3);
  for (const GrammarPtr& grammar : grammars()) {
    Matcher matcher(grammar, trie, {stop});
    std::vector<std::vector<std::uint32_t>> masks;
    const auto mask_of = [&](Matcher& m) {
      std::vector<std::uint32_t> bits(trie->mask_words());
      m.fill_mask(bits);
      return bits;
    };
    const auto advance = [&](Matcher& m) {
      const std::vector<std::uint32_t> bits = mask_of(m);
      std::vector<std::int32_t> allowed;
      for (std::int32_t token = 0; token <= stop; ++token)
        if (mask_bit(bits, token)) allowed.push_back(token);
      ASSERT_TRUE(m.accept(allowed[random() % allowed.size()]));
    };
    for (int i = 0; i < 30; ++i) {
      masks.push_back(mask_of(matcher));
      advance(matcher);
    }
    Matcher copy = matcher;
    for (int i = 0; i < 10; ++i) advance(copy);
    copy.rollback(25);
    EXPECT_EQ(mask_of(copy), masks[15]);
    const std::vector<std::uint32_t> now = mask_of(matcher);
    for (int i = 0; i < 600; ++i) advance(matcher);
    matcher.rollback(Matcher::kMaxRollback);
    for (int i = 0; i < 3; ++i) advance(matcher);
    EXPECT_EQ(mask_of(copy), masks[15]);
  }
}

TEST(Mask, AfterTheEndOnlyStopTokensCome) {
  const GrammarPtr grammar = compile_choice(std::vector<std::string>{"ab"});
  const std::vector<TokenText> tokens = {
      {"a", false}, {"b", false}, {"ab", false}, {"</s>", true}, {"x", false}};
  const auto trie = std::make_shared<const TokenTrie>(tokens, 5);
  Matcher matcher(grammar, trie, {3, 4, 99, -1});
  std::vector<std::uint32_t> bits(1);
  matcher.fill_mask(bits);
  EXPECT_EQ(bits[0], 0b00101u);
  EXPECT_FALSE(matcher.accept(3));
  EXPECT_FALSE(matcher.accept(1));
  EXPECT_FALSE(matcher.accept(77));
  EXPECT_FALSE(matcher.accept(-5));
  EXPECT_TRUE(matcher.accept(2));
  EXPECT_TRUE(matcher.accepts());
  EXPECT_FALSE(matcher.finished());
  matcher.fill_mask(bits);
  EXPECT_EQ(bits[0], 0b11000u);
  EXPECT_TRUE(matcher.accept(4));
  EXPECT_TRUE(matcher.finished());
  matcher.fill_mask(bits);
  EXPECT_EQ(bits[0], 0b11000u);
  EXPECT_TRUE(matcher.accept(3));
  EXPECT_FALSE(matcher.accept(0));
  matcher.rollback(3);
  EXPECT_FALSE(matcher.accepts());
  EXPECT_TRUE(matcher.accept(0));
}

// A vocabulary that cannot spell what the grammar wants: stopping is all that is left.
TEST(Mask, IsNeverEmpty) {
  const std::vector<TokenText> tokens = {{"a", false}, {"</s>", true}};
  const auto trie = std::make_shared<const TokenTrie>(tokens, 2);
  Matcher matcher(compile_regex("ab"), trie, {1});
  EXPECT_TRUE(matcher.accept(0));
  std::vector<std::uint32_t> bits(1);
  matcher.fill_mask(bits);
  EXPECT_EQ(bits[0], 0b10u);
  EXPECT_TRUE(matcher.accept(1));
  EXPECT_TRUE(matcher.finished());
}

// Endlessly many situations: the cache fills up and is replaced under running texts.
TEST(Mask, CachesAreReplacedWhenFull) {
  const GrammarPtr grammar = compile_json_schema(std::string_view("{}"));
  std::string text;
  std::mt19937 random(11);
  Matcher matcher(grammar, byte_trie(), {kByteStop});
  std::vector<std::uint32_t> bits(byte_trie()->mask_words());
  const int depth = 60'000;
  for (int i = 0; i < depth; ++i) {
    const std::string open = random() % 2 ? "[" : "{\"k\":";
    for (const char c : open) {
      ASSERT_TRUE(matcher.accept(static_cast<std::uint8_t>(c)));
      matcher.fill_mask(bits);
    }
    text += open;
  }
  ASSERT_TRUE(matcher.accept('1'));
  for (std::size_t i = text.size(); i-- > 0;) {
    if (text[i] == '[' || text[i] == '{') {
      ASSERT_TRUE(matcher.accept(text[i] == '[' ? ']' : '}')) << i;
    }
  }
  EXPECT_TRUE(matcher.accepts());
}

TEST(Mask, ThreadsShareAGrammar) {
  const GrammarPtr grammar = grammars()[2];
  const std::vector<TokenText> tokens = vocabulary(9);
  const auto trie = std::make_shared<const TokenTrie>(tokens, static_cast<std::int64_t>(tokens.size()));
  prepare_masks(grammar, trie, 0.05);
  const auto walk = [&](std::uint32_t seed, std::vector<std::int32_t>& path) {
    std::mt19937 random(seed);
    Matcher matcher(grammar, trie, {static_cast<std::int32_t>(tokens.size()) - 1});
    std::vector<std::uint32_t> bits(trie->mask_words());
    for (int i = 0; i < 300 && !matcher.finished(); ++i) {
      matcher.fill_mask(bits);
      std::int32_t token = static_cast<std::int32_t>(random() % tokens.size());
      while (!mask_bit(bits, token)) token = (token + 1) % static_cast<std::int32_t>(tokens.size());
      EXPECT_TRUE(matcher.accept(token));
      path.push_back(token);
    }
  };
  std::vector<std::vector<std::int32_t>> together(4), alone(4);
  std::vector<std::thread> threads;
  for (std::uint32_t i = 0; i < 4; ++i) threads.emplace_back([&, i] { walk(i, together[i]); });
  for (std::thread& thread : threads) thread.join();
  for (std::uint32_t i = 0; i < 4; ++i) walk(i, alone[i]);
  EXPECT_EQ(together, alone);
}

}  // namespace
}  // namespace bise
