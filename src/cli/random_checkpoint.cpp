#include "cli/random_checkpoint.h"

#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "base/thread_pool.h"
#include "formats/model_config.h"
#include "formats/quantization_config.h"
#include "formats/quantized_tensors.h"
#include "formats/safetensors.h"
#include "tensor/float_types.h"

namespace bise {
namespace fs = std::filesystem;
namespace {

// The shapes of mistralai/Ministral-8B-Instruct-2410 and mistralai/Mixtral-8x7B-v0.1 (with its later
// vocabulary). Ministral's windows are left out: no context here is as long as one.
const std::map<std::string, Json>& known_shapes() {
  static const std::map<std::string, Json> shapes = {{"ministral-8b",
                                                      {{"architectures", {"MistralForCausalLM"}},
                                                       {"model_type", "mistral"},
                                                       {"hidden_size", 4096},
                                                       {"intermediate_size", 12288},
                                                       {"num_hidden_layers", 36},
                                                       {"num_attention_heads", 32},
                                                       {"num_key_value_heads", 8},
                                                       {"head_dim", 128},
                                                       {"vocab_size", 131072},
                                                       {"max_position_embeddings", 32768},
                                                       {"rms_norm_eps", 1e-5},
                                                       {"rope_theta", 1e8},
                                                       {"sliding_window", nullptr},
                                                       {"tie_word_embeddings", false},
                                                       {"torch_dtype", "bfloat16"},
                                                       {"hidden_act", "silu"}}},
                                                     {"mixtral-8x7b",
                                                      {{"architectures", {"MixtralForCausalLM"}},
                                                       {"model_type", "mixtral"},
                                                       {"hidden_size", 4096},
                                                       {"intermediate_size", 14336},
                                                       {"num_hidden_layers", 32},
                                                       {"num_attention_heads", 32},
                                                       {"num_key_value_heads", 8},
                                                       {"head_dim", 128},
                                                       {"vocab_size", 32768},
                                                       {"max_position_embeddings", 32768},
                                                       {"rms_norm_eps", 1e-5},
                                                       {"rope_theta", 1e6},
                                                       {"sliding_window", nullptr},
                                                       {"num_local_experts", 8},
                                                       {"num_experts_per_tok", 2},
                                                       {"tie_word_embeddings", false},
                                                       {"torch_dtype", "bfloat16"},
                                                       {"hidden_act", "silu"}}}};
  return shapes;
}

struct Module {
  std::string name;
  std::int64_t rows, columns;
  bool quantized = true;
};

std::vector<Module> layer_modules(const ModelConfig& config) {
  const std::int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  const std::int64_t query = config.num_attention_heads * config.head_dim;
  const std::int64_t key = config.num_key_value_heads * config.head_dim;
  std::vector<Module> modules = {{"self_attn.q_proj", query, hidden},
                                 {"self_attn.k_proj", key, hidden},
                                 {"self_attn.v_proj", key, hidden},
                                 {"self_attn.o_proj", hidden, query}};
  if (config.num_local_experts == 0) {
    modules.insert(
        modules.end(),
        {{"mlp.gate_proj", inner, hidden}, {"mlp.up_proj", inner, hidden}, {"mlp.down_proj", hidden, inner}});
    return modules;
  }
  modules.push_back({"block_sparse_moe.gate", config.num_local_experts, hidden, false});
  for (std::int64_t expert = 0; expert < config.num_local_experts; ++expert) {
    const std::string prefix = fmt::format("block_sparse_moe.experts.{}.", expert);
    modules.insert(
        modules.end(),
        {{prefix + "w1", inner, hidden}, {prefix + "w3", inner, hidden}, {prefix + "w2", hidden, inner}});
  }
  return modules;
}

class RandomCheckpoint {
 public:
  RandomCheckpoint(const ModelConfig& config, const std::string& scheme, RandomValues values,
                   const fs::path& folder)
      : config_(config), values_(values), modules_(layer_modules(config)) {
    if (scheme != "BF16") quantized_.scheme = parse_scheme(scheme);
    if (quantized_.scheme.quantized())
      quantized_.storage =
          quantized_.scheme.type == WeightType::kNf4 ? Storage::kNf4 : storage_for(quantized_.scheme);
    std::vector<PlannedTensor> plan = {table("model.embed_tokens.weight")};
    for (std::int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
      for (const Module& module : modules_)
        for (PlannedTensor& tensor : planned_linear(prefix(layer) + module.name, format_of(module),
                                                    module.rows, module.columns, DType::kBF16))
          plan.push_back(std::move(tensor));
      for (const char* norm : kNorms)
        plan.push_back({prefix(layer) + norm, DType::kBF16, {config_.hidden_size}});
    }
    plan.push_back({"model.norm.weight", DType::kBF16, {config_.hidden_size}});
    if (!config_.tie_word_embeddings) plan.push_back(table("lm_head.weight"));
    writer_ = std::make_unique<CheckpointWriter>(folder, plan);
  }

