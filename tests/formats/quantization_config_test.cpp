#include "formats/quantization_config.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "tests/test_support.h"

namespace bise {
namespace {
namespace fs = std::filesystem;

QuantizationConfig parse(const std::string& text) {
  return QuantizationConfig::parse(parse_json(text, "test"), "test");
}

// A config of one group with the given QuantizationArgs texts.
std::string one_group(const std::string& weights, const std::string& inputs = "null",
                      const std::string& format = "null", const std::string& targets = R"(["Linear"])",
                      const std::string& ignore = R"(["lm_head"])") {
  return fmt::format(
      R"({{"quant_method": "compressed-tensors", "ignore": {}, "config_groups": {{"group_0":
         {{"targets": {}, "weights": {}, "input_activations": {}, "format": {}}}}}}})",
      ignore, targets, weights, inputs, format);
}

constexpr const char* kInt4 = R"({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 64})";
constexpr const char* kFp8 = R"({"num_bits": 8, "type": "float", "strategy": "channel"})";
constexpr const char* kFp8Token = R"({"num_bits": 8, "type": "float", "strategy": "token", "dynamic": true})";

TEST(QuantizationConfig, ReadsMinimalConfigs) {
  const LinearFormat int4 = parse(one_group(kInt4)).format_of("model.layers.0.mlp.up_proj");
  EXPECT_EQ(int4.scheme, (Scheme{WeightType::kInt, 4, Strategy::kGroup, 64, true, InputType::kNone}));
  EXPECT_EQ(int4.storage, Storage::kPacked);
  EXPECT_FALSE(parse(one_group(kInt4)).scheme_of("lm_head").quantized());
  const LinearFormat fp8 = parse(one_group(kFp8, kFp8Token)).format_of("a");
  EXPECT_EQ(fp8.scheme, parse_scheme("FP8_DYNAMIC"));
  EXPECT_EQ(fp8.storage, Storage::kPlain);
  EXPECT_EQ(parse(one_group(kInt4, kFp8Token)).format_of("a").storage, Storage::kPlain);
  // An absent strategy follows from group_size.
  EXPECT_EQ(parse(one_group(R"({"num_bits": 8, "group_size": -1})")).scheme_of("a").strategy,
            Strategy::kChannel);
  EXPECT_EQ(parse(one_group(R"({"num_bits": 8})")).scheme_of("a").strategy, Strategy::kTensor);
  EXPECT_TRUE(parse(one_group(R"({"num_bits": 4, "group_size": 32, "actorder": "group"})"))
                  .format_of("a")
                  .group_index);
  const LinearFormat block =
      parse(
          one_group(R"({"num_bits": 8, "type": "float", "strategy": "block", "block_structure": "64x128"})"))
          .format_of("a");
  EXPECT_EQ(block.block_rows, 64);
  EXPECT_EQ(block.block_columns, 128);
}

TEST(QuantizationConfig, TargetsAndIgnore) {
  const auto quantized = [](const char* targets, const char* ignore, const char* module) {
    return parse(one_group(kInt4, "null", "null", targets, ignore)).scheme_of(module).quantized();
  };
  const char* const up = "model.layers.0.mlp.up_proj";
  const char* const gate = "model.layers.0.block_sparse_moe.gate";
  EXPECT_TRUE(quantized(R"(["Linear"])", "[]", up));
  EXPECT_TRUE(quantized(R"(["re:.*mlp.*"])", "[]", up));
  EXPECT_TRUE(quantized(R"(["re:model\\.layers\\.[0-9]+\\.mlp\\.(gate|up)_proj$"])", "[]", up));
  EXPECT_FALSE(quantized(R"(["re:mlp.*"])", "[]", up)) << "re.match is anchored at the start";
  EXPECT_FALSE(quantized(R"(["re:.*mlp.up$"])", "[]", up));
  EXPECT_TRUE(quantized(R"(["model.layers.0.mlp.up_proj"])", "[]", up));
  EXPECT_FALSE(quantized(R"(["model.layers.1.mlp.up_proj"])", "[]", up));
  EXPECT_FALSE(quantized(R"(["Linear"])", R"(["re:.*gate$"])", gate));
  EXPECT_TRUE(quantized(R"(["Linear"])", R"(["re:.*gate$"])", "model.layers.0.mlp.gate_proj"));
  EXPECT_FALSE(quantized(R"(["Linear"])", R"(["re:.*gate"])", "model.layers.0.mlp.gate_proj"));
  EXPECT_FALSE(quantized(R"(["Linear"])", R"(["language_model.lm_head"])", "lm_head"));
  // The first group that matches wins.
  const QuantizationConfig mixed = parse(fmt::format(
      R"({{"format": "mixed-precision", "config_groups": {{
           "group_0": {{"targets": ["re:.*self_attn.*"], "weights": {}, "input_activations": {}, "format": "float-quantized"}},
           "group_1": {{"targets": ["Linear"], "weights": {}, "format": "pack-quantized"}}}}}})",
      kFp8, kFp8Token, kInt4));
  EXPECT_EQ(scheme_text(mixed.scheme_of("model.layers.0.self_attn.q_proj")), "FP8_DYNAMIC");
  EXPECT_EQ(scheme_text(mixed.scheme_of(up)), "W4A16 g64");
}

