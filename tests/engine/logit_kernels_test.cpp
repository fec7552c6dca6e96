#include "engine/logit_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "engine/largest_logits.h"

namespace bise {
namespace {

std::vector<float> random_logits(std::size_t count, std::uint32_t seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0, 4);
  std::vector<float> logits(count);
  for (float& logit : logits) logit = normal(engine);
  return logits;
}

const std::size_t kCounts[] = {1, 5, 63, 64, 65, 1000, 4097, 49152};

// The plain build is the definition; each instruction set gives its bits.
TEST(LogitKernels, EqualBitsOnEveryInstructionSet) {
  const LogitKernels& plain = logit_kernels(Isa::kScalar);
  for (const Isa isa : available_isas()) {
    const LogitKernels& kernels = logit_kernels(isa);
    for (const std::size_t count : kCounts) {
      SCOPED_TRACE(testing::Message() << isa_name(isa) << " " << count);
      const auto values = random_logits(count, 1), others = random_logits(count, 2);
      std::vector<float> maxima((count + 63) / 64), plain_maxima(maxima.size());
      ASSERT_TRUE(kernels.block_maxima(values.data(), count, maxima.data()));
      ASSERT_TRUE(plain.block_maxima(values.data(), count, plain_maxima.data()));
      EXPECT_EQ(maxima, plain_maxima);
      EXPECT_EQ(kernels.sum_exp(values.data(), count, 15, 0.7f),
                plain.sum_exp(values.data(), count, 15, 0.7f));
      EXPECT_EQ(kernels.weighted_difference(values.data(), others.data(), count, 15),
                plain.weighted_difference(values.data(), others.data(), count, 15));
      EXPECT_EQ(kernels.count_at_least(values.data(), count, 1),
                plain.count_at_least(values.data(), count, 1));
      auto weights = values, plain_weights = values;
      const double sum = kernels.weigh(weights.data(), count, 15, 0.7f);
      EXPECT_EQ(plain.weigh(plain_weights.data(), count, 15, 0.7f), sum);
      EXPECT_EQ(weights, plain_weights);
      EXPECT_EQ(kernels.sum_weights(values.data(), count, 15, 0.7f), sum);
      for (std::int64_t position = 0; position < 20; ++position)
        for (const float threshold : {-std::numeric_limits<float>::infinity(), 3.0f})
          EXPECT_EQ(kernels.gumbel_argmax(values.data(), count, 1.25f, threshold, gumbel_key(1, position)),
                    plain.gumbel_argmax(values.data(), count, 1.25f, threshold, gumbel_key(1, position)));
    }
  }
}

TEST(LogitKernels, EqualTheirDefinitions) {
  for (const Isa isa : available_isas()) {
    const LogitKernels& kernels = logit_kernels(isa);
    for (const std::size_t count : kCounts) {
      SCOPED_TRACE(testing::Message() << isa_name(isa) << " " << count);
      auto values = random_logits(count, 3);
      std::size_t at_least = 0;
      for (const float value : values) at_least += value >= 0.5f ? 1 : 0;
      EXPECT_EQ(kernels.count_at_least(values.data(), count, 0.5f), at_least);
      for (std::int64_t position = 0; position < 50; ++position) {
        const GumbelKey key = gumbel_key(7, position);
        std::int32_t best = -1;
        double largest = -std::numeric_limits<double>::infinity();
        for (std::size_t i = 0; i < count; ++i) {
          const auto token = static_cast<std::int32_t>(i);
          const double noisy = static_cast<double>(values[i] * 0.5f) + gumbel_noise(gumbel_bits(key, token));
          if (noisy <= largest) continue;
          largest = noisy;
          best = token;
        }
        ASSERT_EQ(kernels.gumbel_argmax(values.data(), count, 0.5f, -100, key), best);
      }
      // The same sum in another order, of multiples of 2^-33 that are near the exponentials.
      auto weights = values;
      const double sum = kernels.weigh(weights.data(), count, 15, 0.7f);
      double backwards = 0;
      for (std::size_t i = count; i-- > 0;) {
        const double units = std::ldexp(static_cast<double>(weights[i]), 33);
        const double exact = std::exp((static_cast<double>(values[i]) - 15) * static_cast<double>(0.7f));
        ASSERT_EQ(units, std::round(units));
        ASSERT_NEAR(static_cast<double>(weights[i]), exact, 0x1p-34 + 2e-6 * exact);
        backwards += static_cast<double>(weights[i]);
      }
      EXPECT_EQ(backwards, sum);
      std::vector<std::uint32_t> bits((count + 31) / 32);
      for (std::size_t i = 0; i < count; ++i)
        if (i % 3 == 0) bits[i / 32] |= 1u << (i % 32);
      const auto before = values;
      kernels.apply_mask(values.data(), count, bits.data());
      for (std::size_t i = 0; i < count; ++i)
        ASSERT_EQ(values[i], i % 3 == 0 ? before[i] : -std::numeric_limits<float>::infinity()) << i;
      // What is masked is never drawn, the one that is left always.
      for (std::size_t i = 0; i < count; ++i) values[i] = -std::numeric_limits<float>::infinity();
      EXPECT_EQ(kernels.gumbel_argmax(values.data(), count, 1, -std::numeric_limits<float>::infinity(), {}),
                -1);
      values[count / 2] = -5;
      for (std::int64_t position = 0; position < 100; ++position)
        ASSERT_EQ(kernels.gumbel_argmax(values.data(), count, 1, -std::numeric_limits<float>::infinity(),
                                        gumbel_key(2, position)),
                  static_cast<std::int32_t>(count / 2));
      std::vector<float> maxima((count + 63) / 64);
      for (const std::size_t broken : {std::size_t{0}, count / 2, count - 1}) {
        auto with_nan = before;
        with_nan[broken] = std::nanf("");
        EXPECT_FALSE(kernels.block_maxima(with_nan.data(), count, maxima.data()));
      }
    }
  }
}

TEST(LargestLogits, SelectsTheFirstOnes) {
  LargestLogits largest(5000);
  for (const std::size_t count : {1u, 70u, 5000u}) {
    auto values = random_logits(count, 4);
    for (float& value : values) value = std::round(value * 4);  // with many ties
    std::vector<RankedLogit> all;
    for (std::size_t i = 0; i < count; ++i) all.push_back({values[i], static_cast<std::int32_t>(i)});
    std::sort(all.begin(), all.end());
    largest.scan(values);
    EXPECT_EQ(largest.argmax(), all.front().token);
    for (const std::size_t wanted :
         {std::size_t{0}, std::size_t{1}, std::size_t{7}, count / 2, count, count + 5})
      for (const bool ties : {false, true}) {
        std::vector<RankedLogit> selected;
        largest.select(wanted, ties, selected);
        std::sort(selected.begin(), selected.end());
        std::size_t expected = std::min(wanted, count);
        while (ties && expected > 0 && expected < count && all[expected].logit == all[expected - 1].logit)
          ++expected;
        ASSERT_EQ(selected.size(), expected) << count << " " << wanted;
        for (std::size_t i = 0; i < expected; ++i) ASSERT_EQ(selected[i].token, all[i].token);
      }
  }
}

}  // namespace
}  // namespace bise
