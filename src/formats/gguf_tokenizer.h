// The tokenizer inside a GGUF file as Hugging Face's JSON documents.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "formats/gguf.h"

namespace bise {

// Token ids of the roles; -1 = none.
struct SpecialTokenIds {
  std::int64_t bos = -1, eos = -1, unk = -1, pad = -1;
  std::int64_t eot = -1;  // ends a turn, where the file tells it apart from eos
};

class GgufTokenizer {
 public:
  // Reads vocabulary, merges (or scores) and token types. Throws Error for a tokenizer model other than
  // "gpt2" and "llama", an unknown pre-tokenizer, or lists that do not fit together.
  explicit GgufTokenizer(const GgufFile& gguf);

  std::size_t vocab_size() const { return tokens_.size(); }
  const SpecialTokenIds& special() const { return special_; }

  Json tokenizer_json() const;
  Json tokenizer_config_json(std::int64_t model_max_length) const;
  Json special_tokens_map_json() const;

 private:
  struct PreTokenizer;
  struct AddedToken {
    std::int64_t id = 0;
    bool special = true;
  };
  static const PreTokenizer& find_pre_tokenizer(const std::string& name);
  Json byte_level_parts() const;
  Json sentence_piece_parts() const;
  Json added_token_json(const AddedToken& token) const;
  Json template_post_processor() const;
  std::vector<std::pair<std::string, std::string>> merges_from_scores() const;
  void put_role(Json& object, const char* key, std::int64_t id) const;
  std::int64_t role(const GgufFile& gguf, const char* name) const;

  std::vector<std::string> tokens_;
  std::vector<AddedToken> added_;
  std::vector<std::pair<std::string, std::string>> merges_;
  std::vector<float> scores_;
  SpecialTokenIds special_;
  const PreTokenizer* pre_tokenizer_ = nullptr;  // null for SentencePiece
  bool add_bos_ = false, add_space_prefix_ = false;
  std::string chat_template_;
};

}  // namespace bise
