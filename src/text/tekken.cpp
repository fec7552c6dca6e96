// Mistral's tekken.json: byte strings by rank for tiktoken's BPE, one pattern that splits words, and control
// tokens in front. The format's definition is mistral-common's tokens/tokenizers/tekken.py.
#include <array>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "text/bulk_json.h"
#include "text/tokenizer_parts.h"

namespace bise {
namespace {

constexpr std::size_t kMaxFileBytes = std::size_t{1} << 30;

// The control tokens of files that do not list their own (versions up to v7), ids from 0.
constexpr std::array<const char*, 20> kDefaultControlTokens = {"<unk>",
                                                               "<s>",
                                                               "</s>",
                                                               "[INST]",
                                                               "[/INST]",
                                                               "[AVAILABLE_TOOLS]",
                                                               "[/AVAILABLE_TOOLS]",
                                                               "[TOOL_RESULTS]",
                                                               "[/TOOL_RESULTS]",
                                                               "[TOOL_CALLS]",
                                                               "[IMG]",
                                                               "<pad>",
                                                               "[IMG_BREAK]",
                                                               "[IMG_END]",
                                                               "[PREFIX]",
                                                               "[MIDDLE]",
                                                               "[SUFFIX]",
                                                               "[SYSTEM_PROMPT]",
                                                               "[/SYSTEM_PROMPT]",
                                                               "[TOOL_CONTENT]"};

// RFC 4648, section 4.
std::string base64_bytes(std::string_view text, const std::string& where) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  static const std::array<std::int8_t, 256> values = [&] {
    std::array<std::int8_t, 256> table;
    table.fill(-1);
    for (std::size_t i = 0; i < kDigits.size(); ++i)
      table[static_cast<unsigned char>(kDigits[i])] = static_cast<std::int8_t>(i);
    return table;
  }();
  std::string bytes;
  std::uint32_t bits = 0;
  int count = 0;
  const std::string_view digits = text.substr(0, text.find('='));
  for (const char digit : digits) {
    const int value = values[static_cast<unsigned char>(digit)];
    if (value < 0) throw Error("invalid base64").at(where).got(std::string(text));
    bits = bits << 6 | static_cast<std::uint32_t>(value);
    count += 6;
    if (count >= 8) bytes.push_back(static_cast<char>(bits >> (count -= 8)));
  }
  if (text.size() % 4 != 0 || digits.size() % 4 == 1 || text.size() - digits.size() > 2)
    throw Error("invalid base64").at(where).got(std::string(text));
  return bytes;
}

// "vocab": [{"rank": int, "token_bytes": base64, "token_str": string or null}, ...] with ranks 0, 1, ...
class VocabSink : public JsonSink {
 public:
  explicit VocabSink(const std::string& where) : where_(where + ": vocab") {}
  std::vector<std::string> tokens;

  void begin(int depth, bool array) override {
    if (array != (depth == 0) || depth > 1) throw wrong_type();
    if (depth == 0) tokens.clear();
    rank_ = -1;
    bytes_.clear();
  }
  void key(std::string& value) override { key_ = std::move(value); }
  void string(int depth, std::string& value) override {
    if (depth != 2) throw wrong_type();
    if (key_ == "token_bytes") bytes_ = base64_bytes(value, where_);
  }
  void integer(int depth, std::int64_t value) override {
    if (depth != 2) throw wrong_type();
    if (key_ == "rank") rank_ = value;
  }
  void other(int depth) override {
    if (depth != 2) throw wrong_type();
  }
  void end(int depth) override {
    if (depth == 0) return;
    const auto expected = static_cast<std::int64_t>(tokens.size());
    if (rank_ != expected)
      throw Error("ranks are not in order")
          .at(where_)
          .expected(std::to_string(expected))
          .got(std::to_string(rank_));
    if (bytes_.empty())
      throw Error("token_bytes is missing or empty").at(where_ + fmt::format("[{}]", rank_));
    if (expected >= kMaxVocabSize) throw Error("too many tokens").at(where_);
    tokens.push_back(std::move(bytes_));
  }

