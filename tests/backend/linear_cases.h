// The kinds of stored weights and the shapes that linear layers are tested with.
#pragma once

#include "tests/backend/conformance.h"

namespace bise {

inline const std::vector<LinearCase>& linear_cases() {
  using enum WeightType;
  using enum Strategy;
  constexpr InputType kPlain = InputType::kNone, kInt8 = InputType::kInt8Token;
  constexpr InputType kFp8 = InputType::kFp8Token, kStatic = InputType::kFp8Tensor;
  const auto integers = [](int bits, Strategy strategy, std::int64_t group, bool symmetric,
                           InputType input = InputType::kNone) {
    return Scheme{kInt, bits, strategy, group, symmetric, input};
  };
  const auto fp8 = [](Strategy strategy, InputType input) {
    return Scheme{WeightType::kFloat, 8, strategy, 0, true, input};
  };
  static const std::vector<LinearCase> cases{
      {.name = "BF16", .scheme = {}},
      {.name = "F16", .scheme = {}, .dtype = DType::kF16},
      {.name = "F32", .scheme = {.num_bits = 32}, .dtype = DType::kF32},
      {.name = "BF16_bias_joined", .scheme = {}, .bias = true, .parts = 3},
      {.name = "FP8_channel_dynamic", .scheme = fp8(kChannel, kFp8)},
      {.name = "FP8_channel_static", .scheme = fp8(kChannel, kStatic)},
      {.name = "FP8_channel", .scheme = fp8(kChannel, kPlain)},
      {.name = "FP8_tensor_dynamic", .scheme = fp8(kTensor, kFp8), .dtype = DType::kF32},
      {.name = "FP8_tensor_static_joined",
       .scheme = fp8(kTensor, kStatic),
       .dtype = DType::kF32,
       .bias = true,
       .parts = 3},
      {.name = "FP8_tensor", .scheme = fp8(kTensor, kPlain)},
      {.name = "FP8_block", .scheme = fp8(kBlock, kPlain)},
      {.name = "FP8_block_dynamic", .scheme = fp8(kBlock, kFp8), .dtype = DType::kF32, .parts = 2},
      {.name = "W8A8", .scheme = integers(8, kChannel, 0, true, kInt8)},
      {.name = "W8A8_f32_bias_joined",
       .scheme = integers(8, kChannel, 0, true, kInt8),
       .dtype = DType::kF32,
       .bias = true,
       .parts = 3},
      {.name = "W8A8_tensor", .scheme = integers(8, kTensor, 0, true, kInt8), .parts = 2},
      {.name = "W8A8_g64", .scheme = integers(8, kGroup, 64, true, kInt8), .bias = true},
      {.name = "W4A8_g128", .scheme = integers(4, kGroup, 128, true, kInt8), .packed = true, .parts = 2},
      {.name = "W4A8_ASYM_g32", .scheme = integers(4, kGroup, 32, false, kInt8), .packed = true},
      {.name = "W8_channel_unpacked", .scheme = integers(8, kChannel, 0, true)},
      {.name = "W4A16_g32", .scheme = integers(4, kGroup, 32, true), .packed = true},
      {.name = "W4A16_g64", .scheme = integers(4, kGroup, 64, true), .packed = true, .parts = 3},
      {.name = "W4A16_g128",
       .scheme = integers(4, kGroup, 128, true),
       .dtype = DType::kF16,
       .packed = true,
       .bias = true},
      {.name = "W4A16_channel", .scheme = integers(4, kChannel, 0, true), .packed = true},
      {.name = "W4A16_ASYM_g32", .scheme = integers(4, kGroup, 32, false), .packed = true},
      {.name = "W4A16_ASYM_g64", .scheme = integers(4, kGroup, 64, false), .packed = true, .parts = 2},
      {.name = "W4A16_ASYM_g128",
       .scheme = integers(4, kGroup, 128, false),
       .dtype = DType::kF32,
       .packed = true},
      {.name = "W4A16_ASYM_channel", .scheme = integers(4, kChannel, 0, false), .packed = true},
      {.name = "W4A16_g_idx", .scheme = integers(4, kGroup, 64, true), .packed = true, .g_idx = true},
      {.name = "W4A16_ASYM_g_idx", .scheme = integers(4, kGroup, 32, false), .packed = true, .g_idx = true},
      {.name = "W8A16_g128", .scheme = integers(8, kGroup, 128, true), .packed = true, .parts = 2},
      {.name = "W8A16_g64", .scheme = integers(8, kGroup, 64, true), .packed = true, .bias = true},
      {.name = "W8A16_ASYM_g32", .scheme = integers(8, kGroup, 32, false), .packed = true},
      {.name = "W8A16_channel", .scheme = integers(8, kChannel, 0, true), .packed = true},
      {.name = "W8A16_ASYM_channel", .scheme = integers(8, kChannel, 0, false), .packed = true},
      {.name = "W8A16_g192_f32",
       .scheme = integers(8, kGroup, 192, true),
       .dtype = DType::kF32,
       .packed = true},
      {.name = "W8_g32_unpacked", .scheme = integers(8, kGroup, 32, true), .dtype = DType::kF16, .parts = 3},
      {.name = "W8_ASYM_g64_unpacked", .scheme = integers(8, kGroup, 64, false)},
      {.name = "NF4", .scheme = {kNf4, 4, kGroup, 64, true, kPlain}},
      {.name = "NF4_joined", .scheme = {kNf4, 4, kGroup, 64, true, kPlain}, .bias = true, .parts = 2},
  };
  return cases;
}

struct LinearShape {
  std::int64_t rows, columns;            // of the weight
  std::vector<std::int64_t> batch_rows;  // of the input
};

inline const std::vector<LinearShape>& linear_shapes() {
  static const std::vector<LinearShape> shapes{
      {192, 576, {1, 2, 3, 7, 16, 17, 33, 64, 130}},  // SmolLM2's k and v
      {576, 1536, {1, 5, 33}},                        // SmolLM2's down
      {130, 256, {1, 4, 17}},
      {64, 64, {1, 16, 17}},
      {80, 96, {1, 3, 8, 33}},
      {48, 32, {1, 4, 17}},
      {37, 100, {1, 2, 7, 17, 33}},
      {6, 33, {1, 2, 19}},
      // As many rows as AMX divides among two threads, in one chunk and in several of them, and more columns
      // than one block of its sums has.
      {80, 576, {1, 384, 512}},
      {32, 4160, {1, 20, 512}},
  };
  return shapes;
}

}  // namespace bise
