// The frequencies of the rotary position embedding (RoFormer, Su et al. 2021) with the extensions that
// checkpoints ask for, as transformers' modeling_rope_utils computes them.
#pragma once

#include <cstdint>

#include "backend/backend.h"
#include "formats/model_config.h"

namespace bise {

// inv_freq[i] = theta^(-2i / head_dim), changed by the type:
//   linear   divided by factor (position interpolation, Chen et al. 2023)
//   llama3   wavelengths beyond original_max_position_embeddings / low_freq_factor divided by factor, those
//            below original / high_freq_factor kept, a linear blend between (Llama 3.1)
//   yarn     a linear ramp over the dimensions between divided and kept, and attention_factor
//            (Peng et al. 2023, section 3.2 to 3.4)
// Computed in double and rounded to float once.
RopeTable make_rope_table(const RopeConfig& config, std::int64_t head_dim);

}  // namespace bise
