// Hugging Face's tokenizer.json: a BPE model with its normalizer, pre-tokenizer, post-processor and decoder.
// Semantics and defaults are those of the tokenizers library, the format's only definition.
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "base/error.h"
#include "base/files.h"
#include "text/bulk_json.h"
#include "text/byte_level.h"
#include "text/tokenizer_parts.h"

namespace bise {
namespace {

constexpr std::size_t kMaxFileBytes = std::size_t{1} << 30;

// "model.vocab": {token: id}.
class VocabSink : public JsonSink {
 public:
  explicit VocabSink(const std::string& where) : where_(where + ": model.vocab") {}
  std::vector<std::pair<std::string, std::int32_t>> entries;
  std::int32_t size = 0;  // the largest id and one

  void begin(int depth, bool array) override {
    if (depth > 0 || array) throw wrong_type();
    entries.clear();
  }
  void key(std::string& value) override { key_ = std::move(value); }
  void integer(int, std::int64_t value) override {
    if (value < 0 || value >= kMaxVocabSize)
      throw Error("token id out of range").at(where_).got(std::to_string(value));
    size = std::max(size, static_cast<std::int32_t>(value) + 1);
    entries.emplace_back(std::move(key_), static_cast<std::int32_t>(value));
  }
  void string(int, std::string&) override { throw wrong_type(); }
  void other(int) override { throw wrong_type(); }
  void end(int) override {}

 private:
  Error wrong_type() const { return Error("wrong type").at(where_).expected("an object of token: id"); }
  std::string where_, key_;
};

// "model.merges": ["left right", ...] or [["left", "right"], ...].
class MergesSink : public JsonSink {
 public:
  explicit MergesSink(const std::string& where) : where_(where + ": model.merges") {}
  std::vector<std::pair<std::string, std::string>> entries;

  void begin(int depth, bool array) override {
    if (!array || depth > 1) throw wrong_type();
    if (depth == 0) entries.clear();
    pair_.clear();
  }
  void string(int depth, std::string& value) override {
    if (depth == 2) {
      pair_.push_back(std::move(value));
      return;
    }
    if (value.starts_with("#version")) return;
    const std::size_t space = value.find(' ');
    if (space == std::string::npos || value.find(' ', space + 1) != std::string::npos)
      throw Error("a merge is not two tokens with a space between").at(where_).got(value);
    entries.emplace_back(value.substr(0, space), value.substr(space + 1));
  }
  void end(int depth) override {
    if (depth == 0) return;
    if (pair_.size() != 2) throw wrong_type();
    entries.emplace_back(std::move(pair_[0]), std::move(pair_[1]));
  }
  void integer(int, std::int64_t) override { throw wrong_type(); }
  void other(int) override { throw wrong_type(); }

 private:
  Error wrong_type() const {
    return Error("wrong type").at(where_).expected("an array of strings or of pairs of strings");
  }
  std::string where_;
  std::vector<std::string> pair_;
};

// One file being turned into parts.
class TokenizerJson {
 public:
  explicit TokenizerJson(const std::filesystem::path& path)
      : where_(path.string()), vocab_(where_), merges_(where_) {
    json_ = parse_bulk_json(read_file(path, kMaxFileBytes), where_,
                            {{"model.vocab", &vocab_}, {"model.merges", &merges_}});
    if (!json_.is_object()) throw Error("wrong type").at(where_).expected("an object");
  }

  TokenizerParts load() {
    parts_.normalizer = Normalizer(member("normalizer"), where_ + ": normalizer");
    parts_.pre_tokenizer = PreTokenizer(member("pre_tokenizer"), where_ + ": pre_tokenizer");
    read_decoder(member("decoder"), where_ + ": decoder", 0);
    if (member("decoder").is_null()) parts_.separator = " ";
    index_vocab();
    const std::vector<AddedToken> added = read_added_tokens();
    fill_decoded(added);
    set_added_tokens(parts_, added, /*normalize_contents=*/true, where_ + ": added_tokens");
    read_post_processor(member("post_processor"), where_ + ": post_processor", 0);
    build_model();
    return std::move(parts_);
  }

 private:
  const Json& member(const char* key) const {
    static const Json null;
    const auto found = json_.find(key);
    return found == json_.end() ? null : *found;
  }

  std::vector<AddedToken> read_added_tokens();
  void read_decoder(const Json& decoder, const std::string& where, int depth);
  void read_post_processor(const Json& processor, const std::string& where, int depth);
  void read_template(const Json& processor, const std::string& where);
  void index_vocab();
  DecodedToken decoded_form(const std::string& text) const;
  void fill_decoded(const std::vector<AddedToken>& added);
  void build_model();
  void add_merges(BpeModel& model, const std::vector<bool>& usable) const;
  std::int32_t id_of(const std::string& token) const {
    const auto found = ids_.find(token);
    return found == ids_.end() ? -1 : found->second;
  }

