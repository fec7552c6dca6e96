// Time to make one chunk of a stream: a token's detokenizing, stop check and JSON, without the socket. A
// server with 1,000 streams of 20 tokens a second makes 20,000 of them each second.
#include <benchmark/benchmark.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "serve/chat_answer.h"
#include "serve/completion_answer.h"
#include "tests/text/tiny_tokenizers.h"

namespace bise {
namespace {

struct Setting {
  Setting() {
    const auto path = std::filesystem::temp_directory_path() / "sse_chunk_benchmark_tekken.json";
    write_file(path, json_text(tiny::tekken_json()));
    model.tokenizer = Tokenizer::load_file(path);
    std::filesystem::remove(path);
    model.names = {"mistralai/Ministral-8B-Instruct-2410"};
    model.vocab_size = model.tokenizer->vocab_size();
    fields.request_id = "0123456789abcdef0123456789abcdef";
    fields.stream = true;
    prompt = model.tokenizer->encode("say something");
    answer = model.tokenizer->encode("The quick brown fox says \"hello\" to the lazy dog.\n", {false, false});
  }

  ServedModel model;
  GenerationFields fields;
  std::vector<std::int32_t> prompt, answer;
};

RequestOutput output_of(std::int32_t token, std::int64_t logprobs) {
  RequestOutput output;
  output.token_ids = {token};
  if (logprobs < 0) return output;
  PositionLogprobs position;
  position.token = {token, -0.1234567890123};
  position.rank = 1;
  for (std::int32_t i = 0; i < logprobs; ++i) position.top.push_back({token + i, -0.1234567890123 * (i + 1)});
  output.logprobs.push_back(std::move(position));
  return output;
}

void run(benchmark::State& state, const Setting& setting, Answer& answer, std::int64_t logprobs) {
  ChoiceStream choice(setting.fields, setting.model, setting.prompt, {});
  std::size_t at = 0, bytes = 0;
  for (auto _ : state) {
    choice.push(output_of(setting.answer[at++ % setting.answer.size()], logprobs));
    std::string frames;
    answer.append_delta(0, choice, frames);
    bytes += frames.size();
    benchmark::DoNotOptimize(frames);
  }
  state.counters["bytes/chunk"] = static_cast<double>(bytes) / static_cast<double>(state.iterations());
}

void chat_chunk(benchmark::State& state) {
  Setting setting;
  ChatRequest request;
  request.fields = setting.fields;
  request.prompt = setting.prompt;
  request.role = "assistant";
  request.logprobs = state.range(0) >= 0;
  request.top_logprobs = state.range(0);
  ChatAnswer answer(request, {}, 1700000000, setting.model);
  run(state, setting, answer, state.range(0));
}
BENCHMARK(chat_chunk)->ArgName("logprobs")->Arg(-1)->Arg(0)->Arg(5);

void chat_chunk_with_parsers(benchmark::State& state) {
  Setting setting;
  ChatRequest request;
  request.fields = setting.fields;
  request.prompt = setting.prompt;
  request.role = "assistant";
  ChatParsing parsing;
  parsing.reasoning = true;
  parsing.tools = ToolParser::Form::kMarked;
  ChatAnswer answer(request, parsing, 1700000000, setting.model);
  run(state, setting, answer, -1);
}
BENCHMARK(chat_chunk_with_parsers);

void completion_chunk(benchmark::State& state) {
  Setting setting;
  if (state.range(0) == 4) setting.fields.stop = {"\n\n", "User:", "###", "</answer>"};
  CompletionRequest request;
  request.fields = setting.fields;
  request.prompts.push_back({setting.prompt, ""});
  CompletionAnswer answer(request, 1700000000, setting.model);
  run(state, setting, answer, -1);
}
BENCHMARK(completion_chunk)->ArgName("stop strings")->Arg(0)->Arg(4);

}  // namespace
}  // namespace bise

BENCHMARK_MAIN();
