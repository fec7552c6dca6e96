// Parsers of formats/ on mutated files: success or Error, nothing else, in bounded time and memory.
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/error.h"
#include "formats/gguf_import.h"
#include "formats/model_config.h"
#include "formats/quantized_tensors.h"
#include "tests/formats/mutate.h"
#include "tests/formats/small_files.h"
#include "tests/test_support.h"

namespace bise {
namespace {
namespace fs = std::filesystem;

// Runs `use` on mutations of `seed` for about two seconds; counts what was accepted and what refused, so
// that a fuzz target that only ever sees one of them shows.
void fuzz(const std::string& seed, const fs::path& file, int most, const std::function<void()>& use) {
  std::mt19937 random(20261121);
  const Stopwatch watch;
  int accepted = 0, refused = 0;
  put_file(file, seed);
  ASSERT_NO_THROW(use()) << "the seed itself is valid";
  for (int i = 0; i < most && watch.seconds() < 2; ++i) {
    put_file(file, mutated(seed, random));
    try {
      use();
      ++accepted;
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 50);
  EXPECT_GT(accepted, 5);
}

// Touches every byte, as a reader would.
void read_all(const Tensor& tensor) {
  unsigned sum = 0;
  for (const std::byte byte : tensor.bytes()) sum += std::to_integer<unsigned>(byte);
  volatile unsigned kept = sum;
  (void)kept;
}

TEST(FormatsFuzz, Safetensors) {
  const ScratchFolder folder;
  const fs::path path = folder.path() / "model.safetensors";
  const std::vector<PlannedTensor> plan = {{"model.layers.0.mlp.up_proj.weight", DType::kBF16, {3, 4}},
                                           {"b", DType::kI64, {2}},
                                           {"c", DType::kF32, {}}};
  CheckpointWriter writer(folder.path(), plan);
  for (const PlannedTensor& tensor : plan) writer.write(tensor.name, counted(tensor.dtype, tensor.shape));
  writer.finish();
  fuzz(get_file(path), path, 20000, [&] {
    const Checkpoint checkpoint = Checkpoint::open(folder.path());
    for (const std::string& name : checkpoint.names()) read_all(checkpoint.tensor(name));
  });
}

TEST(FormatsFuzz, SafetensorsIndex) {
  const ScratchFolder folder;
  const std::vector<PlannedTensor> plan = {{"a", DType::kU8, {4}}, {"b", DType::kU8, {4}}};
  CheckpointWriter writer(folder.path(), plan, 4);
  for (const PlannedTensor& tensor : plan) writer.write(tensor.name, counted(tensor.dtype, tensor.shape));
  writer.finish();
  const fs::path path = folder.path() / "model.safetensors.index.json";
  fuzz(get_file(path), path, 20000, [&] { Checkpoint::open(folder.path()); });
}

TEST(FormatsFuzz, Gguf) {
  const ScratchFolder folder;
  const fs::path path = folder.path() / "x.gguf";
  GgufBuilder builder = small_llama();
  builder.tensor("q4_k", {1, 256}, 12, std::string(144, '\x35'))
      .tensor("q6_k", {1, 256}, 14, std::string(210, 'x'));
  // Most mutations must hit the headers, not the weights.
  const std::string seed = builder.bytes();
  const std::string headers = seed.substr(0, seed.find("blk.1.ffn_down.weight") + 100),
                    data = seed.substr(headers.size());
  fuzz(headers, path, 20000, [&] {
    put_file(path, get_file(path) + data);
    const GgufFile file = GgufFile::open(path);
    std::vector<float> row;
    for (const GgufTensor& tensor : file.tensors()) {
      if (tensor.columns() > 1 << 16 || tensor.rows() < 1) continue;
      row.resize(static_cast<std::size_t>(tensor.columns()));
      file.dequantize(tensor, tensor.rows() - 1, tensor.rows(), row);
    }
  });
}

TEST(FormatsFuzz, GgufImport) {
  const ScratchFolder folder;
  const fs::path path = folder.path() / "x.gguf", out = folder.path() / "out";
  fs::create_directory(out);
  const std::string seed = small_llama().bytes();
  const std::string headers = seed.substr(0, seed.find("blk.1.ffn_down.weight") + 100),
                    data = seed.substr(headers.size());
  fuzz(headers, path, 4000, [&] {
    put_file(path, get_file(path) + data);
    import_gguf(GgufFile::open(path), out);
  });
}

TEST(FormatsFuzz, ModelConfig) {
  const ScratchFolder folder;
  const char* const config = R"({"architectures": ["MixtralForCausalLM"], "model_type": "mixtral",
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 100, "max_position_embeddings": 128, "rms_norm_eps": 1e-05,
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "yarn", "factor": 4.0,
    "original_max_position_embeddings": 32}, "sliding_window": 16, "layer_types": ["full_attention",
    "sliding_attention"], "num_local_experts": 4, "num_experts_per_tok": 2, "eos_token_id": [1, 2]})";
  fuzz(config, folder.path() / "config.json", 20000, [&] { read_model_config(folder.path()); });
}

