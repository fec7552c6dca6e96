#include "cli/serve_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/error.h"
#include "cli/loaded_model.h"
#include "cli/version.h"
#include "engine/decoder_runner.h"
#include "engine/logprobs.h"
#include "engine/mock_runner.h"
#include "grammar/vocabulary.h"
#include "serve/server_log.h"

namespace bise {
namespace {

namespace fs = std::filesystem;

constexpr double kGiB = 1024.0 * 1024 * 1024;

void check_quantization(const ServeSettings& settings, const QuantizationConfig& config) {
  if (settings.quantization.empty() || settings.quantization == config.quant_method()) return;
  throw Error("bise serves a checkpoint as it is stored (bise quantize writes others)")
      .at("--quantization")
      .expected(config.quant_method().empty() ? "nothing: the checkpoint is not quantized"
                                              : config.quant_method())
      .got(settings.quantization);
}

// --generation-config: the file's object, or an empty one.
Json generation_config(const ServeSettings& settings) {
  if (settings.generation_config == "vllm") return Json::object();
  const bool own = settings.generation_config == "auto";
  const fs::path file =
      fs::path(own ? settings.model : settings.generation_config) / "generation_config.json";
  if (own && !fs::exists(file)) return Json::object();
  return read_json_file(file);
}

std::optional<double> find_double(const Json& config, const char* key) {
  if (!config.contains(key) || config[key].is_null()) return std::nullopt;
  return require_number(config, key, "generation config");
}

std::optional<std::int64_t> find_count(const Json& config, const char* key) {
  if (!config.contains(key) || config[key].is_null()) return std::nullopt;
  return require_int(config, key, "generation config");
}

}  // namespace

ServeModel::ServeModel(const ServeSettings& settings)
    : settings_(settings), folder_(settings.model), loader_(folder_) {
  check_quantization(settings_, loader_.quantization());
  text_ = std::async(std::launch::async, [this] { return load_text(); });
}

std::int64_t ServeModel::longest_context() const {
  std::int64_t longest = config().max_position_embeddings;
  if (settings_.disable_sliding_window)
    for (const std::int64_t window : config().sliding_window)
      if (window > 0) longest = std::min(longest, window);
  return longest;
}

std::string ServeModel::device_word() const {
  return runtime_ && runtime_->on_device() ? "GPU" : "CPU";
}

ServeModel::TextParts ServeModel::load_text() const {
  TextParts parts;
  const fs::path tokenizer_folder = settings_.tokenizer.empty() ? folder_ : fs::path(settings_.tokenizer);
  parts.tokenizer = Tokenizer::load(tokenizer_folder);
  parts.token_trie = TokenTrie::build(*parts.tokenizer, config().vocab_size);
  try {
    parts.chat_template =
        std::make_shared<ChatTemplate>(ChatTemplate::load(tokenizer_folder, settings_.chat_template));
  } catch (const Error& error) {
    // A template that was asked for must be there; without one of its own the model still completes.
    if (!settings_.chat_template.empty()) throw;
    parts.no_template = error.what();
  }
  return parts;
}

void ServeModel::load_weights(const EngineOptions& options) {
  const Stopwatch watch;
  server_info("Using the attention and linear kernels of {} for {}", runtime_->description(),
              main_scheme(loader_));
  weights_ = loader_.load_model(runtime_->backend());
  server_info("Loading weights took {:.2f} seconds", watch.seconds());
  DecoderLimits limits;
  limits.max_tokens = options.max_num_batched_tokens;
  limits.max_logit_rows = std::min<std::int64_t>(options.max_num_seqs, runtime_->on_device() ? 1024 : 128);
  decoder_ = std::make_unique<Decoder>(runtime_->backend(), config(), weights_, limits);
  server_info("Model loading took {:.2f} GiB memory and {:.6f} seconds",
              static_cast<double>(decoder_->memory_use(nullptr).weights) / kGiB, watch.seconds());
}

std::unique_ptr<ModelRunner> ServeModel::make_mock_runner(const EngineOptions& options) {
  MockRunnerOptions mock;
  mock.vocab_size = config().vocab_size;
  mock.block_size = block_size_ = settings_.block_size > 0 ? settings_.block_size : 16;
  mock.num_blocks = settings_.num_gpu_blocks_override > 0
                        ? settings_.num_gpu_blocks_override
                        : 1 + options.max_num_seqs * (options.max_model_len / mock.block_size + 1);
  mock.seconds_per_step = settings_.mock_token_seconds;
  mock.fail_after_steps = settings_.mock_fail_after_steps;
  // Control tokens stand at the front of the vocabularies; a drawn one would end or hide text.
  mock.first_token = std::min<std::int64_t>(1000, mock.vocab_size / 2);
  server_warning("--load-format mock: no weights are loaded, and tokens are random, one every {} seconds",
                 settings_.mock_token_seconds);
  return std::make_unique<MockRunner>(mock);
}

std::unique_ptr<ModelRunner> ServeModel::make_runner(EngineOptions& options) {
  options.max_num_seqs = settings_.max_num_seqs.value_or(256);
  options.max_num_batched_tokens =
      settings_.max_num_batched_tokens.value_or(std::max<std::int64_t>(2048, options.max_num_seqs));
  options.max_model_len = settings_.max_model_len != 0 ? settings_.max_model_len : longest_context();
  if (options.max_model_len > longest_context())
    throw Error("the model was made for shorter texts")
        .at("--max-model-len")
        .expected(fmt::format("at most {}", longest_context()))
        .got(std::to_string(options.max_model_len));
  if (settings_.load_format == "mock") {
    options.max_model_len = options.max_model_len > 0 ? options.max_model_len : longest_context();
    return make_mock_runner(options);
  }
  runtime_.emplace(settings_.device);
  if (runtime_->on_device() && !settings_.max_num_batched_tokens)
    options.max_num_batched_tokens = std::max(options.max_num_batched_tokens, runtime_->limits().max_tokens);
  MemoryOptions memory;
  memory.gpu_memory_utilization = settings_.gpu_memory_utilization;
  memory.kv_cache_memory_bytes = settings_.kv_cache_memory_bytes;
  memory.num_gpu_blocks_override = settings_.num_gpu_blocks_override;
  memory.max_model_len = options.max_model_len;
  memory.longest_context = longest_context();
  memory.max_num_batched_tokens = options.max_num_batched_tokens;
  const std::int64_t usable = check_memory_at_start(memory, runtime_->backend().memory());
  load_weights(options);
  const MemoryPlan plan = plan_cache(memory, options, usable);
  for (const std::string& line : plan.lines(device_word())) server_info("{}", line);
  options.max_model_len = plan.max_model_len;

  DecoderRunnerOptions runner;
  runner.num_blocks = plan.num_blocks;
  runner.kv_cache_dtype = cache_dtype();
  runner.max_num_seqs = options.max_num_seqs;
  runner.max_sequence_tokens = options.max_model_len + options.num_speculative_tokens;
  runner.num_speculative_tokens = options.num_speculative_tokens;
  runner.logprobs_mode = parse_logprobs_mode(settings_.logprobs_mode);
  auto made = std::make_unique<DecoderRunner>(*decoder_, runtime_->pool(), runner);
  block_size_ = made->block_size();
  if (settings_.block_size > 0 && settings_.block_size != block_size_)
    server_warning("--block-size {} has no effect: blocks of this device have {} tokens",
                   settings_.block_size, block_size_);
  return made;
}

// A forward pass of full size shows what a device needs besides the cache. The host's memory is planned with
// room to spare, and its arrays are known without touching them all: a few tokens, as a warm-up, are enough.
MemoryPlan ServeModel::plan_cache(const MemoryOptions& memory, const EngineOptions& options,
                                  std::int64_t usable) {
  const bool full = device_word() == "GPU" || settings_.gpu_memory_utilization;
  const std::int64_t longest = options.max_model_len > 0 ? options.max_model_len : longest_context();
  const std::int64_t non_kv =
      profile_run(*decoder_, full ? options.max_num_batched_tokens : std::min<std::int64_t>(32, longest),
                  longest, full ? options.max_num_seqs : 1);
  return plan_memory(memory, measure_kv_cost(*decoder_, cache_dtype()), usable, non_kv);
}

SamplingDefaults ServeModel::sampling_defaults() const {
  Json config = generation_config(settings_);
  const Json overrides = parse_json(settings_.override_generation_config, "--override-generation-config");
  if (!overrides.is_object())
    throw Error("wrong type").at("--override-generation-config").expected("a JSON object");
  config.update(overrides);
  SamplingDefaults defaults;
  defaults.temperature = find_double(config, "temperature");
  defaults.top_p = find_double(config, "top_p");
  defaults.min_p = find_double(config, "min_p");
  defaults.repetition_penalty = find_double(config, "repetition_penalty");
  defaults.top_k = find_count(config, "top_k");
  defaults.max_new_tokens = find_count(config, "max_new_tokens");
  return defaults;
}

ServedModel ServeModel::served_model(std::int64_t max_model_len) {
  TextParts text = text_.get();
  if (!text.chat_template)
    server_warning("Chat requests will be refused, there is no chat template: {}", text.no_template);
  ServedModel model;
  model.names = settings_.served_model_names;
  if (model.names.empty()) model.names = {settings_.model};
  model.root = settings_.model;
  model.created = std::time(nullptr);
  model.max_model_len = max_model_len;
  model.vocab_size = config().vocab_size;
  model.eos_token_ids.assign(config().eos_token_ids.begin(), config().eos_token_ids.end());
  if (model.eos_token_ids.empty() && text.tokenizer->eos_token_id())
    model.eos_token_ids.push_back(*text.tokenizer->eos_token_id());
  model.tokenizer = std::move(text.tokenizer);
  model.chat_template = std::move(text.chat_template);
  model.token_trie = std::move(text.token_trie);
  model.response_role = settings_.response_role;
  model.chat_output.enable_auto_tool_choice = settings_.enable_auto_tool_choice;
  model.chat_output.tool_call_parser = settings_.tool_call_parser;
  model.chat_output.reasoning_parser = settings_.reasoning_parser;
  model.chat_output.exclude_tools_when_tool_choice_none = settings_.exclude_tools_when_tool_choice_none;
  model.chat_output.emit_reasoning_content = settings_.emit_reasoning_content;
  model.defaults = sampling_defaults();
  model.max_logprobs = settings_.max_logprobs;
  model.stream_interval = settings_.stream_interval;
  model.trust_request_chat_template = settings_.trust_request_chat_template;
  model.enable_prompt_tokens_details = settings_.enable_prompt_tokens_details;
  model.enable_force_include_usage = settings_.enable_force_include_usage;
  model.priority_scheduling = settings_.engine.scheduling_policy == SchedulingPolicy::kPriority;
  model.return_tokens_as_token_ids = settings_.return_tokens_as_token_ids;
  return model;
}

}  // namespace bise
