// Tokenizer files small enough to read, one of each kind, for tests that need no download.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"

namespace bise::tiny {

// Byte-level BPE as GPT-2 has it: ids 0 and 1 are control tokens, then letters, then merges. "Ġ" is a space.
inline Json byte_level_json() {
  return parse_json(R"({
    "version": "1.0",
    "added_tokens": [
      {"id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
       "normalized": false, "special": true},
      {"id": 1, "content": "<|end|>", "single_word": false, "lstrip": false, "rstrip": false,
       "normalized": false, "special": true}],
    "normalizer": null,
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
      {"type": "Digits", "individual_digits": true},
      {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]},
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
      "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
    "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
      "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
      "vocab": {"<s>": 0, "<|end|>": 1, "a": 2, "b": 3, "c": 4, "d": 5, "e": 6, "n": 7, "s": 8, "<": 9,
        ">": 10, "|": 11, "1": 12, "Ġ": 13, "Ċ": 14, "Ã": 15, "©": 16, "ab": 17, "Ġab": 18, "abc": 19,
        "nd": 20, "end": 21, "bc": 22, "Ã©": 23},
      "merges": [["a", "b"], ["Ġ", "ab"], ["ab", "c"], ["n", "d"], ["e", "nd"], ["b", "c"], ["Ã", "©"]]}
  })",
                    "byte_level_json");
}

// Llama-like: marks for spaces, bytes for what has no token.
inline Json metaspace_json() {
  Json json = parse_json(R"({
    "added_tokens": [
      {"id": 0, "content": "<unk>", "special": true}, {"id": 1, "content": "<s>", "special": true},
      {"id": 2, "content": "</s>", "special": true}],
    "normalizer": {"type": "Sequence", "normalizers": [
      {"type": "Prepend", "prepend": "▁"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
    "pre_tokenizer": null,
    "post_processor": null,
    "decoder": {"type": "Sequence", "decoders": [
      {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
      {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
      "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2},
      "merges": ["▁ a", "▁a b", "b c", "▁ ▁"]}
  })",
                         "metaspace_json");
  Json& vocab = json["model"]["vocab"];
  for (int byte = 0; byte < 256; ++byte) vocab[fmt::format("<0x{:02X}>", byte)] = 3 + byte;
  int id = 259;
  for (const char* token : {"▁", "a", "b", "c", "▁a", "▁ab", "bc", "▁▁"}) vocab[token] = id++;
  return json;
}

inline std::string base64(std::string_view bytes) {
  constexpr const char* kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t bits = 0;
    for (std::size_t k = 0; k < 3; ++k)
      bits = bits << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0);
    for (std::size_t k = 0; k < 4; ++k)
      text += i + k <= bytes.size() ? kDigits[bits >> (18 - 6 * k) & 63] : '=';
  }
  return text;
}

// 20 control tokens, the 256 bytes, then "ab", " ab", "abc", "é". The vocabulary lists one token too many.
inline Json tekken_json() {
  Json json = parse_json(R"({"config": {"pattern": " ?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+|\\s+",
    "num_vocab_tokens": 261, "default_vocab_size": 280, "default_num_special_tokens": 20, "version": "v3"},
    "vocab": []})",
                         "tekken_json");
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  for (const char* token : {"ab", " ab", "abc", "é", "unused"}) tokens.emplace_back(token);
  for (std::size_t rank = 0; rank < tokens.size(); ++rank)
    json["vocab"].push_back({{"rank", rank}, {"token_bytes", base64(tokens[rank])}, {"token_str", nullptr}});
  return json;
}

// Protobuf's wire format, as far as a SentencePiece model needs it.
inline std::string varint(std::uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out += static_cast<char>(value);
}
inline std::string number_field(int field, std::uint64_t value) {
  return varint(field << 3) + varint(value);
}
inline std::string bytes_field(int field, std::string_view bytes) {
  return varint(field << 3 | 2) + varint(bytes.size()) + std::string(bytes);
}
inline std::string float_field(int field, float value) {
  std::string bytes(sizeof(value), '\0');
  std::memcpy(bytes.data(), &value, sizeof(value));
  return varint(field << 3 | 5) + bytes;
}

struct SentencePieceOptions {
  int model_type = 2;  // BPE
  bool byte_fallback = true;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = false;
  std::string charsmap = "";
};

// Ids: <unk> 0, <s> 1, </s> 2, [INST] 3, the bytes from 4, then from 260: "▁" a b c "▁a" "▁ab" "bc" "▁▁"
// and the user-defined "<sep>".
inline std::string sentencepiece_model(const SentencePieceOptions& options = {}) {
  std::string model;
  const auto piece = [&](std::string_view text, float score, int type) {
    model += bytes_field(1, bytes_field(1, text) + float_field(2, score) + number_field(3, type));
  };
  piece("<unk>", 0, 2);
  for (const char* control : {"<s>", "</s>", "[INST]"}) piece(control, 0, 3);
  for (int byte = 0; byte < 256; ++byte) piece(fmt::format("<0x{:02X}>", byte), 0, 6);
  for (const char* character : {"▁", "a", "b", "c"}) piece(character, -100, 1);
  float score = 0;
  for (const char* merged : {"▁a", "▁ab", "bc", "▁▁"}) piece(merged, score -= 1, 1);
  piece("<sep>", 0, 4);
  model += bytes_field(2, number_field(3, options.model_type) + number_field(35, options.byte_fallback));
  model += bytes_field(3, bytes_field(1, "identity") + bytes_field(2, options.charsmap) +
                              number_field(3, options.add_dummy_prefix) +
                              number_field(4, options.remove_extra_whitespaces));
  return model;
}

}  // namespace bise::tiny
