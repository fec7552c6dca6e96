#include "tensor/tensor.h"

#include <gtest/gtest.h>

#include <numeric>

#include "base/check.h"
#include "base/error.h"
#include "tensor/scheme.h"

namespace bise {
namespace {

TEST(Tensor, AllocatedMemoryIsZeroAndAligned) {
  Tensor tensor = Tensor::allocate(DType::kBF16, {3, 5});
  EXPECT_EQ(tensor.elements(), 15);
  EXPECT_EQ(tensor.bytes().size(), 30u);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor.bytes().data()) % 64, 0u);
  for (const std::byte byte : tensor.bytes()) EXPECT_EQ(byte, std::byte{0});
  EXPECT_FALSE(tensor.empty());
  EXPECT_TRUE(Tensor().empty());
}

TEST(Tensor, RowsAndShapesShareTheMemory) {
  std::vector<std::int32_t> values(12);
  std::iota(values.begin(), values.end(), 0);
  const Tensor tensor = Tensor::of(DType::kI32, {4, 3}, std::span<const std::int32_t>(values));
  const Tensor middle = tensor.rows(1, 3);
  EXPECT_EQ(middle.shape(), (Shape{2, 3}));
  EXPECT_EQ(middle.data<std::int32_t>(), tensor.data<std::int32_t>() + 3);
  EXPECT_EQ(tensor.reshaped({2, 6}).data<std::int32_t>()[7], 7);
  EXPECT_EQ(tensor.rows(4, 4).elements(), 0);
  EXPECT_THROW(tensor.rows(2, 5), InternalError);
  EXPECT_THROW(tensor.reshaped({5, 2}), InternalError);
  EXPECT_THROW(tensor.data<std::int64_t>(), InternalError);
}

TEST(Tensor, AScalarHasOneElement) {
  EXPECT_EQ(element_count({}), 1);
  EXPECT_EQ(element_count({3, 0, 5}), 0);
  EXPECT_EQ(Tensor::allocate(DType::kF32, {}).elements(), 1);
  EXPECT_EQ(shape_text({2, 3}), "[2, 3]");
}

TEST(Tensor, ImpossibleShapesAreErrors) {
  EXPECT_THROW(element_count({2, -1}), Error);
  EXPECT_THROW(element_count({std::int64_t{1} << 32, std::int64_t{1} << 32}), Error);
  EXPECT_EQ(element_count({std::int64_t{1} << 31, std::int64_t{1} << 31}), std::int64_t{1} << 62);
}

TEST(DType, NamesGoBothWays) {
  for (const DType dtype :
       {DType::kF64, DType::kF32, DType::kF16, DType::kBF16, DType::kF8E4M3, DType::kI64, DType::kI32,
        DType::kI16, DType::kI8, DType::kU64, DType::kU32, DType::kU16, DType::kU8, DType::kBool}) {
    EXPECT_EQ(parse_dtype(dtype_name(dtype)), dtype);
    EXPECT_GT(dtype_size(dtype), 0u);
  }
  EXPECT_THROW(parse_dtype("F8_E5M2"), Error);
}

TEST(Scheme, PresetsHaveTheirNames) {
  for (const char* name : {"W4A16", "W4A16_ASYM", "W8A16", "W8A8", "FP8_DYNAMIC", "NF4"})
    EXPECT_EQ(scheme_text(parse_scheme(name)), name);
  EXPECT_EQ(parse_scheme("int8"), parse_scheme("W8A8"));
  EXPECT_EQ(parse_scheme("fp8_dynamic").input, InputType::kFp8Token);
  Scheme small_groups = parse_scheme("W4A16");
  small_groups.group_size = 64;
  EXPECT_EQ(scheme_text(small_groups), "W4A16 g64");
  EXPECT_EQ(scheme_text(Scheme{}), "BF16");
  EXPECT_FALSE(Scheme{}.quantized());
  EXPECT_THROW(parse_scheme("W3A16"), Error);
}

}  // namespace
}  // namespace bise
