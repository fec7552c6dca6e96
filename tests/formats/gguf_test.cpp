#include "formats/gguf.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "base/error.h"
#include "tensor/float_types.h"
#include "tests/formats/small_files.h"
#include "tests/test_support.h"

namespace bise {
namespace {
namespace fs = std::filesystem;

class Gguf : public testing::Test {
 protected:
  GgufFile open(const std::string& bytes) {
    put_file(folder_.path() / "x.gguf", bytes);
    return GgufFile::open(folder_.path() / "x.gguf");
  }
  ScratchFolder folder_;
};

TEST_F(Gguf, ReadsMetadataOfEveryType) {
  GgufBuilder builder;
  builder.pair("u8", 0, raw(std::uint8_t{200}))
      .pair("i8", 1, raw(std::int8_t{-3}))
      .pair("u16", 2, raw(std::uint16_t{60000}))
      .pair("i16", 3, raw(std::int16_t{-300}))
      .number("u32", 4000000000u)
      .pair("i32", 5, raw(std::int32_t{-5}))
      .real("f32", 0.5f)
      .flag("bool", true)
      .text("text", "caf\xc3\xa9")
      .pair("u64", 10, raw(std::uint64_t{1} << 40))
      .pair("i64", 11, raw(std::int64_t{-1}))
      .pair("f64", 12, raw(2.5))
      .texts("texts", {"a", "", "b"})
      .list<std::int32_t>("ints", 5, {1, -2})
      .list<float>("floats", 6, {0.25f})
      .pair("nested", 9,
            raw(std::uint32_t{9}) + raw(std::uint64_t{1}) + raw(std::uint32_t{0}) + raw(std::uint64_t{2}) +
                "ab");
  for (const std::uint32_t version : {2u, 3u}) {
    const GgufFile file = open(builder.bytes(version));
    EXPECT_EQ(file.version(), version);
    EXPECT_EQ(file.integer("u8"), 200);
    EXPECT_EQ(file.integer("i8"), -3);
    EXPECT_EQ(file.integer("u16"), 60000);
    EXPECT_EQ(file.integer("i16"), -300);
    EXPECT_EQ(file.integer("u32"), 4000000000);
    EXPECT_EQ(file.integer("i32"), -5);
    EXPECT_EQ(file.integer("u64"), std::int64_t{1} << 40);
    EXPECT_EQ(file.integer("i64"), -1);
    EXPECT_EQ(file.number("f32"), 0.5);
    EXPECT_EQ(file.number("f64"), 2.5);
    EXPECT_EQ(file.number("i32"), -5);
    EXPECT_TRUE(file.boolean("bool", false));
    EXPECT_EQ(file.string("text"), "caf\xc3\xa9");
    EXPECT_EQ(file.strings("texts"), (std::vector<std::string>{"a", "", "b"}));
    EXPECT_EQ(file.integers("ints"), (std::vector<std::int64_t>{1, -2}));
    EXPECT_EQ(file.floats("floats"), (std::vector<float>{0.25f}));
    EXPECT_TRUE(file.has("nested"));
    EXPECT_EQ(file.integer("absent", 7), 7);
    EXPECT_THROW(file.integer("absent"), Error);
    EXPECT_THROW(file.integer("text"), Error);
    EXPECT_THROW(file.string("u8"), Error);
    EXPECT_THROW(file.strings("ints"), Error);
    EXPECT_THROW(file.integers("u8"), Error);
  }
}

// Blocks with known codes, against the formulas of the format written out element by element.
TEST_F(Gguf, DequantizesEveryType) {
  std::mt19937 random(5);
  const auto random_bytes = [&](std::size_t count) {
    std::string bytes(count, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random());
    return bytes;
  };
  const std::string half = raw(float_to_f16(0.5f)), tenth = raw(float_to_f16(0.1f));
  const float d = 0.5f, m = f16_to_float(float_to_f16(0.1f));
  const std::string nibbles = random_bytes(16), bytes32 = random_bytes(32);
  const std::string k_scales = random_bytes(12), k_codes = random_bytes(128);
  const std::string low = random_bytes(128), high = random_bytes(64), scales = random_bytes(16);
  const auto u8 = [](const std::string& bytes, std::size_t i) {
    return static_cast<unsigned char>(bytes[i]);
  };
  GgufBuilder builder;
  builder.tensor("f32", {1, 3}, 0, raw(1.5f) + raw(-2.0f) + raw(0.1f))
      .tensor("f16", {1, 2}, 1, half + tenth)
      .tensor("bf16", {1, 2}, 30, raw(float_to_bf16(-3.0f)) + raw(float_to_bf16(7.0f)))
      .tensor("q4_0", {1, 32}, 2, half + nibbles)
      .tensor("q4_1", {1, 32}, 3, half + tenth + nibbles)
      .tensor("q8_0", {1, 32}, 8, half + bytes32)
      .tensor("q4_k", {1, 256}, 12, half + tenth + k_scales + k_codes)
      .tensor("q6_k", {1, 256}, 14, low + high + scales + half);
  const GgufFile file = open(builder.bytes());
  const auto values = [&](const char* name) {
    const GgufTensor& tensor = file.tensor(name);
    std::vector<float> out(static_cast<std::size_t>(tensor.columns()));
    file.dequantize(tensor, 0, 1, out);
    return out;
  };
  EXPECT_EQ(values("f32"), (std::vector<float>{1.5f, -2.0f, 0.1f}));
  EXPECT_EQ(values("f16"), (std::vector<float>{0.5f, m}));
  EXPECT_EQ(values("bf16"), (std::vector<float>{-3, 7}));
  for (std::size_t i = 0; i < 32; ++i) {
    const int code = i < 16 ? u8(nibbles, i) & 15 : u8(nibbles, i - 16) >> 4;
    EXPECT_EQ(values("q4_0")[i], static_cast<float>(code - 8) * d) << i;
    EXPECT_EQ(values("q4_1")[i], static_cast<float>(code) * d + m) << i;
    EXPECT_EQ(values("q8_0")[i], static_cast<float>(static_cast<signed char>(bytes32[i])) * d) << i;
  }
  // ggml-quants.c, get_scale_min_k4 and dequantize_row_q4_K, by element index.
  const std::vector<float> q4_k = values("q4_k"), q6_k = values("q6_k");
  for (std::size_t i = 0; i < 256; ++i) {
    const std::size_t j = i / 32;
    const int scale = j < 4 ? u8(k_scales, j) % 64 : u8(k_scales, j + 4) % 16 + u8(k_scales, j - 4) / 64 * 16;
    const int minimum =
        j < 4 ? u8(k_scales, j + 4) % 64 : u8(k_scales, j + 4) / 16 + u8(k_scales, j) / 64 * 16;
    const int byte = u8(k_codes, i / 64 * 32 + i % 32);
    const int code = i % 64 < 32 ? byte % 16 : byte / 16;
    EXPECT_EQ(q4_k[i],
              d * static_cast<float>(scale) * static_cast<float>(code) - m * static_cast<float>(minimum))
        << i;
  }
  for (std::size_t i = 0; i < 256; ++i) {
    const std::size_t half_block = i / 128, inside = i % 128, run = inside / 32, l = inside % 32;
    const int byte = u8(low, half_block * 64 + (run & 1) * 32 + l);
    const int upper = u8(high, half_block * 32 + l) >> (2 * run) & 3;
    const int code = ((run < 2 ? byte % 16 : byte / 16) | upper << 4) - 32;
    const int scale = static_cast<signed char>(scales[half_block * 8 + run * 2 + l / 16]);
    EXPECT_EQ(q6_k[i], d * static_cast<float>(scale) * static_cast<float>(code)) << i;
  }
}

TEST_F(Gguf, BadFilesAreErrorsThatNameTheFile) {
  const auto text = [](const std::string& value) { return GgufBuilder::packed(value); };
  const auto header = [](std::uint64_t tensors, std::uint64_t pairs) {
    return "GGUF" + raw(std::uint32_t{3}) + raw(tensors) + raw(pairs);
  };
  const auto nested = [&](int depth) {
    std::string body;
    for (int i = 0; i < depth; ++i) body += raw(std::uint32_t{9}) + raw(std::uint64_t{1});
    return body + raw(std::uint32_t{0}) + raw(std::uint64_t{0});
  };
  std::string truncated = small_llama().bytes();
  truncated.resize(truncated.size() - 33);
  const struct {
    const char* why;
    std::string bytes;
    const char* message;
  } cases[] = {
      {"empty", "", "not a GGUF file"},
      {"other magic", "GGML" + std::string(40, '\0'), "not a GGUF file"},
      {"version 1", GgufBuilder().bytes(1), "version"},
      {"big endian", GgufBuilder().bytes(0x03000000), "version"},
      {"more pairs than bytes", header(0, ~std::uint64_t{0}), "truncated"},
      {"key longer than the file", header(0, 1) + raw(~std::uint64_t{0}), "leaves the file"},
      {"unknown type", GgufBuilder().pair("k", 13, "").bytes(), "unknown metadata type"},
      {"long array", GgufBuilder().pair("k", 9, raw(std::uint32_t{4}) + raw(~std::uint64_t{0})).bytes(),
       "array"},
      {"array of arrays", GgufBuilder().pair("k", 9, nested(100)).bytes(), "nested"},
      {"huge number", GgufBuilder().pair("k", 10, raw(~std::uint64_t{0})).bytes(), "2^63"},
      {"key twice", GgufBuilder().number("k", 1).number("k", 2).bytes(), "twice"},
      {"odd alignment", GgufBuilder().number("general.alignment", 12).bytes(), "alignment"},
      {"zero alignment", GgufBuilder().number("general.alignment", 0).bytes(), "alignment"},
      {"more tensors than fit", header(~std::uint64_t{0}, 0), "more tensors"},
      {"tensor twice", GgufBuilder().tensor("t", {1}, 0, raw(1.f)).tensor("t", {1}, 0, raw(1.f)).bytes(),
       "twice"},
      {"five dimensions", GgufBuilder().tensor("t", {1, 1, 1, 1, 1}, 0, raw(1.f)).bytes(), "dimensions"},
      {"unsupported type", GgufBuilder().tensor("t", {1, 256}, 10, std::string(84, 'x')).bytes(),
       "unsupported type"},
      {"unknown tensor type", GgufBuilder().tensor("t", {1, 256}, 999, std::string(84, 'x')).bytes(),
       "unsupported"},
      {"rows of half a block", GgufBuilder().tensor("t", {2, 16}, 2, std::string(18, 'x')).bytes(), "blocks"},
      {"too large", GgufBuilder().tensor("t", {std::int64_t{1} << 40, std::int64_t{1} << 40}, 0, "").bytes(),
       "large"},
      {"larger than its bytes", GgufBuilder().tensor("t", {1000}, 0, raw(1.f)).bytes(), "leaves the file"},
      {"data misaligned",
       header(1, 0) + text("t") + raw(std::uint32_t{1}) + raw(std::uint64_t{1}) + raw(std::uint32_t{0}) +
           raw(std::uint64_t{4}) + std::string(200, 'x'),
       "aligned"},
      {"truncated data", truncated, "leaves the file"},
  };
  for (const auto& bad : cases) {
    try {
      open(bad.bytes);
      ADD_FAILURE() << bad.why << ": accepted";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(bad.message), std::string::npos)
          << bad.why << ": " << error.what();
      EXPECT_NE(std::string(error.what()).find("x.gguf"), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace bise