TEST(QuantizationConfig, OtherMethods) {
  const QuantizationConfig fp8 =
      parse(R"({"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"],
                "modules_to_not_convert": ["vision"], "kv_cache_scheme": "static"})");
  EXPECT_EQ(fp8.scheme_of("a").input, InputType::kFp8Tensor);
  EXPECT_EQ(fp8.scheme_of("a").strategy, Strategy::kTensor);
  EXPECT_FALSE(fp8.scheme_of("lm_head").quantized());
  EXPECT_FALSE(fp8.scheme_of("model.vision.up").quantized());
  EXPECT_TRUE(fp8.scheme_of("model.visions.up").quantized());
  EXPECT_EQ(fp8.kv_cache_scheme(), KvCacheScheme::kFp8Tensor);
  const QuantizationConfig nf4 =
      parse(R"({"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4"})");
  EXPECT_EQ(nf4.format_of("a").storage, Storage::kNf4);
  EXPECT_FALSE(nf4.scheme_of("lm_head").quantized());
  const QuantizationConfig native = parse(R"({"qformat_weight": "fp8_e4m3", "qscheme_act": "TENSOR"})");
  EXPECT_EQ(native.scheme_of("a").input, InputType::kFp8Tensor);
  EXPECT_FALSE(native.scheme_of("lm_head").quantized());
  const QuantizationConfig native_names =
      parse(one_group(kInt4, "null", "null", R"(["Linear"])", R"(["output", "layers.0.attention.wq"])"));
  EXPECT_FALSE(native_names.scheme_of("lm_head").quantized());
  EXPECT_FALSE(native_names.scheme_of("model.layers.0.self_attn.q_proj").quantized());
  EXPECT_TRUE(native_names.scheme_of("model.layers.1.self_attn.q_proj").quantized());
  EXPECT_EQ(QuantizationConfig().format_of("a"), LinearFormat());
}