  std::string where_;
  VocabSink vocab_;
  MergesSink merges_;
  Json json_;
  TokenizerParts parts_;
  // Keys view the strings in vocab_.
  std::unordered_map<std::string_view, std::int32_t> ids_;
  bool decode_bytes_ = false;                                        // ByteLevel
  bool decode_byte_tokens_ = false;                                  // ByteFallback
  std::vector<std::pair<std::string, std::string>> decode_replace_;  // applied to each token
};

void TokenizerJson::index_vocab() {
  std::vector<bool> taken(vocab_.size);
  for (const auto& [text, id] : vocab_.entries) {
    if (!ids_.emplace(text, id).second || taken[id])
      throw Error("the token or its id occurs twice").at(where_ + ": model.vocab").got(text);
    taken[id] = true;
  }
}

std::vector<AddedToken> TokenizerJson::read_added_tokens() {
  std::vector<AddedToken> added;
  const Json& list = member("added_tokens");
  if (list.is_null()) return added;
  const std::string where = where_ + ": added_tokens";
  if (!list.is_array()) throw Error("wrong type").at(where).expected("an array");
  for (const Json& entry : list) {
    AddedToken token;
    const std::int64_t id = require_int(entry, "id", where);
    if (id < 0 || id >= kMaxVocabSize) throw Error("token id out of range").at(where).got(std::to_string(id));
    token.id = static_cast<std::int32_t>(id);
    token.content = require_string(entry, "content", where);
    token.special = find_bool(entry, "special", false, where);
    token.lstrip = find_bool(entry, "lstrip", false, where);
    token.rstrip = find_bool(entry, "rstrip", false, where);
    token.single_word = find_bool(entry, "single_word", false, where);
    token.normalized = find_bool(entry, "normalized", !token.special, where);
    // As in the library, a token that the vocabulary has keeps its id there.
    if (const std::int32_t known = id_of(token.content); known >= 0) token.id = known;
    // Early files list empty tokens, which match nothing.
    if (!token.content.empty()) added.push_back(std::move(token));
  }
  return added;
}

void TokenizerJson::read_decoder(const Json& decoder, const std::string& where, int depth) {
  if (decoder.is_null()) return;
  const std::string type = require_string(decoder, "type", where);
  if (type == "Sequence") {
    if (depth >= 8) throw Error("sequences are nested too deeply").at(where);
    const Json& members = require(decoder, "decoders", where);
    if (!members.is_array()) throw Error("wrong type").at(where + ".decoders").expected("an array");
    for (const Json& each : members) read_decoder(each, where, depth + 1);
  } else if (type == "ByteLevel") {
    decode_bytes_ = true;
  } else if (type == "ByteFallback") {
    decode_byte_tokens_ = parts_.replace_each_byte = true;
  } else if (type == "Metaspace") {
    decode_replace_.emplace_back(find_string(decoder, "replacement", std::string(kWordStartMark), where),
                                 " ");
    const bool add_prefix_space = find_bool(decoder, "add_prefix_space", true, where);
    parts_.strip_first_token =
        find_string(decoder, "prepend_scheme", add_prefix_space ? "always" : "never", where) != "never";
  } else if (type == "Replace") {
    const Json& pattern = require(decoder, "pattern", where);
    decode_replace_.emplace_back(require_string(pattern, "String", where + ".pattern"),
                                 require_string(decoder, "content", where));
  } else if (type == "Strip") {
    const std::int64_t start = require_int(decoder, "start", where);
    if (require_string(decoder, "content", where) != " " || require_int(decoder, "stop", where) != 0 ||
        start < 0 || start > 1024)
      throw Error("unsupported Strip decoder").at(where).expected("content \" \", stop 0");
    parts_.strip_left = static_cast<int>(start);
  } else if (type != "Fuse") {
    throw Error("unsupported decoder")
        .at(where + ".type")
        .expected("Sequence, ByteLevel, ByteFallback, Metaspace, Replace, Strip or Fuse")
        .got(type);
  }
  for (const auto& [from, to] : decode_replace_)
    if (from.empty()) throw Error("a pattern must not be empty").at(where);
}

// "<0x0A>" -> 10; -1 for other tokens.
int byte_of_token(std::string_view token) {
  const auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
  };
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  const int high = digit(token[3]), low = digit(token[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

DecodedToken TokenizerJson::decoded_form(const std::string& text) const {
  if (decode_bytes_) return {byte_level_bytes(text).value_or(text), DecodedToken::kBytes, false};
  if (const int byte = decode_byte_tokens_ ? byte_of_token(text) : -1; byte >= 0)
    return {std::string(1, static_cast<char>(byte)), DecodedToken::kBytes, false};
  std::string bytes = text;
  for (const auto& [from, to] : decode_replace_) {
    std::string replaced;
    std::size_t done = 0;
    for (std::size_t at; (at = bytes.find(from, done)) != std::string::npos; done = at + from.size())
      replaced.append(bytes, done, at - done).append(to);
    bytes = replaced.append(bytes, done);
  }
  return {bytes, DecodedToken::kText, false};
}

void TokenizerJson::fill_decoded(const std::vector<AddedToken>& added) {
  parts_.decoded.resize(vocab_.size);
  for (const auto& [text, id] : vocab_.entries) parts_.decoded[id] = decoded_form(text);
  RegexScratch scratch;
  for (const AddedToken& token : added) {
    if (static_cast<std::size_t>(token.id) >= parts_.decoded.size()) parts_.decoded.resize(token.id + 1);
    const bool normalized = token.normalized && !token.special;
    parts_.decoded[token.id] =
        decoded_form(normalized ? parts_.normalizer.apply(token.content, scratch) : token.content);
  }
}

void TokenizerJson::read_post_processor(const Json& processor, const std::string& where, int depth) {
  if (processor.is_null()) return;
  const std::string type = require_string(processor, "type", where);
  if (type == "Sequence") {
    if (depth >= 8) throw Error("sequences are nested too deeply").at(where);
    const Json& members = require(processor, "processors", where);
    if (!members.is_array()) throw Error("wrong type").at(where + ".processors").expected("an array");
    for (const Json& each : members) read_post_processor(each, where, depth + 1);
  } else if (type == "TemplateProcessing") {
    read_template(processor, where);
  } else if (type != "ByteLevel") {  // ByteLevel moves offsets only
    throw Error("unsupported post-processor")
        .at(where + ".type")
        .expected("Sequence, TemplateProcessing or ByteLevel")
        .got(type);
  }
}

void TokenizerJson::read_template(const Json& processor, const std::string& where) {
  const Json& single = require(processor, "single", where);
  const Json& tokens = require(processor, "special_tokens", where);
  if (!single.is_array()) throw Error("wrong type").at(where + ".single").expected("an array");
  bool before = true;
  for (const Json& item : single) {
    if (item.is_object() && item.contains("Sequence")) {
      if (!before) throw Error("the text occurs twice").at(where + ".single");
      before = false;
      continue;
    }
    const std::string name = require_string(require(item, "SpecialToken", where), "id", where);
    const Json& ids = require(require(tokens, name.c_str(), where), "ids", where);
    if (!ids.is_array()) throw Error("wrong type").at(where + ".special_tokens").expected("an array of ids");
    for (const Json& id : ids) {
      if (!id.is_number_integer() || id < 0 || id >= parts_.decoded.size())
        throw Error("not a token id").at(where + ".special_tokens").got(json_text(id));
      (before ? parts_.prefix_ids : parts_.suffix_ids).push_back(id.get<std::int32_t>());
    }
  }
}

void TokenizerJson::build_model() {
  const std::string where = where_ + ": model";
  const Json& source = require(json_, "model", where_);
  // The type is absent from files of before tokenizers 0.8, which were all BPE when they have merges.
  if (const std::string type = find_string(source, "type", "BPE", where); type != "BPE")
    throw Error("unsupported model").at(where + ".type").expected("BPE").got(type);
  require(source, "vocab", where);
  require(source, "merges", where);
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (!find_string(source, key, "", where).empty()) throw Error("unsupported").at(where + "." + key);
  if (find_number(source, "dropout", 0, where) != 0)
    throw Error("unsupported: encoding would be random").at(where + ".dropout");

  BpeModel model;
  model.byte_symbols = parts_.pre_tokenizer.byte_level();
  model.ignore_merges = find_bool(source, "ignore_merges", false, where);
  model.fuse_unk = find_bool(source, "fuse_unk", false, where);
  if (const std::string unk = find_string(source, "unk_token", "", where); !unk.empty()) {
    model.unk_id = id_of(unk);
    if (model.unk_id < 0) throw Error("not in the vocabulary").at(where + ".unk_token").got(unk);
  }
  const bool byte_fallback = find_bool(source, "byte_fallback", false, where);
  model.tokens.resize(vocab_.size);
  std::vector<bool> usable(vocab_.size);
  for (const auto& [text, id] : vocab_.entries) {
    // Text in words must never become a control token.
    usable[id] = !parts_.decoded[id].special;
    if (byte_fallback)
      if (const int byte = byte_of_token(text); byte >= 0) model.byte_tokens[byte] = id;
    if (usable[id]) model.tokens[id] = model.byte_symbols ? byte_level_bytes(text).value_or("") : text;
  }
  add_merges(model, usable);
  parts_.bpe = Bpe(std::move(model), vocab_.size);
}

void TokenizerJson::add_merges(BpeModel& model, const std::vector<bool>& usable) const {
  std::uint32_t rank = 0;
  std::string joined;
  for (const auto& [left, right] : merges_.entries) {
    joined.assign(left).append(right);
    const BpeMerge merge{id_of(left), id_of(right), id_of(joined), rank++};
    for (const auto& [id, text] :
         {std::pair(merge.left, &left), {merge.right, &right}, {merge.result, &joined}})
      if (id < 0)
        throw Error("a merge names a token that is not in the vocabulary")
            .at(where_ + ": model.merges")
            .got(*text);
    if (usable[merge.result]) model.merges.push_back(merge);
  }
}

}  // namespace

TokenizerParts load_tokenizer_json(const std::filesystem::path& path) {
  return TokenizerJson(path).load();
}

}  // namespace bise
