#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <functional>

#include "base/error.h"
#include "base/files.h"
#include "tests/test_support.h"
#include "tests/text/tiny_tokenizers.h"
#include "text/detokenizer.h"

namespace bise {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<std::int32_t>;

std::unique_ptr<Tokenizer> load_as(const std::string& name, const std::string& content) {
  const ScratchFolder folder;
  write_file(folder.path() / name, content);
  return Tokenizer::load_file(folder.path() / name);
}
std::unique_ptr<Tokenizer> load_json(const Json& json) {
  return load_as("tokenizer.json", json_text(json));
}

struct EncodeCase {
  const char* text;
  Ids ids;
  bool parse_special = true;
  bool add_special_tokens = false;
};

void expect_encodes(const Tokenizer& tokenizer, const std::vector<EncodeCase>& cases) {
  for (const EncodeCase& each : cases) {
    SCOPED_TRACE(each.text);
    EXPECT_EQ(tokenizer.encode(each.text, {each.add_special_tokens, each.parse_special}), each.ids);
  }
}

TEST(TokenizerTest, EncodesByteLevelBpe) {
  expect_encodes(*load_json(tiny::byte_level_json()),
                 {{"", {}},
                  {"", {0}, true, true},
                  {"abc", {19}},
                  {"bc", {22}},
                  {"abc", {0, 19}, true, true},
                  {"abab abc", {17, 17, 18, 4}},
                  {"ab11", {17, 12, 12}},
                  {"\xC3\xA9", {23}},
                  {"a z b", {2, 13, 13, 3}},  // z has no token and disappears
                  {"a<|end|>b", {2, 1, 3}},
                  {"a<|end|>b", {2, 9, 11, 21, 11, 10, 3}, false},
                  {"<s><s>", {0, 0}},
                  {"<|end", {9, 11, 21}}});
}

TEST(TokenizerTest, EncodesMetaspaceBpeWithByteFallback) {
  expect_encodes(*load_json(tiny::metaspace_json()),
                 {{"", {}},
                  {"ab", {264}},
                  {"abc", {264, 262}},
                  {"b  ab", {259, 261, 259, 264}},
                  {"a\n", {263, 3 + 10}},
                  {"\xC3\xA9", {259, 3 + 0xC3, 3 + 0xA9}},
                  {"a</s>a", {263, 2, 263}},  // the prefix comes again after a control token
                  {"<0x0A>", {259, 3 + '<', 3 + '0', 3 + 'x', 3 + '0', 3 + 'A', 3 + '>'}}});
}

TEST(TokenizerTest, EncodesTekken) {
  const auto tokenizer = load_as("tekken.json", json_text(tiny::tekken_json()));
  expect_encodes(*tokenizer, {{"ab", {276}},
                              {"ab", {1, 276}, true, true},
                              {"abc ab", {278, 277}},
                              {"\xC3\xA9", {279}},
                              {"[INST]a", {3, 20 + 'a'}},
                              {"[a", {20 + '[', 20 + 'a'}},
                              {"unused", {20 + 'u', 20 + 'n', 20 + 'u', 20 + 's', 20 + 'e', 20 + 'd'}}});
  EXPECT_EQ(tokenizer->vocab_size(), 280);
  EXPECT_EQ(tokenizer->id_of("[/INST]"), 4);
  EXPECT_EQ(tokenizer->id_of("[NOT]"), std::nullopt);
  EXPECT_TRUE(tokenizer->is_special(19));
  EXPECT_FALSE(tokenizer->is_special(20));
  EXPECT_FALSE(tokenizer->is_special(-1));
  EXPECT_EQ(tokenizer->token_bytes(20 + 0xC3), "\xC3");
  EXPECT_EQ(tokenizer->token_bytes(3), "[INST]");
  EXPECT_EQ(tokenizer->token_bytes(280), "");
}

TEST(TokenizerTest, NamesControlTokensAsTheTekkenFileLists) {
  Json json = tiny::tekken_json();
  json["special_tokens"] = parse_json(
      R"([{"rank": 0, "token_str": "<unk>", "is_control": true}, {"rank": 7, "token_str": "[SEVEN]"}])",
      "test");
  const auto tokenizer = load_as("tekken.json", json_text(json));
  EXPECT_EQ(tokenizer->id_of("[SEVEN]"), 7);
  EXPECT_EQ(tokenizer->id_of("<SPECIAL_8>"), 8);
  EXPECT_EQ(tokenizer->bos_token_id(), std::nullopt);
}

TEST(TokenizerTest, EncodesSentencePiece) {
  const auto tokenizer = load_as("tokenizer.model.v3", tiny::sentencepiece_model());
  expect_encodes(*tokenizer, {{"", {}},
                              {"", {1}, true, true},
                              {"ab", {265}},
                              {"abc", {265, 263}},
                              {"  a", {267, 264}},
                              {"a[INST]a", {264, 3, 264}},
                              {"[INST]", {260, 4 + '[', 4 + 'I', 4 + 'N', 4 + 'S', 4 + 'T', 4 + ']'}, false},
                              // A user-defined symbol is ordinary text that never merges; no prefix after it.
                              {"a<sep>a", {264, 268, 261}, false}});
  EXPECT_EQ(tokenizer->eos_token_id(), 2);
  EXPECT_EQ(tokenizer->token_bytes(265), " ab");
}

TEST(TokenizerTest, HonoursSentencePieceOptions) {
  expect_encodes(*load_as("tokenizer.model", tiny::sentencepiece_model({.add_dummy_prefix = false})),
                 {{"ab", {261, 262}}, {" ab", {265}}});
  expect_encodes(*load_as("tokenizer.model", tiny::sentencepiece_model({.remove_extra_whitespaces = true})),
                 {{"  a  b ", {264, 260, 262}}, {"   ", {}}});
  // Without bytes a run of unknown characters is one <unk>.
  expect_encodes(*load_as("tokenizer.model", tiny::sentencepiece_model({.byte_fallback = false})),
                 {{"xyz", {260, 0}}, {"xaz", {260, 0, 261, 0}}});
}

TEST(TokenizerTest, FollowsTheMatchingRulesOfAddedTokens) {
  const auto add = [](Json json, const char* token) {
    json["added_tokens"].push_back(parse_json(token, "test"));
    return load_json(json);
  };
  const Json plain = tiny::byte_level_json();
  expect_encodes(*add(plain, R"({"id": 50, "content": "<t>", "lstrip": true, "special": true})"),
                 {{"a <t> b", {2, 50, 13, 3}}, {" \n<t>", {50}}});
  expect_encodes(*add(plain, R"({"id": 50, "content": "<t>", "rstrip": true, "special": true})"),
                 {{"a <t> b", {2, 13, 50, 3}}});
  expect_encodes(*add(plain, R"({"id": 50, "content": "bab", "single_word": true, "normalized": false})"),
                 {{"bab", {50}}, {"a bab1", {2, 13, 3, 17, 12}}, {"a bab b", {2, 13, 50, 13, 3}}});
  // Ordinary added tokens match in any text; the longest wins.
  expect_encodes(*add(plain, R"({"id": 50, "content": "<s>a", "normalized": false})"),
                 {{"<s>a", {50}}, {"<s>a", {50}, false}, {"<s>b", {0, 3}}});
  // Normalized ones match what the normalizer makes of them.
  expect_encodes(*add(tiny::metaspace_json(), R"({"id": 300, "content": "b b", "normalized": true})"),
                 {{"b b", {300}}, {"ab b", {264, 259, 261}}});
}

TEST(TokenizerTest, TakesControlTokensFromTrustedTextOnly) {
  const auto tokenizer = load_json(tiny::byte_level_json());
  const Ids spelled = {9, 11, 21, 11, 10};
  struct Case {
    std::vector<TextSegment> segments;
    Ids ids;
  };
  const Case cases[] = {
      {{{"<|end|>", true}}, {1}},
      {{{"<|end|>", false}}, spelled},
      {{{"<|e", true}, {"nd|>", true}}, {1}},
      {{{"<|e", true}, {"nd|>", false}}, spelled},
      {{{"<|e", false}, {"nd|>", true}}, spelled},
      {{{"<|", true}, {"end", false}, {"|>", true}}, spelled},
      {{{"", false}, {"<|end|>", true}, {"", false}}, {1}},
      // Words do not know of segments: "ab" and "c" are the word "abc".
      {{{"ab", true}, {"c", false}, {"<s>", true}}, {19, 0}},
  };
  for (const Case& each : cases) EXPECT_EQ(tokenizer->encode_segments(each.segments), each.ids);
  const TextSegment text{"a", false};
  EXPECT_EQ(tokenizer->encode_segments({&text, 1}, true), (Ids{0, 2}));
}

TEST(TokenizerTest, NeverYieldsAControlTokenForUntrustedText) {
  // Even where the words and merges of the file would: "end" as a special token that is also a word.
  Json json = tiny::byte_level_json();
  json["added_tokens"].push_back(parse_json(R"({"id": 21, "content": "end", "special": true})", "test"));
  for (const bool ignore_merges : {false, true}) {
    json["model"]["ignore_merges"] = ignore_merges;
    const auto tokenizer = load_json(json);
    EXPECT_EQ(tokenizer->encode("end", {.add_special_tokens = false}), (Ids{21}));
    EXPECT_EQ(tokenizer->encode("end", {false, false}), (Ids{6, 20}));
  }
}

TEST(TokenizerTest, ReadsMergesAsStringsOrPairs) {
  Json json = tiny::byte_level_json();
  Json strings = Json::array();
  for (const Json& pair : json["model"]["merges"])
    strings.push_back(pair[0].get<std::string>() + " " + pair[1].get<std::string>());
  json["model"]["merges"] = strings;
  json["model"].erase("type");
  expect_encodes(*load_json(json), {{"abc ab", {19, 18}}});
}

TEST(TokenizerTest, SplitsAsThePreTokenizerSays) {
  struct Case {
    const char* pre_tokenizer;
    std::vector<std::string> words;
  };
  // Every letter has a token and no pair merges, except that a whole word is a token of its own: so the ids
  // show the words.
  const Case cases[] = {
      {R"({"type": "Split", "pattern": {"String": "-"}, "behavior": "Removed"})", {"a", "b"}},
      {R"({"type": "Split", "pattern": {"String": "-"}, "behavior": "Isolated"})", {"a", "-", "-", "b"}},
      {R"({"type": "Split", "pattern": {"String": "-"}, "behavior": "MergedWithPrevious"})",
       {"a-", "-", "b"}},
      {R"({"type": "Split", "pattern": {"String": "-"}, "behavior": "MergedWithNext"})", {"a", "-", "-b"}},
      {R"({"type": "Split", "pattern": {"String": "-"}, "behavior": "Contiguous"})", {"a", "--", "b"}},
      {R"({"type": "Split", "pattern": {"Regex": "\\p{L}"}, "behavior": "Removed", "invert": true})",
       {"a", "b"}},
      {R"({"type": "Split", "pattern": {"Regex": "x*"}, "behavior": "Isolated"})", {"a", "-", "-", "b"}},
      {R"({"type": "Metaspace", "replacement": "-", "prepend_scheme": "never"})", {"a", "-", "-b"}},
      {R"({"type": "Metaspace", "replacement": "-", "prepend_scheme": "always"})", {"-a", "-", "-b"}},
      {R"({"type": "Metaspace", "replacement": "-", "prepend_scheme": "first", "split": false})", {"-a--b"}},
      {"null", {"a--b"}},
  };
  for (const Case& each : cases) {
    SCOPED_TRACE(each.pre_tokenizer);
    Json json = parse_json(R"({"model": {"ignore_merges": true, "merges": [],
      "vocab": {"a": 0, "b": 1, "-": 2, "a-": 3, "-b": 4, "--": 5, "-a": 6, "a--b": 7, "-a--b": 8}}})",
                           "test");
    json["pre_tokenizer"] = parse_json(each.pre_tokenizer, "test");
    Ids expected;
    for (const std::string& word : each.words) expected.push_back(json["model"]["vocab"][word].get<int>());
    EXPECT_EQ(load_json(json)->encode("a--b"), expected);
  }
}

