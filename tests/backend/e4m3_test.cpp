// The float8 conversion of every instruction set is that of tensor/float_types.h.
#include <bit>
#include <cmath>

#include "backend/cpu/kernels.h"
#include "tests/backend/conformance.h"

namespace bise {
namespace {

TEST(E4M3, EveryInstructionSetRoundsAlike) {
  Floats values;
  // Every float's upper 16 bits, with lower ones at and beside the ties.
  for (std::uint32_t high = 0; high < 0x10000; high += 1)
    for (const std::uint32_t low : {0x0u, 0x1u, 0x8000u, 0xffffu})
      values.push_back(std::bit_cast<float>(high << 16 | low));
  for (const Isa isa : available_isas())
    for (const float scale : {1.0f, 0.013f, 7.0f}) {
      SCOPED_TRACE(testing::Message() << isa_name(isa) << ", scale " << scale);
      std::vector<e4m3> codes(values.size());
      row_kernels(isa).to_e4m3(values.data(), scale, codes.data(), static_cast<std::int64_t>(values.size()));
      for (std::size_t i = 0; i < values.size(); ++i) {
        const e4m3 expected = float_to_e4m3(values[i] / scale);
        // A NaN's sign has no meaning.
        const int sign = std::isnan(values[i] / scale) ? 0x80 : 0;
        ASSERT_EQ(codes[i] | sign, expected | sign) << values[i];
      }
    }
}

}  // namespace
}  // namespace bise
