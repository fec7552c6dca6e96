#include "formats/gguf.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "formats/ggml_blocks.h"

namespace bise {
namespace fs = std::filesystem;
namespace {

constexpr std::uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr int kMaxArrayDepth = 4;
constexpr std::uint32_t kMaxDimensions = 4;

enum class ValueType : std::uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64
};

// The least number of bytes that a value of the type takes: bounds the length of an array.
std::size_t least_bytes(ValueType type) {
  switch (type) {
    case ValueType::kU8:
    case ValueType::kI8:
    case ValueType::kBool: return 1;
    case ValueType::kU16:
    case ValueType::kI16: return 2;
    case ValueType::kU32:
    case ValueType::kI32:
    case ValueType::kF32: return 4;
    case ValueType::kArray: return 12;
    default: return 8;
  }
}

}  // namespace

// A cursor over the mapping that never leaves it.
struct GgufFile::Reader {
  std::span<const std::byte> bytes;
  std::size_t at = 0;

  std::size_t left() const { return bytes.size() - at; }

  template <class T>
  T take() {
    if (left() < sizeof(T)) throw Error("the file is truncated").at(fmt::format("byte {}", at));
    T value;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    at += sizeof value;
    return value;
  }

  std::string take_string() {
    const auto length = take<std::uint64_t>();
    if (length > left())
      throw Error("a string leaves the file")
          .at(fmt::format("byte {}", at))
          .expected(fmt::format("at most {} bytes", left()))
          .got(fmt::format("{}", length));
    std::string text(reinterpret_cast<const char*>(bytes.data() + at), length);
    at += length;
    return text;
  }

  ValueType take_type() {
    const auto type = take<std::uint32_t>();
    if (type > static_cast<std::uint32_t>(ValueType::kF64)) throw Error("unknown metadata type {}", type);
    return static_cast<ValueType>(type);
  }

  Value take_value(ValueType type, int depth) {
    switch (type) {
      case ValueType::kU8: return {std::int64_t{take<std::uint8_t>()}};
      case ValueType::kI8: return {std::int64_t{take<std::int8_t>()}};
      case ValueType::kU16: return {std::int64_t{take<std::uint16_t>()}};
      case ValueType::kI16: return {std::int64_t{take<std::int16_t>()}};
      case ValueType::kU32: return {std::int64_t{take<std::uint32_t>()}};
      case ValueType::kI32: return {std::int64_t{take<std::int32_t>()}};
      case ValueType::kI64: return {take<std::int64_t>()};
      case ValueType::kU64: {
        const auto value = take<std::uint64_t>();
        if (value > std::uint64_t{INT64_MAX}) throw Error("a number exceeds 2^63 - 1");
        return {static_cast<std::int64_t>(value)};
      }
      case ValueType::kF32: return {double{take<float>()}};
      case ValueType::kF64: return {take<double>()};
      case ValueType::kBool: return {take<std::uint8_t>() != 0};
      case ValueType::kString: return {take_string()};
      case ValueType::kArray: return {take_array(depth + 1)};
    }
    throw Error("unknown metadata type");
  }

  std::shared_ptr<const Array> take_array(int depth) {
    if (depth > kMaxArrayDepth) throw Error("arrays are nested deeper than {} levels", kMaxArrayDepth);
    const ValueType type = take_type();
    const auto count = take<std::uint64_t>();
    if (count > left() / least_bytes(type))
      throw Error("an array leaves the file").got(fmt::format("{} elements", count));
    auto array = std::make_shared<Array>();
    array->reserve(count);
    for (std::uint64_t i = 0; i < count; ++i) array->push_back(take_value(type, depth));
    return array;
  }
};

std::string_view ggml_type_name(GgmlType type) {
  const GgmlBlock* block = find_ggml_block(static_cast<std::uint32_t>(type));
  return block ? block->name : "?";
}

std::int64_t GgufTensor::rows() const {
  return shape.empty() ? 1 : element_count({shape.begin(), shape.end() - 1});
}

GgufFile GgufFile::open(const fs::path& path) {
  GgufFile result;
  result.file_ = MappedFile::open(path);
  try {
    Reader reader{result.file_->bytes()};
    if (reader.left() < 24 || reader.take<std::uint32_t>() != kMagic)
      throw Error("not a GGUF file").expected("the magic \"GGUF\"");
    result.version_ = reader.take<std::uint32_t>();
    if (result.version_ != 2 && result.version_ != 3)
      throw Error("GGUF version is not supported").expected("2 or 3").got(fmt::format("{}", result.version_));
    const auto tensors = reader.take<std::uint64_t>();
    const auto pairs = reader.take<std::uint64_t>();
    for (std::uint64_t i = 0; i < pairs; ++i) {
      const std::string key = reader.take_string();
      try {
        const ValueType type = reader.take_type();
        if (!result.metadata_.emplace(key, reader.take_value(type, 0)).second)
          throw Error("the key occurs twice");
      } catch (const Error& error) {
        rethrow_inside(error, fmt::format("key {}", key));
      }
    }
    result.read_tensors(reader, tensors);
  } catch (const Error& error) {
    rethrow_inside(error, path.string());
  }
  return result;
}

