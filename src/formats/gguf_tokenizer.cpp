#include "formats/gguf_tokenizer.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "base/error.h"

namespace bise {
namespace {

// tokenizer.ggml.token_type
constexpr std::int64_t kUnknownToken = 2, kControlToken = 3, kUserDefinedToken = 4;

// U+2581, SentencePiece's space.
constexpr const char* kSpace = "\xe2\x96\x81";

// One string split into Unicode characters; the string is UTF-8 (checked when the JSON is written).
std::vector<std::size_t> character_starts(const std::string& text) {
  std::vector<std::size_t> starts;
  for (std::size_t i = 0; i < text.size(); ++i)
    if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80) starts.push_back(i);
  return starts;
}

}  // namespace

// What llama.cpp's name of a pre-tokenizer means.
struct GgufTokenizer::PreTokenizer {
  const char* name;
  bool single_digits;   // Digits(individual_digits) before ByteLevel's own GPT-2 pattern
  const char* pattern;  // a Split before ByteLevel, which then has no pattern; null = none
  bool ignore_merges, add_bos;
};

const GgufTokenizer::PreTokenizer& GgufTokenizer::find_pre_tokenizer(const std::string& name) {
  constexpr const char* kLlama3 =
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
      " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
  constexpr const char* kQwen2 =
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
      " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
  constexpr const char* kTekken =
      "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|"
      "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}|"
      " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
  static constexpr std::array<PreTokenizer, 10> kKnown = {{{"smollm", true, nullptr, false, false},
                                                           {"starcoder", true, nullptr, false, false},
                                                           {"refact", true, nullptr, false, false},
                                                           {"command-r", true, nullptr, false, false},
                                                           {"gpt-2", false, nullptr, false, false},
                                                           {"llama-bpe", false, kLlama3, true, true},
                                                           {"llama3", false, kLlama3, true, true},
                                                           {"llama-v3", false, kLlama3, true, true},
                                                           {"tekken", false, kTekken, true, true},
                                                           {"qwen2", false, kQwen2, false, false}}};
  std::vector<const char*> names;
  for (const PreTokenizer& known : kKnown) {
    if (name == known.name) return known;
    names.push_back(known.name);
  }
  throw Error("unknown pre-tokenizer")
      .at("key tokenizer.ggml.pre")
      .expected(fmt::format("one of {}", fmt::join(names, ", ")))
      .got(fmt::format("\"{}\"", name));
}

GgufTokenizer::GgufTokenizer(const GgufFile& gguf) {
  const std::string model = gguf.string("tokenizer.ggml.model");
  if (model != "gpt2" && model != "llama")
    throw Error("unknown tokenizer model")
        .at("key tokenizer.ggml.model")
        .expected("\"gpt2\" or \"llama\"")
        .got(fmt::format("\"{}\"", model));
  tokens_ = gguf.strings("tokenizer.ggml.tokens");
  const std::vector<std::int64_t> types = gguf.integers("tokenizer.ggml.token_type");
  if (types.size() != tokens_.size())
    throw Error("tokens and token types differ in number")
        .at("key tokenizer.ggml.token_type")
        .expected(fmt::format("{}", tokens_.size()))
        .got(fmt::format("{}", types.size()));
  for (std::size_t id = 0; id < types.size(); ++id) {
    const bool special = types[id] == kControlToken || types[id] == kUnknownToken;
    if (special || types[id] == kUserDefinedToken) added_.push_back({static_cast<std::int64_t>(id), special});
  }
  special_ = {role(gguf, "bos"), role(gguf, "eos"), role(gguf, "unknown"), role(gguf, "padding"),
              role(gguf, "eot")};
  if (model == "gpt2") {
    pre_tokenizer_ = &find_pre_tokenizer(gguf.string("tokenizer.ggml.pre"));
    for (const std::string& merge : gguf.strings("tokenizer.ggml.merges")) {
      const std::size_t space = merge.find(' ', 1);  // a token may itself be a space in odd files
      if (space == std::string::npos || space + 1 == merge.size())
        throw Error("merge is not two tokens").at("key tokenizer.ggml.merges").got("\"" + merge + "\"");
      merges_.emplace_back(merge.substr(0, space), merge.substr(space + 1));
    }
  } else {
    scores_ = gguf.floats("tokenizer.ggml.scores");
    if (scores_.size() != tokens_.size())
      throw Error("tokens and scores differ in number").at("key tokenizer.ggml.scores");
    merges_ = merges_from_scores();
  }
  add_bos_ = gguf.boolean("tokenizer.ggml.add_bos_token", pre_tokenizer_ ? pre_tokenizer_->add_bos : true);
  if (add_bos_ && special_.bos < 0)
    throw Error("the tokenizer adds a BOS token but names none").at("key tokenizer.ggml.bos_token_id");
  add_space_prefix_ = gguf.boolean("tokenizer.ggml.add_space_prefix", pre_tokenizer_ == nullptr);
  chat_template_ = gguf.string("tokenizer.chat_template", "");
}

