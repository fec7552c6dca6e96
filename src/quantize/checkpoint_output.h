// The quantized checkpoint being written: its plan, its tensors, its config and the files taken over from the
// original. Used by one thread at a time.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "base/files.h"
#include "formats/safetensors.h"
#include "model/loader.h"
#include "quantize/recipe.h"

namespace bise {

class CheckpointOutput {
 public:
  // Plans every tensor and reserves the files. Throws Error as quantize_checkpoint does.
  CheckpointOutput(const ModelLoader& model, const Recipe& recipe, const std::filesystem::path& output,
                   bool replace_output);

  // Copies every tensor that is not quantized.
  void write_unquantized();
  // Writes the quantized linear layers of a decoder layer.
  void write_layer(LayerTensors& layer);
  // Everything has been written: writes config.json and recipe.yaml, takes over the other files and gives
  // the folder its name.
  void finish();

 private:
  std::vector<PlannedTensor> plan();
  void write_config();
  void copy_other_files();

  const ModelLoader& model_;
  const Recipe& recipe_;
  DType dtype_;                           // of the model's weights, and so of the scales
  std::set<std::string> quantized_;       // modules
  std::vector<std::string> unquantized_;  // linear modules left as they are, for the ignore list
  AtomicFolder folder_;
  std::unique_ptr<CheckpointWriter> writer_;
};

}  // namespace bise
