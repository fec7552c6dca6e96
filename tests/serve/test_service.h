// The service on the real engine, with a runner that says what a test wants: a model without weights whose
// every token is one byte (and "ab", " ab", "abc", "é").
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "base/files.h"
#include "engine/engine.h"
#include "engine/logprobs.h"
#include "engine/model_runner.h"
#include "grammar/vocabulary.h"
#include "serve/openai_service.h"
#include "tests/serve/waiting_exchange.h"
#include "tests/test_support.h"
#include "tests/text/tiny_tokenizers.h"

namespace bise {

// Control tokens of a tokenizer of version 13, beside those of version 3.
inline Json tekken_with_marks() {
  Json json = tiny::tekken_json();
  json["config"]["version"] = "v13";
  json["special_tokens"] = Json::array();
  const char* names[] = {"<unk>",
                         "<s>",
                         "</s>",
                         "[INST]",
                         "[/INST]",
                         "[AVAILABLE_TOOLS]",
                         "[/AVAILABLE_TOOLS]",
                         "[TOOL_RESULTS]",
                         "[/TOOL_RESULTS]",
                         "[TOOL_CALLS]",
                         "[ARGS]",
                         "<pad>",
                         "[CALL_ID]",
                         "[THINK]",
                         "[/THINK]",
                         "[MIDDLE]",
                         "[SUFFIX]",
                         "[SYSTEM_PROMPT]",
                         "[/SYSTEM_PROMPT]",
                         "[TOOL_CONTENT]"};
  int rank = 0;
  for (const char* name : names)
    json["special_tokens"].push_back({{"rank", rank++}, {"token_str", name}, {"is_control", true}});
  return json;
}

// Draws the tokens of `script`, then EOS, where the sampler lets it: its token has logit 0, all others -1000.
class ScriptedRunner : public ModelRunner {
 public:
  using Script = std::function<std::vector<std::int32_t>(std::span<const std::int32_t> prompt)>;
  ScriptedRunner(std::int64_t vocab_size, Script script, std::function<void()> before_step)
      : vocab_size_(vocab_size),
        script_(std::move(script)),
        before_step_(std::move(before_step)),
        scratch_(vocab_size),
        logprobs_(vocab_size) {
    layout_.groups.push_back({0});
    layout_.layers.push_back({0, 0});
    layout_.slots_per_block = 1;
  }

  std::int64_t vocab_size() const override { return vocab_size_; }
  std::int64_t num_blocks() const override { return 2048; }
  std::int64_t block_size() const override { return 16; }
  const KvLayout& kv_layout() const override { return layout_; }
  void launch(std::span<const StepSequence> sequences) override {
    before_step_();
    results_.assign(sequences.size(), {});
    for (std::size_t i = 0; i < sequences.size(); ++i) run(sequences[i], results_[i]);
  }
  std::span<const StepResult> results() override { return results_; }

 private:
  std::vector<float> logits(std::int32_t token) const {
    std::vector<float> row(static_cast<std::size_t>(vocab_size_), -1000.0f);
    row[static_cast<std::size_t>(token)] = 0;
    return row;
  }
  void run(const StepSequence& sequence, StepResult& result) {
    const SamplingParams& params = sequence.sampler->params();
    for (std::int64_t row = 0; row < sequence.score_rows; ++row) {
      const std::int32_t next = sequence.history[static_cast<std::size_t>(sequence.computed + row + 1)];
      position_logprobs(logits(next), next, {params.prompt_logprobs, {}, false}, logprobs_,
                        result.prompt_logprobs.emplace_back());
    }
    if (!sequence.sample) return;
    const auto script = script_(sequence.history.first(static_cast<std::size_t>(sequence.prompt_tokens)));
    const auto at = sequence.history.size() - static_cast<std::size_t>(sequence.prompt_tokens);
    if (at < script.size() && script[at] < 0) throw std::runtime_error("the device is gone");
    const auto row = logits(at < script.size() ? script[at] : 2);
    const std::int32_t token = sequence.sampler->sample(row, scratch_);
    if (params.logprobs != SamplingParams::kNoLogprobs)
      position_logprobs(row, token, {params.logprobs, params.logprob_token_ids, false}, logprobs_,
                        result.logprobs.emplace_back());
    result.token_ids.push_back(token);
    sequence.sampler->accept(token);
  }

  std::int64_t vocab_size_;
  Script script_;
  std::function<void()> before_step_;
  KvLayout layout_;
  Sampler::Scratch scratch_;
  LogprobsScratch logprobs_;
  std::vector<StepResult> results_;
};

struct CountingObserver : RequestObserver {
  void on_accepted(std::int64_t, std::int64_t) override { ++accepted; }
  void on_first_token(double seconds) override {
    ++first_tokens;
    if (seconds < 0) ++negative;
  }
  void on_next_tokens(double seconds) override {
    if (seconds < 0) ++negative;
  }
  void on_finished(const FinishedSequence& sequence) override {
    const std::lock_guard lock(mutex);
    finished.push_back(sequence);
  }
  void on_rejected(Admission) override { ++rejected; }
  std::size_t finished_count() {
    const std::lock_guard lock(mutex);
    return finished.size();
  }