std::int64_t GgufTokenizer::role(const GgufFile& gguf, const char* name) const {
  const std::string key = fmt::format("tokenizer.ggml.{}_token_id", name);
  const std::int64_t id = gguf.integer(key, -1);
  if (id < -1 || id >= static_cast<std::int64_t>(tokens_.size()))
    throw Error("token id is not in the vocabulary").at("key " + key).got(fmt::format("{}", id));
  return id;
}

// SentencePiece's BPE merges the pair whose result scores highest. As a list of merges: every split of a
// token into two tokens, by the token's score descending; ties as transformers' converter orders them.
std::vector<std::pair<std::string, std::string>> GgufTokenizer::merges_from_scores() const {
  std::unordered_map<std::string_view, std::size_t> ids;
  for (std::size_t id = 0; id < tokens_.size(); ++id) ids.emplace(tokens_[id], id);
  struct Merge {
    std::size_t left, right;
    float score;
    std::size_t left_characters, right_characters;
  };
  std::vector<Merge> merges;
  constexpr std::size_t kMaxCharacters = 512;  // of a token: bounds the work on hostile files
  for (std::size_t id = 0; id < tokens_.size(); ++id) {
    const std::string_view token = tokens_[id];
    const std::vector<std::size_t> starts = character_starts(tokens_[id]);
    if (starts.size() > kMaxCharacters)
      throw Error("token {} is too long", id).expected(fmt::format("at most {} characters", kMaxCharacters));
    const std::size_t first = merges.size();
    for (std::size_t split = 1; split < starts.size(); ++split) {
      const auto left = ids.find(token.substr(0, starts[split]));
      const auto right = ids.find(token.substr(starts[split]));
      if (left == ids.end() || right == ids.end()) continue;
      merges.push_back({left->second, right->second, scores_[id], split, starts.size() - split});
    }
    std::sort(merges.begin() + static_cast<std::ptrdiff_t>(first), merges.end(),
              [](const Merge& a, const Merge& b) {
                return std::pair(a.left, a.right) < std::pair(b.left, b.right);
              });
  }
  std::stable_sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) {
    return std::tuple(a.score, a.left_characters, a.right_characters) >
           std::tuple(b.score, b.left_characters, b.right_characters);
  });
  std::vector<std::pair<std::string, std::string>> result;
  for (const Merge& merge : merges) result.emplace_back(tokens_[merge.left], tokens_[merge.right]);
  return result;
}

Json GgufTokenizer::added_token_json(const AddedToken& token) const {
  return {{"content", tokens_[static_cast<std::size_t>(token.id)]},
          {"single_word", false},
          {"lstrip", false},
          {"rstrip", false},
          {"normalized", false},
          {"special", token.special}};
}

// Normalizer, pre-tokenizer and decoder of byte-level BPE.
Json GgufTokenizer::byte_level_parts() const {
  const auto byte_level = [](bool prefix, bool pattern) {
    return Json{
        {"type", "ByteLevel"}, {"add_prefix_space", prefix}, {"trim_offsets", true}, {"use_regex", pattern}};
  };
  Json pre = byte_level(add_space_prefix_, pre_tokenizer_->pattern == nullptr);
  Json before;
  if (pre_tokenizer_->single_digits) before = {{"type", "Digits"}, {"individual_digits", true}};
  if (pre_tokenizer_->pattern)
    before = {{"type", "Split"},
              {"pattern", {{"Regex", pre_tokenizer_->pattern}}},
              {"behavior", "Isolated"},
              {"invert", false}};
  if (!before.is_null()) pre = {{"type", "Sequence"}, {"pretokenizers", Json::array({before, pre})}};
  Json normalizer;
  if (std::string_view(pre_tokenizer_->name) == "qwen2") normalizer = {{"type", "NFC"}};
  return {{"normalizer", normalizer}, {"pre_tokenizer", pre}, {"decoder", byte_level(true, true)}};
}

