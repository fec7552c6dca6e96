#include "engine/generator.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/jsonl.h"
#include "cli/loaded_model.h"
#include "cli/text_request.h"

namespace bise {
namespace {

struct Options {
  std::string model, prompt, message, input, output, template_file;
  bool json = false;
  std::int64_t max_num_seqs = 16, max_model_len = 2048;
  SamplingFlags sampling;
  DeviceFlags device;
};

std::vector<TextRequest> read_requests(const Options& options, const LoadedModel& model) {
  MessageEncoder encoder(model.tokenizer(), options.model, options.template_file);
  TextRequest defaults;
  defaults.request.sampling = options.sampling.params(model.folder(), model.eos_token_ids());
  defaults.stop = options.sampling.stop;
  std::vector<TextRequest> requests;
  const auto add = [&](const Json& row, const std::string& where) {
    requests.push_back(parse_text_request(row, where, defaults, model.tokenizer(), encoder));
  };
  if (!options.prompt.empty()) add({{"prompt", options.prompt}}, "--prompt");
  if (!options.message.empty()) {
    Json messages = Json::array();
    messages.push_back({{"role", "user"}, {"content", options.message}});
    add({{"messages", messages}}, "--message");
  }
  if (!options.input.empty()) for_each_jsonl(options.input, add);
  if (requests.empty()) throw Error("nothing to generate").expected("--prompt, --message or --input");
  return requests;
}

// finish_reason as the OpenAI API names it; a stop string counts as "stop".
Json result_json(const TextRequest& request, const GenerationResult& result, const AnswerText& text) {
  const auto prompt = static_cast<std::int64_t>(request.request.prompt.size());
  const auto completion = static_cast<std::int64_t>(result.token_ids.size());
  return {{"text", text.text()},
          {"token_ids", result.token_ids},
          {"finish_reason", finish_reason_text(result.finish_reason)},
          {"usage",
           {{"prompt_tokens", prompt},
            {"completion_tokens", completion},
            {"total_tokens", prompt + completion}}}};
}

void check_admitted(const Generator& generator, const std::vector<TextRequest>& requests) {
  for (std::size_t i = 0; i < requests.size(); ++i)
    if (const Admission admission = generator.admission(requests[i].request);
        admission != Admission::kAccepted)
      throw Error("request {} cannot run: {}", i + 1, admission_text(admission));
}

void write_results(const Options& options, const std::vector<TextRequest>& requests,
                   const std::vector<GenerationResult>& results, const std::vector<AnswerText>& texts) {
  std::string lines;
  for (std::size_t i = 0; i < requests.size(); ++i)
    lines += json_text(result_json(requests[i], results[i], texts[i])) + "\n";
  if (options.output.empty()) {
    fmt::print("{}", lines);
  } else {
    write_file(options.output, lines);
  }
}

}  // namespace

int run_generate(const Arguments& arguments) {
  Options options;
  Flags flags("generate", "Complete one prompt, or a JSONL file of prompts together.");
  flags.model(options.model);
  flags.option("--prompt", options.prompt, "text to continue");
  flags.option("--message", options.message, "a user's message, put through the chat template");
  flags.option("--input", options.input,
               "JSONL rows {\"prompt\" | \"messages\" | \"token_ids\", sampling fields}; - = standard input");
  flags.option("--output", options.output, "JSONL file for the results instead of standard output");
  flags.option("--chat-template", options.template_file, "Jinja file instead of the checkpoint's template");
  flags.option("--max-num-seqs", options.max_num_seqs, "prompts that run at the same time");
  flags.option("--max-model-len", options.max_model_len, "tokens of prompt and answer together");
  flags.flag("--json", options.json, "print JSON lines for a single prompt too");
  options.sampling.declare(flags);
  options.device.declare(flags);
  if (!flags.parse(arguments)) return 0;

  Runtime runtime(options.device);
  LoadedModel model(options.model, runtime);
  const std::vector<TextRequest> requests = read_requests(options, model);
  GeneratorOptions limits;
  limits.max_num_seqs = std::min(options.max_num_seqs, static_cast<std::int64_t>(requests.size()));
  limits.max_model_len = options.max_model_len;
  limits.kv_cache_dtype = model.cache_dtype(options.device);
  Generator generator(model.decoder(), runtime.pool(), limits);
  check_admitted(generator, requests);

  const bool stream = options.input.empty() && options.output.empty() && !options.json;
  std::vector<GenerationRequest> tokens;
  std::vector<AnswerText> texts;
  for (const TextRequest& request : requests) {
    tokens.push_back(request.request);
    texts.emplace_back(model.tokenizer(), request.stop);
  }
  const auto show = [stream](const std::string& text) {
    if (!stream) return;
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  };
  const auto results = generator.generate(tokens, [&](std::size_t request, std::int32_t token) {
    show(texts[request].push(token));
    return !texts[request].stopped();
  });
  for (AnswerText& text : texts) show(text.finish());
  if (stream) {
    show("\n");
  } else {
    write_results(options, requests, results, texts);
  }
  return 0;
}

}  // namespace bise
