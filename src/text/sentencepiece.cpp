// SentencePiece's tokenizer.model, a protobuf (google/sentencepiece, sentencepiece_model.proto): BPE models
// without a normalization table, which all Llama and Mistral ones are.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/files.h"
#include "text/tokenizer_parts.h"
#include "text/utf8.h"

namespace bise {
namespace {

constexpr std::size_t kMaxFileBytes = std::size_t{1} << 28;

// Walks the fields of one protobuf message (protobuf.dev, "Encoding").
class MessageReader {
 public:
  MessageReader(std::string_view bytes, const std::string& where) : rest_(bytes), where_(where) {}

  // Moves to the next field; false at the end.
  bool next() {
    if (rest_.empty()) return false;
    const std::uint64_t key = read_varint();
    field_ = key >> 3;
    type_ = static_cast<int>(key & 7);
    switch (type_) {
      case 0: number_ = read_varint(); break;
      case 1: bytes_ = take(8); break;
      case 2: bytes_ = take(read_varint()); break;
      case 5: bytes_ = take(4); break;
      default: throw Error("not a SentencePiece model: unknown wire type {}", type_).at(where_);
    }
    return true;
  }
  std::uint64_t field() const { return field_; }
  std::int64_t integer() const {
    expect(0);
    return static_cast<std::int64_t>(number_);
  }
  bool boolean() const { return integer() != 0; }
  std::string_view bytes() const {
    expect(2);
    return bytes_;
  }
  std::string text() const {
    if (find_invalid_utf8(bytes()))
      throw Error("not a SentencePiece model: field {} is not UTF-8", field_).at(where_);
    return std::string(bytes_);
  }
  float real() const {
    expect(5);
    float value;
    std::memcpy(&value, bytes_.data(), sizeof(value));
    return value;
  }

 private:
  void expect(int type) const {
    if (type_ != type)
      throw Error("not a SentencePiece model: field {} has wire type {}", field_, type_).at(where_);
  }
  std::uint64_t read_varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= std::uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
    throw Error("not a SentencePiece model: a number is too long").at(where_);
  }
  std::string_view take(std::uint64_t count) {
    if (count > rest_.size())
      throw Error("the file ends early")
          .at(where_)
          .expected(fmt::format("{} more bytes", count))
          .got(fmt::format("{}", rest_.size()));
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }

  std::string_view rest_;
  const std::string& where_;
  std::uint64_t field_ = 0, number_ = 0;
  int type_ = 0;
  std::string_view bytes_;
};

enum PieceType { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

struct Piece {
  std::string text;
  float score = 0;
  std::int64_t type = kNormal;
};

struct Model {
  std::vector<Piece> pieces;
  // trainer_spec
  std::int64_t model_type = 1;
  bool byte_fallback = false, whitespace_as_suffix = false;
  std::string unk_surface = " \xE2\x81\x87 ", bos_piece = "<s>", eos_piece = "</s>";
  // normalizer_spec
  std::string charsmap;
  bool add_dummy_prefix = true, remove_extra_whitespaces = true, escape_whitespaces = true;
};

Piece read_piece(std::string_view bytes, const std::string& where) {
  Piece piece;
  for (MessageReader fields(bytes, where); fields.next();) {
    if (fields.field() == 1) piece.text = fields.text();
    if (fields.field() == 2) piece.score = fields.real();
    if (fields.field() == 3) piece.type = fields.integer();
  }
  if (piece.text.empty()) throw Error("a piece is empty").at(where);
  if (std::isnan(piece.score)) throw Error("a score is not a number").at(where).got(piece.text);
  if (piece.type < kNormal || piece.type > kByte || piece.type == kUnused)
    throw Error("unsupported piece type {}", piece.type).at(where).got(piece.text);
  return piece;
}

Model read_model(std::string_view bytes, const std::string& where) {
  Model model;
  for (MessageReader fields(bytes, where); fields.next();) {
    if (fields.field() == 1) {
      if (model.pieces.size() >= static_cast<std::size_t>(kMaxVocabSize))
        throw Error("too many pieces").at(where);
      model.pieces.push_back(read_piece(fields.bytes(), where));
    } else if (fields.field() == 2) {
      for (MessageReader spec(fields.bytes(), where); spec.next();) {
        if (spec.field() == 3) model.model_type = spec.integer();
        if (spec.field() == 24) model.whitespace_as_suffix = spec.boolean();
        if (spec.field() == 35) model.byte_fallback = spec.boolean();
        if (spec.field() == 44) model.unk_surface = spec.text();
        if (spec.field() == 46) model.bos_piece = spec.text();
        if (spec.field() == 47) model.eos_piece = spec.text();
      }
    } else if (fields.field() == 3) {
      for (MessageReader spec(fields.bytes(), where); spec.next();) {
        if (spec.field() == 2) model.charsmap = spec.bytes();
        if (spec.field() == 3) model.add_dummy_prefix = spec.boolean();
        if (spec.field() == 4) model.remove_extra_whitespaces = spec.boolean();
        if (spec.field() == 5) model.escape_whitespaces = spec.boolean();
      }
    }
  }
  return model;
}

void reject_unsupported(const Model& model, const std::string& where) {
  if (model.pieces.empty()) throw Error("not a SentencePiece model: it has no pieces").at(where);
  if (model.model_type != 2)
    throw Error("unsupported SentencePiece model")
        .at(where + ": trainer_spec.model_type")
        .expected("BPE (2)")
        .got(model.model_type == 1 ? "Unigram (1)" : std::to_string(model.model_type));
  if (!model.charsmap.empty())
    throw Error("unsupported: a normalization table").at(where + ": normalizer_spec.precompiled_charsmap");
  if (model.whitespace_as_suffix)
    throw Error("unsupported").at(where + ": trainer_spec.treat_whitespace_as_suffix");
}

// "<0x0A>" -> 10.
int byte_of_piece(const std::string& text, const std::string& where) {
  for (int byte = 0; byte < 256; ++byte)
    if (text == fmt::format("<0x{:02X}>", byte)) return byte;
  throw Error("a byte piece names no byte").at(where).got(text);
}

std::string with_spaces(std::string text) {
  for (std::size_t at = 0; (at = text.find(kWordStartMark, at)) != std::string::npos; ++at)
    text.replace(at, kWordStartMark.size(), 1, ' ');
  return text;
}

// Equal scores share a rank, so that of them the leftmost pair merges first.
std::vector<std::uint32_t> ranks_by_score(const std::vector<Piece>& pieces) {
  std::vector<float> scores;
  for (const Piece& piece : pieces) scores.push_back(piece.score);
  std::sort(scores.begin(), scores.end(), std::greater<>());
  scores.erase(std::unique(scores.begin(), scores.end()), scores.end());
  std::vector<std::uint32_t> ranks;
  for (const Piece& piece : pieces) {
    const auto at = std::lower_bound(scores.begin(), scores.end(), piece.score, std::greater<>());
    ranks.push_back(static_cast<std::uint32_t>(at - scores.begin()));
  }
  return ranks;
}

}  // namespace

TokenizerParts load_sentencepiece(const std::filesystem::path& path) {
  const std::string where = path.string();
  const Model source = read_model(read_file(path, kMaxFileBytes), where);
  reject_unsupported(source, where);

  TokenizerParts parts;
  if (source.remove_extra_whitespaces) parts.normalizer.add_collapse_spaces();
  if (source.add_dummy_prefix) parts.normalizer.add_prepend(" ");
  if (source.escape_whitespaces)
    parts.normalizer.add_replace(TextPattern::literal(" "), std::string(kWordStartMark));
  parts.strip_left = source.add_dummy_prefix || source.remove_extra_whitespaces ? 1 : 0;
  parts.strip_marks_only = true;
  parts.special_ends_character = parts.replace_each_byte = true;

  BpeModel model;
  model.fuse_unk = true;
  const std::size_t vocab_size = source.pieces.size();
  model.tokens.resize(vocab_size);
  parts.decoded.resize(vocab_size);
  std::vector<AddedToken> added;
  for (std::size_t index = 0; index < vocab_size; ++index) {
    const Piece& piece = source.pieces[index];
    const auto id = static_cast<std::int32_t>(index);
    parts.decoded[id] = {with_spaces(piece.text), DecodedToken::kText, false};
    if (piece.type == kNormal) {
      model.tokens[id] = piece.text;
    } else if (piece.type == kByte) {
      const int byte = byte_of_piece(piece.text, where);
      if (source.byte_fallback) model.byte_tokens[byte] = id;
      parts.decoded[id] = {std::string(1, static_cast<char>(byte)), DecodedToken::kBytes, false};
    } else if (piece.type == kUnknown) {
      model.unk_id = id;
      parts.decoded[id].bytes = source.unk_surface;
    } else {
      // User-defined symbols are looked for in normalized text and written as they stand there.
      const bool control = piece.type == kControl;
      added.push_back({.id = id, .content = piece.text, .special = control, .normalized = !control});
    }
  }
  add_merges_by_rank(model, ranks_by_score(source.pieces));
  parts.bpe = Bpe(std::move(model), static_cast<std::int32_t>(vocab_size));

  for (const AddedToken& token : added) {
    if (token.special && token.content == source.bos_piece) parts.bos_token_id = token.id;
    if (token.special && token.content == source.eos_piece) parts.eos_token_id = token.id;
  }
  if (parts.bos_token_id) parts.prefix_ids = {*parts.bos_token_id};
  set_added_tokens(parts, std::move(added), /*normalize_contents=*/false, where);
  return parts;
}

}  // namespace bise
