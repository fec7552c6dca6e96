#include "formats/model_config.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "tests/formats/small_files.h"
#include "tests/test_support.h"

namespace bise {
namespace {
namespace fs = std::filesystem;

const char* const kLlama =
    R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 576,
  "intermediate_size": 1536, "num_hidden_layers": 4, "num_attention_heads": 9, "num_key_value_heads": 3,
  "vocab_size": 49152, "max_position_embeddings": 8192, "rms_norm_eps": 1e-05, "rope_theta": 100000.0,
  "rope_scaling": null, "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu"})";
const char* const kParams =
    R"({"dim": 4096, "n_layers": 6, "head_dim": 128, "hidden_dim": 14336, "n_heads": 32,
  "n_kv_heads": 8, "norm_eps": 1e-05, "vocab_size": 32768, "rope_theta": 1000000.0})";

// `base` with the members of `patch` put over it (null removes none: it is a value).
std::string patched(const char* base, const char* patch) {
  Json config = parse_json(base, "base");
  config.update(parse_json(patch, "patch"));
  return json_text(config);
}

ModelConfig read(const std::string& text, const char* name = "config.json") {
  const ScratchFolder folder;
  put_file(folder.path() / name, text);
  return read_model_config(folder.path());
}

TEST(ModelConfig, Llama) {
  const ModelConfig c = read(kLlama);
  EXPECT_EQ(c.architecture, "LlamaForCausalLM");
  EXPECT_EQ(c.model_type, "llama");
  EXPECT_EQ(c.hidden_size, 576);
  EXPECT_EQ(c.intermediate_size, 1536);
  EXPECT_EQ(c.num_hidden_layers, 4);
  EXPECT_EQ(c.num_attention_heads, 9);
  EXPECT_EQ(c.num_key_value_heads, 3);
  EXPECT_EQ(c.head_dim, 64);
  EXPECT_EQ(c.vocab_size, 49152);
  EXPECT_EQ(c.max_position_embeddings, 8192);
  EXPECT_EQ(c.rms_norm_eps, 1e-5);
  EXPECT_EQ(c.rope.type, RopeType::kDefault);
  EXPECT_EQ(c.rope.theta, 100000);
  EXPECT_TRUE(c.tie_word_embeddings);
  EXPECT_EQ(c.sliding_window, (std::vector<std::int64_t>(4, 0)));
  EXPECT_EQ(c.bos_token_id, 1);
  EXPECT_EQ(c.eos_token_ids, (std::vector<std::int64_t>{2}));
  EXPECT_FALSE(c.mistral_native);
}

TEST(ModelConfig, RopeSpellings) {
  const auto rope = [](const char* patch) { return read(patched(kLlama, patch)).rope; };
  EXPECT_EQ(rope(R"({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}})").theta, 5e5);
  const RopeConfig linear = rope(R"({"rope_scaling": {"type": "linear", "factor": 4}})");
  EXPECT_EQ(linear.type, RopeType::kLinear);
  EXPECT_EQ(linear.factor, 4);
  const char* const llama3 = R"("rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8192)";
  for (const std::string& patch :
       {fmt::format(R"({{"rope_theta": 5e5, "rope_scaling": {{{}}}}})", llama3),
        fmt::format(R"({{"rope_parameters": {{"rope_theta": 5e5, {}}}}})", llama3)}) {
    const RopeConfig r = rope(patch.c_str());
    EXPECT_EQ(r.type, RopeType::kLlama3);
    EXPECT_EQ(r.theta, 5e5);
    EXPECT_EQ(r.factor, 8);
    EXPECT_EQ(r.low_freq_factor, 1);
    EXPECT_EQ(r.high_freq_factor, 4);
    EXPECT_EQ(r.original_max_position_embeddings, 8192);
  }
  const RopeConfig yarn = rope(R"({"rope_scaling": {"rope_type": "yarn", "factor": 16,
    "original_max_position_embeddings": 512, "beta_fast": 24, "attention_factor": 1.5}})");
  EXPECT_EQ(yarn.type, RopeType::kYarn);
  EXPECT_EQ(yarn.beta_fast, 24);
  EXPECT_EQ(yarn.beta_slow, 1);
  EXPECT_EQ(yarn.attention_factor, 1.5);
}

