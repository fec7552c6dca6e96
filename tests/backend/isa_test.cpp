#include <gtest/gtest.h>

#include <algorithm>

#include "backend/backend.h"
#include "base/error.h"

namespace bise {
namespace {

TEST(Isa, NamesParseBack) {
  for (const Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAmx})
    EXPECT_EQ(parse_isa(isa_name(isa)), isa);
  EXPECT_THROW(parse_isa("avx9"), Error);
  EXPECT_THROW(parse_isa(""), Error);
}

TEST(Isa, AvailableAreAscendingFromScalarAndAgreeWithTheCompiler) {
  const std::vector<Isa> isas = available_isas();
  ASSERT_FALSE(isas.empty());
  EXPECT_EQ(isas.front(), Isa::kScalar);
  EXPECT_TRUE(std::is_sorted(isas.begin(), isas.end()));
  const auto offered = [&](Isa isa) { return std::find(isas.begin(), isas.end(), isa) != isas.end(); };
  EXPECT_EQ(offered(Isa::kAvx2), __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
  EXPECT_EQ(offered(Isa::kAvx512), __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                       __builtin_cpu_supports("avx512vl") &&
                                       __builtin_cpu_supports("avx512vnni"));
}

TEST(NoCuda, SaysWhichPresetBuildsIt) {
  if (built_with_cuda()) GTEST_SKIP() << "this build has the CUDA backend";
  try {
    make_cuda_backend(0);
    FAIL() << "made a CUDA backend";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("preset cuda"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace bise