TEST(TokenizerTest, TellsSpacesAsUnicodeDoes) {
  // U+180E was a space before Unicode 6.3, and is one for PCRE2; U+0085 and U+3000 are spaces.
  for (const char* pattern : {"\\s", "[\\s]", "[^\\S]"}) {
    Json json = parse_json(R"({"model": {"merges": [], "vocab": {"a": 0, "b": 1}}})", "test");
    json["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Removed"}};
    json["model"]["ignore_merges"] = true;
    json["model"]["vocab"]["a\u180Eb"] = 2;
    const bool rewritten = std::string(pattern) != "[^\\S]";  // \S inside brackets stays PCRE2's
    EXPECT_EQ(load_json(json)->encode("a\u180Eb"), rewritten ? (Ids{2}) : (Ids{0, 1})) << pattern;
    EXPECT_EQ(load_json(json)->encode("a\u3000b\u0085"), (Ids{0, 1})) << pattern;
  }
}

TEST(TokenizerTest, TakesBosAndEosFromTokenizerConfig) {
  struct Case {
    const char* config;
    Ids ids;  // of "a" with special tokens
    std::optional<std::int32_t> bos, eos;
  };
  const Case cases[] = {
      {R"({})", {263}, std::nullopt, std::nullopt},
      {R"({"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}})", {263}, 1, 2},
      {R"({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true})", {1, 263}, 1, 2},
      {R"({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true, "add_eos_token": true})",
       {1, 263, 2},
       1,
       2},
      {R"({"bos_token": null, "eos_token": "[none]", "add_bos_token": true})",
       {263},
       std::nullopt,
       std::nullopt},
  };
  for (const Case& each : cases) {
    SCOPED_TRACE(each.config);
    const ScratchFolder folder;
    write_file(folder.path() / "tokenizer.json", json_text(tiny::metaspace_json()));
    write_file(folder.path() / "tokenizer_config.json", each.config);
    const auto tokenizer = Tokenizer::load(folder.path());
    EXPECT_EQ(tokenizer->encode("a"), each.ids);
    EXPECT_EQ(tokenizer->bos_token_id(), each.bos);
    EXPECT_EQ(tokenizer->eos_token_id(), each.eos);
  }
}