TEST(FormatsFuzz, MistralParams) {
  const ScratchFolder folder;
  const char* const params = R"({"dim": 64, "n_layers": 2, "head_dim": 16, "hidden_dim": 96, "n_heads": 4,
    "n_kv_heads": 2, "norm_eps": 1e-05, "vocab_size": 100, "rope_theta": 10000.0, "sliding_window": [null, 8],
    "moe": {"num_experts": 4, "num_experts_per_tok": 2}, "yarn": {"factor": 4, "beta": 32, "alpha": 1,
    "original_max_position_embeddings": 32}})";
  fuzz(params, folder.path() / "params.json", 20000, [&] { read_model_config(folder.path()); });
}

TEST(FormatsFuzz, QuantizationConfig) {
  const ScratchFolder folder;
  const Json config = {
      {"quantization_config",
       compressed_tensors_config({{{"re:.*mlp\\.(gate|up)_proj$"}, parse_scheme("W4A16_ASYM")},
                                  {{"Linear"}, parse_scheme("FP8_DYNAMIC")}},
                                 {"lm_head", "re:.*gate$"})}};
  fuzz(json_text(config, 1), folder.path() / "config.json", 20000,
       [&] { QuantizationConfig::read(folder.path()).format_of("model.layers.0.mlp.up_proj"); });
}

// The tensors of quantized modules, with one header for several schemes.
TEST(FormatsFuzz, QuantizedTensors) {
  const ScratchFolder folder;
  const LinearFormat int4 = {parse_scheme("W4A16_ASYM"), Storage::kPacked};
  const LinearFormat nf4 = {parse_scheme("NF4"), Storage::kNf4};
  std::vector<PlannedTensor> plan = planned_linear("a", int4, 8, 256, DType::kBF16);
  for (PlannedTensor& tensor : planned_linear("b", nf4, 8, 64, DType::kBF16))
    plan.push_back(std::move(tensor));
  CheckpointWriter writer(folder.path(), plan);
  StoredLinear a, b;
  a.scheme = int4.scheme;
  a.rows = b.rows = 8;
  a.columns = 256;
  b.columns = 64;
  a.weight = counted(DType::kI32, {8, 32});
  a.scale = counted(DType::kBF16, {8, 2});
  a.zero_point = counted(DType::kI32, {1, 2});
  b.scheme = nf4.scheme;
  b.weight = counted(DType::kU8, {256});
  b.absmax = counted(DType::kF32, {8});
  b.quant_map = counted(DType::kF32, {16});
  write_linear(writer, "a", a, DType::kBF16);
  write_linear(writer, "b", b, DType::kBF16);
  writer.finish();
  const QuantizationConfig packed =
      QuantizationConfig::parse(compressed_tensors_config({{{"Linear"}, int4.scheme}}, {}), "test");
  const QuantizationConfig bnb = QuantizationConfig::parse(bitsandbytes_config({}), "test");
  const fs::path path = folder.path() / "model.safetensors";
  fuzz(get_file(path), path, 20000, [&] {
    const Checkpoint checkpoint = Checkpoint::open(folder.path());
    std::vector<float> row(256);
    for (const auto& [config, name, columns] : {std::tuple(&packed, "a", 256), std::tuple(&bnb, "b", 64)}) {
      const StoredLinear linear = read_linear(checkpoint, *config, name, 8, columns);
      dequantize_row(linear, 7, std::span(row).first(static_cast<std::size_t>(columns)));
    }
  });
}

}  // namespace
}  // namespace bise
