#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/check.h"

namespace bise {
namespace {

double llama3_frequency(const RopeConfig& config, double frequency) {
  const double original = config.original_max_position_embeddings;
  const double wavelength = 2 * std::numbers::pi / frequency;
  if (wavelength > original / config.low_freq_factor) return frequency / config.factor;
  if (wavelength < original / config.high_freq_factor) return frequency;
  const double kept =
      (original / wavelength - config.low_freq_factor) / (config.high_freq_factor - config.low_freq_factor);
  return (1 - kept) * frequency / config.factor + kept * frequency;
}

// The dimension whose pair turns `rotations` times within the original context (YaRN, equation 17).
double yarn_dimension(const RopeConfig& config, std::int64_t head_dim, double rotations) {
  return static_cast<double>(head_dim) *
         std::log(config.original_max_position_embeddings / (rotations * 2 * std::numbers::pi)) /
         (2 * std::log(config.theta));
}

void apply_yarn(const RopeConfig& config, std::int64_t head_dim, std::vector<double>& frequencies) {
  const double low = std::max(std::floor(yarn_dimension(config, head_dim, config.beta_fast)), 0.0);
  double high = std::min(std::ceil(yarn_dimension(config, head_dim, config.beta_slow)),
                         static_cast<double>(head_dim - 1));
  if (low == high) high += 0.001;
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    const double divided = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequencies[i] *= divided / config.factor + (1 - divided);
  }
}

double yarn_mscale(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

double yarn_attention_factor(const RopeConfig& config) {
  if (config.attention_factor != 0) return config.attention_factor;
  if (config.mscale != 0 && config.mscale_all_dim != 0)
    return yarn_mscale(config.factor, config.mscale) / yarn_mscale(config.factor, config.mscale_all_dim);
  return yarn_mscale(config.factor, 1);
}

}  // namespace

RopeTable make_rope_table(const RopeConfig& config, std::int64_t head_dim) {
  check(head_dim > 0 && head_dim % 2 == 0, "a rotary head has an even dimension");
  std::vector<double> frequencies(static_cast<std::size_t>(head_dim / 2));
  for (std::size_t i = 0; i < frequencies.size(); ++i)
    frequencies[i] = std::pow(config.theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));

  RopeTable table;
  switch (config.type) {
    case RopeType::kDefault: break;
    case RopeType::kLinear:
      for (double& frequency : frequencies) frequency /= config.factor;
      break;
    case RopeType::kLlama3:
      for (double& frequency : frequencies) frequency = llama3_frequency(config, frequency);
      break;
    case RopeType::kYarn:
      apply_yarn(config, head_dim, frequencies);
      table.attention_factor = static_cast<float>(yarn_attention_factor(config));
      break;
  }
  for (const double frequency : frequencies) table.inv_freq.push_back(static_cast<float>(frequency));
  return table;
}

}  // namespace bise
