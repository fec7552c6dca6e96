#include "cli/loaded_model.h"

#include <algorithm>
#include <map>

#include "base/clock.h"
#include "base/log.h"

namespace bise {

LoadedModel::LoadedModel(const std::filesystem::path& folder, Runtime& runtime, const DecoderLimits& limits)
    : folder_(folder), runtime_(runtime), loader_(folder), tokenizer_(Tokenizer::load(folder)) {
  const Stopwatch watch;
  weights_ = loader_.load_model(runtime.backend());
  decoder_ = std::make_unique<Decoder>(runtime.backend(), loader_.config(), weights_, runtime.limits(limits));
  load_seconds_ = watch.seconds();
  log_debug("loaded {} in {:.2f} s", folder.string(), load_seconds_);
}

std::vector<std::int32_t> LoadedModel::eos_token_ids() const {
  std::vector<std::int32_t> ids(config().eos_token_ids.begin(), config().eos_token_ids.end());
  if (ids.empty() && tokenizer_->eos_token_id()) ids.push_back(*tokenizer_->eos_token_id());
  return ids;
}

std::int64_t LoadedModel::decode_weight_bytes() const {
  std::int64_t bytes = stored_bytes(loader_.read_lm_head().linear);
  for (const LayerWeights& layer : weights_.layers) bytes += layer.bytes;
  return bytes;
}

std::string main_scheme(const ModelLoader& model) {
  std::map<std::string, std::int64_t> weights;
  LayerTensors layer = model.read_layer(0);
  for (const NamedLinear* linear : layer.linears())
    weights[scheme_text(linear->linear.scheme)] += linear->linear.rows * linear->linear.columns;
  return std::ranges::max_element(weights, {}, [](const auto& entry) { return entry.second; })->first;
}

}  // namespace bise
