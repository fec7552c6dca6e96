// Tensor parallelism (Shoeybi et al. 2019, section 3): several devices compute one model, each with a share
// of the heads and of the MLP's inner columns, and each with the whole residual stream, norms, routers,
// embedding and output matrix. After attention and after the MLP their partial sums are added. Plain values.
//
// A rank's decoder is an ordinary one: made with share_of(config), weights loaded with its partition, and
// LayerRunner calls all_reduce.
#pragma once

#include <cstdint>
#include <functional>

#include "backend/backend.h"
#include "formats/model_config.h"
#include "model/weights.h"

namespace bise {

struct Partition {
  std::int64_t rank = 0, ranks = 1;
  // Adds the matrices that all ranks pass in the same order; each gets the same bits. Called on the rank's
  // thread after the operations that wrote `matrix`; a device may do it later, in the order of its
  // operations. Not called with one rank.
  std::function<void(Matrix& matrix)> all_reduce;
};

// The configuration of one rank's share. With fewer key-value heads than ranks, several ranks hold the same
// one, as in vLLM. Throws Error where heads or inner columns do not divide.
ModelConfig share_of(const ModelConfig& config, const Partition& partition);

// The rank's part of a layer of the model `config`. Throws Error (module) where a stored matrix cannot be cut
// there.
LayerTensors share_of(LayerTensors tensors, const ModelConfig& config, const Partition& partition);

}  // namespace bise
