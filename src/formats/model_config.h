// The architecture of a decoder-only model, read from a Hugging Face config.json or a Mistral params.json.
// A plain value; everything above formats/ sees only this, never the JSON.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace bise {

// Rotary position embedding (RoFormer, Su et al. 2021) and its extensions, as transformers computes them.
enum class RopeType { kDefault, kLinear, kLlama3, kYarn };
struct RopeConfig {
  RopeType type = RopeType::kDefault;
  double theta = 10000;
  double factor = 1;
  double original_max_position_embeddings = 0;
  double low_freq_factor = 1, high_freq_factor = 4;  // llama3
  double beta_fast = 32, beta_slow = 1;              // yarn
  double attention_factor = 0;                       // yarn; 0 = 0.1 ln(factor) + 1
  double mscale = 0, mscale_all_dim = 0;             // yarn, optional
};

struct ModelConfig {
  std::string architecture;  // "LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM"
  std::string model_type;    // "llama", "mistral", "ministral", "mixtral"
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t num_hidden_layers = 0;
  std::int64_t num_attention_heads = 0;
  std::int64_t num_key_value_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t vocab_size = 0;
  std::int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-5;
  RopeConfig rope;
  bool tie_word_embeddings = false;
  bool attention_bias = false;
  // Per layer: how many positions back a token sees, itself included; 0 = all. One entry a layer.
  std::vector<std::int64_t> sliding_window;
  // Mixture of experts; 0 experts = a dense MLP.
  std::int64_t num_local_experts = 0;
  std::int64_t num_experts_per_tok = 0;
  std::int64_t bos_token_id = -1;           // -1 = none
  std::vector<std::int64_t> eos_token_ids;  // from generation_config.json when present, else config.json
  bool mistral_native = false;              // params.json with consolidated tensor names
};

// Reads config.json, or params.json of a Mistral-native folder, and generation_config.json. Throws Error for
// an unknown architecture (naming the known ones), a missing key or sizes that contradict each other.
ModelConfig read_model_config(const std::filesystem::path& checkpoint_folder);

}  // namespace bise
