#include "formats/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/check.h"
#include "base/error.h"

namespace bise {
namespace fs = std::filesystem;
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data is little endian");

constexpr std::uint64_t kMaxHeader = 100'000'000;
constexpr std::size_t kLengthBytes = 8;
constexpr std::size_t kMaxDimensions = 16;

// A map-based document: a header may hold 100,000 names, and the ordered document searches linearly.
using Header = nlohmann::json;

Header parse_header(std::string_view text) {
  const auto limit_depth = [](int depth, Header::parse_event_t, Header&) {
    if (depth > 8) throw Error("the header is nested too deep");
    return true;
  };
  try {
    Header header = Header::parse(text.begin(), text.end(), limit_depth);
    if (!header.is_object()) throw Error("the header is not a JSON object").got(header.type_name());
    return header;
  } catch (const Header::exception& problem) {
    throw Error("the header is not valid JSON: {}", problem.what());
  }
}

std::uint64_t unsigned_value(const Header& value, const char* what) {
  if (!value.is_number_unsigned())
    throw Error("{} is not a number", what).expected("an integer >= 0").got(value.dump().substr(0, 80));
  return value.get<std::uint64_t>();
}

const Header& field(const Header& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end()) throw Error("key \"{}\" is missing", key);
  return *found;
}

Shape parse_shape(const Header& value) {
  if (!value.is_array() || value.size() > kMaxDimensions)
    throw Error("shape is not a list of at most {} numbers", kMaxDimensions);
  Shape shape;
  for (const Header& size : value) {
    const std::uint64_t number = unsigned_value(size, "a dimension");
    if (number > std::uint64_t{1} << 62) throw Error("a dimension is too large").got(size.dump());
    shape.push_back(static_cast<std::int64_t>(number));
  }
  return shape;
}

// One tensor of the header; `data` is the size of the area that the offsets count in.
SafetensorsFile::Entry parse_entry(const Header& value, std::size_t data_begin, std::size_t data_size) {
  if (!value.is_object()) throw Error("entry is not an object").got(value.type_name());
  const Header& dtype = field(value, "dtype");
  if (!dtype.is_string()) throw Error("dtype is not a string");
  SafetensorsFile::Entry entry;
  entry.dtype = parse_dtype(dtype.get_ref<const std::string&>());
  entry.shape = parse_shape(field(value, "shape"));
  const Header& offsets = field(value, "data_offsets");
  if (!offsets.is_array() || offsets.size() != 2) throw Error("data_offsets is not a pair");
  const std::uint64_t begin = unsigned_value(offsets[0], "an offset");
  const std::uint64_t end = unsigned_value(offsets[1], "an offset");
  if (begin > end || end > data_size)
    throw Error("data_offsets leave the file")
        .expected(fmt::format("0 <= begin <= end <= {}", data_size))
        .got(fmt::format("[{}, {}]", begin, end));
  const auto count = static_cast<std::uint64_t>(element_count(entry.shape));
  const std::uint64_t width = dtype_size(entry.dtype);
  if (count > UINT64_MAX / width || count * width != end - begin)
    throw Error("data_offsets contradict the shape")
        .expected(fmt::format("{} elements of {} bytes", count, width))
        .got(fmt::format("{} bytes", end - begin));
  entry.begin = data_begin + begin;
  entry.end = data_begin + end;
  return entry;
}

// The format allows no gap and no overlap: tensors in file order tile [begin, end).
void check_tiling(const std::map<std::string, SafetensorsFile::Entry, std::less<>>& entries,
                  std::size_t begin, std::size_t end) {
  std::vector<std::pair<const std::string*, const SafetensorsFile::Entry*>> order;
  for (const auto& [name, entry] : entries) order.emplace_back(&name, &entry);
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second->begin, a.second->end) < std::pair(b.second->begin, b.second->end);
  });
  for (const auto& [name, entry] : order) {
    if (entry->begin != begin)
      throw Error("{}", entry->begin < begin ? "tensors overlap" : "there is a gap before the tensor")
          .at(fmt::format("tensor {}", *name));
    begin = entry->end;
  }
  if (begin != end)
    throw Error("bytes follow the last tensor").got(fmt::format("{} bytes too many", end - begin));
}

}  // namespace

SafetensorsFile SafetensorsFile::open(const fs::path& path) {
  SafetensorsFile result;
  result.file_ = MappedFile::open(path);
  const std::span<const std::byte> bytes = result.file_->bytes();
  try {
    if (bytes.size() < kLengthBytes)
      throw Error("file is too short for a safetensors header").got(fmt::format("{} bytes", bytes.size()));
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), kLengthBytes);
    const std::uint64_t limit = std::min<std::uint64_t>(kMaxHeader, bytes.size() - kLengthBytes);
    if (length > limit)
      throw Error("the header's length is wrong: the file is truncated or no safetensors file")
          .expected(fmt::format("at most {} bytes", limit))
          .got(fmt::format("{}", length));
    const std::size_t data_begin = kLengthBytes + length;
    const Header header = parse_header({reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, length});
    for (const auto& [name, value] : header.items()) {
      try {
        if (name != "__metadata__") {
          result.entries_.emplace(name, parse_entry(value, data_begin, bytes.size() - data_begin));
          continue;
        }
        if (!value.is_object()) throw Error("metadata is not an object").got(value.type_name());
        for (const auto& [key, text] : value.items()) {
          if (!text.is_string()) throw Error("metadata value of \"{}\" is not a string", key);
          result.metadata_.emplace(key, text.get<std::string>());
        }
      } catch (const Error& error) {
        rethrow_inside(error, fmt::format("tensor {}", name));
      }
    }
    check_tiling(result.entries_, data_begin, bytes.size());
  } catch (const Error& error) {
    rethrow_inside(error, path.string());
  }
  return result;
}

const SafetensorsFile::Entry& SafetensorsFile::entry(std::string_view name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) throw Error("there is no tensor {}", name).at(path().string());
  return found->second;
}

Tensor SafetensorsFile::tensor(std::string_view name) const {
  const Entry& found = entry(name);
  const auto bytes = file_->bytes().subspan(found.begin, found.end - found.begin);
  if (found.begin % dtype_size(found.dtype) == 0) return Tensor(found.dtype, found.shape, bytes, file_);
  return Tensor::of(found.dtype, found.shape, bytes);
}

void SafetensorsFile::release(std::string_view name) const {
  const Entry& found = entry(name);
  file_->release(file_->bytes().subspan(found.begin, found.end - found.begin));
}

}  // namespace bise
