// One warpgroup product of 64 rows A with kN rows B, 32 bytes of each: d += A B^T, or d = A B^T where `adds`
// is 0. B is in shared memory, A there too or, for bf16, in registers. Sums of a thread: [kN / 2] registers.
#pragma once

#include <cstdint>

namespace bise::cuda {

enum class Operand { kBf16, kE4M3, kInt8 };

template <Operand kOperand, int kN>
struct WarpgroupProduct;

// A in registers (PTX ISA 8.0, "wgmma", register fragments of A). kTransposed: B's rows are the product's
// inner dimension (transposed_tile_descriptor).
template <int kN, bool kTransposed>
struct RegisterProduct;

// Operands in shared memory are named by tile_descriptor() (hopper.cuh), the low half of a descriptor whose
// high half is always 0x40000040: 8 rows to 1024 bytes, swizzled in 128.
//
// The instruction names its registers one by one, so there is a text for each number of them. SHAPE is
// "n8k16.f32.bf16.bf16", FLAGS the operands after the predicate, CONSTRAINT of a sum's register; PLACES
// lists %0 ... and A, B and ADDS number the operands after them; REGISTERS(x) lists x(0), x(1), ...
#define BISE_WARPGROUP_PRODUCT(OPERAND, N, SUM, CONSTRAINT, SHAPE, FLAGS, PLACES, A, B, ADDS, REGISTERS)    \
  template <>                                                                                               \
  struct WarpgroupProduct<OPERAND, N> {                                                                     \
    static __device__ void add(SUM (&d)[N / 2], std::uint32_t a, std::uint32_t b, int adds) {               \
      asm volatile("{\n.reg .pred adds;\n.reg .b64 a, b;\nsetp.ne.b32 adds, %" ADDS ", 0;\nmov.b64 a, {%" A \
                   ", 0x40000040};\nmov.b64 b, {%" B                                                        \
                   ", 0x40000040};\n"                                                                       \
                   "wgmma.mma_async.sync.aligned.m64" SHAPE " {" PLACES "}, a, b, adds" FLAGS ";\n}"        \
                   : REGISTERS(CONSTRAINT)                                                                  \
                   : "r"(a), "r"(b), "r"(adds));                                                            \
    }                                                                                                       \
  };
#define BISE_WARPGROUP_PRODUCTS(N, PLACES, A, B, ADDS, REGISTERS)                                            \
  BISE_WARPGROUP_PRODUCT(Operand::kBf16, N, float, "+f", "n" #N "k16.f32.bf16.bf16", ", 1, 1, 0, 0", PLACES, \
                         A, B, ADDS, REGISTERS)                                                              \
  BISE_WARPGROUP_PRODUCT(Operand::kE4M3, N, float, "+f", "n" #N "k32.f32.e4m3.e4m3", ", 1, 1", PLACES, A, B, \
                         ADDS, REGISTERS)                                                                    \
  BISE_WARPGROUP_PRODUCT(Operand::kInt8, N, int, "+r", "n" #N "k32.s32.s8.s8", "", PLACES, A, B, ADDS,       \
                         REGISTERS)
#define BISE_REGISTER_PRODUCT(N, TRANSPOSED, FLAG, PLACES, A, B, ADDS, REGISTERS)                        \
  template <>                                                                                            \
  struct RegisterProduct<N, TRANSPOSED> {                                                                \
    static __device__ void add(float (&d)[N / 2], const std::uint32_t* a, std::uint32_t b, int adds) {   \
      asm volatile("{\n.reg .pred adds;\n.reg .b64 b;\nsetp.ne.b32 adds, %" ADDS ", 0;\nmov.b64 b, {%" B \
                   ", 0x40000040};\n"                                                                    \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" PLACES "}, {" A          \
                   "}, b"                                                                                \
                   ", adds, 1, 1, " FLAG ";\n}"                                                          \
                   : REGISTERS("+f")                                                                     \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b), "r"(adds));                     \
    }                                                                                                    \
  };

#define BISE_REGISTERS_4(C) C(d[0]), C(d[1]), C(d[2]), C(d[3])
#define BISE_REGISTERS_8(C) BISE_REGISTERS_4(C), C(d[4]), C(d[5]), C(d[6]), C(d[7])
#define BISE_REGISTERS_16(C) \
  BISE_REGISTERS_8(C), C(d[8]), C(d[9]), C(d[10]), C(d[11]), C(d[12]), C(d[13]), C(d[14]), C(d[15])
#define BISE_REGISTERS_32(C)                                                                            \
  BISE_REGISTERS_16(C), C(d[16]), C(d[17]), C(d[18]), C(d[19]), C(d[20]), C(d[21]), C(d[22]), C(d[23]), \
      C(d[24]), C(d[25]), C(d[26]), C(d[27]), C(d[28]), C(d[29]), C(d[30]), C(d[31])
#define BISE_REGISTERS_64(C)                                                                              \
  BISE_REGISTERS_32(C), C(d[32]), C(d[33]), C(d[34]), C(d[35]), C(d[36]), C(d[37]), C(d[38]), C(d[39]),   \
      C(d[40]), C(d[41]), C(d[42]), C(d[43]), C(d[44]), C(d[45]), C(d[46]), C(d[47]), C(d[48]), C(d[49]), \
      C(d[50]), C(d[51]), C(d[52]), C(d[53]), C(d[54]), C(d[55]), C(d[56]), C(d[57]), C(d[58]), C(d[59]), \
      C(d[60]), C(d[61]), C(d[62]), C(d[63])

#define BISE_REGISTERS_24(C) \
  BISE_REGISTERS_16(C), C(d[16]), C(d[17]), C(d[18]), C(d[19]), C(d[20]), C(d[21]), C(d[22]), C(d[23])
#define BISE_REGISTERS_48(C)                                                                            \
  BISE_REGISTERS_32(C), C(d[32]), C(d[33]), C(d[34]), C(d[35]), C(d[36]), C(d[37]), C(d[38]), C(d[39]), \
      C(d[40]), C(d[41]), C(d[42]), C(d[43]), C(d[44]), C(d[45]), C(d[46]), C(d[47])
#define BISE_REGISTERS_96(C)                                                                              \
  BISE_REGISTERS_64(C), C(d[64]), C(d[65]), C(d[66]), C(d[67]), C(d[68]), C(d[69]), C(d[70]), C(d[71]),   \
      C(d[72]), C(d[73]), C(d[74]), C(d[75]), C(d[76]), C(d[77]), C(d[78]), C(d[79]), C(d[80]), C(d[81]), \
      C(d[82]), C(d[83]), C(d[84]), C(d[85]), C(d[86]), C(d[87]), C(d[88]), C(d[89]), C(d[90]), C(d[91]), \
      C(d[92]), C(d[93]), C(d[94]), C(d[95])

#define BISE_REGISTERS_128(C)                                                                               \
  BISE_REGISTERS_64(C), C(d[64]), C(d[65]), C(d[66]), C(d[67]), C(d[68]), C(d[69]), C(d[70]), C(d[71]),     \
      C(d[72]), C(d[73]), C(d[74]), C(d[75]), C(d[76]), C(d[77]), C(d[78]), C(d[79]), C(d[80]), C(d[81]),   \
      C(d[82]), C(d[83]), C(d[84]), C(d[85]), C(d[86]), C(d[87]), C(d[88]), C(d[89]), C(d[90]), C(d[91]),   \
      C(d[92]), C(d[93]), C(d[94]), C(d[95]), C(d[96]), C(d[97]), C(d[98]), C(d[99]), C(d[100]), C(d[101]), \
      C(d[102]), C(d[103]), C(d[104]), C(d[105]), C(d[106]), C(d[107]), C(d[108]), C(d[109]), C(d[110]),    \
      C(d[111]), C(d[112]), C(d[113]), C(d[114]), C(d[115]), C(d[116]), C(d[117]), C(d[118]), C(d[119]),    \
      C(d[120]), C(d[121]), C(d[122]), C(d[123]), C(d[124]), C(d[125]), C(d[126]), C(d[127])

#define BISE_PLACES_4 "%0, %1, %2, %3"
#define BISE_PLACES_8 BISE_PLACES_4 ", %4, %5, %6, %7"
#define BISE_PLACES_16 BISE_PLACES_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define BISE_PLACES_32 \
  BISE_PLACES_16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define BISE_PLACES_64                                                                                \
  BISE_PLACES_32                                                                                      \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, " \
  "%51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define BISE_PLACES_24 BISE_PLACES_16 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define BISE_PLACES_48 \
  BISE_PLACES_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define BISE_PLACES_96                                                                                \
  BISE_PLACES_64                                                                                      \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, " \
  "%83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"

#define BISE_PLACES_128                                                                               \
  BISE_PLACES_64                                                                                      \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, " \
  "%83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, " \
  "%102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, "  \
  "%118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

BISE_WARPGROUP_PRODUCTS(8, BISE_PLACES_4, "4", "5", "6", BISE_REGISTERS_4)
BISE_WARPGROUP_PRODUCTS(16, BISE_PLACES_8, "8", "9", "10", BISE_REGISTERS_8)
BISE_WARPGROUP_PRODUCTS(32, BISE_PLACES_16, "16", "17", "18", BISE_REGISTERS_16)
BISE_WARPGROUP_PRODUCTS(48, BISE_PLACES_24, "24", "25", "26", BISE_REGISTERS_24)
BISE_WARPGROUP_PRODUCTS(64, BISE_PLACES_32, "32", "33", "34", BISE_REGISTERS_32)
BISE_WARPGROUP_PRODUCTS(96, BISE_PLACES_48, "48", "49", "50", BISE_REGISTERS_48)
BISE_WARPGROUP_PRODUCTS(128, BISE_PLACES_64, "64", "65", "66", BISE_REGISTERS_64)
BISE_WARPGROUP_PRODUCTS(192, BISE_PLACES_96, "96", "97", "98", BISE_REGISTERS_96)
BISE_WARPGROUP_PRODUCTS(256, BISE_PLACES_128, "128", "129", "130", BISE_REGISTERS_128)

BISE_REGISTER_PRODUCT(8, false, "0", BISE_PLACES_4, "%4, %5, %6, %7", "8", "9", BISE_REGISTERS_4)
BISE_REGISTER_PRODUCT(16, false, "0", BISE_PLACES_8, "%8, %9, %10, %11", "12", "13", BISE_REGISTERS_8)
BISE_REGISTER_PRODUCT(32, false, "0", BISE_PLACES_16, "%16, %17, %18, %19", "20", "21", BISE_REGISTERS_16)
BISE_REGISTER_PRODUCT(64, false, "0", BISE_PLACES_32, "%32, %33, %34, %35", "36", "37", BISE_REGISTERS_32)
BISE_REGISTER_PRODUCT(96, false, "0", BISE_PLACES_48, "%48, %49, %50, %51", "52", "53", BISE_REGISTERS_48)
BISE_REGISTER_PRODUCT(128, false, "0", BISE_PLACES_64, "%64, %65, %66, %67", "68", "69", BISE_REGISTERS_64)
BISE_REGISTER_PRODUCT(64, true, "1", BISE_PLACES_32, "%32, %33, %34, %35", "36", "37", BISE_REGISTERS_32)

#undef BISE_WARPGROUP_PRODUCT
#undef BISE_WARPGROUP_PRODUCTS
#undef BISE_REGISTER_PRODUCT
#undef BISE_REGISTERS_4
#undef BISE_PLACES_4
#undef BISE_REGISTERS_8
#undef BISE_PLACES_8
#undef BISE_REGISTERS_16
#undef BISE_PLACES_16
#undef BISE_REGISTERS_24
#undef BISE_REGISTERS_32
#undef BISE_REGISTERS_48
#undef BISE_PLACES_24
#undef BISE_PLACES_32
#undef BISE_PLACES_48
#undef BISE_REGISTERS_64
#undef BISE_REGISTERS_96
#undef BISE_REGISTERS_128
#undef BISE_PLACES_64
#undef BISE_PLACES_96
#undef BISE_PLACES_128

}  // namespace bise::cuda
