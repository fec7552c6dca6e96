#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/loaded_model.h"
#include "cli/text_request.h"
#include "engine/generator.h"

namespace bise {
namespace {

// Set by Ctrl-C: ends the answer that is being written, never the program.
std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free);

// While it lives, Ctrl-C only sets `interrupted` (and makes a waiting read return).
class InterruptHandler {
 public:
  InterruptHandler() {
    struct sigaction action {};
    action.sa_handler = [](int) { interrupted = true; };
    sigaction(SIGINT, &action, &previous_);
  }
  ~InterruptHandler() { sigaction(SIGINT, &previous_, nullptr); }

 private:
  struct sigaction previous_ {};
};

// Reads a line; false at the end of the input (Ctrl-D).
bool read_line(bool terminal, std::string& line) {
  while (true) {
    if (terminal) fmt::print("> ");
    std::fflush(stdout);
    if (std::getline(std::cin, line)) return true;
    if (!interrupted.exchange(false)) return false;
    std::cin.clear();
    clearerr(stdin);
    fmt::print("\n(Ctrl-D ends the conversation)\n");
  }
}

class Conversation {
 public:
  Conversation(LoadedModel& model, const std::string& template_file, const SamplingParams& sampling,
               std::vector<std::string> stop, const GeneratorOptions& limits)
      : model_(model),
        encoder_(model.tokenizer(), model.folder(), template_file),
        sampling_(sampling),
        stop_(std::move(stop)),
        generator_(model.decoder(), model.runtime().pool(), limits) {}

  void add(const std::string& role, const std::string& content) {
    messages_.push_back({{"role", role}, {"content", content}});
  }

  // Streams the answer to the messages so far and adds it to them. An answer that was interrupted stays in
  // the history as far as it came.
  void answer() {
    GenerationRequest request;
    request.prompt = encoder_.encode(messages_, Json(), true);
    request.sampling = sampling_;
    if (const Admission admission = generator_.admission(request); admission != Admission::kAccepted)
      throw Error("the conversation cannot go on: {} (see --max-model-len)", admission_text(admission));
    AnswerText text(model_.tokenizer(), stop_);
    interrupted = false;
    const auto show = [](const std::string& part) {
      std::fwrite(part.data(), 1, part.size(), stdout);
      std::fflush(stdout);
    };
    generator_.generate(
        {&request, 1},
        [&](std::size_t, std::int32_t token) {
          show(text.push(token));
          return !text.stopped();
        },
        &interrupted);
    show(text.finish());
    show(interrupted.exchange(false) ? " [stopped]\n" : "\n");
    add("assistant", text.text());
  }

 private:
  LoadedModel& model_;
  MessageEncoder encoder_;
  SamplingParams sampling_;
  std::vector<std::string> stop_;
  Generator generator_;
  Json messages_ = Json::array();
};

}  // namespace

int run_chat(const Arguments& arguments) {
  std::string folder, system, template_file;
  std::int64_t max_model_len = 2048;
  SamplingFlags sampling;
  DeviceFlags device;
  Flags flags("chat",
              "A conversation in the terminal. Ctrl-C stops an answer, Ctrl-D ends the conversation.");
  flags.model(folder);
  flags.option("--system", system, "system message");
  flags.option("--chat-template", template_file, "Jinja file instead of the checkpoint's template");
  flags.option("--max-model-len", max_model_len, "tokens that the conversation may have");
  sampling.declare(flags);
  device.declare(flags);
  if (!flags.parse(arguments)) return 0;

  Runtime runtime(device);
  LoadedModel model(folder, runtime);
  GeneratorOptions limits;
  limits.max_num_seqs = 1;
  limits.max_model_len = max_model_len;
  limits.kv_cache_dtype = model.cache_dtype(device);
  Conversation conversation(model, template_file, sampling.params(folder, model.eos_token_ids()),
                            sampling.stop, limits);
  if (!system.empty()) conversation.add("system", system);

  const InterruptHandler handler;
  const bool terminal = isatty(STDIN_FILENO) == 1;
  for (std::string line; read_line(terminal, line);) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    conversation.add("user", line);
    conversation.answer();
  }
  if (terminal) fmt::print("\n");
  return 0;
}

}  // namespace bise
