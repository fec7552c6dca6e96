#include "serve/openai_service.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "serve/api_error.h"
#include "serve/chat_answer.h"
#include "serve/completion_answer.h"
#include "serve/generation_call.h"
#include "serve/request_body.h"
#include "serve/tokenize_routes.h"
#include "serve/tool_constraint.h"

namespace bise {
namespace {

// Bodies above this are read by the worker for slow work: they would keep the streams waiting.
constexpr std::size_t kLargeBody = 128 << 10;
constexpr std::int64_t kMaxChoices = 16384;  // of one request: prompts x n

std::int64_t unix_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

void respond_json(HttpExchange& exchange, std::string body) {
  HttpResponse response;
  response.headers.set("content-type", "application/json");
  response.body = std::move(body);
  exchange.respond(std::move(response));
}

ServedModel with_longest_token(ServedModel model) {
  for (std::int32_t id = 0; id < model.tokenizer->vocab_size(); ++id)
    model.longest_token_bytes = std::max(model.longest_token_bytes,
                                         static_cast<std::int64_t>(model.tokenizer->token_bytes(id).size()));
  return model;
}

// Runs `work` and answers what it throws.
template <class Work>
void answer_errors(HttpExchange& exchange, Work&& work) {
  try {
    work();
  } catch (const ApiError& error) {
    exchange.respond(error.response());
  } catch (const Error& error) {
    exchange.respond(bad_request(error.what()).response());
  } catch (const std::exception& problem) {
    log_line(LogLevel::kError, fmt::format("{} failed: {}", exchange.request().path, problem.what()));
    exchange.respond(internal_error("The server could not process the request.").response());
  }
}

}  // namespace

struct OpenAiService::State {
  State(const ServedModel& served, Engine& engine, WorkerPool& workers, RequestObserver& observer)
      : model(with_longest_token(served)), context{model, engine, workers, observer} {}

  // Reads the body on a worker and goes on with `work`, whose errors are answered.
  template <class Work>
  void with_body(Exchange exchange, Work work) {
    const double arrival = engine_clock_seconds();
    std::string body = exchange->take_body();
    WorkerPool& pool = body.size() > kLargeBody ? slow : context.workers;
    pool.post([this, exchange = std::move(exchange), body = std::move(body), arrival, work] {
      answer_errors(*exchange,
                    [&] { work(*this, exchange, parse_request_body(exchange->request(), body), arrival); });
    });
  }

  // Starts `call`, after its constraint is compiled where it has one.
  void start(Exchange exchange, std::shared_ptr<GenerationCall> call, std::optional<ConstraintSpec> spec,
             ConstraintStart begin) {
    if (!spec) return call->start(nullptr);
    slow.post([this, exchange = std::move(exchange), call = std::move(call), spec = std::move(*spec),
               begin = std::move(begin)] {
      answer_errors(*exchange, [&] {
        if (!exchange->disconnected()) call->start(compile_constraint(spec, begin, model));
      });
    });
  }

  void complete(Exchange exchange, const Json& body, double arrival);
  void chat(Exchange exchange, const Json& body, double arrival);

  const ServedModel model;
  const CallContext context;
  WorkerPool slow{1};  // grammars and large bodies; stopped before what it uses
};

void OpenAiService::State::complete(Exchange exchange, const Json& body, double arrival) {
  auto request =
      std::make_shared<const CompletionRequest>(read_completion_request(body, exchange->request(), model));
  const GenerationFields& fields = request->fields;
  if (static_cast<std::int64_t>(request->prompts.size()) * fields.n > kMaxChoices)
    throw field_error(fmt::format("prompts times n must be at most {}.", kMaxChoices), "n",
                      fmt::format("{}", fields.n));
  std::vector<std::span<const std::int32_t>> prompts;
  for (const Prompt& prompt : request->prompts) prompts.push_back(prompt.token_ids);
  auto answer = std::make_unique<CompletionAnswer>(*request, unix_seconds(), model);
  auto call =
      std::make_shared<GenerationCall>(context, exchange, arrival, request, fields, std::move(prompts),
                                       std::vector<std::int32_t>(), std::move(answer));
  start(std::move(exchange), std::move(call), fields.constraint, {});
}

void OpenAiService::State::chat(Exchange exchange, const Json& body, double arrival) {
  auto request = std::make_shared<ChatRequest>(read_chat_request(body, exchange->request(), model));
  const ChatParsing parsing = chat_parsing(*request, model);
  std::optional<ConstraintSpec> spec = request->fields.constraint;
  ConstraintStart begin;
  if (parsing.reasoning) begin = thinking_start(parsing.thinking, *model.tokenizer);
  if (auto tools = tool_constraint(*request, parsing, model)) {
    if (spec && request->tool_choice.mode == ToolChoice::Mode::kNamed)
      throw bad_request("You can only either use constraints for structured outputs or tools, not both.",
                        "tool_choice");
    spec = std::move(tools->spec);
    begin.prefix = std::move(tools->prefix);
  }
  request->conversation = {};  // the prompt says it all: a long answer need not keep the messages
  auto answer = std::make_unique<ChatAnswer>(*request, parsing, unix_seconds(), model);
  auto call = std::make_shared<GenerationCall>(context, exchange, arrival, request, request->fields,
                                               std::vector<std::span<const std::int32_t>>{request->prompt},
                                               parsing.visible, std::move(answer));
  start(std::move(exchange), std::move(call), std::move(spec), std::move(begin));
}

OpenAiService::OpenAiService(const ServedModel& model, Engine& engine, WorkerPool& workers,
                             RequestObserver& observer)
    : state_(std::make_unique<State>(model, engine, workers, observer)) {}

OpenAiService::~OpenAiService() = default;

void OpenAiService::chat_completions(Exchange exchange) {
  state_->with_body(std::move(exchange), [](State& state, Exchange to, const Json& body, double arrival) {
    state.chat(std::move(to), body, arrival);
  });
}

void OpenAiService::completions(Exchange exchange) {
  state_->with_body(std::move(exchange), [](State& state, Exchange to, const Json& body, double arrival) {
    state.complete(std::move(to), body, arrival);
  });
}

void OpenAiService::tokenize(Exchange exchange) {
  state_->with_body(std::move(exchange), [](State& state, Exchange to, const Json& body, double) {
    respond_json(*to, tokenize_answer(body, state.model));
  });
}

void OpenAiService::detokenize(Exchange exchange) {
  state_->with_body(std::move(exchange), [](State& state, Exchange to, const Json& body, double) {
    respond_json(*to, detokenize_answer(body, state.model));
  });
}

void OpenAiService::models(Exchange exchange) {
  respond_json(*exchange, models_answer(state_->model));
}

}  // namespace bise
