#include "model/loader.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "formats/safetensors.h"
#include "nlohmann/json.hpp"
#include "tests/model/tiny_model.h"
#include "tests/test_support.h"

namespace bise {
namespace {

// A checkpoint of the tiny model; `change` may alter its configuration, `skip` leaves a tensor out.
void write_checkpoint(const std::filesystem::path& folder, const std::function<void(Json&)>& change,
                      const std::string& skip = "") {
  Json config = {{"architectures", {"MistralForCausalLM"}},
                 {"model_type", "mistral"},
                 {"hidden_size", 128},
                 {"intermediate_size", 192},
                 {"num_hidden_layers", 2},
                 {"num_attention_heads", 4},
                 {"num_key_value_heads", 2},
                 {"head_dim", 32},
                 {"vocab_size", 320},
                 {"max_position_embeddings", 512},
                 {"rms_norm_eps", 1e-5},
                 {"rope_theta", 10000.0},
                 {"hidden_act", "silu"},
                 {"sliding_window", nullptr},
                 {"tie_word_embeddings", false}};
  if (change) change(config);
  write_file(folder / "config.json", json_text(config));

  RandomTensors random(1);
  std::vector<std::pair<std::string, Tensor>> tensors;
  tensors.emplace_back("model.embed_tokens.weight", random.tensor({320, 128}, 1));
  for (std::int64_t index = 0; index < 2; ++index) {
    LayerTensors layer = tiny_layer(tiny_config(), index, random);
    const std::string prefix = "model.layers." + std::to_string(index) + ".";
    tensors.emplace_back(prefix + "input_layernorm.weight", layer.input_layernorm);
    tensors.emplace_back(prefix + "post_attention_layernorm.weight", layer.post_attention_layernorm);
    for (const NamedLinear* each : layer.linears())
      tensors.emplace_back(each->module + ".weight", each->linear.weight);
  }
  tensors.emplace_back("model.norm.weight", random.tensor({128}, 0.2f, 1));
  tensors.emplace_back("lm_head.weight", random.linear("lm_head", 320, 128).linear.weight);
  tensors.emplace_back("some.other.buffer", random.tensor({3}, 1));
  std::erase_if(tensors, [&](const auto& each) { return each.first == skip; });
  std::vector<PlannedTensor> plan;
  for (const auto& [name, tensor] : tensors) plan.push_back({name, tensor.dtype(), tensor.shape()});
  CheckpointWriter writer(folder, plan);
  for (const auto& [name, tensor] : tensors) writer.write(name, tensor);
  writer.finish();
}

TEST(ModelLoader, LoadsWhatItsTensorsSay) {
  const ScratchFolder folder;
  write_checkpoint(folder.path(), {});
  const auto backend = make_reference_backend();
  const ModelLoader loader(folder.path());
  std::vector<std::int64_t> steps;
  const ModelWeights weights =
      loader.load_model(*backend, [&](std::int64_t layers) { steps.push_back(layers); });
  EXPECT_EQ(steps, (std::vector<std::int64_t>{1, 2}));
  // Everything but the unknown buffer, two bytes an element.
  EXPECT_EQ(weights.bytes, static_cast<std::int64_t>(loader.checkpoint().total_bytes()) - 6);

  const TinyModel same = tiny_model(*backend, tiny_config());
  Decoder ours(*backend, loader.config(), weights), expected(*backend, same.config, same.weights);
  const auto tokens = random_tokens(9, 320, 1);
  EXPECT_EQ(all_logits(ours, tokens, 9), all_logits(expected, tokens, 9));
  const auto cache = ours.make_kv_cache(4);
  const MemoryUse memory = ours.memory_use(cache.get());
  EXPECT_EQ(memory.weights, weights.bytes);
  EXPECT_EQ(memory.kv_cache, cache->bytes());
  EXPECT_GT(memory.workspace, 0);
}

struct BadCase {
  const char* name;
  std::function<void(Json&)> change;
  std::string skip, in_message;
};

TEST(ModelLoader, NamesTheTensorThatIsWrong) {
  const std::vector<BadCase> cases = {
      {"missing norm", {}, "model.layers.1.input_layernorm.weight", "model.layers.1.input_layernorm.weight"},
      {"missing matrix", {}, "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj"},
      {"missing head", {}, "lm_head.weight", "lm_head"},
      {"one layer too many", [](Json& config) { config["num_hidden_layers"] = 3; }, "", "model.layers.2"},
      {"other vocabulary", [](Json& config) { config["vocab_size"] = 321; }, "", "model.embed_tokens"},
      {"other intermediate", [](Json& config) { config["intermediate_size"] = 191; }, "", "mlp.gate_proj"},
      {"other heads", [](Json& config) { config["num_key_value_heads"] = 4; }, "", "self_attn.k_proj"},
  };
  const auto backend = make_reference_backend();
  for (const BadCase& each : cases) {
    const ScratchFolder folder;
    write_checkpoint(folder.path(), each.change, each.skip);
    try {
      ModelLoader(folder.path()).load_model(*backend);
      ADD_FAILURE() << each.name << " was accepted";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(each.in_message), std::string::npos)
          << each.name << ": " << error.what();
    }
  }
}

}  // namespace
}  // namespace bise