TEST(ModelConfig, SlidingWindowPerLayer) {
  const char* const kMistral = R"({"architectures": ["MistralForCausalLM"], "model_type": "mistral"})";
  const char* const kMinistral = R"({"architectures": ["MinistralForCausalLM"], "model_type": "ministral"})";
  const struct {
    const char *family, *patch;
    std::vector<std::int64_t> windows;
  } cases[] = {
      {kMistral, R"({"sliding_window": null})", {0, 0, 0, 0}},
      {kMistral, R"({})", {4096, 4096, 4096, 4096}},  // transformers' default for an absent key
      {kMistral, R"({"sliding_window": 128})", {128, 128, 128, 128}},
      {kMistral, R"({"sliding_window": 128, "use_sliding_window": false})", {0, 0, 0, 0}},
      {kMistral, R"({"sliding_window": [null, 64]})", {0, 64, 0, 64}},
      {kMistral, R"({"sliding_window": 128, "sliding_window_pattern": 4})", {128, 128, 128, 0}},
      {kMinistral,
       R"({"sliding_window": 32, "layer_types": ["full_attention", "sliding_attention", "sliding_attention",
         "full_attention"]})",
       {0, 32, 32, 0}},
      {R"({})", R"({"sliding_window": 128})", {0, 0, 0, 0}},  // Llama has none
  };
  for (const auto& c : cases)
    EXPECT_EQ(read(patched(patched(kLlama, c.family).c_str(), c.patch)).sliding_window, c.windows) << c.patch;
  EXPECT_EQ(read(patched(kLlama, kMinistral)).architecture, "MistralForCausalLM");
  EXPECT_EQ(read(patched(kLlama, kMinistral)).model_type, "ministral");
}

TEST(ModelConfig, MixtralAndWrappers) {
  const std::string mixtral =
      patched(kLlama, R"({"architectures": ["MixtralForCausalLM"], "model_type": "mixtral",
    "num_local_experts": 8, "num_experts_per_tok": 2, "head_dim": null})");
  EXPECT_EQ(read(mixtral).num_local_experts, 8);
  EXPECT_EQ(read(mixtral).num_experts_per_tok, 2);
  EXPECT_EQ(read(mixtral).sliding_window[0], 0);
  Json text = parse_json(patched(kLlama, R"({"model_type": "mistral"})"), "text");
  text.erase("architectures");
  text.erase("tie_word_embeddings");
  const Json wrapper = {{"architectures", {"Mistral3ForConditionalGeneration"}},
                        {"model_type", "mistral3"},
                        {"tie_word_embeddings", true},
                        {"text_config", text}};
  const ModelConfig c = read(json_text(wrapper));
  EXPECT_EQ(c.architecture, "MistralForCausalLM");
  EXPECT_TRUE(c.tie_word_embeddings);
}

TEST(ModelConfig, MistralParams) {
  const ModelConfig c = read(kParams, "params.json");
  EXPECT_TRUE(c.mistral_native);
  EXPECT_EQ(c.architecture, "MistralForCausalLM");
  EXPECT_EQ(c.hidden_size, 4096);
  EXPECT_EQ(c.intermediate_size, 14336);
  EXPECT_EQ(c.num_key_value_heads, 8);
  EXPECT_EQ(c.max_position_embeddings, 128000);
  EXPECT_EQ(c.rope.theta, 1e6);
  EXPECT_EQ(c.eos_token_ids, (std::vector<std::int64_t>{2}));
  const auto with = [](const char* patch) { return read(patched(kParams, patch), "params.json"); };
  EXPECT_EQ(with(R"({"max_seq_len": 32768})").max_position_embeddings, 32768);
  EXPECT_EQ(with(R"({"sliding_window": [null, 16, 16]})").sliding_window,
            (std::vector<std::int64_t>{0, 16, 16, 0, 16, 16}));
  EXPECT_EQ(with(R"({"sliding_window": [null, 16, 16]})").model_type, "ministral");
  EXPECT_EQ(with(R"({"sliding_window": 4096})").sliding_window[5], 4096);
  const ModelConfig moe = with(R"({"moe": {"num_experts": 8, "num_experts_per_tok": 2}})");
  EXPECT_EQ(moe.architecture, "MixtralForCausalLM");
  EXPECT_EQ(moe.num_local_experts, 8);
  const RopeConfig yarn = with(R"({"yarn": {"original_max_position_embeddings": 8192, "factor": 16,
    "apply_scale": false, "beta": 32, "alpha": 1}})")
                              .rope;
  EXPECT_EQ(yarn.type, RopeType::kYarn);
  EXPECT_EQ(yarn.attention_factor, 1);
}

TEST(ModelConfig, GenerationConfigHasTheEosTokens) {
  const ScratchFolder folder;
  put_file(folder.path() / "config.json", kLlama);
  put_file(folder.path() / "generation_config.json", R"({"eos_token_id": [2, 7]})");
  EXPECT_EQ(read_model_config(folder.path()).eos_token_ids, (std::vector<std::int64_t>{2, 7}));
  put_file(folder.path() / "generation_config.json", R"({"eos_token_id": null})");
  EXPECT_EQ(read_model_config(folder.path()).eos_token_ids, (std::vector<std::int64_t>{2}));
}