void GgufFile::read_tensors(Reader& reader, std::uint64_t count) {
  const std::int64_t alignment = integer("general.alignment", 32);
  if (alignment < 1 || alignment > (1 << 20) || (alignment & (alignment - 1)) != 0)
    throw Error("general.alignment is no power of two").got(fmt::format("{}", alignment));
  std::vector<std::uint64_t> offsets;
  // A tensor's description takes at least 24 bytes.
  if (count > reader.left() / 24) throw Error("more tensors than fit").got(fmt::format("{}", count));
  for (std::uint64_t i = 0; i < count; ++i) {
    GgufTensor tensor;
    tensor.name = reader.take_string();
    const auto dimensions = reader.take<std::uint32_t>();
    if (dimensions > kMaxDimensions)
      throw Error("tensor {} has {} dimensions", tensor.name, dimensions)
          .expected(fmt::format("at most {}", kMaxDimensions));
    for (std::uint32_t axis = 0; axis < dimensions; ++axis) {
      const auto size = reader.take<std::uint64_t>();
      if (size > std::uint64_t{1} << 48) throw Error("a dimension of tensor {} is too large", tensor.name);
      tensor.shape.insert(tensor.shape.begin(), static_cast<std::int64_t>(size));
    }
    tensor.type = static_cast<GgmlType>(reader.take<std::uint32_t>());
    offsets.push_back(reader.take<std::uint64_t>());
    if (!index_.emplace(tensor.name, tensors_.size()).second)
      throw Error("tensor {} occurs twice", tensor.name);
    tensors_.push_back(std::move(tensor));
  }
  const std::size_t align = static_cast<std::size_t>(alignment);
  const std::size_t data = std::min((reader.at + align - 1) / align * align, reader.bytes.size());
  const std::span<const std::byte> area = reader.bytes.subspan(data);
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    GgufTensor& tensor = tensors_[i];
    const std::size_t size = ggml_bytes(tensor);
    if (offsets[i] % align != 0 || offsets[i] > area.size() || size > area.size() - offsets[i])
      throw Error("tensor {} leaves the file or is not aligned", tensor.name)
          .expected(fmt::format("{} bytes within {}", size, area.size()))
          .got(fmt::format("offset {}", offsets[i]));
    tensor.bytes = area.subspan(offsets[i], size);
  }
}

const GgufFile::Value& GgufFile::value(std::string_view key) const {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) throw Error("key {} is missing", key).at(path().string());
  return found->second;
}

const GgufFile::Array& GgufFile::array(std::string_view key) const {
  const auto* pointer = std::get_if<std::shared_ptr<const Array>>(&value(key).data);
  if (!pointer) wrong_type(key, "an array");
  return **pointer;
}

void GgufFile::wrong_type(std::string_view key, const char* expected) const {
  throw Error("key {} has the wrong type", key).at(path().string()).expected(expected);
}

std::string GgufFile::string(std::string_view key) const {
  const auto* text = std::get_if<std::string>(&value(key).data);
  if (!text) wrong_type(key, "a string");
  return *text;
}

std::string GgufFile::string(std::string_view key, const std::string& fallback) const {
  return has(key) ? string(key) : fallback;
}

std::int64_t GgufFile::integer(std::string_view key) const {
  const auto* number = std::get_if<std::int64_t>(&value(key).data);
  if (!number) wrong_type(key, "an integer");
  return *number;
}

std::int64_t GgufFile::integer(std::string_view key, std::int64_t fallback) const {
  return has(key) ? integer(key) : fallback;
}

double GgufFile::number(std::string_view key) const {
  const Value& found = value(key);
  if (const auto* number = std::get_if<double>(&found.data)) return *number;
  if (const auto* number = std::get_if<std::int64_t>(&found.data)) return static_cast<double>(*number);
  wrong_type(key, "a number");
}

double GgufFile::number(std::string_view key, double fallback) const {
  return has(key) ? number(key) : fallback;
}

bool GgufFile::boolean(std::string_view key, bool fallback) const {
  if (!has(key)) return fallback;
  const auto* flag = std::get_if<bool>(&value(key).data);
  if (!flag) wrong_type(key, "a boolean");
  return *flag;
}

std::vector<std::string> GgufFile::strings(std::string_view key) const {
  std::vector<std::string> result;
  for (const Value& item : array(key)) {
    const auto* text = std::get_if<std::string>(&item.data);
    if (!text) wrong_type(key, "strings");
    result.push_back(*text);
  }
  return result;
}

std::vector<std::int64_t> GgufFile::integers(std::string_view key) const {
  std::vector<std::int64_t> result;
  for (const Value& item : array(key)) {
    const auto* number = std::get_if<std::int64_t>(&item.data);
    if (!number) wrong_type(key, "integers");
    result.push_back(*number);
  }
  return result;
}

std::vector<float> GgufFile::floats(std::string_view key) const {
  std::vector<float> result;
  for (const Value& item : array(key)) {
    const auto* number = std::get_if<double>(&item.data);
    if (!number) wrong_type(key, "floats");
    result.push_back(static_cast<float>(*number));
  }
  return result;
}

bool GgufFile::contains(std::string_view name) const {
  return index_.contains(name);
}

const GgufTensor& GgufFile::tensor(std::string_view name) const {
  const auto found = index_.find(name);
  if (found == index_.end()) throw Error("there is no tensor {}", name).at(path().string());
  return tensors_[found->second];
}

void GgufFile::dequantize(const GgufTensor& tensor, std::int64_t begin, std::int64_t end,
                          std::span<float> out) const {
  dequantize_ggml(tensor, begin, end, out);
}

}  // namespace bise
