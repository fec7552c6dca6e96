// One warpgroup product of 64 weight rows with kN input rows, 32 bytes of each row: d += A B^T, or d = A B^T
// where `adds` is 0, both in shared memory. Sums of a thread: [kN / 2] registers.
#pragma once

#include <cstdint>

namespace bise::cuda {

enum class Operand { kBf16, kE4M3, kInt8 };

template <Operand kOperand, int kN>
struct WarpgroupProduct;

// The instruction names its registers one by one, so there is a text for each number of them. `shape` is
// "n8k16.f32.bf16.bf16", `flags` the operands after the predicate, `constraint` of a sum's register; PLACES
// lists %0 ... and A, B and ADDS number the operands after them; REGISTERS(x) lists x(0), x(1), ...
#define BISE_WARPGROUP_PRODUCT(OPERAND, N, SUM, CONSTRAINT, SHAPE, FLAGS, PLACES, A, B, ADDS, REGISTERS) \
  template <>                                                                                            \
  struct WarpgroupProduct<OPERAND, N> {                                                                  \
    static __device__ void add(SUM (&d)[N / 2], std::uint64_t a, std::uint64_t b, int adds) {            \
      asm volatile("{\n.reg .pred adds;\nsetp.ne.b32 adds, %" ADDS                                       \
                   ", 0;\n"                                                                              \
                   "wgmma.mma_async.sync.aligned.m64" SHAPE " {" PLACES "}, %" A ", %" B ", adds" FLAGS  \
                   ";\n}"                                                                                \
                   : REGISTERS(CONSTRAINT)                                                               \
                   : "l"(a), "l"(b), "r"(adds));                                                         \
    }                                                                                                    \
  };
#define BISE_WARPGROUP_PRODUCTS(N, PLACES, A, B, ADDS, REGISTERS)                                            \
  BISE_WARPGROUP_PRODUCT(Operand::kBf16, N, float, "+f", "n" #N "k16.f32.bf16.bf16", ", 1, 1, 0, 0", PLACES, \
                         A, B, ADDS, REGISTERS)                                                              \
  BISE_WARPGROUP_PRODUCT(Operand::kE4M3, N, float, "+f", "n" #N "k32.f32.e4m3.e4m3", ", 1, 1", PLACES, A, B, \
                         ADDS, REGISTERS)                                                                    \
  BISE_WARPGROUP_PRODUCT(Operand::kInt8, N, int, "+r", "n" #N "k32.s32.s8.s8", "", PLACES, A, B, ADDS,       \
                         REGISTERS)

#define BISE_REGISTERS_4(C) C(d[0]), C(d[1]), C(d[2]), C(d[3])
#define BISE_REGISTERS_8(C) BISE_REGISTERS_4(C), C(d[4]), C(d[5]), C(d[6]), C(d[7])
#define BISE_REGISTERS_16(C) \
  BISE_REGISTERS_8(C), C(d[8]), C(d[9]), C(d[10]), C(d[11]), C(d[12]), C(d[13]), C(d[14]), C(d[15])
#define BISE_REGISTERS_32(C)                                                                            \
  BISE_REGISTERS_16(C), C(d[16]), C(d[17]), C(d[18]), C(d[19]), C(d[20]), C(d[21]), C(d[22]), C(d[23]), \
      C(d[24]), C(d[25]), C(d[26]), C(d[27]), C(d[28]), C(d[29]), C(d[30]), C(d[31])

#define BISE_PLACES_4 "%0, %1, %2, %3"
#define BISE_PLACES_8 BISE_PLACES_4 ", %4, %5, %6, %7"
#define BISE_PLACES_16 BISE_PLACES_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define BISE_PLACES_32 \
  BISE_PLACES_16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"

BISE_WARPGROUP_PRODUCTS(8, BISE_PLACES_4, "4", "5", "6", BISE_REGISTERS_4)
BISE_WARPGROUP_PRODUCTS(16, BISE_PLACES_8, "8", "9", "10", BISE_REGISTERS_8)
BISE_WARPGROUP_PRODUCTS(32, BISE_PLACES_16, "16", "17", "18", BISE_REGISTERS_16)
BISE_WARPGROUP_PRODUCTS(64, BISE_PLACES_32, "32", "33", "34", BISE_REGISTERS_32)

#undef BISE_WARPGROUP_PRODUCT
#undef BISE_WARPGROUP_PRODUCTS
#undef BISE_REGISTERS_4
#undef BISE_PLACES_4
#undef BISE_REGISTERS_8
#undef BISE_PLACES_8
#undef BISE_REGISTERS_16
#undef BISE_PLACES_16
#undef BISE_REGISTERS_32
#undef BISE_PLACES_32

}  // namespace bise::cuda
