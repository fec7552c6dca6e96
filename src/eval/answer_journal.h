// The answers of an evaluation as they come, in a file of JSON lines, so that an interrupted run goes on
// where it ended. One process writes it at a time; one thread.
#pragma once

#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include "base/json.h"
#include "eval/language_model.h"

namespace bise {

class AnswerJournal {
 public:
  // Reads what the file has; a last line that was not written to its end is dropped. `run` names all that the
  // answers depend on beside the request (model, numbers, limits): a file of another run is begun anew.
  // Throws Error for a file that is none of ours.
  AnswerJournal(std::filesystem::path path, const std::string& run);
  ~AnswerJournal();
  AnswerJournal(const AnswerJournal&) = delete;
  AnswerJournal& operator=(const AnswerJournal&) = delete;

  std::size_t size() const { return likelihoods_.size() + texts_.size(); }
  std::optional<Likelihood> find(const LikelihoodRequest& request) const;
  std::optional<std::string> find(const GenerateRequest& request) const;
  // Throws Error when the disk is full.
  void add(const LikelihoodRequest& request, const Likelihood& answer);
  void add(const GenerateRequest& request, const std::string& answer);
  // The run is complete: the file is not needed any more.
  void remove();

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  void read(const std::string& text, const std::string& run);
  void write(const Json& line);

  std::filesystem::path path_;
  std::unordered_map<std::string, Likelihood> likelihoods_;
  std::unordered_map<std::string, std::string> texts_;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace bise
