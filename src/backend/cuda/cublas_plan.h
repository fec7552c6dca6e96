// What cuBLASLt needs to know of one shape of product, for as long as it is kept: made once, run many times.
#pragma once

#include <cublasLt.h>

#include "backend/cuda/device_memory.h"

namespace bise {

struct CublasPlan {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, d = nullptr;
  cublasLtMatmulAlgo_t algorithm = {};

  CublasPlan() = default;
  CublasPlan(const CublasPlan&) = delete;
  CublasPlan& operator=(const CublasPlan&) = delete;
  ~CublasPlan() {
    if (operation) cublasLtMatmulDescDestroy(operation);
    for (const auto layout : {a, b, d})
      if (layout) cublasLtMatrixLayoutDestroy(layout);
  }

  template <class T>
  void set(cublasLtMatmulDescAttributes_t attribute, const T& value) const {
    cublas_check(cublasLtMatmulDescSetAttribute(operation, attribute, &value, sizeof value),
                 "cublasLtMatmulDescSetAttribute");
  }
};

}  // namespace bise
