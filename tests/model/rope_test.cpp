#include "model/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

namespace bise {
namespace {

struct Case {
  std::string name;
  RopeConfig config;
  std::int64_t head_dim;
  double attention_factor;
  std::vector<float> inv_freq;
};

// Computed by transformers 5.23.0, modeling_rope_utils, on LlamaConfig with these parameters.
const std::vector<Case> kCases = {
    {"default",
     {.theta = 100000},
     64,
     1.0,
     {1.0f,
      0.697830558f,
      0.486967534f,
      0.339820832f,
      0.237137362f,
      0.165481701f,
      0.115478203f,
      0.0805842131f,
      0.0562341288f,
      0.0392418988f,
      0.0273841955f,
      0.0191095304f,
      0.0133352149f,
      0.00930572022f,
      0.00649381662f,
      0.00453158375f,
      0.00316227786f,
      0.00220673415f,
      0.00153992651f,
      0.00107460783f,
      0.000749894185f,
      0.000523299095f,
      0.000365174114f,
      0.000254829676f,
      0.00017782794f,
      0.000124093771f,
      8.65964321e-05f,
      6.04296365e-05f,
      4.21696532e-05f,
      2.94272722e-05f,
      2.05352499e-05f,
      1.43301268e-05f}},
    {"linear",
     {.type = RopeType::kLinear, .theta = 10000, .factor = 4},
     32,
     1.0,
     {0.25f, 0.140585333f, 0.079056941f, 0.0444569848f, 0.0250000004f, 0.0140585322f, 0.00790569466f,
      0.00444569858f, 0.00249999994f, 0.00140585331f, 0.000790569466f, 0.000444569858f, 0.000250000012f,
      0.000140585325f, 7.90569466e-05f, 4.44569851e-05f}},
    {"llama3",
     {.type = RopeType::kLlama3,
      .theta = 500000,
      .factor = 32,
      .original_max_position_embeddings = 8192,
      .low_freq_factor = 1,
      .high_freq_factor = 4},
     64,
     1.0,
     {1.0f,
      0.663601279f,
      0.440366626f,
      0.292227834f,
      0.193922758f,
      0.128687382f,
      0.0853971019f,
      0.0566696189f,
      0.0376060307f,
      0.0249554086f,
      0.0165604409f,
      0.0109895291f,
      0.00729266508f,
      0.00483942125f,
      0.00321144611f,
      0.00129054801f,
      0.000429556705f,
      9.70828623e-05f,
      1.94616387e-05f,
      1.29147675e-05f,
      8.57025589e-06f,
      5.68723226e-06f,
      3.77405445e-06f,
      2.50446715e-06f,
      1.66196742e-06f,
      1.10288363e-06f,
      7.31874934e-07f,
      4.85673127e-07f,
      3.22293289e-07f,
      2.1387423e-07f,
      1.41927202e-07f,
      9.41830649e-08f}},
    {"yarn",
     {.type = RopeType::kYarn, .theta = 1000000, .factor = 16, .original_max_position_embeddings = 16384},
     64,
     1.2772588722239782,
     {1.0f,
      0.649381638f,
      0.421696514f,
      0.273841977f,
      0.177827939f,
      0.115478203f,
      0.0749894157f,
      0.0486967526f,
      0.0316227786f,
      0.0205352511f,
      0.0133352149f,
      0.00775759714f,
      0.00445186906f,
      0.00251057209f,
      0.00138330145f,
      0.000737881404f,
      0.000375000003f,
      0.000175874186f,
      7.02827456e-05f,
      1.71151223e-05f,
      1.11142463e-05f,
      7.21738706e-06f,
      4.68683902e-06f,
      3.04354717e-06f,
      1.97642339e-06f,
      1.28345312e-06f,
      8.33450883e-07f,
      5.41227735e-07f,
      3.51463342e-07f,
      2.2823383e-07f,
      1.48210859e-07f,
      9.62454081e-08f}},
    {"yarn with mscale",
     {.type = RopeType::kYarn,
      .theta = 10000,
      .factor = 40,
      .original_max_position_embeddings = 4096,
      .mscale = 1,
      .mscale_all_dim = 0.8},
     32,
     1.0569662567531275,
     {1.0f, 0.562341332f, 0.316227764f, 0.177827939f, 0.100000001f, 0.0562341288f, 0.0272181761f,
      0.0128290169f, 0.00582142826f, 0.00249036867f, 0.000959977158f, 0.000292145909f, 2.49999994e-05f,
      1.40585325e-05f, 7.90569447e-06f, 4.44569832e-06f}},
    {"yarn with attention_factor",
     {.type = RopeType::kYarn,
      .theta = 10000,
      .factor = 4,
      .original_max_position_embeddings = 64,
      .beta_fast = 4,
      .beta_slow = 0.5,
      .attention_factor = 1.25},
     16,
     1.25,
     {1.0f, 0.237170815f, 0.049999997f, 0.00790569466f, 0.00249999994f, 0.000790569466f, 0.000250000012f,
      7.90569466e-05f}},
};

TEST(RopeTable, EqualsTransformers) {
  for (const Case& each : kCases) {
    const RopeTable table = make_rope_table(each.config, each.head_dim);
    EXPECT_NEAR(table.attention_factor, each.attention_factor, 1e-6) << each.name;
    ASSERT_EQ(table.inv_freq.size(), each.inv_freq.size()) << each.name;
    // transformers rounds every step to float32.
    for (std::size_t i = 0; i < table.inv_freq.size(); ++i)
      EXPECT_NEAR(table.inv_freq[i] / each.inv_freq[i], 1, 1e-6) << each.name << " frequency " << i;
  }
}

}  // namespace
}  // namespace bise
