#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/jsonl.h"
#include "cli/text_request.h"

namespace bise {
namespace {

Json encode_row(const Json& row, const std::string& where, const Tokenizer& tokenizer,
                MessageEncoder& messages) {
  if (row.contains("text") == row.contains("messages"))
    throw Error("a row holds either \"text\" or \"messages\"").at(where);
  if (row.contains("text"))
    return {{"token_ids",
             tokenizer.encode(require_string(row, "text", where),
                              {.add_special_tokens = find_bool(row, "add_special_tokens", true, where),
                               .parse_special = find_bool(row, "parse_special", true, where)})}};
  const Json tools = row.contains("tools") ? row["tools"] : Json();
  const bool prompt = find_bool(row, "add_generation_prompt", true, where);
  return {{"token_ids", messages.encode(row["messages"], tools, prompt)}};
}

Json decode_row(const Json& row, const std::string& where, const Tokenizer& tokenizer) {
  const std::vector<std::int32_t> ids =
      read_token_ids(require(row, "token_ids", where), where + ": key \"token_ids\"", tokenizer.vocab_size());
  return {{"text", tokenizer.decode(ids, find_bool(row, "skip_special_tokens", true, where))}};
}

}  // namespace

int run_tokenize(const Arguments& arguments) {
  std::string folder, input = "-", template_file;
  bool decode = false;
  Flags flags(
      "tokenize",
      "Text to token ids: one JSON object a line, {\"text\"} or {\"messages\"}, in; {\"token_ids\"} out. "
      "With --decode the other way.");
  flags.model(folder);
  flags.option("--input", input, "JSONL file; - = standard input");
  flags.option("--chat-template", template_file, "Jinja file instead of the checkpoint's template");
  flags.flag("--decode", decode, "{\"token_ids\"} in, {\"text\"} out");
  if (!flags.parse(arguments)) return 0;

  const std::unique_ptr<Tokenizer> tokenizer = Tokenizer::load(folder);
  MessageEncoder messages(*tokenizer, folder, template_file);
  for_each_jsonl(input, [&](const Json& row, const std::string& where) {
    print_jsonl(decode ? decode_row(row, where, *tokenizer) : encode_row(row, where, *tokenizer, messages));
  });
  return 0;
}

}  // namespace bise
