#include "tensor/pack.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "formats/safetensors.h"
#include "tests/test_support.h"

namespace bise {
namespace {

bool same(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() &&
         std::memcmp(a.bytes().data(), b.bytes().data(), a.bytes().size()) == 0;
}

TEST(Pack, FirstCodeIsInTheLowestBitsOffsetByHalfTheRange) {
  const std::vector<std::int8_t> codes = {-8, 0, 7, -1, 1, 2, 3, 4, 5};
  const Tensor packed = pack_rows(Tensor::of(DType::kI8, {1, 9}, std::span<const std::int8_t>(codes)), 4);
  ASSERT_EQ(packed.shape(), (Shape{1, 2}));
  EXPECT_EQ(packed.data<std::uint32_t>()[0], 0xcba97f80u);
  EXPECT_EQ(packed.data<std::uint32_t>()[1], 0xdu);
}

// Against packing one bit at a time, which is the definition.
TEST(Pack, EveryWidthAndShapeEqualsTheBitString) {
  std::mt19937 random(3);
  for (int bits = 2; bits <= 8; ++bits)
    for (const Shape& shape : {Shape{1, 1}, Shape{3, 37}, Shape{5, 64}, Shape{33, 7}}) {
      Tensor codes = Tensor::allocate(DType::kI8, shape);
      for (std::int64_t i = 0; i < codes.elements(); ++i)
        codes.mutable_data<std::int8_t>()[i] =
            static_cast<std::int8_t>(static_cast<int>(random() % (1u << bits)) - (1 << (bits - 1)));
      const Tensor packed = pack_rows(codes, bits);
      for (std::int64_t row = 0; row < shape[0]; ++row)
        for (std::int64_t bit = 0; bit < packed.dim(1) * 32; ++bit) {
          const std::int64_t k = bit / bits;
          const int code =
              k < shape[1] ? codes.data<std::int8_t>()[row * shape[1] + k] + (1 << (bits - 1)) : 0;
          const std::uint32_t word = packed.data<std::uint32_t>()[row * packed.dim(1) + bit / 32];
          ASSERT_EQ((word >> (bit % 32)) & 1u, (static_cast<unsigned>(code) >> (bit % bits)) & 1u)
              << bits << " bits, bit " << bit;
        }
      EXPECT_TRUE(same(unpack_rows(packed, bits, shape[1]), codes)) << bits << " " << shape_text(shape);
      EXPECT_TRUE(same(unpack_columns(pack_columns(codes, bits), bits, shape[0]), codes)) << bits;
    }
}

TEST(Pack, EqualsTheReference) {
  const auto path = shared_path("golden/quantization/vectors.safetensors");
  BISE_SKIP_IF_ABSENT(path, "golden/quantization/vectors.safetensors");
  const SafetensorsFile vectors = SafetensorsFile::open(path);
  int compared = 0;
  for (const auto& [name, entry] : vectors.entries()) {
    if (!name.starts_with("pack.b") || !name.ends_with(".in")) continue;
    const std::string stem = name.substr(0, name.size() - 2);
    const int bits = name[6] - '0';
    const Tensor codes = vectors.tensor(name), rows = vectors.tensor(stem + "dim1");
    EXPECT_TRUE(same(pack_rows(codes, bits), rows)) << name;
    EXPECT_TRUE(same(unpack_rows(rows, bits, codes.dim(1)), codes)) << name;
    ++compared;
    if (!vectors.contains(stem + "dim0")) continue;
    const Tensor columns = vectors.tensor(stem + "dim0");
    EXPECT_TRUE(same(pack_columns(codes, bits), columns)) << name;
    EXPECT_TRUE(same(unpack_columns(columns, bits, codes.dim(0)), codes)) << name;
  }
  EXPECT_EQ(compared, 21);
}

TEST(Pack, AWrongWidthIsAnError) {
  const Tensor packed = Tensor::allocate(DType::kI32, {2, 4});
  EXPECT_THROW(unpack_rows(packed, 4, 33), Error);
  EXPECT_THROW(unpack_rows(packed, 4, 24), Error);
  EXPECT_THROW(unpack_columns(packed, 4, 17), Error);
  EXPECT_NO_THROW(unpack_rows(packed, 4, 31));
}

TEST(Pack, Nf4ValuesEqualTheReference) {
  for (std::size_t i = 1; i < kNf4Values.size(); ++i) EXPECT_LT(kNf4Values[i - 1], kNf4Values[i]);
  const auto path = shared_path("golden/quantization/vectors.safetensors");
  BISE_SKIP_IF_ABSENT(path, "golden/quantization/vectors.safetensors");
  const Tensor code = SafetensorsFile::open(path).tensor("bnb.nf4.code");
  for (std::size_t i = 0; i < 16; ++i) EXPECT_EQ(kNf4Values[i], code.data<float>()[i]) << i;
}

}  // namespace
}  // namespace bise
