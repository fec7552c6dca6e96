#include "text/tokenizer.h"

#include <algorithm>
#include <deque>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/error.h"
#include "base/json.h"
#include "text/detokenizer.h"
#include "text/tokenizer_parts.h"
#include "text/utf8.h"

namespace bise {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kMaxTextBytes = std::size_t{1} << 30;

// The tokenizer.model.vN with the largest N in `folder`, or "". "v7m1" (with images) comes after "v7".
fs::path newest_versioned_model(const fs::path& folder) {
  constexpr std::string_view kPrefix = "tokenizer.model.v";
  fs::path newest;
  std::pair<int, std::string> newest_version;
  std::error_code problem;
  for (const auto& entry : fs::directory_iterator(folder, problem)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kPrefix)) continue;
    const std::string suffix = name.substr(kPrefix.size());
    int number = 0;
    for (std::size_t i = 0; i < suffix.size() && i < 4 && suffix[i] >= '0' && suffix[i] <= '9'; ++i)
      number = number * 10 + (suffix[i] - '0');
    const std::pair<int, std::string> version(number, suffix);
    if (newest.empty() || version > newest_version) {
      newest = entry.path();
      newest_version = version;
    }
  }
  return newest;
}

fs::path tokenizer_file(const fs::path& folder) {
  for (const char* name : {"tokenizer.json", "tekken.json"})
    if (fs::exists(folder / name)) return folder / name;
  if (const fs::path model = newest_versioned_model(folder); !model.empty()) return model;
  if (fs::exists(folder / "tokenizer.model")) return folder / "tokenizer.model";
  throw Error("no tokenizer in the folder")
      .at(folder.string())
      .expected("tokenizer.json, tekken.json, tokenizer.model.v* or tokenizer.model");
}

TokenizerParts load_parts(const fs::path& path) {
  const std::string name = path.filename().string();
  if (!name.ends_with(".json")) return load_sentencepiece(path);
  return name.find("tekken") != std::string::npos ? load_tekken(path) : load_tokenizer_json(path);
}

// "bos_token" and the like: a string, or an object with its "content".
std::optional<std::int32_t> configured_token(const Json& config, const char* key, const TokenizerParts& parts,
                                             const std::string& where) {
  const auto member = config.find(key);
  if (member == config.end() || member->is_null()) return std::nullopt;
  const std::string content =
      member->is_object() ? require_string(*member, "content", where) : require_string(config, key, where);
  const auto found = parts.named.find(content);
  if (found == parts.named.end()) return std::nullopt;
  return found->second;
}

// What transformers takes from the file beside the tokenizer: which tokens are BOS and EOS and, for a
// tokenizer.json that does not say it itself, whether they are added.
void apply_tokenizer_config(const fs::path& path, bool states_affixes, TokenizerParts& parts) {
  const Json config = read_json_file(path);
  const std::string where = path.string();
  if (!config.is_object()) throw Error("wrong type").at(where).expected("an object");
  if (const auto id = configured_token(config, "bos_token", parts, where)) parts.bos_token_id = id;
  if (const auto id = configured_token(config, "eos_token", parts, where)) parts.eos_token_id = id;
  for (const auto& id : {parts.bos_token_id, parts.eos_token_id})
    if (id) parts.decoded[*id].special = true;
  if (states_affixes) return;
  const auto affix = [&](const char* key, const std::optional<std::int32_t>& id,
                         std::vector<std::int32_t>& to) {
    const bool add = find_bool(config, key, !to.empty(), where);
    to = add && id ? std::vector{*id} : std::vector<std::int32_t>{};
  };
  affix("add_bos_token", parts.bos_token_id, parts.prefix_ids);
  affix("add_eos_token", parts.eos_token_id, parts.suffix_ids);
}

std::vector<std::int32_t> encode_text(const TokenizerParts& parts, std::string_view text,
                                      std::span<const TextRange> trusted, bool add_special_tokens) {
  if (text.size() > kMaxTextBytes)
    throw Error("text is too long to tokenize")
        .expected(fmt::format("at most {} bytes", kMaxTextBytes))
        .got(fmt::format("{} bytes", text.size()));
  if (const auto offset = find_invalid_utf8(text)) throw Error("text is not valid UTF-8 at byte {}", *offset);

  std::vector<std::int32_t> ids;
  if (add_special_tokens) ids = parts.prefix_ids;
  RegexScratch regex_scratch;
  BpeScratch bpe_scratch(text.size());
  std::deque<std::string> storage;  // keeps every word in place until the end
  const auto encode_normalized = [&](std::string_view normalized, bool at_start) {
    for (const AddedTokenPart& part : parts.normalized_added_tokens.split(normalized, {})) {
      if (part.id >= 0) {
        ids.push_back(part.id);
        continue;
      }
      const bool first = at_start && part.text.data() == normalized.data();
      for (const std::string_view word : parts.pre_tokenizer.words(part.text, first, regex_scratch, storage))
        parts.bpe.encode_word(word, bpe_scratch, ids);
    }
  };
  for (const AddedTokenPart& part : parts.added_tokens.split(text, trusted)) {
    const bool at_start = part.text.data() == text.data();
    if (part.id >= 0)
      ids.push_back(part.id);
    else if (parts.normalizer.empty())
      encode_normalized(part.text, at_start);
    else
      encode_normalized(storage.emplace_back(parts.normalizer.apply(part.text, regex_scratch)), at_start);
  }
  if (add_special_tokens) ids.insert(ids.end(), parts.suffix_ids.begin(), parts.suffix_ids.end());
  return ids;
}