TEST(QuantizationConfig, WhatCannotBeRunIsRefusedByName) {
  const std::string top = R"({"config_groups": {}, )";
  const struct {
    std::string text;
    const char* message;
  } cases[] = {
      {R"({"quant_method": "awq"})", "awq"},
      {one_group(R"({"num_bits": 4, "bits": 4})"), "\"bits\""},
      {one_group(kInt4, R"({"num_bits": 8, "extra": 1})"), "\"extra\""},
      {one_group(R"({"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16,
                     "scale_dtype": "torch.float8_e4m3fn"})",
                 "null", "\"nvfp4-pack-quantized\""),
       "nvfp4"},
      {one_group(R"({"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32,
                     "scale_dtype": "torch.uint8"})"),
       "scale_dtype"},
      {one_group(kFp8, R"({"num_bits": 8, "type": "float", "strategy": "group", "group_size": 128,
                           "dynamic": true})"),
       "strategy \"group\""},
      {one_group(kInt4, R"({"num_bits": 8, "strategy": "tensor"})"), "static int8"},
      {one_group(kInt4, R"({"num_bits": 8, "strategy": "token", "dynamic": true, "symmetric": false})"),
       "asymmetric"},
      {one_group(R"({"num_bits": 1})"), "num_bits"},
      {one_group(R"({"num_bits": 99999999999})"), "num_bits"},
      {one_group(R"({"num_bits": 4, "strategy": "group"})"), "group_size"},
      {one_group(R"({"num_bits": 4, "strategy": "channel", "group_size": 64})"), "group_size"},
      {one_group(R"({"num_bits": 4, "group_size": -7})"), "group_size"},
      {one_group(R"({"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [0, 1]})"),
       "block_structure"},
      {one_group(R"({"num_bits": 8, "actorder": "sideways"})"), "actorder"},
      {one_group(R"({"num_bits": 8, "type": "float", "symmetric": false})"), "asymmetric"},
      {one_group(kFp8, "null", "\"pack-quantized\""), "pack-quantized"},
      {one_group(kInt4, "null", "\"marlin-24\""), "marlin-24"},
      {one_group(kInt4, "null", "null", R"(["re:("])"), "re:("},
      {one_group(kInt4, "null", "null", R"([3])"), "targets"},
      {one_group(kInt4, "null", "null", "[\"re:" + std::string(2000, 'a') + "\"]"), "too long"},
      {top + R"("sparsity_config": {"format": "sparse-24-bitmask", "targets": ["Linear"]}})",
       "sparsity_config"},
      {top + R"("transform_config": {"config_groups": {"R1": {}}}})", "transform_config"},
      {top + R"("kv_cache_scheme": {"num_bits": 8, "type": "int"}})", "cache"},
      {R"({"config_groups": {"group_0": {"weights": null, "output_activations": {}}}})",
       "output_activations"},
      {R"({"config_groups": {"group_0": {"weight": null}}})", "\"weight\""},
      {R"({"quant_method": "fp8", "weight_block_size": [128, 128]})", "weight_block_size"},
      {R"({"quant_method": "fp8", "activation_scheme": "lazy"})", "activation_scheme"},
      {R"({"quant_method": "bitsandbytes", "load_in_8bit": true})", "4-bit"},
      {R"({"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "fp4"})", "nf4"},
      {R"({"qformat_weight": "nvfp4"})", "qformat_weight"},
      {"3", "not an object"},
  };
  for (const auto& c : cases) {
    try {
      parse(c.text);
      ADD_FAILURE() << "accepted " << c.text;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(c.message), std::string::npos) << c.text << "\n"
                                                                              << error.what();
    }
  }
}

// A nested quantifier must not take exponential time.
TEST(QuantizationConfig, PatternsTakePolynomialTime) {
  const QuantizationConfig config = parse(one_group(kInt4, "null", "null", R"(["re:(a*)*(a*)*b$"])"));
  EXPECT_FALSE(config.scheme_of(std::string(300, 'a')).quantized());
}

// What the writer makes equals the reference's object, text for text.
TEST(QuantizationConfig, WritesTheReferencesObjects) {
  const fs::path goldens = shared_path("golden/quantization");
  BISE_SKIP_IF_ABSENT(goldens, "golden/quantization");
  const auto group = [](const char* name, bool actorder, const char* observer = "memoryless_minmax") {
    return std::vector<GroupToWrite>{{{"Linear"}, parse_scheme(name), actorder, observer}};
  };
  std::vector<GroupToWrite> fp8_static = group("FP8_DYNAMIC", false);
  fp8_static[0].scheme.strategy = Strategy::kTensor;
  fp8_static[0].scheme.input = InputType::kFp8Tensor;
  std::vector<GroupToWrite> groups_of_64 = group("W4A16", true);
  groups_of_64[0].scheme.group_size = 64;
  const std::vector<std::string> gates = {"model.layers.0.block_sparse_moe.gate",
                                          "model.layers.1.block_sparse_moe.gate", "lm_head"};
  const std::map<std::string, Json> written = {
      {"fp8_dynamic", compressed_tensors_config(group("FP8_DYNAMIC", false), {"lm_head"})},
      {"fp8_static", compressed_tensors_config(fp8_static, {"lm_head"})},
      {"mixtral_fp8_static", compressed_tensors_config(fp8_static, gates)},
      {"mixtral_w4a16_gptq", compressed_tensors_config(groups_of_64, gates)},
      {"w4a16_gptq", compressed_tensors_config(group("W4A16", true), {"lm_head"})},
      {"w4a16_gptq_noact", compressed_tensors_config(group("W4A16", false), {"lm_head"})},
      {"w4a16_mse_rtn", compressed_tensors_config(group("W4A16", false, "memoryless_mse"), {"lm_head"})},
      {"w4a16_asym_rtn", compressed_tensors_config(group("W4A16_ASYM", false), {"lm_head"})},
      {"w8a16_group_rtn", compressed_tensors_config(group("W8A16", false), {"lm_head"})},
      {"w8a8_rtn_smooth", compressed_tensors_config(group("W8A8", false), {"lm_head"})},
      {"w8a8_gptq_smooth", compressed_tensors_config(group("W8A8", true), {"lm_head"})},
      {"bnb_nf4", bitsandbytes_config({})},
  };
  for (const auto& [name, object] : written)
    EXPECT_EQ(json_text(object),
              json_text(read_json_file(goldens / name / "config.json")["quantization_config"]))
        << name;
  EXPECT_THROW(compressed_tensors_config(group("NF4", false), {}), Error);
}

