// How the weight of one linear layer is stored and how its input is quantized: one printable value that
// formats/ reads and writes, quantize/ produces and backend/ computes with. Field names are the keys of
// compressed-tensors' QuantizationArgs (spec/quantization.md section 1.3).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace bise {

enum class WeightType {
  kFloat,  // unquantized when num_bits is 16 or 32, e4m3 when it is 8
  kInt,    // signed integers of num_bits bits
  kNf4,    // bitsandbytes NormalFloat: 16 levels, one absmax for 64 consecutive elements of the flat weight
};
enum class Strategy { kTensor, kChannel, kGroup, kBlock };
enum class InputType {
  kNone,       // the input stays in floating point
  kInt8Token,  // dynamic: scale = absmax(row) / 127, int8 codes (vLLM's rule)
  kFp8Token,   // dynamic: scale = max(absmax(row) / 448, 1 / (448 * 512)), e4m3 codes (vLLM's rule)
  kFp8Tensor,  // static: the checkpoint holds one input_scale
};

struct Scheme {
  WeightType type = WeightType::kFloat;
  int num_bits = 16;
  Strategy strategy = Strategy::kTensor;
  std::int64_t group_size = 0;  // columns that share a scale; only with kGroup (and 64 with kNf4)
  bool symmetric = true;
  InputType input = InputType::kNone;

  bool quantized() const { return type != WeightType::kFloat || num_bits == 8; }
  bool operator==(const Scheme&) const = default;
};

// The preset's name when the value is one ("W4A16", "W8A8", "FP8_DYNAMIC", "NF4", ...) with a group size that
// differs from the preset's added ("W4A16 g64"); "BF16" for an unquantized weight; else a description.
std::string scheme_text(const Scheme& scheme);

// The presets of the command line: W4A16, W4A16_ASYM, W8A16, W8A8 (= INT8), FP8_DYNAMIC, NF4; any case.
// W4A16, W4A16_ASYM and W8A16 come with group size 128. Throws Error naming the known schemes.
Scheme parse_scheme(std::string_view name);

}  // namespace bise
