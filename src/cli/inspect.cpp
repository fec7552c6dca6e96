#include <fmt/format.h>

#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "model/loader.h"
#include "report/table.h"

namespace bise {
namespace {

// Parameters and bytes of the linear layers of one kind ("self_attn.q_proj") with one scheme and shape.
struct Group {
  std::int64_t layers = 0, rows = 0, columns = 0, bytes = 0;
};
using Groups = std::map<std::pair<std::string, std::string>, Group>;

// "model.layers.3.mlp.up_proj" -> "mlp.up_proj"; experts count together.
std::string kind_of(const std::string& module) {
  std::string kind = module.substr(module.find('.', std::string("model.layers.").size()) + 1);
  if (const auto expert = kind.find("experts."); expert != std::string::npos)
    kind = kind.substr(0, expert) + "experts.*" + kind.substr(kind.find('.', expert + 8));
  return kind;
}

Groups group_linears(const ModelLoader& model) {
  Groups groups;
  for (std::int64_t index = 0; index < model.config().num_hidden_layers; ++index) {
    LayerTensors layer = model.read_layer(index);
    for (const NamedLinear* linear : layer.linears()) {
      Group& group = groups[{kind_of(linear->module), scheme_text(linear->linear.scheme)}];
      ++group.layers;
      group.rows = linear->linear.rows;
      group.columns = linear->linear.columns;
      group.bytes += stored_bytes(linear->linear);
    }
  }
  return groups;
}

std::int64_t parameter_count(const ModelLoader& model, const Groups& groups) {
  const ModelConfig& config = model.config();
  std::int64_t count = config.vocab_size * config.hidden_size * (config.tie_word_embeddings ? 1 : 2);
  count += config.hidden_size * (2 * config.num_hidden_layers + 1);
  for (const auto& [name, group] : groups) count += group.layers * group.rows * group.columns;
  return count;
}

// Bytes of keys and values of one token in bf16, all layers.
std::int64_t kv_bytes_per_token(const ModelConfig& config) {
  return config.num_hidden_layers * 2 * config.num_key_value_heads * config.head_dim * 2;
}

Json as_json(const ModelLoader& model, const Groups& groups, std::uintmax_t disk_bytes) {
  const ModelConfig& config = model.config();
  Json json = {{"architecture", config.architecture},
               {"parameters", parameter_count(model, groups)},
               {"hidden_size", config.hidden_size},
               {"intermediate_size", config.intermediate_size},
               {"num_hidden_layers", config.num_hidden_layers},
               {"num_attention_heads", config.num_attention_heads},
               {"num_key_value_heads", config.num_key_value_heads},
               {"head_dim", config.head_dim},
               {"vocab_size", config.vocab_size},
               {"max_position_embeddings", config.max_position_embeddings},
               {"tie_word_embeddings", config.tie_word_embeddings},
               {"num_local_experts", config.num_local_experts},
               {"quant_method", model.quantization().quant_method()},
               {"disk_bytes", disk_bytes},
               {"tensor_bytes", model.checkpoint().total_bytes()},
               {"kv_cache_bytes_per_token", kv_bytes_per_token(config)},
               {"linear_layers", Json::array()}};
  for (const auto& [key, group] : groups)
    json["linear_layers"].push_back({{"module", key.first},
                                     {"scheme", key.second},
                                     {"count", group.layers},
                                     {"shape", {group.rows, group.columns}},
                                     {"bytes", group.bytes}});
  return json;
}

void print_text(const ModelLoader& model, const Groups& groups, std::uintmax_t disk_bytes) {
  const ModelConfig& config = model.config();
  fmt::print("{}: {:.1f} M parameters, {} layers, hidden {}, intermediate {}\n", config.architecture,
             static_cast<double>(parameter_count(model, groups)) / 1e6, config.num_hidden_layers,
             config.hidden_size, config.intermediate_size);
  fmt::print("{} heads, {} key/value heads of {}, vocabulary {}{}, context {}\n", config.num_attention_heads,
             config.num_key_value_heads, config.head_dim, config.vocab_size,
             config.tie_word_embeddings ? " (tied)" : "", config.max_position_embeddings);
  fmt::print("on disk {:.1f} MB, tensors {:.1f} MB, KV cache {} bytes a token (bf16)\n\n",
             static_cast<double>(disk_bytes) / 1e6,
             static_cast<double>(model.checkpoint().total_bytes()) / 1e6, kv_bytes_per_token(config));
  Table table{{"linear layers", "scheme", "count", "shape", "MB"}, {}, 2};
  for (const auto& [key, group] : groups)
    table.rows.push_back({key.first, key.second, std::to_string(group.layers),
                          fmt::format("{} x {}", group.rows, group.columns),
                          fmt::format("{:.1f}", static_cast<double>(group.bytes) / 1e6)});
  fmt::print("{}", terminal_table(table));
}

}  // namespace

int run_inspect(const Arguments& arguments) {
  std::string folder;
  bool json = false;
  Flags flags("inspect", "Show a checkpoint's architecture, parameters, scheme per layer and bytes.");
  flags.model(folder);
  flags.flag("--json", json, "print one JSON object");
  if (!flags.parse(arguments)) return 0;

  const ModelLoader model(folder);
  const Groups groups = group_linears(model);
  if (json) {
    fmt::print("{}\n", json_text(as_json(model, groups, folder_bytes(folder)), 2));
  } else {
    print_text(model, groups, folder_bytes(folder));
  }
  return 0;
}

}  // namespace bise
