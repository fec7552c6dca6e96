#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/check.h"
#include "base/error.h"
#include "base/json.h"
#include "formats/safetensors.h"

namespace bise {
namespace fs = std::filesystem;
namespace {

// The order of dtypes in the safetensors library, whose serializer sorts by it (descending), then by name.
constexpr std::array<DType, 14> kDTypeOrder = {
    DType::kU64, DType::kI64, DType::kF64, DType::kF32,    DType::kU32, DType::kI32, DType::kBF16,
    DType::kF16, DType::kU16, DType::kI16, DType::kF8E4M3, DType::kI8,  DType::kU8,  DType::kBool};

// Of the tensors' first byte: what the format asks for; and a cache line.
constexpr std::size_t kAlignment = 8, kLine = 64;

std::ptrdiff_t dtype_rank(DType dtype) {
  return std::find(kDTypeOrder.begin(), kDTypeOrder.end(), dtype) - kDTypeOrder.begin();
}

std::uint64_t bytes_of(const PlannedTensor& tensor) {
  const auto count = static_cast<std::uint64_t>(element_count(tensor.shape));
  const std::uint64_t width = dtype_size(tensor.dtype);
  if (count > (std::uint64_t{1} << 62) / width)
    throw Error("tensor {} is too large", tensor.name).got(shape_text(tensor.shape));
  return count * width;
}

// Fills shards in the order of the plan; a tensor larger than the limit has a shard of its own.
std::vector<std::vector<std::size_t>> split_into_shards(const std::vector<PlannedTensor>& plan,
                                                        std::uint64_t shard_bytes) {
  std::vector<std::vector<std::size_t>> shards(1);
  std::uint64_t used = 0;
  for (std::size_t i = 0; i < plan.size(); ++i) {
    const std::uint64_t size = bytes_of(plan[i]);
    if (!shards.back().empty() && (size > shard_bytes || used > shard_bytes - size)) {
      shards.emplace_back();
      used = 0;
    }
    shards.back().push_back(i);
    used += size;
  }
  return shards;
}

std::string shard_name(std::size_t index, std::size_t count) {
  return count == 1 ? "model.safetensors" : fmt::format("model-{:05}-of-{:05}.safetensors", index + 1, count);
}

}  // namespace

struct CheckpointWriter::Shard {
  std::string name;
  std::unique_ptr<SizedFile> file;
};

CheckpointWriter::CheckpointWriter(const fs::path& folder, const std::vector<PlannedTensor>& plan,
                                   std::uint64_t shard_bytes)
    : folder_(folder) {
  check(shard_bytes > 0, "a shard has room");
  for (const PlannedTensor& tensor : plan) {
    if (!slot_of_.emplace(tensor.name, slots_.size()).second)
      throw Error("tensor {} is planned twice", tensor.name).at(folder.string());
    slots_.push_back({tensor, 0, 0, false});
  }
  open_shards(split_into_shards(plan, shard_bytes));
}

CheckpointWriter::~CheckpointWriter() = default;

void CheckpointWriter::open_shards(const std::vector<std::vector<std::size_t>>& contents) {
  for (std::size_t shard = 0; shard < contents.size(); ++shard) {
    std::vector<std::size_t> order = contents[shard];
    std::sort(order.begin(), order.end(), [this](std::size_t a, std::size_t b) {
      const PlannedTensor &left = slots_[a].plan, &right = slots_[b].plan;
      return std::pair(dtype_rank(left.dtype), left.name) < std::pair(dtype_rank(right.dtype), right.name);
    });
    // Offsets in the header count from the end of the header.
    std::string header = R"({"__metadata__":{"format":"pt"})";
    std::uint64_t size = 0;
    for (const std::size_t index : order) {
      Slot& slot = slots_[index];
      slot.shard = shard;
      slot.offset = size;
      size += bytes_of(slot.plan);
      const Json entry = {{"dtype", std::string(dtype_name(slot.plan.dtype))},
                          {"shape", slot.plan.shape},
                          {"data_offsets", {slot.offset, size}}};
      header += fmt::format(",{}:{}", json_text(slot.plan.name), json_text(entry));
    }
    header += '}';
    // The largest tensor begins with a cache line, and with it all whose sizes are multiples of one: mapped
    // rows of whole lines are then read as such.
    const auto largest = std::max_element(order.begin(), order.end(), [this](auto left, auto right) {
      return bytes_of(slots_[left].plan) < bytes_of(slots_[right].plan);
    });
    const std::uint64_t before =
        largest == order.end() ? 0 : slots_[*largest].offset / kAlignment * kAlignment;
    std::uint64_t length = header.size();
    while (length % kAlignment != 0 || (sizeof length + length + before) % kLine != 0) ++length;
    const std::size_t data_begin = sizeof length + length;
    header.resize(length, ' ');
    for (const std::size_t index : order) slots_[index].offset += data_begin;

    auto opened = std::make_unique<Shard>();
    opened->name = shard_name(shard, contents.size());
    opened->file = std::make_unique<SizedFile>(folder_ / opened->name, data_begin + size);
    opened->file->write(0, std::as_bytes(std::span(&length, 1)));
    opened->file->write(sizeof length, std::as_bytes(std::span(header)));
    shards_.push_back(std::move(opened));
  }
}

void CheckpointWriter::write(const std::string& name, const Tensor& tensor) {
  const auto found = slot_of_.find(name);
  check(found != slot_of_.end(), "only planned tensors are written");
  Slot& slot = slots_[found->second];
  check(!slot.written, "a tensor is written once");
  if (tensor.dtype() != slot.plan.dtype || tensor.shape() != slot.plan.shape)
    throw Error("tensor {} is not as planned", name)
        .at(folder_.string())
        .expected(fmt::format("{} {}", dtype_name(slot.plan.dtype), shape_text(slot.plan.shape)))
        .got(fmt::format("{} {}", dtype_name(tensor.dtype()), shape_text(tensor.shape())));
  shards_[slot.shard]->file->write(slot.offset, tensor.bytes());
  slot.written = true;
}

void CheckpointWriter::finish() {
  for (const Slot& slot : slots_)
    if (!slot.written)
      throw Error("tensor {} was planned but not written", slot.plan.name).at(folder_.string());
  for (const auto& shard : shards_) shard->file->close();
  if (shards_.size() == 1) return;
  std::uint64_t total = 0;
  Json weight_map = Json::object();
  for (const auto& [name, index] : slot_of_) {
    total += bytes_of(slots_[index].plan);
    // Names come sorted and differ: appending avoids a search of all earlier keys for each.
    weight_map.get_ref<Json::object_t&>().emplace_back(name, shards_[slots_[index].shard]->name);
  }
  const Json index = {{"metadata", {{"total_size", total}}}, {"weight_map", std::move(weight_map)}};
  write_file(folder_ / "model.safetensors.index.json", json_text(index, 2) + "\n");
}

}  // namespace bise
