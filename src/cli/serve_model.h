// What `bise serve` loads: weights, tokenizer, chat template, token trie, and the runner that computes with
// them. Text parts load on a thread of their own while the weights are prepared. Lives as long as the server.
#pragma once

#include <filesystem>
#include <future>
#include <memory>
#include <optional>

#include "cli/runtime.h"
#include "cli/serve_flags.h"
#include "engine/memory_plan.h"
#include "engine/model_runner.h"
#include "model/decoder.h"
#include "model/loader.h"
#include "serve/served_model.h"

namespace bise {

class ServeModel {
 public:
  // Opens the checkpoint and starts to load its text parts. Throws Error for a folder that is no checkpoint,
  // or that contradicts the settings.
  explicit ServeModel(const ServeSettings& settings);

  const ModelConfig& config() const { return loader_.config(); }
  // The longest context the checkpoint (or, with --disable-sliding-window, its window) allows.
  std::int64_t longest_context() const;

  // Loads the weights, decides how large the cache can be, makes it, and prints vLLM's lines about each.
  // Completes `options`: max_model_len, max_num_seqs, max_num_batched_tokens.
  std::unique_ptr<ModelRunner> make_runner(EngineOptions& options);
  // Waits for the text parts. `max_model_len` as the engine has it.
  ServedModel served_model(std::int64_t max_model_len);

  // "CPU" or "GPU", for lines about the cache.
  std::string device_word() const;
  std::int64_t block_size() const { return block_size_; }

 private:
  struct TextParts {
    std::shared_ptr<const Tokenizer> tokenizer;
    std::shared_ptr<const ChatTemplate> chat_template;
    std::shared_ptr<const TokenTrie> token_trie;
    std::string no_template;  // why chat_template is null
  };
  TextParts load_text() const;
  void load_weights(const EngineOptions& options);
  DType cache_dtype() const { return settings_.device.cache_dtype(loader_.quantization().kv_cache_scheme()); }
  MemoryPlan plan_cache(const MemoryOptions& memory, const EngineOptions& options, std::int64_t usable);
  std::unique_ptr<ModelRunner> make_mock_runner(const EngineOptions& options);
  SamplingDefaults sampling_defaults() const;

  const ServeSettings& settings_;
  std::filesystem::path folder_;
  ModelLoader loader_;
  std::optional<Runtime> runtime_;
  ModelWeights weights_;
  std::unique_ptr<Decoder> decoder_;
  std::int64_t block_size_ = 16;
  std::future<TextParts> text_;  // last: its thread reads the members above
};

}  // namespace bise
