#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/jsonl.h"
#include "cli/loaded_model.h"
#include "engine/scorer.h"

namespace bise {
namespace {

std::vector<std::int32_t> read_tokens(const Json& row, const std::string& where, const LoadedModel& model) {
  if (row.contains("text") == row.contains("token_ids"))
    throw Error("a row holds either \"text\" or \"token_ids\"").at(where);
  std::vector<std::int32_t> ids;
  if (row.contains("text")) {
    ids = model.tokenizer().encode(require_string(row, "text", where),
                                   {.add_special_tokens = find_bool(row, "add_special_tokens", true, where)});
  } else {
    ids = read_token_ids(row["token_ids"], where + ": key \"token_ids\"", model.config().vocab_size);
  }
  if (ids.empty()) throw Error("nothing to score").at(where);
  return ids;
}

Json as_json(const std::vector<std::int32_t>& ids, const TokenScores& scores) {
  Json json = {{"token_ids", ids}, {"logprobs", Json::array()}, {"top", Json::array()}};
  for (const double logprob : scores.logprobs)
    json["logprobs"].push_back(std::isnan(logprob) ? Json() : Json(logprob));
  for (const auto& best : scores.top) {
    Json list = Json::array();
    for (const TokenLogprob& entry : best) list.push_back({entry.token, entry.logprob});
    json["top"].push_back(std::move(list));
  }
  return json;
}

}  // namespace

int run_score(const Arguments& arguments) {
  std::string folder, input = "-";
  std::int64_t top = 0;
  DeviceFlags device;
  Flags flags(
      "score",
      "Log-probabilities (natural) of texts: one JSON object a line, {\"text\"} or {\"token_ids\"}, in; "
      "{\"token_ids\", \"logprobs\", \"top\"} out.");
  flags.model(folder);
  flags.option("--input", input, "JSONL file; - = standard input");
  flags.option("--top", top, "also the most likely tokens after each position, this many");
  device.declare(flags);
  if (!flags.parse(arguments)) return 0;
  if (top < 0 || top > 1000)
    throw Error("--top is out of range").expected("0 to 1000").got(std::to_string(top));

  Runtime runtime(device);
  LoadedModel model(folder, runtime);
  for_each_jsonl(input, [&](const Json& row, const std::string& where) {
    const std::vector<std::vector<std::int32_t>> sequences = {read_tokens(row, where, model)};
    const auto scores = score(model.decoder(), runtime.pool(), sequences, top, model.cache_dtype(device));
    print_jsonl(as_json(sequences[0], scores[0]));
  });
  return 0;
}

}  // namespace bise
