#include "engine/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "base/error.h"
#include "model/step_batch.h"

namespace bise {
namespace {

constexpr double kDeviceUtilization = 0.92, kHostShare = 0.5;

std::int64_t divide_up(std::int64_t value, std::int64_t by) {
  return (value + by - 1) / by;
}

std::string gib(std::int64_t bytes) {
  return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / (1024.0 * 1024 * 1024));
}

// 1234567 -> "1,234,567"
std::string with_commas(std::int64_t number) {
  std::string text = std::to_string(number);
  for (auto at = static_cast<std::ptrdiff_t>(text.size()) - 3; at > 0; at -= 3)
    text.insert(static_cast<std::size_t>(at), ",");
  return text;
}

// The longest sequence that fits, up to `longest`; 0 when none does. What a sequence needs grows with it.
std::int64_t longest_fitting(const KvCost& cost, std::int64_t blocks, std::int64_t in_flight,
                             std::int64_t longest) {
  std::int64_t fits = 0, too_long = longest + 1;
  while (too_long - fits > 1) {
    const std::int64_t middle = fits + (too_long - fits) / 2;
    (cost.blocks_for(middle, in_flight) <= blocks ? fits : too_long) = middle;
  }
  return fits;
}

}  // namespace

std::int64_t KvCost::blocks_for(std::int64_t tokens, std::int64_t in_flight) const {
  std::int64_t blocks = 0;
  for (const std::int64_t window : sliding_windows) {
    const std::int64_t all = divide_up(tokens, block_size);
    blocks +=
        window > 0 ? std::min(all, divide_up(std::min(window - 1 + in_flight, tokens), block_size) + 1) : all;
  }
  return blocks;
}

KvCost measure_kv_cost(const Decoder& decoder, DType kv_cache_dtype) {
  const auto one = decoder.make_kv_cache(1, kv_cache_dtype), three = decoder.make_kv_cache(3, kv_cache_dtype);
  KvCost cost{(three->bytes() - one->bytes()) / 2, one->shape().block_size, {}};
  for (const KvLayout::Group& group : decoder.kv_layout().groups)
    cost.sliding_windows.push_back(group.sliding_window);
  return cost;
}

std::int64_t check_memory_at_start(const MemoryOptions& options, const MemoryInfo& at_start) {
  if (!options.gpu_memory_utilization && at_start.host)
    return static_cast<std::int64_t>(static_cast<double>(at_start.free) * kHostShare);
  const double utilization = options.gpu_memory_utilization.value_or(kDeviceUtilization);
  if (!(utilization > 0 && utilization <= 1))
    throw Error("a share of the memory is expected")
        .at("--gpu-memory-utilization")
        .expected("a number above 0, at most 1")
        .got(fmt::format("{}", utilization));
  const auto requested =
      static_cast<std::int64_t>(std::ceil(static_cast<double>(at_start.total) * utilization));
  if (options.kv_cache_memory_bytes == 0 && at_start.free < requested)
    throw Error(
        "Free memory on device ({} of {}) on startup is less than desired GPU memory utilization ({}, {}). "
        "Decrease GPU memory utilization or reduce GPU memory used by other processes.",
        gib(at_start.free), gib(at_start.total), utilization, gib(requested))
        .at("--gpu-memory-utilization");
  return requested;
}