TEST(TokenizerTest, PicksTheFileOfAFolder) {
  const ScratchFolder folder;
  try {
    Tokenizer::load(folder.path());
    FAIL() << "an empty folder has no tokenizer";
  } catch (const Error& error) {
    for (const char* name : {"tokenizer.json", "tekken.json", "tokenizer.model.v*", "tokenizer.model"})
      EXPECT_NE(std::string(error.what()).find(name), std::string::npos) << name;
  }
  // Each file takes over from those before it.
  write_file(folder.path() / "tokenizer.model", "broken");
  EXPECT_THROW(Tokenizer::load(folder.path()), Error);
  write_file(folder.path() / "tokenizer.model.v3", "broken");
  write_file(folder.path() / "tokenizer.model.v11", tiny::sentencepiece_model());
  EXPECT_EQ(Tokenizer::load(folder.path())->vocab_size(), 269);
  write_file(folder.path() / "tekken.json", json_text(tiny::tekken_json()));
  EXPECT_EQ(Tokenizer::load(folder.path())->vocab_size(), 280);
  write_file(folder.path() / "tokenizer.json", json_text(tiny::byte_level_json()));
  EXPECT_EQ(Tokenizer::load(folder.path())->vocab_size(), 24);
}

TEST(TokenizerTest, RejectsTextThatIsNotUtf8) {
  const auto tokenizer = load_json(tiny::byte_level_json());
  EXPECT_THROW(tokenizer->encode("ab\xFF"), Error);
  EXPECT_THROW(tokenizer->encode("ab\xC3"), Error);
  const TextSegment halves[] = {{"\xC3", true}, {"\xA9", false}};
  EXPECT_EQ(tokenizer->encode_segments(halves), (Ids{23})) << "the joined text is valid";
}

