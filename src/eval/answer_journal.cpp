#include "eval/answer_journal.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/digest.h"
#include "base/error.h"
#include "base/files.h"

namespace bise {
namespace {

namespace fs = std::filesystem;

std::string key_of(const LikelihoodRequest& request) {
  return sha256_hex(
      json_text(Json{std::string(request.context), std::string(request.continuation), request.rolling}));
}

std::string key_of(const GenerateRequest& request) {
  return sha256_hex(json_text(Json{std::string(request.context), request.until, request.max_gen_toks,
                                   request.temperature, request.top_p}));
}

}  // namespace

AnswerJournal::AnswerJournal(fs::path path, const std::string& run) : path_(std::move(path)) {
  if (fs::exists(path_)) read(read_file(path_), run);
  if (path_.has_parent_path()) fs::create_directories(path_.parent_path());
  // What was read is written again, without a torn end; then the file grows line by line.
  std::string text = json_text(Json{{"run", run}}) + "\n";
  for (const auto& [key, answer] : likelihoods_)
    text += json_text(Json{{"key", key}, {"logprob", answer.logprob}, {"greedy", answer.greedy}}) + "\n";
  for (const auto& [key, answer] : texts_) text += json_text(Json{{"key", key}, {"text", answer}}) + "\n";
  write_file(path_, text);
  file_.reset(std::fopen(path_.c_str(), "a"));
  if (!file_) throw Error("cannot write: {}", std::strerror(errno)).at(path_.string());
}

AnswerJournal::~AnswerJournal() = default;

void AnswerJournal::read(const std::string& text, const std::string& run) {
  std::size_t number = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.find('\n', at);
    if (end == std::string::npos) return;  // torn
    const std::string where = fmt::format("{}: line {}", path_.string(), ++number);
    const Json line = parse_json(std::string_view(text).substr(at, end - at), where);
    at = end + 1;
    if (number == 1) {
      if (require_string(line, "run", where) != run) return;
      continue;
    }
    const std::string key = require_string(line, "key", where);
    if (line.contains("text")) {
      texts_[key] = require_string(line, "text", where);
    } else {
      likelihoods_[key] = {require_number(line, "logprob", where), find_bool(line, "greedy", false, where)};
    }
  }
}

void AnswerJournal::write(const Json& line) {
  const std::string text = json_text(line) + "\n";
  if (std::fwrite(text.data(), 1, text.size(), file_.get()) != text.size() || std::fflush(file_.get()) != 0)
    throw Error("cannot write: {}", std::strerror(errno)).at(path_.string());
}

std::optional<Likelihood> AnswerJournal::find(const LikelihoodRequest& request) const {
  const auto found = likelihoods_.find(key_of(request));
  return found == likelihoods_.end() ? std::nullopt : std::optional(found->second);
}

std::optional<std::string> AnswerJournal::find(const GenerateRequest& request) const {
  const auto found = texts_.find(key_of(request));
  return found == texts_.end() ? std::nullopt : std::optional(found->second);
}

void AnswerJournal::add(const LikelihoodRequest& request, const Likelihood& answer) {
  write({{"key", key_of(request)}, {"logprob", answer.logprob}, {"greedy", answer.greedy}});
}

void AnswerJournal::add(const GenerateRequest& request, const std::string& answer) {
  write({{"key", key_of(request)}, {"text", answer}});
}

void AnswerJournal::remove() {
  file_.reset();
  fs::remove(path_);
}

}  // namespace bise
