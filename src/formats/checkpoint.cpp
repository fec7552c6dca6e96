#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "formats/safetensors.h"
#include "formats/tensor_names.h"

namespace bise {
namespace fs = std::filesystem;
namespace {

// A shard named by an index is a plain file name: nothing outside the folder is opened.
void check_shard_name(const std::string& shard, const std::string& where) {
  if (shard.empty() || fs::path(shard).filename() != shard || shard == "." || shard == "..")
    throw Error("shard is not a file name").at(where).got(fmt::format("\"{}\"", shard));
}

// tensor name -> shard of an index file ("weight_map").
std::map<std::string, std::string> read_index(const fs::path& path) {
  const nlohmann::json index = nlohmann::json::parse(read_file(path, std::size_t{1} << 28), nullptr, false);
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object())
    throw Error("the index has no object \"weight_map\"").at(path.string());
  std::map<std::string, std::string> shards;
  for (const auto& [name, shard] : index["weight_map"].items()) {
    if (!shard.is_string()) throw Error("shard of tensor {} is not a string", name).at(path.string());
    check_shard_name(shard.get<std::string>(), path.string());
    shards.emplace(name, shard.get<std::string>());
  }
  return shards;
}

// Opens the shards that `index` names and checks that they hold exactly what it says.
std::vector<SafetensorsFile> open_shards(const fs::path& index) {
  const std::map<std::string, std::string> shard_of = read_index(index);
  std::map<std::string, SafetensorsFile> files;
  for (const auto& [name, shard] : shard_of) {
    if (files.contains(shard)) continue;
    const fs::path path = index.parent_path() / shard;
    if (!fs::exists(path))
      throw Error("shard {} is missing", shard).at(index.string()).expected("the file beside the index");
    files.emplace(shard, SafetensorsFile::open(path));
  }
  for (const auto& [name, shard] : shard_of)
    if (!files.at(shard).contains(name))
      throw Error("tensor {} is not in its shard", name).at((index.parent_path() / shard).string());
  std::vector<SafetensorsFile> result;
  for (auto& [shard, file] : files) result.push_back(std::move(file));
  return result;
}

}  // namespace

Checkpoint Checkpoint::open(const fs::path& folder) {
  Checkpoint checkpoint;
  checkpoint.folder_ = folder;
  if (!fs::is_directory(folder)) throw Error("there is no such checkpoint folder").at(folder.string());
  // A folder with both spellings (Mistral's own repositories) is read as a Hugging Face one.
  for (const char* stem : {"model", "consolidated"}) {
    const fs::path single = folder / (std::string(stem) + ".safetensors");
    const fs::path index = folder / (std::string(stem) + ".safetensors.index.json");
    if (!fs::exists(single) && !fs::exists(index)) continue;
    if (fs::exists(index)) {
      for (SafetensorsFile& file : open_shards(index)) checkpoint.add_file(std::move(file));
    } else {
      checkpoint.add_file(SafetensorsFile::open(single));
    }
    checkpoint.use_hugging_face_names(std::string_view(stem) == "consolidated");
    return checkpoint;
  }
  throw Error("there are no weights")
      .at(folder.string())
      .expected("model.safetensors, model.safetensors.index.json or consolidated.safetensors");
}

void Checkpoint::add_file(SafetensorsFile file) {
  for (const auto& [name, entry] : file.entries())
    if (!places_.emplace(name, Place{files_.size(), name, 0}).second)
      throw Error("tensor {} stands in two shards", name).at(file.path().string());
  files_.push_back(std::move(file));
}

void Checkpoint::use_hugging_face_names(bool mistral_native) {
  std::int64_t query_heads = 0, key_heads = 0;
  if (mistral_native) {
    const fs::path path = folder_ / "params.json";
    const Json params = read_json_file(path);
    query_heads = require_int(params, "n_heads", path.string());
    key_heads = find_int(params, "n_kv_heads", query_heads, path.string());
  }
  std::map<std::string, Place, std::less<>> renamed;
  for (auto& [name, place] : places_) {
    std::string known = canonical_name(name);
    if (mistral_native) {
      known = hugging_face_name(name).value_or(name);
      if (name.find(".attention.wq.") != std::string::npos) place.rotary_heads = query_heads;
      if (name.find(".attention.wk.") != std::string::npos) place.rotary_heads = key_heads;
    }
    if (!renamed.emplace(known, std::move(place)).second)
      throw Error("two tensors are both named {}", known).at(folder_.string());
  }
  places_ = std::move(renamed);
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> names;
  for (const auto& [name, place] : places_) names.push_back(name);
  return names;
}

const Checkpoint::Place& Checkpoint::place(std::string_view name) const {
  const auto found = places_.find(name);
  if (found == places_.end()) throw Error("there is no tensor {}", name).at(folder_.string());
  return found->second;
}

Tensor Checkpoint::tensor(std::string_view name) const {
  const Place& found = place(name);
  Tensor tensor = files_[found.file].tensor(found.stored_name);
  // Scales of one element and inputs' scales have no rows of heads.
  if (found.rotary_heads == 0 || tensor.elements() <= 1 || name.ends_with("input_scale") ||
      name.ends_with("weight_shape") || name.ends_with("weight_g_idx"))
    return tensor;
  try {
    if (name.ends_with("weight_zero_point") && tensor.dtype() == DType::kI32)
      throw Error("packed zero points in the interleaved rotary order are not supported");
    return from_interleaved_rotary(tensor, found.rotary_heads);
  } catch (const Error& error) {
    rethrow_inside(error, fmt::format("{}: tensor {}", folder_.string(), found.stored_name));
  }
}

DType Checkpoint::dtype(std::string_view name) const {
  const Place& found = place(name);
  return files_[found.file].entries().at(found.stored_name).dtype;
}

const Shape& Checkpoint::shape(std::string_view name) const {
  const Place& found = place(name);
  return files_[found.file].entries().at(found.stored_name).shape;
}

void Checkpoint::release(std::string_view name) const {
  const Place& found = place(name);
  files_[found.file].release(found.stored_name);
}

std::uint64_t Checkpoint::total_bytes() const {
  std::uint64_t total = 0;
  for (const SafetensorsFile& file : files_)
    for (const auto& [name, entry] : file.entries()) total += entry.end - entry.begin;
  return total;
}

}  // namespace bise