TEST(QuantizationConfig, WrittenConfigsAreReadBack) {
  for (const char* name : {"W4A16", "W4A16_ASYM", "W8A16", "W8A8", "FP8_DYNAMIC"}) {
    const Json object = compressed_tensors_config({{{"Linear"}, parse_scheme(name), true}}, {"lm_head"});
    const QuantizationConfig config = QuantizationConfig::parse(object, "test");
    EXPECT_EQ(scheme_text(config.scheme_of("model.layers.0.mlp.up_proj")), name);
    EXPECT_FALSE(config.scheme_of("lm_head").quantized());
  }
  const QuantizationConfig nf4 =
      QuantizationConfig::parse(bitsandbytes_config({"lm_head", "router"}), "test");
  EXPECT_EQ(scheme_text(nf4.scheme_of("a.b")), "NF4");
  EXPECT_FALSE(nf4.scheme_of("model.router").quantized());
}

TEST(QuantizationConfig, GoldenFolders) {
  const fs::path goldens = shared_path("golden/quantization");
  BISE_SKIP_IF_ABSENT(goldens, "golden/quantization");
  const std::map<std::string, std::string> schemes = {
      {"autofp8_static_kv", "float8 tensor, input fp8 tensor static"},
      {"base_mistral", "BF16"},
      {"base_mixtral", "BF16"},
      {"bnb_nf4", "NF4"},
      {"bnb_nf4_double", "NF4"},
      {"fp8_dynamic", "FP8_DYNAMIC"},
      {"fp8_dynamic_kvfp8", "FP8_DYNAMIC"},
      {"fp8_static", "float8 tensor, input fp8 tensor static"},
      {"mixtral_autofp8_static", "float8 tensor, input fp8 tensor static"},
      {"mixtral_fp8_static", "float8 tensor, input fp8 tensor static"},
      {"mixtral_w4a16_gptq", "W4A16 g64"},
      {"w4a16_asym_awq", "W4A16_ASYM"},
      {"w4a16_asym_rtn", "W4A16_ASYM"},
      {"w4a16_gptq", "W4A16"},
      {"w4a16_gptq_actgroup", "W4A16"},
      {"w4a16_gptq_noact", "W4A16"},
      {"w4a16_mse_rtn", "W4A16"},
      {"w8a16_group_rtn", "W8A16"},
      {"w8a8_gptq_smooth", "W8A8"},
      {"w8a8_rtn_smooth", "W8A8"},
      {"fp8_block", ""},  // refused: inputs quantized by group
      {"nvfp4a16", ""},   // refused
  };
  int read = 0;
  for (const auto& entry : fs::directory_iterator(goldens)) {
    if (!fs::exists(entry.path() / "config.json")) continue;
    const std::string name = entry.path().filename();
    ASSERT_TRUE(schemes.contains(name)) << name;
    ++read;
    if (schemes.at(name).empty()) {
      EXPECT_THROW(QuantizationConfig::read(entry.path()), Error) << name;
      continue;
    }
    const QuantizationConfig config = QuantizationConfig::read(entry.path());
    EXPECT_EQ(scheme_text(config.scheme_of("model.layers.0.self_attn.q_proj")), schemes.at(name)) << name;
    EXPECT_FALSE(config.scheme_of("lm_head").quantized()) << name;
    EXPECT_FALSE(config.scheme_of("model.layers.1.block_sparse_moe.gate").quantized() &&
                 name.find("mixtral") != std::string::npos)
        << name;
    EXPECT_EQ(config.kv_cache_scheme() != KvCacheScheme::kNone, name.find("kv") != std::string::npos) << name;
  }
  EXPECT_EQ(read, 22);
}

}  // namespace
}  // namespace bise
