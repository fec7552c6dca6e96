#include "backend/cuda/grouped_linear.h"

#include "backend/cuda/grouped_kernel.cuh"

namespace bise::cuda {

bool supports_grouped(const Weight& weight, bool gated) {
  if (weight.format == WeightFormat::kInt4Panels) return !gated || weight.rows % 128 == 0;
  const bool has_format = weight.format == WeightFormat::kBf16 || weight.format == WeightFormat::kFp8 ||
                          weight.format == WeightFormat::kInt8;
  return has_format && (!gated || weight.rows % 16 == 0);
}

bool same_grouped_layout(const Weight& a, const Weight& b) {
  return a.format == b.format && a.rows == b.rows && a.stride == b.stride &&
         a.panels.scale == b.panels.scale && a.panels.group_columns == b.panels.group_columns &&
         a.panels.has_zeros == b.panels.has_zeros;
}

void grouped_linear(const GroupedLinear& linear, const Routing& routing, cudaStream_t stream) {
  const Weight& first = *linear.weights[0];
  const int value_bytes = linear.in.encoding == Encoding::kBf16 ? 2 : 1;
  GroupedTask task = {};
  task.experts = routing.experts;
  task.counts = routing.counts;
  task.starts = routing.starts;
  task.columns = static_cast<int>(linear.gated ? first.rows / 2 : first.rows);
  const bool has_panels = first.format == WeightFormat::kInt4Panels;
  task.chunk_columns = has_panels ? 128 : 128 / value_bytes;
  task.chunks = static_cast<int>(first.stride / task.chunk_columns);
  task.in_scales = linear.in.scales;
  task.out = linear.out;
  task.out_stride = linear.out_stride;
  for (int e = 0; e < task.experts; ++e) task.weight_scales[e] = linear.weights[e]->scales;
  for (int i = 0; i < 4; ++i)
    task.input_tiles[i] = tile_map(linear.in.codes, value_bytes, linear.pairs, linear.in.stride, 8 << i);
  if (has_panels) return start_grouped_int4(linear, task, stream);
  switch (linear.in.encoding) {
    case Encoding::kBf16: return start_grouped_bf16(linear, task, stream);
    case Encoding::kInt8Token: return start_grouped_int8(linear, task, stream);
    default: return start_grouped_e4m3(linear, task, stream);
  }
}

}  // namespace bise::cuda