 private:
  Error wrong_type() const { return Error("wrong type").at(where_).expected("an array of objects"); }
  std::string where_, key_, bytes_;
  std::int64_t rank_ = -1;
};

std::vector<AddedToken> read_control_tokens(const Json& json, std::int64_t count, const std::string& where) {
  std::vector<AddedToken> tokens(count);
  for (std::int64_t id = 0; id < count; ++id) {
    tokens[id].id = static_cast<std::int32_t>(id);
    tokens[id].special = true;
  }
  const auto listed = json.find("special_tokens");
  if (listed == json.end() || listed->is_null()) {
    if (count < static_cast<std::int64_t>(kDefaultControlTokens.size()))
      throw Error("too few for the default control tokens")
          .at(where + ": config.default_num_special_tokens")
          .expected(fmt::format("at least {}", kDefaultControlTokens.size()))
          .got(std::to_string(count));
    for (std::size_t id = 0; id < kDefaultControlTokens.size(); ++id)
      tokens[id].content = kDefaultControlTokens[id];
  } else {
    const std::string place = where + ": special_tokens";
    if (!listed->is_array()) throw Error("wrong type").at(place).expected("an array");
    for (const Json& entry : *listed) {
      const std::int64_t rank = require_int(entry, "rank", place);
      if (rank < 0 || rank >= count || !tokens[rank].content.empty())
        throw Error("rank out of range or used twice")
            .at(place)
            .expected(fmt::format("0 to {}", count - 1))
            .got(std::to_string(rank));
      tokens[rank].content = require_string(entry, "token_str", place);
    }
  }
  for (AddedToken& token : tokens)
    if (token.content.empty()) token.content = fmt::format("<SPECIAL_{}>", token.id);
  return tokens;
}

}  // namespace

TokenizerParts load_tekken(const std::filesystem::path& path) {
  const std::string where = path.string();
  VocabSink vocab(where);
  const Json json = parse_bulk_json(read_file(path, kMaxFileBytes), where, {{"vocab", &vocab}});
  require(json, "vocab", where);
  const Json& config = require(json, "config", where);
  const std::string config_place = where + ": config";
  const std::int64_t vocab_size = require_int(config, "default_vocab_size", config_place);
  const std::int64_t controls = require_int(config, "default_num_special_tokens", config_place);
  if (controls < 0 || vocab_size < controls || vocab_size > kMaxVocabSize ||
      vocab_size - controls > static_cast<std::int64_t>(vocab.tokens.size()))
    throw Error("the vocabulary does not have the stated size")
        .at(config_place)
        .expected(fmt::format("{} control tokens and at most {} others", controls, vocab.tokens.size()))
        .got(fmt::format("default_vocab_size {}", vocab_size));

  TokenizerParts parts;
  parts.special_ends_character = true;
  BpeModel model;
  model.byte_symbols = true;
  model.ignore_merges = true;  // tiktoken takes a word that is a token whole
  model.tokens.resize(vocab_size);
  parts.decoded.resize(vocab_size);
  std::vector<std::uint32_t> ranks(vocab_size);
  for (std::int64_t id = controls; id < vocab_size; ++id) {
    ranks[id] = static_cast<std::uint32_t>(id - controls);
    parts.decoded[id] = {vocab.tokens[id - controls], DecodedToken::kBytes, false};
    model.tokens[id] = std::move(vocab.tokens[id - controls]);
  }
  add_merges_by_rank(model, ranks);
  parts.bpe = Bpe(std::move(model), static_cast<std::int32_t>(vocab_size));
  parts.pre_tokenizer.add_split(
      TextPattern::regex(require_string(config, "pattern", config_place), config_place + ".pattern"),
      SplitBehavior::kIsolated, false);
  parts.pre_tokenizer.set_byte_level();
  set_added_tokens(parts, read_control_tokens(json, controls, where), /*normalize_contents=*/false,
                   where + ": special_tokens");
  const auto id_of = [&](std::string_view name) {
    const auto found = parts.named.find(name);
    return found == parts.named.end() ? std::nullopt : std::optional(found->second);
  };
  parts.bos_token_id = id_of("<s>");
  parts.eos_token_id = id_of("</s>");
  if (parts.bos_token_id) parts.prefix_ids = {*parts.bos_token_id};
  return parts;
}

}  // namespace bise
