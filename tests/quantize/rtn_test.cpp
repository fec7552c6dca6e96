// Round to nearest against the codes that compressed-tensors and bitsandbytes computed on a CPU
// (golden/quantization/vectors.safetensors), and against small cases worked out by hand.
#include "quantize/rtn.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/error.h"
#include "formats/quantized_tensors.h"
#include "formats/safetensors.h"
#include "tests/test_support.h"

namespace bise {
namespace {

std::vector<float> floats(const Tensor& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
  to_float(tensor, values);
  return values;
}

struct VectorCase {
  const char* kind;
  Scheme scheme;
};

// The vectors' int8 zero points were not saved, so asymmetric int8 is judged by its codes alone.
const std::vector<VectorCase> kVectorCases = {
    {"int4sym", {WeightType::kInt, 4, Strategy::kGroup, 128, true, InputType::kNone}},
    {"int4asym", {WeightType::kInt, 4, Strategy::kGroup, 128, false, InputType::kNone}},
    {"int8sym", {WeightType::kInt, 8, Strategy::kChannel, 0, true, InputType::kInt8Token}},
    {"int8asym", {WeightType::kInt, 8, Strategy::kChannel, 0, false, InputType::kInt8Token}},
    {"fp8", {WeightType::kFloat, 8, Strategy::kChannel, 0, true, InputType::kFp8Token}},
};

TEST(Rtn, CodesAndScalesEqualCompressedTensors) {
  const auto path = shared_path("golden/quantization/vectors.safetensors");
  BISE_SKIP_IF_ABSENT(path, "golden/quantization");
  const SafetensorsFile file = SafetensorsFile::open(path);
  ThreadPool pool(2);
  for (const std::string dtype : {"bf16", "f32"}) {
    const Tensor weight = file.tensor("rtn." + dtype + ".w");
    const Arithmetic arithmetic(weight.dtype(), Rounding::kReference);
    for (const VectorCase& test : kVectorCases) {
      SCOPED_TRACE(dtype + " " + test.kind);
      const std::string prefix = "rtn." + dtype + "." + test.kind + ".";
      const StoredLinear stored =
          quantize_rtn(floats(weight), weight.dim(0), weight.dim(1), test.scheme, arithmetic, pool);
      EXPECT_EQ(floats(stored.scale), floats(file.tensor(prefix + "scale")));
      const Tensor expected = file.tensor(prefix + "q");
      const Tensor codes = stored.scheme.type == WeightType::kInt ? linear_codes(stored) : stored.weight;
      EXPECT_TRUE(std::ranges::equal(codes.bytes(), expected.bytes()));
      if (file.contains(prefix + "zp") && !test.scheme.symmetric) {
        EXPECT_TRUE(
            std::ranges::equal(linear_zero_points(stored).bytes(), file.tensor(prefix + "zp").bytes()));
      }
    }
  }
}

TEST(Rtn, Nf4EqualsBitsandbytes) {
  const auto path = shared_path("golden/quantization/vectors.safetensors");
  BISE_SKIP_IF_ABSENT(path, "golden/quantization");
  const SafetensorsFile file = SafetensorsFile::open(path);
  const Tensor weight = file.tensor("bnb.w");
  ThreadPool pool(2);
  const StoredLinear stored = quantize_rtn(floats(weight), weight.dim(0), weight.dim(1), parse_scheme("NF4"),
                                           Arithmetic(DType::kBF16, Rounding::kFloat32), pool);
  EXPECT_TRUE(std::ranges::equal(stored.weight.bytes(), file.tensor("bnb.nf4.nested0.weight").bytes()));
  EXPECT_EQ(floats(stored.absmax), floats(file.tensor("bnb.nf4.nested0.absmax")));
}

struct FolderCase {
  const char* folder;
  const char* scheme;
};

// Every tensor of these checkpoints follows from the base weights alone.
TEST(Rtn, ReferenceRoundingGivesTheGoldenCheckpointsBitForBit) {
  const auto root = shared_path("golden/quantization");
  BISE_SKIP_IF_ABSENT(root, "golden/quantization");
  const Checkpoint base = Checkpoint::open(root / "base_mistral");
  ThreadPool pool(2);
  for (const FolderCase& test : std::vector<FolderCase>{{"fp8_dynamic", "FP8_DYNAMIC"},
                                                        {"w4a16_asym_rtn", "W4A16_ASYM"},
                                                        {"w8a16_group_rtn", "W8A16"},
                                                        {"bnb_nf4", "NF4"}}) {
    const Checkpoint golden = Checkpoint::open(root / test.folder);
    const QuantizationConfig config = QuantizationConfig::read(root / test.folder);
    int modules = 0;
    for (const std::string& name : base.names()) {
      if (!name.ends_with("_proj.weight")) continue;
      SCOPED_TRACE(std::string(test.folder) + " " + name);
      const std::string module = name.substr(0, name.size() - std::string(".weight").size());
      const Tensor weight = base.tensor(name);
      const StoredLinear expected = read_linear(golden, config, module, weight.dim(0), weight.dim(1));
      const StoredLinear stored =
          quantize_rtn(floats(weight), weight.dim(0), weight.dim(1), parse_scheme(test.scheme),
                       Arithmetic(DType::kBF16, Rounding::kReference), pool);
      EXPECT_TRUE(std::ranges::equal(stored.weight.bytes(), expected.weight.bytes()));
      EXPECT_TRUE(std::ranges::equal(stored.scale.bytes(), expected.scale.bytes()));
      EXPECT_TRUE(std::ranges::equal(stored.zero_point.bytes(), expected.zero_point.bytes()));
      EXPECT_TRUE(std::ranges::equal(stored.absmax.bytes(), expected.absmax.bytes()));
      ++modules;
    }
    EXPECT_EQ(modules, 14);
  }
}

TEST(Rtn, SmallCases) {
  struct Case {
    Scheme scheme;
    std::vector<float> weight;
    std::vector<int> codes;
    float scale;
  };
  const Scheme int4{WeightType::kInt, 4, Strategy::kChannel, 0, true, InputType::kNone};
  Scheme asymmetric = int4;
  asymmetric.symmetric = false;
  const std::vector<Case> cases = {
      // absmax 15 maps to 7.5 and is clamped to 7; half codes go to the even one.
      {int4, {15, -15, 1, 3, 5, 0, 2, 4}, {7, -8, 0, 2, 2, 0, 1, 2}, 2},
      // A row of zeros gets the smallest scale, not a division by zero.
      {int4, {0, 0, 0, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 0, 0}, 0x1p-23f},
      // 0..15 with width 15: scale 1, zero point -8.
      {asymmetric, {0, 1, 2, 3, 12, 13, 14, 15}, {-8, -7, -6, -5, 4, 5, 6, 7}, 1},
  };
  ThreadPool pool(1);
  for (const Case& test : cases) {
    const StoredLinear stored =
        quantize_rtn(test.weight, 1, 8, test.scheme, Arithmetic(DType::kF32, Rounding::kFloat32), pool);
    const Tensor codes = linear_codes(stored);
    for (int i = 0; i < 8; ++i)
      EXPECT_EQ(codes.data<std::int8_t>()[i], test.codes[static_cast<std::size_t>(i)]) << i;
    EXPECT_EQ(stored.scale.data<float>()[0], test.scale);
  }
}

TEST(Rtn, AGroupSizeThatDoesNotFitIsAnError) {
  ThreadPool pool(1);
  const std::vector<float> weight(2 * 576);
  try {
    quantize_rtn(weight, 2, 576, parse_scheme("W4A16"), Arithmetic(DType::kBF16, Rounding::kFloat32), pool);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "group size 128 does not divide 576 columns");
  }
}

}  // namespace
}  // namespace bise
