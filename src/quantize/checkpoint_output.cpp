#include "quantize/checkpoint_output.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "formats/quantization_config.h"
#include "formats/quantized_tensors.h"

namespace bise {
namespace fs = std::filesystem;
namespace {

const char kWeightSuffix[] = ".weight";

// The module that owns the tensor `name` as its weight, or "".
std::string module_of(const std::string& name) {
  return name.ends_with(kWeightSuffix) ? name.substr(0, name.size() - (sizeof kWeightSuffix - 1)) : "";
}

bool is_weight_file(const fs::path& path) {
  const std::string name = path.filename().string(), extension = path.extension().string();
  return extension == ".safetensors" || extension == ".bin" || extension == ".pth" || extension == ".gguf" ||
         name.ends_with(".safetensors.index.json");
}

LinearFormat format_of(const Recipe& recipe) {
  LinearFormat format;
  format.scheme = recipe.scheme;
  format.storage = storage_for(recipe.scheme);
  return format;
}

}  // namespace

CheckpointOutput::CheckpointOutput(const ModelLoader& model, const Recipe& recipe, const fs::path& output,
                                   bool replace_output)
    : model_(model), recipe_(recipe), dtype_(model.read_norm().dtype()), folder_(output, replace_output) {
  if (!model.quantization().quant_method().empty())
    throw Error("the model is quantized already")
        .at(model.checkpoint().folder().string())
        .expected("an unquantized checkpoint")
        .got(model.quantization().quant_method());
  if (!fs::exists(model.checkpoint().folder() / "config.json"))
    throw Error("quantizing needs a Hugging Face config.json").at(model.checkpoint().folder().string());
  for (std::int64_t index = 0; index < model.config().num_hidden_layers; ++index) {
    LayerTensors layer = model.read_layer(index);
    for (const NamedLinear* linear : layer.linears()) {
      if (is_ignored(recipe, linear->module)) {
        unquantized_.push_back(linear->module);
      } else {
        quantized_.insert(linear->module);
        dtype_ = linear->linear.weight.dtype();
      }
    }
  }
  if (quantized_.empty()) throw Error("the recipe ignores every linear layer");
  unquantized_.push_back("lm_head");
  writer_ = std::make_unique<CheckpointWriter>(folder_.path(), plan());
}

std::vector<PlannedTensor> CheckpointOutput::plan() {
  const Checkpoint& checkpoint = model_.checkpoint();
  std::vector<PlannedTensor> planned;
  for (const std::string& name : checkpoint.names()) {
    const std::string module = module_of(name);
    if (!quantized_.contains(module)) {
      planned.push_back({name, checkpoint.dtype(name), checkpoint.shape(name)});
      continue;
    }
    const Shape& shape = checkpoint.shape(name);
    for (PlannedTensor& tensor : planned_linear(module, format_of(recipe_), shape[0], shape[1], dtype_))
      planned.push_back(std::move(tensor));
  }
  return planned;
}

void CheckpointOutput::write_layer(LayerTensors& layer) {
  for (const NamedLinear* linear : layer.linears())
    if (quantized_.contains(linear->module)) write_linear(*writer_, linear->module, linear->linear, dtype_);
}

void CheckpointOutput::write_unquantized() {
  const Checkpoint& checkpoint = model_.checkpoint();
  for (const std::string& name : checkpoint.names()) {
    if (quantized_.contains(module_of(name))) continue;
    writer_->write(name, checkpoint.tensor(name));
    checkpoint.release(name);
  }
}

void CheckpointOutput::finish() {
  writer_->finish();
  write_config();
  copy_other_files();
  write_file(folder_.path() / "recipe.yaml", recipe_yaml(recipe_));
  folder_.commit();
}

// The original config.json with one key more; every other key stays.
void CheckpointOutput::write_config() {
  Json config = read_json_file(model_.checkpoint().folder() / "config.json");
  if (recipe_.scheme.type == WeightType::kNf4) {
    config["quantization_config"] = bitsandbytes_config({});
  } else {
    GroupToWrite group;
    group.scheme = recipe_.scheme;
    group.static_actorder = recipe_.algorithm == Algorithm::kGptq && recipe_.gptq.static_activation_order;
    config["quantization_config"] = compressed_tensors_config({group}, unquantized_);
  }
  write_file(folder_.path() / "config.json", json_text(config, 2) + "\n");
}

// Tokenizer, chat template, generation config, licence, ...: byte for byte.
void CheckpointOutput::copy_other_files() {
  for (const auto& entry : fs::directory_iterator(model_.checkpoint().folder())) {
    const fs::path name = entry.path().filename();
    if (!entry.is_regular_file() || is_weight_file(name) || name == "config.json" || name == "recipe.yaml")
      continue;
    fs::copy_file(entry.path(), folder_.path() / name, fs::copy_options::overwrite_existing);
  }
}

}  // namespace bise