TEST(ModelConfig, WhatCannotBeRunIsRefusedByName) {
  const struct {
    const char *base, *patch, *message;
  } cases[] = {
      {kLlama, R"({"architectures": ["GPT2LMHeadModel"]})", "GPT2LMHeadModel"},
      {kLlama, R"({"architectures": null, "model_type": "gemma"})", "gemma"},
      {kLlama, R"({"hidden_size": null})", "hidden_size"},
      {kLlama, R"({"hidden_size": "576"})", "hidden_size"},
      {kLlama, R"({"hidden_size": -1})", "out of range"},
      {kLlama, R"({"hidden_size": 575})", "head_dim is absent"},
      {kLlama, R"({"num_hidden_layers": 1e15})", "num_hidden_layers"},
      {kLlama, R"({"num_hidden_layers": 18446744073709551615})", "num_hidden_layers"},
      {kLlama, R"({"num_attention_heads": 0})", "num_attention_heads"},
      {kLlama, R"({"num_key_value_heads": 2})", "no multiple"},
      {kLlama, R"({"head_dim": 63})", "odd"},
      {kLlama, R"({"rms_norm_eps": 0})", "rms_norm_eps"},
      {kLlama, R"({"hidden_act": "gelu"})", "hidden_act"},
      {kLlama, R"({"rope_theta": 0})", "rope_theta"},
      {kLlama, R"({"rope_scaling": {"rope_type": "dynamic", "factor": 2}})", "dynamic"},
      {kLlama, R"({"rope_scaling": {"rope_type": "linear"}})", "factor"},
      {kLlama, R"({"rope_scaling": {"rope_type": "llama3", "factor": 8}})",
       "original_max_position_embeddings"},
      {kLlama, R"({"rope_scaling": 3})", "rope_scaling"},
      {kLlama, R"({"partial_rotary_factor": 0.5})", "partial_rotary_factor"},
      {kLlama, R"({"layer_types": ["full_attention"]})", "layer_types"},
      {kLlama, R"({"layer_types": ["full_attention", "x", "x", "x"]})", "layer type"},
      {kLlama, R"({"model_type": "mistral", "architectures": null, "sliding_window": -4})", "sliding_window"},
      {kLlama, R"({"model_type": "mistral", "architectures": null, "sliding_window": [1, 2, 3]})", "divide"},
      {kLlama, R"({"model_type": "mixtral", "architectures": null})", "num_local_experts"},
      {kLlama, R"({"model_type": "mixtral", "architectures": null, "num_local_experts": 4,
                   "num_experts_per_tok": 5})",
       "num_experts_per_tok"},
      {kLlama, R"({"eos_token_id": "2"})", "eos_token_id"},
      {kLlama, R"({"model_type": "llava", "text_config": 3})", "text_config"},
      {kParams, R"({"dim": null})", "dim"},
      {kParams, R"({"q_lora_rank": 1536})", "q_lora_rank"},
      {kParams, R"({"moe": {"num_experts": 8, "num_experts_per_tok": 2, "num_shared_experts": 1}})",
       "num_shared_experts"},
      {kParams, R"({"yarn": {"factor": 2, "original_max_position_embeddings": 1, "gamma": 1}})", "gamma"},
  };
  for (const auto& c : cases) {
    try {
      read(patched(c.base, c.patch), c.base == kLlama ? "config.json" : "params.json");
      ADD_FAILURE() << "accepted " << c.patch;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(c.message), std::string::npos) << c.patch << "\n"
                                                                              << error.what();
    }
  }
  EXPECT_THROW(read("[]"), Error);
  const ScratchFolder empty;
  EXPECT_THROW(read_model_config(empty.path()), Error);
}

TEST(ModelConfig, GoldenFolders) {
  const fs::path goldens = shared_path("golden/quantization");
  BISE_SKIP_IF_ABSENT(goldens, "golden/quantization");
  for (const auto& entry : fs::directory_iterator(goldens)) {
    if (!fs::exists(entry.path() / "config.json")) continue;
    const ModelConfig c = read_model_config(entry.path());
    const bool mixtral = entry.path().filename().string().find("mixtral") != std::string::npos;
    EXPECT_EQ(c.num_local_experts, mixtral ? 4 : 0) << entry.path();
    EXPECT_EQ(c.hidden_size, mixtral ? 128 : 256);
    EXPECT_EQ(c.rope.theta, mixtral ? 1e6 : 1e4);
    EXPECT_EQ(c.sliding_window, (std::vector<std::int64_t>{0, 0}));
  }
}

}  // namespace
}  // namespace bise
