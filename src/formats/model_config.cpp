#include "formats/model_config.h"

#include <fmt/ranges.h>

#include <array>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "formats/rope_config.h"

namespace bise {
namespace fs = std::filesystem;
namespace {

// What each model_type is called by ModelConfig, and transformers' defaults for keys that files leave out.
struct Family {
  std::string_view model_type, architecture, file_architecture;
  double rope_theta;
  std::int64_t sliding_window;  // when the key is absent; null means none in every family
};
constexpr std::array<Family, 4> kFamilies = {
    {{"llama", "LlamaForCausalLM", "LlamaForCausalLM", 10000, 0},
     {"mistral", "MistralForCausalLM", "MistralForCausalLM", 10000, 4096},
     {"ministral", "MistralForCausalLM", "MinistralForCausalLM", 10000, 4096},
     {"mixtral", "MixtralForCausalLM", "MixtralForCausalLM", 1000000, 0}}};
constexpr std::array<std::string_view, 2> kWrappers = {"mistral3", "llava"};

struct Bound {
  const char* name;
  std::int64_t value, least, most;
};

void check_bounds(const ModelConfig& c, const std::string& where) {
  const std::array<Bound, 10> bounds = {{
      {"hidden_size", c.hidden_size, 1, 1 << 20},
      {"intermediate_size", c.intermediate_size, 1, 1 << 24},
      {"num_hidden_layers", c.num_hidden_layers, 1, 10000},
      {"num_attention_heads", c.num_attention_heads, 1, 1 << 16},
      {"num_key_value_heads", c.num_key_value_heads, 1, 1 << 16},
      {"head_dim", c.head_dim, 2, 1 << 14},
      {"vocab_size", c.vocab_size, 1, 1 << 24},
      {"max_position_embeddings", c.max_position_embeddings, 1, std::int64_t{1} << 31},
      {"num_local_experts", c.num_local_experts, 0, 4096},
      {"num_experts_per_tok", c.num_experts_per_tok, c.num_local_experts > 0 ? 1 : 0, c.num_local_experts},
  }};
  for (const Bound& bound : bounds)
    if (bound.value < bound.least || bound.value > bound.most)
      throw Error("{} is out of range", bound.name)
          .at(where)
          .expected(fmt::format("{} to {}", bound.least, bound.most))
          .got(fmt::format("{}", bound.value));
  // Each factor is bounded above, so the product cannot overflow.
  if (c.num_attention_heads * c.head_dim > 1 << 24)
    throw Error("num_attention_heads * head_dim is too large").at(where);
  if (c.num_attention_heads % c.num_key_value_heads != 0)
    throw Error("num_attention_heads is no multiple of num_key_value_heads")
        .at(where)
        .got(fmt::format("{} and {}", c.num_attention_heads, c.num_key_value_heads));
  if (c.head_dim % 2 != 0) throw Error("head_dim is odd").at(where).got(fmt::format("{}", c.head_dim));
  if (!(c.rms_norm_eps > 0 && c.rms_norm_eps < 1))
    throw Error("rms_norm_eps is out of range").at(where).got(fmt::format("{}", c.rms_norm_eps));
}

const Json* find(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

// The window of each entry of `list`: a number, or null for full attention.
std::vector<std::int64_t> window_list(const Json& list, const std::string& where) {
  std::vector<std::int64_t> windows;
  for (const Json& item : list) {
    if (!item.is_null() && !item.is_number_unsigned())
      throw Error("sliding_window holds something else than sizes and null").at(where).got(item.dump());
    windows.push_back(item.is_null() ? 0 : item.get<std::int64_t>());
  }
  return windows;
}

// Whether each layer attends through the window, from "layer_types" or a pattern length.
std::vector<bool> sliding_layers(const Json& config, std::int64_t layers, const std::string& where) {
  std::vector<bool> sliding(static_cast<std::size_t>(layers), true);
  if (const Json* types = find(config, "layer_types")) {
    if (!types->is_array() || static_cast<std::int64_t>(types->size()) != layers)
      throw Error("layer_types has not one entry a layer").at(where).expected(fmt::format("{}", layers));
    for (std::size_t layer = 0; layer < sliding.size(); ++layer) {
      if ((*types)[layer] != "sliding_attention" && (*types)[layer] != "full_attention")
        throw Error("unknown layer type").at(where).got((*types)[layer].dump().substr(0, 80));
      sliding[layer] = (*types)[layer] == "sliding_attention";
    }
    return sliding;
  }
  // Every N-th layer sees everything, as in other interleaved models of transformers.
  for (const char* key : {"sliding_window_pattern", "_sliding_window_pattern"}) {
    const std::int64_t pattern = find_int(config, key, 0, where);
    if (pattern < 0) throw Error("{} is negative", key).at(where);
    if (pattern == 0) continue;
    for (std::size_t layer = 0; layer < sliding.size(); ++layer)
      sliding[layer] = (static_cast<std::int64_t>(layer) + 1) % pattern != 0;
    return sliding;
  }
  return sliding;
}

// ModelConfig::sliding_window. A number applies to all layers or to those that layer_types names; a list is
// repeated over the layers (Mistral's params.json).
std::vector<std::int64_t> read_sliding_window(const Json& config, std::int64_t layers, std::int64_t absent,
                                              const std::string& where) {
  std::vector<std::int64_t> windows(static_cast<std::size_t>(layers), 0);
  if (!find_bool(config, "use_sliding_window", true, where)) return windows;
  const Json* value = find(config, "sliding_window");
  if (value && value->is_array()) {
    const std::vector<std::int64_t> pattern = window_list(*value, where);
    if (pattern.empty() || windows.size() % pattern.size() != 0)
      throw Error("the list in sliding_window does not divide the layers")
          .at(where)
          .expected(fmt::format("a divisor of {}", layers))
          .got(fmt::format("{} entries", pattern.size()));
    for (std::size_t layer = 0; layer < windows.size(); ++layer)
      windows[layer] = pattern[layer % pattern.size()];
  } else {
    const std::int64_t window =
        config.contains("sliding_window") ? find_int(config, "sliding_window", 0, where) : absent;
    const std::vector<bool> sliding = sliding_layers(config, layers, where);
    for (std::size_t layer = 0; layer < windows.size(); ++layer) windows[layer] = sliding[layer] ? window : 0;
  }
  for (const std::int64_t window : windows)
    if (window < 0 || window > std::int64_t{1} << 31)
      throw Error("sliding_window is out of range").at(where).got(fmt::format("{}", window));
  return windows;
}

// A token id, a list of them or null.
std::vector<std::int64_t> read_token_ids(const Json& config, const char* key, const std::string& where) {
  const Json* value = find(config, key);
  if (!value) return {};
  const Json list = value->is_array() ? *value : Json::array({*value});
  std::vector<std::int64_t> ids;
  for (const Json& id : list) {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() > std::uint64_t{1} << 24)
      throw Error("{} is no token id", key).at(where).got(id.dump().substr(0, 80));
    ids.push_back(id.get<std::int64_t>());
  }
  return ids;
}

const Family& find_family(const Json& config, const std::string& where) {
  std::string found = find_string(config, "model_type", "", where);
  const Json* architectures = find(config, "architectures");
  const bool named = architectures && architectures->is_array() && !architectures->empty() &&
                     (*architectures)[0].is_string();
  for (const Family& family : kFamilies) {
    if (named ? (*architectures)[0] == std::string(family.file_architecture) : found == family.model_type)
      return family;
  }
  if (named) found = (*architectures)[0].get<std::string>();
  std::vector<std::string_view> known;
  for (const Family& family : kFamilies) known.push_back(family.file_architecture);
  throw Error("unknown architecture")
      .at(where)
      .expected(fmt::format("one of {}", fmt::join(known, ", ")))
      .got(fmt::format("\"{}\"", found));
}

// The text model's part of a multimodal wrapper's config; the config itself otherwise.
const Json& text_part(const Json& config, const std::string& where) {
  const std::string model_type = find_string(config, "model_type", "", where);
  for (const std::string_view wrapper : kWrappers)
    if (model_type == wrapper) return require(config, "text_config", where);
  return config;
}

// Keys that change what the model computes and that no decoder here implements.
void refuse_unsupported(const Json& config, const std::string& where) {
  if (const std::string act = find_string(config, "hidden_act", "silu", where); act != "silu")
    throw Error("hidden_act is not supported").at(where).expected("\"silu\"").got(fmt::format("\"{}\"", act));
  for (const char* key :
       {"q_lora_rank", "kv_lora_rank", "llama_4_scaling", "n_shared_experts", "num_nextn_predict_layers"})
    if (const Json* value = find(config, key); value && *value != 0 && *value != false)
      throw Error("key \"{}\" is not supported", key).at(where).got(value->dump().substr(0, 80));
}

ModelConfig read_hugging_face(const fs::path& folder) {
  const std::string where = (folder / "config.json").string();
  const Json whole = read_json_file(folder / "config.json", std::size_t{1} << 26);
  if (!whole.is_object()) throw Error("config is not a JSON object").at(where);
  const Json& config = text_part(whole, where);
  if (!config.is_object()) throw Error("text_config is not a JSON object").at(where);
  const Family& family = find_family(config, where);
  refuse_unsupported(config, where);
  ModelConfig c;
  c.architecture = family.architecture;
  c.model_type = family.model_type;
  c.hidden_size = require_int(config, "hidden_size", where);
  c.intermediate_size = require_int(config, "intermediate_size", where);
  c.num_hidden_layers = require_int(config, "num_hidden_layers", where);
  c.num_attention_heads = require_int(config, "num_attention_heads", where);
  c.num_key_value_heads = c.model_type == "llama"
                              ? find_int(config, "num_key_value_heads", c.num_attention_heads, where)
                              : require_int(config, "num_key_value_heads", where);
  c.vocab_size = require_int(config, "vocab_size", where);
  c.max_position_embeddings = require_int(config, "max_position_embeddings", where);
  c.rms_norm_eps = require_number(config, "rms_norm_eps", where);
  c.head_dim = find_int(config, "head_dim", 0, where);
  if (c.head_dim == 0 && c.num_attention_heads > 0 && c.hidden_size > 0) {
    if (c.hidden_size % c.num_attention_heads != 0)
      throw Error("head_dim is absent and hidden_size is no multiple of num_attention_heads").at(where);
    c.head_dim = c.hidden_size / c.num_attention_heads;
  }
  if (c.model_type == "mixtral") {
    c.num_local_experts = require_int(config, "num_local_experts", where);
    c.num_experts_per_tok = require_int(config, "num_experts_per_tok", where);
    if (c.num_local_experts < 1) throw Error("num_local_experts is not positive").at(where);
  }
  check_bounds(c, where);
  c.rope = read_rope_config(config, family.rope_theta, c.max_position_embeddings, where);
  c.tie_word_embeddings =
      find_bool(config, "tie_word_embeddings", find_bool(whole, "tie_word_embeddings", false, where), where);
  c.attention_bias = find_bool(config, "attention_bias", false, where);
  // Llama ignores the key unless layer_types says which layers slide.
  c.sliding_window = c.model_type == "llama" && !find(config, "layer_types")
                         ? std::vector<std::int64_t>(static_cast<std::size_t>(c.num_hidden_layers), 0)
                         : read_sliding_window(config, c.num_hidden_layers, family.sliding_window, where);
  const std::vector<std::int64_t> bos = read_token_ids(config, "bos_token_id", where);
  if (!bos.empty()) c.bos_token_id = bos[0];
  c.eos_token_ids = read_token_ids(config, "eos_token_id", where);
  return c;
}

ModelConfig read_mistral_native(const fs::path& folder) {
  const std::string where = (folder / "params.json").string();
  const Json params = read_json_file(folder / "params.json", std::size_t{1} << 26);
  if (!params.is_object()) throw Error("params is not a JSON object").at(where);
  refuse_unsupported(params, where);
  ModelConfig c;
  c.mistral_native = true;
  c.hidden_size = require_int(params, "dim", where);
  c.intermediate_size = require_int(params, "hidden_dim", where);
  c.num_hidden_layers = require_int(params, "n_layers", where);
  c.num_attention_heads = require_int(params, "n_heads", where);
  c.num_key_value_heads = find_int(params, "n_kv_heads", c.num_attention_heads, where);
  c.head_dim = require_int(params, "head_dim", where);
  c.vocab_size = require_int(params, "vocab_size", where);
  c.rms_norm_eps = require_number(params, "norm_eps", where);
  // Early files state neither; vLLM then takes 128,000 too.
  c.max_position_embeddings =
      find_int(params, "max_position_embeddings", find_int(params, "max_seq_len", 128000, where), where);
  if (const Json* moe = find(params, "moe")) {
    if (!moe->is_object()) throw Error("moe is not an object").at(where);
    for (const auto& [key, value] : moe->items())
      if (key != "num_experts" && key != "num_experts_per_tok" && !value.is_null())
        throw Error("key \"moe.{}\" is not supported", key).at(where);
    c.num_local_experts = require_int(*moe, "num_experts", where);
    c.num_experts_per_tok = require_int(*moe, "num_experts_per_tok", where);
    if (c.num_local_experts < 1) throw Error("moe.num_experts is not positive").at(where);
  }
  c.architecture = c.num_local_experts > 0 ? "MixtralForCausalLM" : "MistralForCausalLM";
  check_bounds(c, where);
  c.rope = read_native_rope_config(params, where);
  c.tie_word_embeddings = find_bool(params, "tied_embeddings", false, where);
  c.sliding_window = read_sliding_window(params, c.num_hidden_layers, 0, where);
  bool interleaved = false;
  for (const std::int64_t window : c.sliding_window) interleaved |= window != c.sliding_window[0];
  c.model_type = c.num_local_experts > 0 ? "mixtral" : interleaved ? "ministral" : "mistral";
  // Every Mistral tokenizer has <s> = 1 and </s> = 2.
  c.bos_token_id = 1;
  c.eos_token_ids = {2};
  return c;
}

}  // namespace

ModelConfig read_model_config(const fs::path& folder) {
  const bool hugging_face = fs::exists(folder / "config.json");
  if (!hugging_face && !fs::exists(folder / "params.json"))
    throw Error("there is no model configuration").at(folder.string()).expected("config.json or params.json");
  ModelConfig config = hugging_face ? read_hugging_face(folder) : read_mistral_native(folder);
  if (const fs::path path = folder / "generation_config.json"; fs::exists(path)) {
    const Json generation = read_json_file(path, std::size_t{1} << 26);
    if (!generation.is_object()) throw Error("config is not a JSON object").at(path.string());
    const std::vector<std::int64_t> eos = read_token_ids(generation, "eos_token_id", path.string());
    if (!eos.empty()) config.eos_token_ids = eos;
  }
  return config;
}

}  // namespace bise
