#include "cli/calibration.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "base/progress.h"
#include "cli/jsonl.h"
#include "cli/loaded_model.h"
#include "cli/text_request.h"
#include "engine/generator.h"

namespace bise {
namespace {

using Sequences = std::vector<std::vector<std::int32_t>>;

// Sequences sampled at the same time: enough for the matrix kernels, small enough for the cache.
constexpr std::int64_t kSampledTogether = 64;

Sequences from_rows(const std::string& model, const CalibrationOptions& options) {
  // Rows of token ids need neither.
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<MessageEncoder> encoder;
  const auto need_tokenizer = [&] {
    if (!tokenizer) tokenizer = Tokenizer::load(model);
  };
  Sequences sequences;
  for_each_jsonl(options.source, [&](const Json& row, const std::string& where) {
    if (static_cast<std::int64_t>(sequences.size()) == options.num_calibration_samples) return;
    std::vector<std::int32_t> ids;
    if (row.contains("messages")) {
      need_tokenizer();
      if (!encoder) encoder = std::make_unique<MessageEncoder>(*tokenizer, model);
      ids = encoder->encode(row["messages"], Json(), false);
    } else if (row.contains("text")) {
      need_tokenizer();
      ids = tokenizer->encode(require_string(row, "text", where));
    } else if (row.contains("token_ids")) {
      ids = read_token_ids(row["token_ids"], where + ": key \"token_ids\"");
    } else {
      throw Error("a calibration row needs \"text\", \"messages\" or \"token_ids\"").at(where);
    }
    ids.resize(std::min(ids.size(), static_cast<std::size_t>(options.max_seq_length)));
    if (!ids.empty()) sequences.push_back(std::move(ids));
  });
  return sequences;
}

Sequences from_text(const std::string& model, const CalibrationOptions& options) {
  const std::vector<std::int32_t> ids = Tokenizer::load(model)->encode(read_file(options.source));
  const auto length = static_cast<std::size_t>(options.max_seq_length);
  Sequences sequences;
  for (std::size_t begin = 0;
       begin < ids.size() && static_cast<std::int64_t>(sequences.size()) < options.num_calibration_samples;
       begin += length)
    sequences.emplace_back(ids.begin() + static_cast<std::ptrdiff_t>(begin),
                           ids.begin() + static_cast<std::ptrdiff_t>(std::min(begin + length, ids.size())));
  return sequences;
}

std::int32_t first_token(const LoadedModel& model) {
  if (const auto bos = model.tokenizer().bos_token_id()) return *bos;
  const auto eos = model.eos_token_ids();
  if (eos.empty())
    throw Error("--calibration self needs a BOS or EOS token in the checkpoint").at(model.folder().string());
  return eos[0];
}

Sequences from_model(const std::string& folder, const CalibrationOptions& options, Runtime& runtime) {
  LoadedModel model(folder, runtime);
  std::vector<GenerationRequest> requests(static_cast<std::size_t>(options.num_calibration_samples));
  for (std::size_t i = 0; i < requests.size(); ++i) {
    requests[i].prompt = {first_token(model)};
    requests[i].sampling.max_tokens = options.max_seq_length - 1;
    requests[i].sampling.seed = static_cast<std::uint64_t>(options.seed) * 1'000'003 + i;
  }
  GeneratorOptions limits;
  limits.max_num_seqs = std::min(kSampledTogether, options.num_calibration_samples);
  limits.max_model_len = options.max_seq_length;
  Generator generator(model.decoder(), runtime.pool(), limits);
  Progress progress("sampling calibration text", "tokens",
                    options.num_calibration_samples * (options.max_seq_length - 1));
  const auto results = generator.generate(requests, [&](std::size_t, std::int32_t) {
    progress.advance();
    return true;
  });
  Sequences sequences;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    sequences.push_back(requests[i].prompt);
    sequences.back().insert(sequences.back().end(), results[i].token_ids.begin(), results[i].token_ids.end());
  }
  return sequences;
}

void check_range(const char* flag, std::int64_t value, std::int64_t lowest, std::int64_t highest) {
  if (value < lowest || value > highest)
    throw Error("{} is out of range", flag)
        .expected(fmt::format("{} to {}", lowest, highest))
        .got(std::to_string(value));
}

}  // namespace

Sequences calibration_sequences(const std::string& model, const CalibrationOptions& options,
                                Runtime& runtime) {
  check_range("--num-calibration-samples", options.num_calibration_samples, 1, 100'000);
  check_range("--max-seq-length", options.max_seq_length, 2, 131'072);
  if (options.source == "self") return from_model(model, options, runtime);
  const Sequences sequences =
      options.source.ends_with(".jsonl") ? from_rows(model, options) : from_text(model, options);
  if (sequences.empty()) throw Error("there is no calibration data in the file").at(options.source);
  return sequences;
}

}  // namespace bise
