#include "cli/serve_arguments.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/yaml.h"
#include "cli/vllm_flags.h"

namespace bise {
namespace {

// A flag and what follows it, or a positional argument (no name).
struct Item {
  std::string name;
  std::vector<std::string> values;
};

bool is_flag(const std::string& argument) {
  return argument.starts_with("--") || !long_flag(argument.substr(0, argument.find_first_of(".="))).empty();
}

// "--max_model_len" and "-tp" become "--max-model-len" and "--tensor-parallel-size". Keys after a dot keep
// their underscores, as the JSON has them.
std::string canonical_name(const std::string& name) {
  const std::size_t dot = std::min(name.find('.'), name.size());
  std::string first = name.substr(0, dot);
  if (const std::string_view full = long_flag(first); !full.empty()) first = full;
  std::ranges::replace(first, '_', '-');
  if (first == "--device-memory-utilization") first = "--gpu-memory-utilization";
  return first + name.substr(dot);
}

// Cuts the arguments where flags begin. A flag here takes all that follows up to the next flag: Flags, which
// knows how many values each one has, sees the same sequence again.
std::vector<Item> split(const std::vector<std::string>& arguments) {
  std::vector<Item> items;
  for (const std::string& argument : arguments) {
    if (argument.size() == 3 && argument.starts_with("-O")) {
      items.push_back({"--optimization-level", {argument.substr(2)}});
    } else if (is_flag(argument)) {
      const std::size_t equals = argument.find('=');
      items.push_back({canonical_name(argument.substr(0, equals)), {}});
      if (equals != std::string::npos) items.back().values.push_back(argument.substr(equals + 1));
    } else if (items.empty()) {
      items.push_back({"", {argument}});
    } else {
      items.back().values.push_back(argument);
    }
  }
  return items;
}

std::string scalar_text(const Json& value) {
  return value.is_string() ? value.get<std::string>() : json_text(value);
}

// Each key of the file is a flag without its dashes, as vLLM reads it.
std::vector<Item> read_config(const std::string& path) {
  const Json config = read_yaml_file(path);
  if (!config.is_object()) throw Error("the file holds no keys").at(path);
  std::vector<Item> items;
  for (const auto& [key, value] : config.items()) {
    const std::string name = canonical_name("--" + key);
    if (name == "--config") throw Error("a configuration file cannot name another").at(path);
    if (value.is_null()) continue;
    if (value.is_boolean()) {
      items.push_back({value.get<bool>() ? name : "--no-" + name.substr(2), {}});
    } else if (value.is_array()) {
      if (value.empty()) continue;
      items.push_back({name, {}});
      for (const Json& element : value) items.back().values.push_back(scalar_text(element));
    } else if (name == "--model") {
      items.insert(items.begin(), {"", {scalar_text(value)}});
    } else {
      items.push_back({name, {scalar_text(value)}});
    }
  }
  return items;
}

std::string positive_name(const std::string& name) {
  return name.starts_with("--no-") ? "--" + name.substr(5) : name;
}

// Takes --config out of `items` and puts what the file says before what is left of them.
void merge_config(std::vector<Item>& items) {
  const auto config = std::ranges::find(items, "--config", &Item::name);
  if (config == items.end()) return;
  if (config->values.empty()) throw Error("--config needs a file");
  std::vector<Item> merged = read_config(config->values.front());
  std::vector<std::string> rest(config->values.begin() + 1, config->values.end());
  const auto place = items.erase(config);
  if (!rest.empty()) items.insert(place, {"", std::move(rest)});
  if (std::ranges::find(items, "--config", &Item::name) != items.end())
    throw Error("--config is given more than once");

  std::set<std::string> given;
  for (const Item& item : items) given.insert(positive_name(item.name.substr(0, item.name.find('.'))));
  std::erase_if(merged, [&](const Item& item) { return given.contains(positive_name(item.name)); });
  items.insert(items.begin(), merged.begin(), merged.end());
}

// --speculative-config.method ngram becomes a member of one JSON value.
void collect_members(std::vector<Item>& items) {
  std::vector<Item> result;
  for (Item& item : items) {
    const std::size_t dot = item.name.find('.');
    if (item.name.empty() || dot == std::string::npos) {
      result.push_back(std::move(item));
      continue;
    }
    if (item.values.empty()) throw Error("{} needs a value", item.name);
    const std::string base = item.name.substr(0, dot);
    auto target = std::ranges::find(result, base, &Item::name);
    if (target == result.end()) target = result.insert(result.end(), {base, {"{}"}});
    Json object = parse_json(target->values.front(), base);
    Json* member = &object;
    for (std::string path = item.name.substr(dot + 1); !path.empty();) {
      const std::size_t end = std::min(path.find('.'), path.size());
      std::string key = path.substr(0, end);
      std::ranges::replace(key, '-', '_');
      if (!member->is_object() && !member->is_null()) throw Error("{} is set twice", item.name);
      member = &(*member)[key];
      path.erase(0, end + 1);
    }
    const Json parsed = Json::parse(item.values.front(), nullptr, false);
    *member = parsed.is_discarded() ? Json(item.values.front()) : parsed;
    target->values.front() = json_text(object);
    if (item.values.size() > 1)
      result.insert(result.begin(), {"", {item.values.begin() + 1, item.values.end()}});
  }
  items = std::move(result);
}

// What a flag leaves of the values after it: they were positional arguments.
std::vector<std::string> left_over(const Item& item, FlagArity arity) {
  const std::size_t taken = arity == FlagArity::kSwitch  ? 0
                            : arity == FlagArity::kValue ? std::min<std::size_t>(1, item.values.size())
                                                         : item.values.size();
  return {item.values.begin() + static_cast<std::ptrdiff_t>(taken), item.values.end()};
}

}  // namespace

ServeArguments prepare_serve_arguments(const std::vector<std::string>& arguments) {
  std::vector<Item> items = split(arguments);
  merge_config(items);
  collect_members(items);
  ServeArguments result;
  for (const Item& item : items) {
    if (const auto arity = flag_without_effect(item.name)) {
      if (std::ranges::find(result.without_effect, item.name) == result.without_effect.end())
        result.without_effect.push_back(item.name);
      const std::vector<std::string> rest = left_over(item, *arity);
      result.arguments.insert(result.arguments.end(), rest.begin(), rest.end());
      continue;
    }
    // The model may also be named by a flag.
    if (!item.name.empty() && item.name != "--model") result.arguments.push_back(item.name);
    result.arguments.insert(result.arguments.end(), item.values.begin(), item.values.end());
  }
  return result;
}

}  // namespace bise
