// Starts a kernel that may begin while the one before it ends (programmatic dependent launch). The kernel
// calls let_next_kernel_begin() and wait_for_earlier_kernels() (hopper.cuh). An error shows at the next
// cudaGetLastError().
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace bise::cuda {

// `cluster`: blocks of a cluster, 0 where the kernel knows of none.
template <class... Parameters, class... Arguments>
void launch_clusters(int cluster, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                     std::size_t shared_bytes, cudaStream_t stream, Arguments... arguments) {
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = cluster > 0 ? 2 : 1;
  (void)cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
            cudaStream_t stream, Arguments... arguments) {
  launch_clusters(0, kernel, grid, block, shared_bytes, stream, arguments...);
}

}  // namespace bise::cuda
