#include "formats/quantized_tensors.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "formats/model_config.h"
#include "tensor/float_types.h"
#include "tensor/pack.h"
#include "tests/formats/small_files.h"
#include "tests/test_support.h"

namespace bise {
namespace {
namespace fs = std::filesystem;

struct Module {
  std::string name;
  std::int64_t rows, columns;
};

// The linear modules of a golden model.
std::vector<Module> modules_of(const ModelConfig& c) {
  std::vector<Module> modules = {{"lm_head", c.vocab_size, c.hidden_size}};
  const std::int64_t q = c.num_attention_heads * c.head_dim, kv = c.num_key_value_heads * c.head_dim;
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const std::string layer = fmt::format("model.layers.{}.", i);
    modules.push_back({layer + "self_attn.q_proj", q, c.hidden_size});
    modules.push_back({layer + "self_attn.k_proj", kv, c.hidden_size});
    modules.push_back({layer + "self_attn.v_proj", kv, c.hidden_size});
    modules.push_back({layer + "self_attn.o_proj", c.hidden_size, q});
    if (c.num_local_experts == 0) {
      modules.push_back({layer + "mlp.gate_proj", c.intermediate_size, c.hidden_size});
      modules.push_back({layer + "mlp.up_proj", c.intermediate_size, c.hidden_size});
      modules.push_back({layer + "mlp.down_proj", c.hidden_size, c.intermediate_size});
      continue;
    }
    modules.push_back({layer + "block_sparse_moe.gate", c.num_local_experts, c.hidden_size});
    for (std::int64_t e = 0; e < c.num_local_experts; ++e) {
      const std::string expert = fmt::format("{}block_sparse_moe.experts.{}.", layer, e);
      modules.push_back({expert + "w1", c.intermediate_size, c.hidden_size});
      modules.push_back({expert + "w2", c.hidden_size, c.intermediate_size});
      modules.push_back({expert + "w3", c.intermediate_size, c.hidden_size});
    }
  }
  return modules;
}

std::vector<float> dequantized(const StoredLinear& linear) {
  std::vector<float> values(static_cast<std::size_t>(linear.rows * linear.columns));
  for (std::int64_t row = 0; row < linear.rows; ++row)
    dequantize_row(linear, row,
                   std::span(values).subspan(static_cast<std::size_t>(row * linear.columns),
                                             static_cast<std::size_t>(linear.columns)));
  return values;
}

// |a - b|_2 / |b|_2
double relative_error(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(double{a[i]} - b[i], 2);
    norm += std::pow(double{b[i]}, 2);
  }
  return std::sqrt(difference / norm);
}

// Every module of every golden folder is read, and its values are those of the base model but for the
// rounding of the scheme. Smoothing and AWQ move values between layers, so those folders are not compared.
TEST(QuantizedTensors, GoldenFoldersDequantizeToTheBaseModel) {
  const fs::path goldens = shared_path("golden/quantization");
  BISE_SKIP_IF_ABSENT(goldens, "golden/quantization");
  const struct {
    const char* name;
    double most;  // relative error; 0 = not compared
  } folders[] = {
      {"base_mistral", 1e-9},        {"base_mixtral", 1e-9},
      {"fp8_dynamic", 0.028},        {"fp8_dynamic_kvfp8", 0.028},
      {"fp8_static", 0.028},         {"autofp8_static_kv", 0.028},
      {"mixtral_fp8_static", 0.028}, {"mixtral_autofp8_static", 0.028},
      {"w8a16_group_rtn", 0.0075},   {"w4a16_asym_rtn", 0.105},
      {"w4a16_mse_rtn", 0.105},      {"w4a16_gptq", 0.2},
      {"w4a16_gptq_noact", 0.2},     {"w4a16_gptq_actgroup", 0.2},
      {"mixtral_w4a16_gptq", 0.2},   {"bnb_nf4", 0.094},
      {"bnb_nf4_double", 0.094},     {"w8a8_rtn_smooth", 0},
      {"w8a8_gptq_smooth", 0},       {"w4a16_asym_awq", 0},
  };
  for (const auto& folder : folders) {
    const fs::path path = goldens / folder.name;
    const Checkpoint checkpoint = Checkpoint::open(path);
    const QuantizationConfig config = QuantizationConfig::read(path);
    const bool mixtral = path.string().find("mixtral") != std::string::npos;
    const Checkpoint base = Checkpoint::open(goldens / (mixtral ? "base_mixtral" : "base_mistral"));
    for (const Module& module : modules_of(read_model_config(path))) {
      const StoredLinear linear = read_linear(checkpoint, config, module.name, module.rows, module.columns);
      EXPECT_EQ(linear.scheme, config.scheme_of(module.name));
      if (folder.most == 0) continue;
      const StoredLinear original = read_linear(base, {}, module.name, module.rows, module.columns);
      EXPECT_LT(relative_error(dequantized(linear), dequantized(original)), folder.most)
          << folder.name << " " << module.name;
    }
    release_linear(checkpoint, "lm_head");
  }
}

