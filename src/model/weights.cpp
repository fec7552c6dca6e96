#include "model/weights.h"

#include "base/check.h"

namespace bise {

std::vector<NamedLinear*> LayerTensors::linears() {
  std::vector<NamedLinear*> result = {&q_proj, &k_proj, &v_proj, &o_proj};
  if (experts.empty()) {
    result.insert(result.end(), {&gate_proj, &up_proj, &down_proj});
  } else {
    result.push_back(&gate);
    for (ExpertTensors& expert : experts) result.insert(result.end(), {&expert.w1, &expert.w3, &expert.w2});
  }
  return result;
}

std::vector<NamedLinear*> LayerTensors::linears_at(InputSite site, std::int64_t expert) {
  switch (site) {
    case InputSite::kQkv: return {&q_proj, &k_proj, &v_proj};
    case InputSite::kOutput: return {&o_proj};
    case InputSite::kGateUp: {
      if (experts.empty()) return {&gate_proj, &up_proj};
      std::vector<NamedLinear*> result = {&gate};
      for (ExpertTensors& each : experts) result.insert(result.end(), {&each.w1, &each.w3});
      return result;
    }
    case InputSite::kDown:
      if (experts.empty()) return {&down_proj};
      check(expert >= 0 && expert < static_cast<std::int64_t>(experts.size()), "the expert exists");
      return {&experts[static_cast<std::size_t>(expert)].w2};
  }
  return {};
}

}  // namespace bise
