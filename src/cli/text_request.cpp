#include "cli/text_request.h"

#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "cli/jsonl.h"

namespace bise {
namespace {

const std::set<std::string> kFields = {"prompt",
                                       "messages",
                                       "token_ids",
                                       "tools",
                                       "max_tokens",
                                       "max_completion_tokens",
                                       "min_tokens",
                                       "temperature",
                                       "top_p",
                                       "top_k",
                                       "min_p",
                                       "seed",
                                       "stop",
                                       "stop_token_ids",
                                       "ignore_eos",
                                       "repetition_penalty",
                                       "presence_penalty",
                                       "frequency_penalty",
                                       "model"};

std::vector<std::string> read_stop(const Json& stop, const std::string& where) {
  if (stop.is_string()) return {stop.get<std::string>()};
  if (!stop.is_array())
    throw Error("wrong type").at(where + ": key \"stop\"").expected("a string or a list of strings");
  std::vector<std::string> strings;
  for (const Json& entry : stop) {
    if (!entry.is_string())
      throw Error("wrong type").at(where + ": key \"stop\"").expected("a list of strings");
    strings.push_back(entry.get<std::string>());
  }
  return strings;
}

void read_sampling(const Json& row, const std::string& where, SamplingParams& params) {
  params.max_tokens = find_int(row, "max_tokens", params.max_tokens, where);
  params.max_tokens = find_int(row, "max_completion_tokens", params.max_tokens, where);
  params.min_tokens = find_int(row, "min_tokens", params.min_tokens, where);
  params.temperature = find_number(row, "temperature", params.temperature, where);
  params.top_p = find_number(row, "top_p", params.top_p, where);
  params.top_k = find_int(row, "top_k", params.top_k, where);
  params.min_p = find_number(row, "min_p", params.min_p, where);
  params.repetition_penalty = find_number(row, "repetition_penalty", params.repetition_penalty, where);
  params.presence_penalty = find_number(row, "presence_penalty", params.presence_penalty, where);
  params.frequency_penalty = find_number(row, "frequency_penalty", params.frequency_penalty, where);
  if (row.contains("seed") && !row["seed"].is_null())
    params.seed = static_cast<std::uint64_t>(require_int(row, "seed", where));
  if (find_bool(row, "ignore_eos", false, where)) params.stop_token_ids.clear();
  if (row.contains("stop_token_ids") && !row["stop_token_ids"].is_null()) {
    for (const std::int32_t id : read_token_ids(row["stop_token_ids"], where + ": key \"stop_token_ids\""))
      params.stop_token_ids.push_back(id);
  }
}

std::vector<std::int32_t> read_prompt(const Json& row, const std::string& where, const Tokenizer& tokenizer,
                                      MessageEncoder& messages) {
  const int forms = row.contains("prompt") + row.contains("messages") + row.contains("token_ids");
  if (forms != 1)
    throw Error("a row holds exactly one of \"prompt\", \"messages\" and \"token_ids\"").at(where);
  if (row.contains("prompt")) return tokenizer.encode(require_string(row, "prompt", where));
  if (row.contains("token_ids")) return read_token_ids(row["token_ids"], where + ": key \"token_ids\"");
  const Json tools = row.contains("tools") ? row["tools"] : Json();
  return messages.encode(row["messages"], tools, true);
}

}  // namespace

void SamplingFlags::declare(Flags& flags) {
  flags.option("--max-tokens", max_tokens, "tokens to generate at most");
  flags.option("--temperature", temperature,
               "0 = the most likely token; -1 = as generation_config.json says, else 1");
  flags.option("--top-p", top_p,
               "keep the most likely tokens up to this sum; -1 = generation_config.json, else 1");
  flags.option("--top-k", top_k, "keep this many tokens; 0 = all, -1 = generation_config.json, else all");
  flags.option("--min-p", min_p, "drop tokens less likely than this share of the most likely one");
  flags.option("--repetition-penalty", repetition_penalty, "above 1: repeat less");
  flags.option("--seed", seed, "seed of the sampling; -1 = a random one");
  flags.option("--stop", stop, "end before this text; may be given several times");
}

SamplingParams SamplingFlags::params(const std::filesystem::path& checkpoint,
                                     std::vector<std::int32_t> eos) const {
  SamplingParams params;
  params.max_tokens = max_tokens;
  params.min_p = min_p;
  params.repetition_penalty = repetition_penalty;
  params.stop_token_ids = std::move(eos);
  const std::filesystem::path path = checkpoint / "generation_config.json";
  if (std::filesystem::exists(path)) {
    const Json config = read_json_file(path, 1 << 20);
    params.temperature = find_number(config, "temperature", 1, path.string());
    params.top_p = find_number(config, "top_p", 1, path.string());
    params.top_k = find_int(config, "top_k", 0, path.string());
  }
  if (temperature >= 0) params.temperature = temperature;
  if (top_p >= 0) params.top_p = top_p;
  if (top_k >= 0) params.top_k = top_k;
  if (seed >= 0) params.seed = static_cast<std::uint64_t>(seed);
  return params;
}

TextRequest parse_text_request(const Json& row, const std::string& where, const TextRequest& defaults,
                               const Tokenizer& tokenizer, MessageEncoder& messages) {
  for (const auto& [key, value] : row.items())
    if (!kFields.contains(key)) throw Error("unknown field \"{}\"", key).at(where);
  TextRequest result = defaults;
  result.request.prompt = read_prompt(row, where, tokenizer, messages);
  read_sampling(row, where, result.request.sampling);
  if (row.contains("stop") && !row["stop"].is_null()) result.stop = read_stop(row["stop"], where);
  std::erase(result.stop, "");
  return result;
}

MessageEncoder::MessageEncoder(const Tokenizer& tokenizer, std::filesystem::path checkpoint,
                               std::filesystem::path template_file)
    : tokenizer_(tokenizer), checkpoint_(std::move(checkpoint)), template_file_(std::move(template_file)) {}

std::vector<std::int32_t> MessageEncoder::encode(const Json& messages, const Json& tools,
                                                 bool add_generation_prompt) {
  if (!template_) template_ = ChatTemplate::load(checkpoint_, template_file_);
  ChatOptions options;
  options.add_generation_prompt = add_generation_prompt;
  return tokenizer_.encode_segments(template_->render(messages, tools, options));
}

AnswerText::AnswerText(const Tokenizer& tokenizer, std::vector<std::string> stop)
    : detokenizer_(tokenizer), stop_(std::move(stop)) {}

std::string AnswerText::push(std::int32_t token) {
  const std::string certain = stop_.push(detokenizer_.push(token));
  text_ += certain;
  return certain;
}

std::string AnswerText::finish() {
  std::string certain = stop_.push(detokenizer_.flush());
  certain += stop_.finish();
  text_ += certain;
  return certain;
}

}  // namespace bise