// Writing what was read gives the same tensors under the same names.
TEST(QuantizedTensors, WrittenModulesEqualTheReferences) {
  const fs::path goldens = shared_path("golden/quantization");
  BISE_SKIP_IF_ABSENT(goldens, "golden/quantization");
  for (const char* name : {"base_mistral", "fp8_dynamic", "fp8_static", "w4a16_gptq", "w4a16_asym_rtn",
                           "w8a16_group_rtn", "w8a8_rtn_smooth", "bnb_nf4"}) {
    const Checkpoint checkpoint = Checkpoint::open(goldens / name);
    const QuantizationConfig config = QuantizationConfig::read(goldens / name);
    const std::vector<Module> modules = modules_of(read_model_config(goldens / name));
    std::vector<PlannedTensor> plan;
    for (const Module& module : modules)
      for (PlannedTensor& tensor : planned_linear(module.name, config.format_of(module.name), module.rows,
                                                  module.columns, DType::kBF16))
        plan.push_back(std::move(tensor));
    const ScratchFolder folder;
    CheckpointWriter writer(folder.path(), plan);
    for (const Module& module : modules)
      write_linear(writer, module.name,
                   read_linear(checkpoint, config, module.name, module.rows, module.columns), DType::kBF16);
    writer.finish();
    const Checkpoint written = Checkpoint::open(folder.path());
    std::size_t same = 0;
    for (const std::string& tensor : checkpoint.names()) {
      if (tensor.find("norm") != std::string::npos || tensor.find("embed") != std::string::npos) continue;
      ASSERT_TRUE(written.contains(tensor)) << name << " " << tensor;
      EXPECT_TRUE(same_tensor(written.tensor(tensor), checkpoint.tensor(tensor))) << name << " " << tensor;
      ++same;
    }
    EXPECT_EQ(same, plan.size()) << name;
  }
}

TEST(QuantizedTensors, CodesAndZeroPointsUnpack) {
  const fs::path goldens = shared_path("golden/quantization");
  BISE_SKIP_IF_ABSENT(goldens, "golden/quantization");
  const fs::path path = goldens / "w4a16_asym_rtn";
  const StoredLinear linear = read_linear(Checkpoint::open(path), QuantizationConfig::read(path),
                                          "model.layers.0.mlp.gate_proj", 384, 256);
  const Tensor codes = linear_codes(linear), zero_points = linear_zero_points(linear);
  EXPECT_EQ(codes.shape(), (Shape{384, 256}));
  EXPECT_EQ(zero_points.shape(), (Shape{384, 2}));
  std::vector<float> row(256), scales(768);
  dequantize_row(linear, 5, row);
  to_float(linear.scale, scales);
  for (std::int64_t k = 0; k < 256; ++k) {
    const std::int64_t group = 5 * 2 + k / 128;
    const int code = codes.data<std::int8_t>()[5 * 256 + k] - zero_points.data<std::int8_t>()[group];
    EXPECT_EQ(row[static_cast<std::size_t>(k)],
              static_cast<float>(code) * scales[static_cast<std::size_t>(group)]);
  }
}