std::int64_t profile_run(Decoder& decoder, std::int64_t tokens, std::int64_t max_model_len,
                         std::int64_t logit_rows) {
  check(tokens > 0 && tokens <= decoder.limits().max_tokens && max_model_len > 0, "a step fits the decoder");
  const std::int64_t length = std::min(tokens, max_model_len), sequences = divide_up(tokens, length);
  const std::int64_t block_size = decoder.backend().preferred_block_size();
  const auto groups = static_cast<std::int64_t>(decoder.kv_layout().groups.size());
  const std::int64_t per_sequence = groups * divide_up(length, block_size);
  const auto cache = decoder.make_kv_cache(sequences * per_sequence);
  StepBatch batch(tokens, sequences, divide_up(length, block_size), groups);
  const std::vector<std::int32_t> ids(static_cast<std::size_t>(length));
  std::vector<std::int32_t> blocks(static_cast<std::size_t>(per_sequence));
  for (std::int64_t s = 0; s < sequences; ++s) {
    std::iota(blocks.begin(), blocks.end(), static_cast<std::int32_t>(s * per_sequence));
    batch.add(std::span(ids).first(static_cast<std::size_t>(std::min(length, tokens - s * length))), 0,
              blocks);
  }
  decoder.forward(batch.view(), *cache);
  std::vector<std::int32_t> rows(
      static_cast<std::size_t>(std::min({logit_rows, tokens, decoder.limits().max_logit_rows})));
  std::iota(rows.begin(), rows.end(), 0);
  decoder.logits(rows);
  const MemoryUse stated = decoder.memory_use(nullptr);
  // A short profile leaves workspace untouched that later steps will use.
  return std::max(decoder.backend().memory().peak_used - cache->bytes(), stated.total());
}

MemoryPlan plan_memory(const MemoryOptions& options, const KvCost& cost, std::int64_t requested_bytes,
                       std::int64_t non_kv_bytes) {
  check(cost.block_bytes > 0 && cost.block_size > 0 && !cost.sliding_windows.empty(), "a block has a size");
  MemoryPlan plan;
  plan.requested_bytes = requested_bytes;
  plan.non_kv_bytes = non_kv_bytes;
  plan.available_bytes =
      options.kv_cache_memory_bytes > 0 ? options.kv_cache_memory_bytes : requested_bytes - non_kv_bytes;
  plan.num_blocks = options.num_gpu_blocks_override > 0
                        ? options.num_gpu_blocks_override
                        : std::max<std::int64_t>(0, plan.available_bytes) / cost.block_bytes;
  if (plan.num_blocks < 2)
    throw Error(
        "No available memory for the cache blocks: {} of the {} that may be used are taken, and a block has "
        "{} "
        "bytes. Try increasing `gpu_memory_utilization` when initializing the engine.",
        gib(non_kv_bytes), gib(requested_bytes), cost.block_bytes)
        .at("--gpu-memory-utilization");

  // One block is the null block; block ids are 32-bit.
  plan.num_blocks = std::min<std::int64_t>(plan.num_blocks, std::int64_t{1} << 30);
  const std::int64_t usable = plan.num_blocks - 1;
  const bool automatic = options.max_model_len <= 0;
  const std::int64_t wanted = automatic ? options.longest_context : options.max_model_len;
  const std::int64_t fits = longest_fitting(cost, usable, options.max_num_batched_tokens, wanted);
  if (fits < wanted && (!automatic || fits == 0))
    throw Error(
        "To serve at least one request with the model's max seq len ({}), {} KV cache is needed, which is "
        "larger than the available KV cache memory ({}). Based on the available memory, the estimated "
        "maximum "
        "model length is {}. Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when "
        "initializing the engine.",
        wanted, gib((1 + cost.blocks_for(wanted, options.max_num_batched_tokens)) * cost.block_bytes),
        gib(plan.num_blocks * cost.block_bytes), fits)
        .at("--max-model-len");
  plan.max_model_len = fits;
  plan.max_concurrency =
      static_cast<double>(usable) /
      static_cast<double>(cost.blocks_for(plan.max_model_len, options.max_num_batched_tokens));
  plan.cache_tokens =
      static_cast<std::int64_t>(plan.max_concurrency * static_cast<double>(plan.max_model_len));
  return plan;
}

std::vector<std::string> MemoryPlan::lines(const std::string& device) const {
  return {fmt::format("Available KV cache memory: {}", gib(available_bytes)),
          fmt::format("{} KV cache size: {} tokens, Maximum concurrency for {} tokens per request: {:.2f}x",
                      device, with_commas(cache_tokens), with_commas(max_model_len), max_concurrency)};
}

}  // namespace bise