  void write() {
    const std::vector<float> ones(static_cast<std::size_t>(config_.hidden_size), 1);
    // Dummy norms are a matrix of one row.
    const Tensor norm =
        values_ == RandomValues::kNormal
            ? from_float(ones, DType::kBF16, {config_.hidden_size})
            : random_linear({}, 1, config_.hidden_size, 0, values_).weight.reshaped({config_.hidden_size});
    // One core writes some 3 GB/s into memory: Mixtral's 44 GB would take long.
    ThreadPool pool;
    pool.parallel_for(static_cast<std::int64_t>(modules_.size()), 1,
                      [&](std::int64_t begin, std::int64_t end, int) {
                        for (std::int64_t i = begin; i < end; ++i) write_module(i);
                      });
    for (std::int64_t layer = 0; layer < config_.num_hidden_layers; ++layer)
      for (const char* name : kNorms) writer_->write(prefix(layer) + name, norm);
    writer_->write("model.norm.weight", norm);
    const Tensor vocabulary = random_linear({}, config_.vocab_size, config_.hidden_size, 1, values_).weight;
    writer_->write("model.embed_tokens.weight", vocabulary);
    if (!config_.tie_word_embeddings) writer_->write("lm_head.weight", vocabulary);
    writer_->finish();
  }

  // The object for config.json; null when nothing is quantized.
  Json quantization_config() const {
    if (!quantized_.scheme.quantized()) return nullptr;
    if (quantized_.storage == Storage::kNf4) return bitsandbytes_config({});
    GroupToWrite group;
    group.scheme = quantized_.scheme;
    std::vector<std::string> ignore;
    for (std::int64_t layer = 0; layer < config_.num_hidden_layers; ++layer)
      for (const Module& module : modules_)
        if (!module.quantized) ignore.push_back(prefix(layer) + module.name);
    ignore.push_back("lm_head");
    return compressed_tensors_config({group}, ignore);
  }

 private:
  static constexpr const char* kNorms[] = {"input_layernorm.weight", "post_attention_layernorm.weight"};
  // The same bits in every layer.
  void write_module(std::int64_t index) {
    const Module& module = modules_[static_cast<std::size_t>(index)];
    const auto seed = static_cast<std::uint64_t>(index) + 2;
    const StoredLinear linear =
        random_linear(format_of(module).scheme, module.rows, module.columns, seed, values_);
    for (std::int64_t layer = 0; layer < config_.num_hidden_layers; ++layer)
      write_linear(*writer_, prefix(layer) + module.name, linear, DType::kBF16);
  }
  static std::string prefix(std::int64_t layer) { return fmt::format("model.layers.{}.", layer); }
  PlannedTensor table(const std::string& name) const {
    return {name, DType::kBF16, {config_.vocab_size, config_.hidden_size}};
  }
  LinearFormat format_of(const Module& module) const {
    return module.quantized ? quantized_ : LinearFormat{};
  }

  const ModelConfig& config_;
  RandomValues values_;
  std::vector<Module> modules_;
  LinearFormat quantized_;
  std::unique_ptr<CheckpointWriter> writer_;
};

}  // namespace

std::string model_shape(const std::string& name) {
  const auto known = known_shapes().find(name);
  if (known != known_shapes().end()) return json_text(known->second, 2);
  if (fs::exists(name)) return read_file(name, std::size_t{1} << 24);
  std::string names;
  for (const auto& [each, shape] : known_shapes()) names += each + ", ";
  throw Error("unknown shape").expected(names + "or the path of a config.json").got(name);
}

void write_random_checkpoint(const std::string& config_json, const std::string& scheme,
                             const fs::path& folder, RandomValues values) {
  AtomicFolder output(folder);
  const fs::path file = output.path() / "config.json";
  write_file(file, config_json);
  const ModelConfig config = read_model_config(output.path());
  RandomCheckpoint checkpoint(config, scheme, values, output.path());
  checkpoint.write();
  Json json = parse_json(config_json, file.string());
  json.erase("quantization_config");
  if (Json quantization = checkpoint.quantization_config(); !quantization.is_null())
    json["quantization_config"] = std::move(quantization);
  write_file(file, json_text(json, 2) + "\n");
  output.commit();
}

}  // namespace bise