TEST(TokenizerTest, NamesTheFieldThatIsWrong) {
  struct Case {
    const char* pointer;
    const char* value;
    const char* message;  // must occur in the error
  };
  const Case cases[] = {
      {"/model/type", R"("WordPiece")", "model.type"},
      {"/model/type", R"("Unigram")", "Unigram"},
      {"/model/vocab", "[]", "model.vocab"},
      {"/model/vocab", R"({"a": -1})", "out of range"},
      {"/model/vocab", R"({"a": 99999999999})", "out of range"},
      {"/model/vocab", R"({"a": 0, "b": 0})", "twice"},
      {"/model/vocab", R"({"a": "0"})", "model.vocab"},
      {"/model/merges", R"([["a", "z"]])", "not in the vocabulary"},
      {"/model/merges", R"(["a"])", "model.merges"},
      {"/model/merges", R"([["a", "b", "c"]])", "model.merges"},
      {"/model/merges", R"([["a", ["b"]]])", "model.merges"},
      {"/model/dropout", "0.1", "model.dropout"},
      {"/model/unk_token", R"("<none>")", "unk_token"},
      {"/model/end_of_word_suffix", R"("</w>")", "end_of_word_suffix"},
      {"/normalizer", R"({"type": "NFC"})", "normalizer.type"},
      {"/normalizer", R"({"type": "Sequence", "normalizers": [{"type": "BertNormalizer"}]})",
       "BertNormalizer"},
      {"/pre_tokenizer", R"({"type": "Punctuation"})", "Punctuation"},
      {"/pre_tokenizer", R"({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"})",
       "pattern"},
      {"/pre_tokenizer", R"({"type": "Split", "pattern": {"String": ""}, "behavior": "Isolated"})",
       "pattern"},
      {"/pre_tokenizer", R"({"type": "Split", "pattern": {"String": "a"}, "behavior": "Odd"})", "Odd"},
      {"/pre_tokenizer/pretokenizers/0", R"({"type": "ByteLevel"})", "after ByteLevel"},
      {"/decoder", R"({"type": "WordPiece"})", "decoder.type"},
      {"/decoder", R"({"type": "Strip", "content": "x", "start": 1, "stop": 0})", "Strip"},
      {"/post_processor", R"({"type": "BertProcessing"})", "post_processor.type"},
      {"/post_processor/special_tokens", "{}", "<s>"},
      {"/post_processor/special_tokens/<s>/ids", "[500]", "not a token id"},
      {"/added_tokens/0/id", "-1", "added_tokens"},
      {"/added_tokens/0/content", "7", "content"},
  };
  for (const Case& each : cases) {
    SCOPED_TRACE(std::string(each.pointer) + " = " + each.value);
    Json json = tiny::byte_level_json();
    json[Json::json_pointer(each.pointer)] = parse_json(each.value, "test");
    try {
      load_json(json);
      ADD_FAILURE() << "was accepted";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(each.message), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("tokenizer.json"), std::string::npos) << error.what();
    }
  }
}