  std::atomic<int> accepted{0}, first_tokens{0}, rejected{0}, negative{0};
  std::mutex mutex;
  std::vector<FinishedSequence> finished;
};

struct TestServiceOptions {
  int version = 3;  // of the tokenizer and the chat format: 3 or 13
  std::string script = "hello";
  ScriptedRunner::Script script_ids = {};  // instead of `script`
  double seconds_per_step = 0;
  int workers = 1;
  // Each step waits until the worker has dealt with what came before: a frame for each token.
  bool lockstep = false;
  EngineOptions engine = {};
  std::function<void(ServedModel&)> change = {};
};

class TestService {
 public:
  explicit TestService(TestServiceOptions options = {}) : workers_(options.workers) {
    const auto path = folder_.path() / "tekken.json";
    write_file(path, json_text(options.version == 3 ? tiny::tekken_json() : tekken_with_marks()));
    tokenizer_ = Tokenizer::load_file(path);
    model_.names = {"tiny", "alias"};
    model_.root = "org/tiny";
    model_.created = 1700000000;
    model_.max_model_len = 512;
    model_.vocab_size = tokenizer_->vocab_size();
    model_.eos_token_ids = {2};
    model_.tokenizer = tokenizer_;
    model_.chat_template = std::make_shared<const ChatTemplate>(ChatTemplate::mistral(options.version));
    model_.token_trie = TokenTrie::build(*tokenizer_, model_.vocab_size);
    model_.chat_output.enable_auto_tool_choice = true;
    model_.chat_output.tool_call_parser = "mistral";
    if (options.change) options.change(model_);
    options.engine.max_model_len = model_.max_model_len;
    auto script = options.script_ids;
    if (!script)
      script = [ids = tokenizer_->encode(options.script, {.add_special_tokens = false})](auto) {
        return ids;
      };
    auto wait = [this, seconds = options.seconds_per_step, lockstep = options.lockstep] {
      if (seconds > 0) std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
      if (!lockstep) return;
      std::promise<void> idle;
      workers_.post([&] { idle.set_value(); });
      idle.get_future().wait();
    };
    engine_ = std::make_unique<Engine>(
        std::make_unique<ScriptedRunner>(model_.vocab_size, std::move(script), std::move(wait)),
        options.engine);
    service_ = std::make_unique<OpenAiService>(model_, *engine_, workers_, observer);
  }
  ~TestService() { engine_->stop(0); }

  const Tokenizer& tokenizer() const { return *tokenizer_; }
  Engine& engine() { return *engine_; }
  OpenAiService& service() { return *service_; }

  std::shared_ptr<WaitingExchange> begin(const std::string& path, std::string body,
                                         HttpHeaders headers = {}) {
    if (!headers.find("content-type")) headers.set("content-type", "application/json");
    HttpRequest request{"POST", path, "", std::move(headers), std::move(body), "test"};
    auto exchange = std::make_shared<WaitingExchange>(std::move(request));
    if (path == "/v1/chat/completions") service_->chat_completions(exchange);
    if (path == "/v1/completions") service_->completions(exchange);
    if (path == "/tokenize") service_->tokenize(exchange);
    if (path == "/detokenize") service_->detokenize(exchange);
    if (path == "/v1/models") service_->models(exchange);
    return exchange;
  }
  HttpResponse ask(const std::string& path, std::string body, HttpHeaders headers = {}) {
    const auto exchange = begin(path, std::move(body), std::move(headers));
    if (!exchange->wait()) return {0, {}, "no answer"};
    return exchange->response();
  }

  CountingObserver observer;

 private:
  ScratchFolder folder_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  ServedModel model_;
  WorkerPool workers_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<OpenAiService> service_;
};

// `text` with what differs from run to run made constant: ids, times.
inline std::string without_time(std::string text) {
  const std::string key = "\"created\":";
  for (std::size_t at = text.find(key); at != std::string::npos; at = text.find(key, at + 1)) {
    const std::size_t begin = at + key.size();
    text.replace(begin, text.find_first_not_of("0123456789", begin) - begin, "0");
  }
  return text;
}

// The JSON of each frame of a stream, without the last, [DONE], which must be there.
inline std::vector<Json> frames_of(const std::string& stream) {
  std::vector<Json> frames;
  bool done = false;
  for (std::size_t at = 0; at < stream.size();) {
    const std::size_t end = stream.find("\n\n", at);
    const std::string frame = stream.substr(at, end - at);
    if (end == std::string::npos || !frame.starts_with("data: ") || done)
      throw std::runtime_error("not a stream: " + stream.substr(at, 100));
    done = frame == "data: [DONE]";
    if (!done) frames.push_back(Json::parse(frame.substr(6)));
    at = end + 2;
  }
  if (!done) throw std::runtime_error("the stream does not end with [DONE]");
  return frames;
}

}  // namespace bise