// bitsandbytes' own dequantization of the vectors, plain and with a quantized absmax.
TEST(QuantizedTensors, Nf4EqualsBitsandbytes) {
  const fs::path path = shared_path("golden/quantization/vectors.safetensors");
  BISE_SKIP_IF_ABSENT(path, "golden/quantization/vectors.safetensors");
  const SafetensorsFile vectors = SafetensorsFile::open(path);
  const QuantizationConfig config = QuantizationConfig::parse(bitsandbytes_config({}), "test");
  for (const std::string stem : {"bnb.nf4.nested0.", "bnb.nf4.nested1."}) {
    std::vector<std::pair<std::string, Tensor>> tensors;
    for (const auto& [name, entry] : vectors.entries())
      if (name.starts_with(stem) && name != stem + "weight" && name != stem + "dequant_bf16" &&
          name != stem + "absmax_f32")
        tensors.emplace_back("m.weight." + name.substr(stem.size()), vectors.tensor(name));
    tensors.emplace_back("m.weight", vectors.tensor(stem + "weight"));
    std::vector<PlannedTensor> plan;
    for (const auto& [name, tensor] : tensors) plan.push_back({name, tensor.dtype(), tensor.shape()});
    const ScratchFolder folder;
    CheckpointWriter writer(folder.path(), plan);
    for (const auto& [name, tensor] : tensors) writer.write(name, tensor);
    writer.finish();
    const StoredLinear linear = read_linear(Checkpoint::open(folder.path()), config, "m", 32, 192);
    if (stem == "bnb.nf4.nested1.") {
      EXPECT_TRUE(same_tensor(linear.absmax, vectors.tensor(stem + "absmax_f32")));
    }
    const std::vector<float> values = dequantized(linear);
    const Tensor expected = vectors.tensor(stem + "dequant_bf16");
    for (std::size_t i = 0; i < values.size(); ++i)
      ASSERT_EQ(float_to_bf16(values[i]), expected.data<bf16>()[i]) << stem << " " << i;
  }
}

// A checkpoint of one module m [8, 256] with the given tensors: zeros, but for those that state the shape.
class SmallCheckpoint {
 public:
  explicit SmallCheckpoint(const std::vector<PlannedTensor>& plan) {
    CheckpointWriter writer(folder_.path(), plan);
    for (const PlannedTensor& tensor : plan) {
      Tensor values = Tensor::allocate(tensor.dtype, tensor.shape);
      const std::string_view state = R"({"quant_type":"nf4","blocksize":64,"shape":[8,256]})";
      if (tensor.name == "m.weight_shape") {
        values.mutable_data<std::int64_t>()[0] = 8;
        values.mutable_data<std::int64_t>()[1] = 256;
      }
      if (tensor.dtype == DType::kU8 && tensor.name.ends_with("nf4") &&
          values.bytes().size() >= state.size()) {
        std::fill_n(values.mutable_data<char>(), values.bytes().size(), ' ');
        std::copy(state.begin(), state.end(), values.mutable_data<char>());
      }
      writer.write(tensor.name, values);
    }
    writer.finish();
  }
  Checkpoint open() const { return Checkpoint::open(folder_.path()); }

 private:
  ScratchFolder folder_;
};

QuantizationConfig config_of(const char* scheme) {
  if (std::string_view(scheme) == "NF4") return QuantizationConfig::parse(bitsandbytes_config({}), "test");
  return QuantizationConfig::parse(compressed_tensors_config({{{"Linear"}, parse_scheme(scheme)}}, {}),
                                   "test");
}