TEST(TokenizerTest, RejectsBrokenTekkenAndSentencePieceFiles) {
  const auto tekken = [](const char* pointer, const char* value) {
    Json json = tiny::tekken_json();
    json[Json::json_pointer(pointer)] = parse_json(value, "test");
    return json_text(json);
  };
  const std::pair<std::string, std::string> files[] = {
      {"tekken.json", "{}"},
      {"tekken.json", tekken("/vocab/7/rank", "8")},
      {"tekken.json", tekken("/vocab/7/token_bytes", R"("A")")},
      {"tekken.json", tekken("/vocab/7/token_bytes", R"("A?==")")},
      {"tekken.json", tekken("/vocab/7/token_bytes", R"("")")},
      {"tekken.json", tekken("/vocab/7", "[]")},
      {"tekken.json", tekken("/config/default_vocab_size", "282")},
      {"tekken.json", tekken("/config/default_vocab_size", "-1")},
      {"tekken.json", tekken("/config/default_num_special_tokens", "19")},
      {"tekken.json", tekken("/config/pattern", R"("[a")")},
      {"tekken.json", tekken("/special_tokens", R"([{"rank": 20, "token_str": "x"}])")},
      {"tokenizer.model", ""},
      {"tokenizer.model", "version https://git-lfs.github.com/spec/v1"},
      {"tokenizer.model", tiny::sentencepiece_model({.model_type = 1})},
      {"tokenizer.model", tiny::sentencepiece_model({.charsmap = "table"})},
      {"tokenizer.model", tiny::sentencepiece_model().substr(0, 500)},
  };
  for (const auto& [name, content] : files)
    EXPECT_THROW(load_as(name, content), Error) << name << ": " << content.substr(0, 60);
}

}  // namespace
}  // namespace bise
