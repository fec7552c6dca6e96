// Which instruction sets this processor and its kernel offer. What each name promises to a kernel body:
//   avx2    AVX2, FMA, F16C, BMI2
//   avx512  avx2 and AVX-512 F, BW, CD, DQ, VL, VNNI (Cascade Lake, Zen 4 and later)
//   amx     avx512 and AVX-512 BF16, VBMI, AMX tile, bf16, int8 (Sapphire Rapids and later)
#include <cpuid.h>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>

#include "backend/backend.h"
#include "base/error.h"

namespace bise {
namespace {

struct NamedIsa {
  Isa isa;
  std::string_view name;
};
constexpr std::array<NamedIsa, 4> kIsas{
    {{Isa::kScalar, "scalar"}, {Isa::kAvx2, "avx2"}, {Isa::kAvx512, "avx512"}, {Isa::kAmx, "amx"}}};

// Register state that the kernel saves at a context switch (bits of XCR0).
constexpr std::uint64_t kAvxState = 0x6, kAvx512State = 0xe6, kTileState = 0x60000;

struct CpuidLeaf {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

CpuidLeaf cpuid(unsigned leaf, unsigned subleaf) {
  CpuidLeaf out;
  if (!__get_cpuid_count(leaf, subleaf, &out.eax, &out.ebx, &out.ecx, &out.edx)) return {};
  return out;
}

bool has(unsigned word, std::initializer_list<int> bits) {
  for (const int bit : bits)
    if (!(word >> bit & 1u)) return false;
  return true;
}

std::uint64_t enabled_state(const CpuidLeaf& features) {
  if (!has(features.ecx, {27})) return 0;  // OSXSAVE
  std::uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return std::uint64_t{high} << 32 | low;
}

// Linux gives the 8 KiB of tile registers only to processes that ask; later threads inherit the permission.
bool tiles_permitted() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

bool has_avx2(const CpuidLeaf& one, const CpuidLeaf& seven) {
  return has(one.ecx, {12, 28, 29}) && has(seven.ebx, {5, 8});  // FMA, AVX, F16C; AVX2, BMI2
}

bool has_avx512(const CpuidLeaf& seven) {
  return has(seven.ebx, {16, 17, 28, 30, 31}) && has(seven.ecx, {11});  // F, DQ, CD, BW, VL; VNNI
}

bool has_amx(const CpuidLeaf& seven, const CpuidLeaf& seven_one) {
  // VBMI; AMX-BF16, AMX-TILE, AMX-INT8; AVX512-BF16
  return has(seven.ecx, {1}) && has(seven.edx, {22, 24, 25}) && has(seven_one.eax, {5});
}

}  // namespace

Isa parse_isa(std::string_view name) {
  for (const NamedIsa& known : kIsas)
    if (known.name == name) return known.isa;
  throw Error("unknown instruction set")
      .expected("scalar, avx2, avx512 or amx")
      .got(fmt::format("\"{}\"", name));
}

std::string_view isa_name(Isa isa) {
  return kIsas[static_cast<std::size_t>(isa)].name;
}

std::vector<Isa> available_isas() {
  std::vector<Isa> isas{Isa::kScalar};
  const CpuidLeaf one = cpuid(1, 0), seven = cpuid(7, 0);
  const std::uint64_t state = enabled_state(one);
  if (!has_avx2(one, seven) || (state & kAvxState) != kAvxState) return isas;
  isas.push_back(Isa::kAvx2);
  if (!has_avx512(seven) || (state & kAvx512State) != kAvx512State) return isas;
  isas.push_back(Isa::kAvx512);
  if (!has_amx(seven, cpuid(7, 1)) || (state & kTileState) != kTileState || !tiles_permitted()) return isas;
  isas.push_back(Isa::kAmx);
  return isas;
}

}  // namespace bise
