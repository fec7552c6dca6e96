#include "backend/cuda/cusolver.h"

#include <dlfcn.h>

#include <string>

#include "base/error.h"

namespace bise {
namespace {

constexpr const char* kLibrary = "libcusolver.so.12";

void solver_check(cusolverStatus_t status, const char* what) {
  if (status != CUSOLVER_STATUS_SUCCESS)
    throw Error("cuSOLVER failed with status {}", static_cast<int>(status)).at(what);
}

template <class Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, name));
  if (!function) throw Error("cuSOLVER has no {}", name).at(kLibrary);
}

}  // namespace

struct Cusolver::Functions {
  decltype(&cusolverDnCreate) create;
  decltype(&cusolverDnDestroy) destroy;
  decltype(&cusolverDnSetStream) set_stream;
  decltype(&cusolverDnCreateParams) create_params;
  decltype(&cusolverDnDestroyParams) destroy_params;
  decltype(&cusolverDnXpotrf_bufferSize) potrf_size;
  decltype(&cusolverDnXpotrf) potrf;

  Functions() {
    void* library = ::dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
      const char* why = ::dlerror();
      throw Error("GPTQ on a GPU needs cuSOLVER, a part of the CUDA toolkit")
          .expected(std::string(kLibrary) + " in the library path")
          .got(why ? why : "no such library");
    }
    find(library, "cusolverDnCreate", create);
    find(library, "cusolverDnDestroy", destroy);
    find(library, "cusolverDnSetStream", set_stream);
    find(library, "cusolverDnCreateParams", create_params);
    find(library, "cusolverDnDestroyParams", destroy_params);
    find(library, "cusolverDnXpotrf_bufferSize", potrf_size);
    find(library, "cusolverDnXpotrf", potrf);
  }

  static const Functions& get() {
    static const Functions functions;
    return functions;
  }
};

Cusolver::Cusolver(cudaStream_t stream) : functions_(Functions::get()), stream_(stream), info_(sizeof(int)) {
  solver_check(functions_.create(&handle_), "cusolverDnCreate");
  solver_check(functions_.set_stream(handle_, stream_), "cusolverDnSetStream");
  solver_check(functions_.create_params(&parameters_), "cusolverDnCreateParams");
}

Cusolver::~Cusolver() {
  if (parameters_) functions_.destroy_params(parameters_);
  if (handle_) functions_.destroy(handle_);
}

bool Cusolver::factor(double* matrix, std::int64_t size) {
  std::size_t device_bytes = 0, host_bytes = 0;
  solver_check(functions_.potrf_size(handle_, parameters_, CUBLAS_FILL_MODE_LOWER, size, CUDA_R_64F, matrix,
                                     size, CUDA_R_64F, &device_bytes, &host_bytes),
               "cusolverDnXpotrf_bufferSize");
  workspace_.grow(device_bytes);
  if (host_workspace_.size() < host_bytes) host_workspace_.resize(host_bytes);
  solver_check(functions_.potrf(handle_, parameters_, CUBLAS_FILL_MODE_LOWER, size, CUDA_R_64F, matrix, size,
                                CUDA_R_64F, workspace_.as<void>(), device_bytes, host_workspace_.data(),
                                host_bytes, info_.as<int>()),
               "cusolverDnXpotrf");
  int failed_at = 0;
  cuda_check(cudaMemcpyAsync(&failed_at, info_.as<int>(), sizeof failed_at, cudaMemcpyDeviceToHost, stream_),
             "copying to the host");
  cuda_check(cudaStreamSynchronize(stream_), "waiting for cuSOLVER");
  return failed_at == 0;
}

}  // namespace bise
