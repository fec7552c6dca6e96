// GGUF files (versions 2 and 3, little endian), read through a mapping: metadata, and tensors dequantized to
// float32 a few rows at a time. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
// Immutable once open; any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/files.h"
#include "tensor/tensor.h"

namespace bise {

// ggml's numbers for the element types that can be dequantized here.
enum class GgmlType : std::uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ6_K = 14,
  kBF16 = 30,
};

std::string_view ggml_type_name(GgmlType type);

struct GgufTensor {
  std::string name;
  GgmlType type = GgmlType::kF32;
  Shape shape;                       // row-major, outermost first (GGUF lists the innermost first)
  std::span<const std::byte> bytes;  // of the mapping

  std::int64_t columns() const { return shape.empty() ? 1 : shape.back(); }
  std::int64_t rows() const;  // all other dimensions multiplied
};

class GgufFile {
 public:
  // Throws Error naming the file and the key or tensor for whatever is truncated, too large, nested deeper
  // than 4 arrays, out of the file, overlapping or of an unknown type.
  static GgufFile open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_->path(); }
  std::uint32_t version() const { return version_; }
  bool has(std::string_view key) const { return metadata_.contains(key); }

  // Typed metadata; throw Error naming the key when it is absent or of another type. The second form gives
  // `fallback` when it is absent.
  std::string string(std::string_view key) const;
  std::string string(std::string_view key, const std::string& fallback) const;
  std::int64_t integer(std::string_view key) const;
  std::int64_t integer(std::string_view key, std::int64_t fallback) const;
  double number(std::string_view key) const;
  double number(std::string_view key, double fallback) const;
  bool boolean(std::string_view key, bool fallback) const;
  std::vector<std::string> strings(std::string_view key) const;
  std::vector<std::int64_t> integers(std::string_view key) const;
  std::vector<float> floats(std::string_view key) const;

  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  bool contains(std::string_view name) const;
  const GgufTensor& tensor(std::string_view name) const;  // throws Error when absent
  // Rows [begin, end) as float32 into `out` [(end - begin) * columns].
  void dequantize(const GgufTensor& tensor, std::int64_t begin, std::int64_t end, std::span<float> out) const;
  void release(const GgufTensor& tensor) const { file_->release(tensor.bytes); }

 private:
  struct Reader;
  struct Value;
  using Array = std::vector<Value>;
  // Integers of every width are held as int64 (a u64 above 2^63 - 1 is an error), f32 as double.
  struct Value {
    std::variant<std::int64_t, double, bool, std::string, std::shared_ptr<const Array>> data;
  };
  const Value& value(std::string_view key) const;
  const Array& array(std::string_view key) const;
  [[noreturn]] void wrong_type(std::string_view key, const char* expected) const;
  void read_tensors(Reader& reader, std::uint64_t count);

  std::shared_ptr<const MappedFile> file_;
  std::uint32_t version_ = 0;
  std::map<std::string, Value, std::less<>> metadata_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string, std::size_t, std::less<>> index_;
};

}  // namespace bise
