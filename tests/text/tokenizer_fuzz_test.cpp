// Damaged tokenizer files: they load or throw Error, and what loads encodes and decodes without harm.
#include <gtest/gtest.h>

#include <chrono>
#include <random>

#include "base/error.h"
#include "base/files.h"
#include "tests/test_support.h"
#include "tests/text/tiny_tokenizers.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace bise {
namespace {

// One of: flipped bits, a cut, a copied piece, a number or length that lies, a word that means something.
std::string damaged(std::string content, std::mt19937& random) {
  constexpr std::string_view kWords[] = {"null",      "-1",       "4294967296", "1e9",        "[]",
                                         "{}",        "\"\"",     "true",       "\"<0x41>\"", "Metaspace",
                                         "ByteLevel", "Sequence", "(a+)+$",     "\\\\s*",     "\xE2\x96\x81"};
  const auto at = [&] { return content.empty() ? 0 : random() % content.size(); };
  for (int changes = 1 + random() % 4; changes > 0 && !content.empty(); --changes) {
    switch (random() % 6) {
      case 0: content[at()] ^= static_cast<char>(1 << random() % 8); break;
      case 1: content.resize(at()); break;
      case 2: {
        const std::string piece = content.substr(at(), random() % 60);
        content.insert(at(), piece);
        break;
      }
      case 3: content.erase(at(), random() % 20); break;
      case 4: {
        const std::size_t digit = content.find_first_of("0123456789", at());
        if (digit != std::string::npos) content.insert(digit, std::to_string(random() % 100000));
        break;
      }
      case 5: content.replace(at(), random() % 8, kWords[random() % std::size(kWords)]); break;
    }
  }
  return content;
}

void fuzz(const std::string& name, const std::string& seed) {
  const ScratchFolder folder;
  std::mt19937 random(20261121);
  const std::string texts[] = {"abc  ab1 <s>[INST]<|end|>", "\xC3\xA9\n\u3000a\U0001F600",
                               std::string(3000, 'a')};
  const auto start = std::chrono::steady_clock::now();
  int loaded = 0, rejected = 0;
  while (loaded + rejected < 3000 && std::chrono::steady_clock::now() - start < std::chrono::seconds(2)) {
    const std::filesystem::path path = folder.path() / name;
    write_file(path, loaded + rejected == 0 ? seed : damaged(seed, random));
    try {
      const auto tokenizer = Tokenizer::load_file(path);
      for (const std::string& text : texts)
        for (const bool special : {false, true}) {
          const auto ids = tokenizer->encode(text, {special, special});
          for (const std::int32_t id : ids) ASSERT_TRUE(id >= 0 && id < tokenizer->vocab_size());
          ASSERT_FALSE(find_invalid_utf8(tokenizer->decode(ids, special)).has_value());
        }
      ++loaded;
    } catch (const Error&) {
      ++rejected;
    }
  }
  EXPECT_GT(loaded, 0);
  EXPECT_GT(rejected, 0);
}

TEST(TokenizerFuzzTest, TokenizerJsonByteLevel) {
  fuzz("tokenizer.json", json_text(tiny::byte_level_json()));
}
TEST(TokenizerFuzzTest, TokenizerJsonMetaspace) {
  fuzz("tokenizer.json", json_text(tiny::metaspace_json()));
}
TEST(TokenizerFuzzTest, Tekken) {
  fuzz("tekken.json", json_text(tiny::tekken_json()));
}
TEST(TokenizerFuzzTest, SentencePiece) {
  fuzz("tokenizer.model", tiny::sentencepiece_model());
}

}  // namespace
}  // namespace bise