const DecodedToken* decoded_token(const TokenizerParts& parts, std::int32_t id) {
  if (id < 0 || static_cast<std::size_t>(id) >= parts.decoded.size()) return nullptr;
  return &parts.decoded[id];
}

}  // namespace

void set_added_tokens(TokenizerParts& parts, std::vector<AddedToken> tokens, bool normalize_contents,
                      const std::string& where) {
  std::vector<AddedToken> as_given, normalized;
  for (AddedToken& token : tokens) {
    if (token.content.empty()) throw Error("an added token is empty").at(where);
    if (token.id < 0 || token.id >= kMaxVocabSize)
      throw Error("the id of an added token is out of range").at(where).got(std::to_string(token.id));
    if (static_cast<std::size_t>(token.id) >= parts.decoded.size()) parts.decoded.resize(token.id + 1);
    DecodedToken& decoded = parts.decoded[token.id];
    if (decoded.kind == DecodedToken::kAbsent) decoded = {token.content, DecodedToken::kText, false};
    decoded.special = token.special;
    parts.named[token.content] = token.id;
    (token.normalized && !token.special ? normalized : as_given).push_back(std::move(token));
  }
  parts.added_tokens = AddedTokens(std::move(as_given));
  RegexScratch scratch;
  if (normalize_contents)
    for (AddedToken& token : normalized) token.content = parts.normalizer.apply(token.content, scratch);
  std::erase_if(normalized, [](const AddedToken& token) { return token.content.empty(); });
  parts.normalized_added_tokens = AddedTokens(std::move(normalized));
}

std::unique_ptr<Tokenizer> Tokenizer::load(const fs::path& folder) {
  const fs::path path = tokenizer_file(folder);
  TokenizerParts parts = load_parts(path);
  if (const fs::path config = folder / "tokenizer_config.json"; fs::exists(config)) {
    const bool states_affixes =
        path.filename() == "tokenizer.json" && !(parts.prefix_ids.empty() && parts.suffix_ids.empty());
    apply_tokenizer_config(config, states_affixes, parts);
  }
  return std::make_unique<Tokenizer>(std::move(parts));
}

std::unique_ptr<Tokenizer> Tokenizer::load_file(const fs::path& path) {
  return std::make_unique<Tokenizer>(load_parts(path));
}

Tokenizer::Tokenizer(TokenizerParts parts)
    : parts_(std::make_unique<const TokenizerParts>(std::move(parts))) {}
Tokenizer::~Tokenizer() = default;

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  const TextRange whole{0, text.size()};
  const std::span<const TextRange> trusted(&whole, options.parse_special ? 1 : 0);
  return encode_text(*parts_, text, trusted, options.add_special_tokens);
}

std::vector<std::int32_t> Tokenizer::encode_segments(std::span<const TextSegment> segments,
                                                     bool add_special_tokens) const {
  std::string text;
  std::vector<TextRange> trusted;
  for (const TextSegment& segment : segments) {
    if (segment.text.empty()) continue;
    const std::size_t begin = text.size();
    text += segment.text;
    if (!segment.trusted) continue;
    if (!trusted.empty() && trusted.back().end == begin)
      trusted.back().end = text.size();
    else
      trusted.push_back({begin, text.size()});
  }
  return encode_text(*parts_, text, trusted, add_special_tokens);
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const {
  StreamDetokenizer stream(*this, skip_special_tokens);
  std::string text;
  for (const std::int32_t id : ids) text += stream.push(id);
  return text += stream.flush();
}

std::string_view Tokenizer::token_bytes(std::int32_t id) const {
  const DecodedToken* token = decoded_token(*parts_, id);
  return token ? std::string_view(token->bytes) : std::string_view();
}

std::int32_t Tokenizer::vocab_size() const {
  return static_cast<std::int32_t>(parts_->decoded.size());
}

std::optional<std::int32_t> Tokenizer::id_of(std::string_view special_token) const {
  const auto found = parts_->named.find(special_token);
  if (found == parts_->named.end()) return std::nullopt;
  return found->second;
}

bool Tokenizer::is_special(std::int32_t id) const {
  const DecodedToken* token = decoded_token(*parts_, id);
  return token && token->special;
}

std::optional<std::int32_t> Tokenizer::bos_token_id() const {
  return parts_->bos_token_id;
}

std::optional<std::int32_t> Tokenizer::eos_token_id() const {
  return parts_->eos_token_id;
}

}  // namespace bise