// The same of SentencePiece BPE, as transformers converts it: spaces become U+2581 before, and back after.
Json GgufTokenizer::sentence_piece_parts() const {
  const auto replace = [](const char* from, const char* to) {
    return Json{{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
  };
  Json normalizers = Json::array();
  if (add_space_prefix_) normalizers.push_back({{"type", "Prepend"}, {"prepend", kSpace}});
  normalizers.push_back(replace(" ", kSpace));
  Json decoders = Json::array({replace(kSpace, " "), {{"type", "ByteFallback"}}, {{"type", "Fuse"}}});
  if (add_space_prefix_) decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return {{"normalizer", {{"type", "Sequence"}, {"normalizers", normalizers}}},
          {"pre_tokenizer", nullptr},
          {"decoder", {{"type", "Sequence"}, {"decoders", decoders}}}};
}

// Puts BOS before the text.
Json GgufTokenizer::template_post_processor() const {
  const std::string& bos = tokens_[static_cast<std::size_t>(special_.bos)];
  const auto token = [&](int type) { return Json{{"SpecialToken", {{"id", bos}, {"type_id", type}}}}; };
  const auto text = [](const char* id, int type) {
    return Json{{"Sequence", {{"id", id}, {"type_id", type}}}};
  };
  Json special = Json::object();
  special[bos] = {{"id", bos}, {"ids", Json::array({special_.bos})}, {"tokens", Json::array({bos})}};
  return {{"type", "TemplateProcessing"},
          {"single", Json::array({token(0), text("A", 0)})},
          {"pair", Json::array({token(0), text("A", 0), token(1), text("B", 1)})},
          {"special_tokens", special}};
}

Json GgufTokenizer::tokenizer_json() const {
  Json added = Json::array();
  for (const AddedToken& token : added_) {
    Json entry = {{"id", token.id}};
    entry.update(added_token_json(token));
    added.push_back(std::move(entry));
  }
  // Appended without the ordered object's search for an earlier key: the tokens are checked to differ.
  Json vocabulary = Json::object();
  auto& entries = vocabulary.get_ref<Json::object_t&>();
  std::unordered_map<std::string_view, std::size_t> seen;
  for (std::size_t id = 0; id < tokens_.size(); ++id) {
    if (!seen.emplace(tokens_[id], id).second)
      throw Error("a token occurs twice").at("key tokenizer.ggml.tokens").got("\"" + tokens_[id] + "\"");
    entries.emplace_back(tokens_[id], id);
  }
  Json merges = Json::array();
  for (const auto& [left, right] : merges_) merges.push_back(Json::array({left, right}));
  Json unknown;
  if (!pre_tokenizer_ && special_.unk >= 0) unknown = tokens_[static_cast<std::size_t>(special_.unk)];
  const Json parts = pre_tokenizer_ ? byte_level_parts() : sentence_piece_parts();
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", std::move(added)},
          {"normalizer", parts["normalizer"]},
          {"pre_tokenizer", parts["pre_tokenizer"]},
          {"post_processor", add_bos_ ? template_post_processor() : Json()},
          {"decoder", parts["decoder"]},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", unknown},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", !pre_tokenizer_},
            {"byte_fallback", !pre_tokenizer_},
            {"ignore_merges", pre_tokenizer_ && pre_tokenizer_->ignore_merges},
            {"vocab", std::move(vocabulary)},
            {"merges", std::move(merges)}}}};
}

void GgufTokenizer::put_role(Json& object, const char* key, std::int64_t id) const {
  if (id >= 0) object[key] = tokens_[static_cast<std::size_t>(id)];
}

Json GgufTokenizer::special_tokens_map_json() const {
  Json object = Json::object();
  put_role(object, "bos_token", special_.bos);
  put_role(object, "eos_token", special_.eos);
  put_role(object, "unk_token", special_.unk);
  put_role(object, "pad_token", special_.pad);
  return object;
}

Json GgufTokenizer::tokenizer_config_json(std::int64_t model_max_length) const {
  Json config = {{"add_bos_token", add_bos_}, {"add_prefix_space", add_space_prefix_}};
  config.update(special_tokens_map_json());
  if (!chat_template_.empty()) config["chat_template"] = chat_template_;
  config["clean_up_tokenization_spaces"] = false;
  config["model_max_length"] = model_max_length;
  // Any other class lets transformers 5 rebuild the pre-tokenizer and drop the digit split.
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  Json decoder = Json::object();
  for (const AddedToken& token : added_) decoder[std::to_string(token.id)] = added_token_json(token);
  config["added_tokens_decoder"] = std::move(decoder);
  return config;
}

}  // namespace bise
