// Text to token ids and back, for the three kinds of file that Mistral-family checkpoints carry:
// tokenizer.json (Hugging Face), tekken.json (Mistral) and SentencePiece's tokenizer.model.
// A Tokenizer never changes once loaded: every method may be called from any number of threads at once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/segment.h"

namespace bise {

struct TokenizerParts;

struct EncodeOptions {
  // Add what the file says stands around a text (usually BOS before it).
  bool add_special_tokens = true;
  // Text that looks like a control token becomes that token. Otherwise it stays ordinary text.
  bool parse_special = true;
};

class Tokenizer {
 public:
  // The tokenizer of a checkpoint folder: the first present of tokenizer.json, tekken.json,
  // tokenizer.model.v* (the highest version) and tokenizer.model. tokenizer_config.json, if present, names
  // BOS and EOS. Throws Error naming the files looked for when there is none, and the file and field when
  // one is invalid or asks for something unsupported.
  static std::unique_ptr<Tokenizer> load(const std::filesystem::path& folder);
  // One file; its kind is told by its name: "*tekken*.json", another "*.json" (Hugging Face), or anything
  // else (SentencePiece).
  static std::unique_ptr<Tokenizer> load_file(const std::filesystem::path& path);

  explicit Tokenizer(TokenizerParts parts);
  ~Tokenizer();

  // Ids of `text`. Throws Error when it is not valid UTF-8.
  std::vector<std::int32_t> encode(std::string_view text, EncodeOptions options = {}) const;
  // Ids of the joined text of `segments`, with control tokens recognised only where they lie wholly inside
  // trusted text. Splitting into words ignores where one segment ends and the next begins.
  std::vector<std::int32_t> encode_segments(std::span<const TextSegment> segments,
                                            bool add_special_tokens = false) const;

  // Valid UTF-8, with U+FFFD for bytes that form no character. Ids outside the vocabulary add nothing.
  // StreamDetokenizer (text/detokenizer.h) gives the same text token by token.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special_tokens = true) const;

  // The bytes that one token stands for in running text; may be part of a character. "" for an id outside
  // the vocabulary.
  std::string_view token_bytes(std::int32_t id) const;

  // One more than the largest id. A model's embedding may have more rows than this.
  std::int32_t vocab_size() const;
  // The id of an added or control token, such as "[INST]"; nothing when there is none of that name.
  std::optional<std::int32_t> id_of(std::string_view special_token) const;
  // Whether decode drops the token under skip_special_tokens.
  bool is_special(std::int32_t id) const;
  // As the file (or tokenizer_config.json beside it) defines them.
  std::optional<std::int32_t> bos_token_id() const;
  std::optional<std::int32_t> eos_token_id() const;

 private:
  friend class StreamDetokenizer;
  std::unique_ptr<const TokenizerParts> parts_;
};

}  // namespace bise
