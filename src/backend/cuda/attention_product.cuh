// Warpgroup products that attention alone takes, as those of warpgroup_product.cuh: A of 64 rows and 16
// columns in registers, B in shared memory, float32 sums.
#pragma once

#include <cstdint>

#include "backend/cuda/hopper.cuh"

namespace bise::cuda {

#define BISE_SUMS_8(I)                                                                        \
  "+f"(d[I]), "+f"(d[I + 1]), "+f"(d[I + 2]), "+f"(d[I + 3]), "+f"(d[I + 4]), "+f"(d[I + 5]), \
      "+f"(d[I + 6]), "+f"(d[I + 7])
#define BISE_SUMS_32(I) BISE_SUMS_8(I), BISE_SUMS_8(I + 8), BISE_SUMS_8(I + 16), BISE_SUMS_8(I + 24)
#define BISE_PLACES_0_31                                                                                 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
  "%22, "                                                                                                \
  "%23, %24, %25, %26, %27, %28, %29, %30, %31"

// float16; B has 64 rows, or, kTransposed, 16 rows of 64 columns.
template <bool kTransposed>
struct HalfProduct {
  static __device__ void add(float (&d)[32], const std::uint32_t* a, std::uint32_t b, int adds) {
    asm volatile(
        "{\n.reg .pred adds;\n.reg .b64 b;\nsetp.ne.b32 adds, %37, 0;\nmov.b64 b, {%36, 0x40000040};\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" BISE_PLACES_0_31
        "}, {%32, %33, %34, %35}, b, adds, 1, 1, %38;\n}"
        : BISE_SUMS_32(0)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "r"(adds), "n"(kTransposed));
  }
};

// bf16; d += A B, B having 16 rows of 128 columns (transposed_halves_descriptor).
__device__ inline void add_product_of_128(float (&d)[64], const std::uint32_t* a, std::uint32_t b) {
  asm volatile(
      "{\n.reg .b64 b;\nmov.b64 b, {%68, 0x40000040};\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" BISE_PLACES_0_31
      ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, "
      "%52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, {%64, %65, %66, %67}, b, 1, 1, 1, 1;\n}"
      : BISE_SUMS_32(0), BISE_SUMS_32(32)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b));
}
// As transposed_tile_descriptor(), of columns whose second 64 begin `half_bytes` behind the first.
__device__ inline std::uint32_t transposed_halves_descriptor(const void* tile, std::uint32_t half_bytes) {
  return (shared_address(tile) & 0x3ffff) >> 4 | half_bytes >> 4 << 16;
}

#undef BISE_SUMS_8
#undef BISE_SUMS_32
#undef BISE_PLACES_0_31

}  // namespace bise::cuda