TEST(QuantizedTensors, WrongTensorsAreErrorsThatNameThem) {
  const struct {
    const char *scheme, *tensor;
    DType dtype;
    Shape shape;
  } changes[] = {
      {"W4A16", "m.weight_packed", DType::kI32, {8, 33}},
      {"W4A16", "m.weight_packed", DType::kU32, {8, 32}},
      {"W4A16", "m.weight_scale", DType::kBF16, {8, 3}},
      {"W4A16", "m.weight_scale", DType::kF8E4M3, {8, 2}},
      {"W4A16", "m.weight_shape", DType::kI64, {3}},
      {"W4A16_ASYM", "m.weight_zero_point", DType::kI32, {8, 2}},
      {"W8A16", "m.weight_packed", DType::kI32, {8, 32}},
      {"W8A8", "m.weight", DType::kI8, {256, 8}},
      {"W8A8", "m.weight", DType::kF8E4M3, {8, 256}},
      {"W8A8", "m.weight_scale", DType::kBF16, {1, 8}},
      {"FP8_DYNAMIC", "m.weight", DType::kI8, {8, 256}},
      {"FP8_DYNAMIC", "m.weight_scale", DType::kI32, {8, 1}},
      {"NF4", "m.weight", DType::kU8, {1023, 1}},
      {"NF4", "m.weight.absmax", DType::kF32, {31}},
      {"NF4", "m.weight.quant_map", DType::kF32, {256}},
      {"NF4", "m.weight.quant_state.bitsandbytes__nf4", DType::kU8, {3}},  // no JSON
  };
  for (const auto& change : changes) {
    const QuantizationConfig config = config_of(change.scheme);
    std::vector<PlannedTensor> plan = planned_linear("m", config.format_of("m"), 8, 256, DType::kBF16);
    const auto found = std::find_if(
        plan.begin(), plan.end(), [&](const PlannedTensor& tensor) { return tensor.name == change.tensor; });
    ASSERT_NE(found, plan.end()) << change.tensor;
    *found = {change.tensor, change.dtype, change.shape};
    for (const bool missing : {false, true}) {
      if (missing) plan.erase(found);
      if (missing && std::string_view(change.tensor).ends_with("_shape")) continue;  // not needed
      try {
        read_linear(SmallCheckpoint(plan).open(), config, "m", 8, 256);
        ADD_FAILURE() << change.scheme << " " << change.tensor << " accepted";
      } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find(change.tensor), std::string::npos) << error.what();
      }
    }
  }
}

TEST(QuantizedTensors, GroupsMustDivideTheColumns) {
  const LinearFormat format = {parse_scheme("W4A16"), Storage::kPacked};
  EXPECT_THROW(planned_linear("m", format, 8, 576, DType::kBF16), Error);
  EXPECT_EQ(planned_linear("m", format, 8, 96, DType::kBF16)[1].shape, (Shape{8, 1}));  // fewer: one group
  EXPECT_EQ(planned_linear("m", format, 8, 384, DType::kBF16)[1].shape, (Shape{8, 3}));
}

TEST(QuantizedTensors, GroupIndicesMustExist) {
  Json object = compressed_tensors_config({{{"Linear"}, parse_scheme("W4A16")}}, {});
  std::vector<PlannedTensor> plan =
      planned_linear("m", {parse_scheme("W4A16"), Storage::kPacked}, 8, 256, DType::kBF16);
  plan.erase(plan.begin() + 2);  // weight_shape, which may be absent
  plan.push_back({"m.weight_g_idx", DType::kI32, {256}});
  // Present, but the config does not say actorder "group".
  EXPECT_THROW(
      read_linear(SmallCheckpoint(plan).open(), QuantizationConfig::parse(object, "test"), "m", 8, 256),
      Error);
  object["config_groups"]["group_0"]["weights"]["actorder"] = "group";
  const QuantizationConfig config = QuantizationConfig::parse(object, "test");
  EXPECT_FALSE(read_linear(SmallCheckpoint(plan).open(), config, "m", 8, 256).g_idx.empty());
  const ScratchFolder folder;
  CheckpointWriter writer(folder.path(), plan);
  for (const PlannedTensor& tensor : plan) {
    Tensor values = Tensor::allocate(tensor.dtype, tensor.shape);
    if (tensor.name == "m.weight_g_idx") values.mutable_data<std::int32_t>()[255] = 2;
    writer.write(tensor.name, values);
  }
  writer.finish();
  EXPECT_THROW(read_linear(Checkpoint::open(folder.path()), config, "m", 8, 256), Error);
}

}  // namespace
}  // namespace bise
