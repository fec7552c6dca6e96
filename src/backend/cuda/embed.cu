#include "backend/cuda/device_math.cuh"
#include "backend/cuda/hopper.cuh"
#include "backend/cuda/launch.cuh"

namespace bise::cuda {
namespace {

template <class In, class Out>
__global__ void embed_kernel(const In* table, const std::int32_t* token_ids, std::int64_t columns, Out* out) {
  let_next_kernel_begin();
  wait_for_earlier_kernels();
  const In* row = table + token_ids[blockIdx.x] * columns;
  for (std::int64_t c = threadIdx.x; c < columns; c += blockDim.x)
    store_value(out + blockIdx.x * columns + c, load_value(row + c));
}

}  // namespace

void embed(Values table, const std::int32_t* token_ids, std::int64_t tokens, std::int64_t columns, Values out,
           cudaStream_t stream) {
  with_type(table, [&](auto* rows) {
    with_type(out, [&](auto* values) {
      using In = std::remove_pointer_t<decltype(rows)>;
      using Out = std::remove_pointer_t<decltype(values)>;
      launch(embed_kernel<In, Out>, static_cast<unsigned>(tokens), 256, 0, stream, rows, token_ids, columns,
             values);
    });
  });
}

}  // namespace bise::cuda
