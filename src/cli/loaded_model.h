// A checkpoint ready to run: weights on the device, decoder, tokenizer, and the end-of-sequence ids.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "cli/runtime.h"
#include "model/decoder.h"
#include "model/loader.h"
#include "text/tokenizer.h"

namespace bise {

class LoadedModel {
 public:
  // Shows progress on standard error. `runtime` outlives the model.
  LoadedModel(const std::filesystem::path& folder, Runtime& runtime, const DecoderLimits& limits = {});

  const std::filesystem::path& folder() const { return folder_; }
  const ModelLoader& loader() const { return loader_; }
  const ModelConfig& config() const { return loader_.config(); }
  Runtime& runtime() { return runtime_; }
  Decoder& decoder() { return *decoder_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  std::vector<std::int32_t> eos_token_ids() const;
  // Of the KV cache, as the flags and the checkpoint say.
  DType cache_dtype(const DeviceFlags& flags) const {
    return flags.cache_dtype(loader_.quantization().kv_cache_scheme());
  }
  double load_seconds() const { return load_seconds_; }
  // Bytes of weights that decoding one token reads: all layers and the output matrix.
  std::int64_t decode_weight_bytes() const;

 private:
  std::filesystem::path folder_;
  Runtime& runtime_;
  ModelLoader loader_;
  ModelWeights weights_;
  std::unique_ptr<Decoder> decoder_;
  std::unique_ptr<Tokenizer> tokenizer_;
  double load_seconds_ = 0;
};

// The scheme that most of the model's linear weights have, for tables: "W4A16 g64".
std::string main_scheme(const ModelLoader& model);

}  // namespace bise
