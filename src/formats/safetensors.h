// safetensors files and checkpoints made of them, read through a mapping and written at planned offsets.
// https://github.com/huggingface/safetensors, "Format".
//
// A SafetensorsFile or Checkpoint may be read from any thread once it is open. A tensor it hands out keeps
// the mapping alive. A CheckpointWriter belongs to one thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "tensor/tensor.h"

namespace bise {

// One safetensors file. Every size and offset of its header is checked before use.
class SafetensorsFile {
 public:
  // Where a tensor's bytes stand, counted from the first byte of the file.
  struct Entry {
    DType dtype = DType::kF32;
    Shape shape;
    std::size_t begin = 0, end = 0;
  };

  // Throws Error (naming `path` and the tensor) for a header that is truncated, longer than 100 MB, no JSON,
  // of unknown dtypes, or whose offsets leave gaps, overlap, leave the file or contradict the shape.
  static SafetensorsFile open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_->path(); }
  const std::map<std::string, Entry, std::less<>>& entries() const { return entries_; }
  bool contains(std::string_view name) const { return entries_.contains(name); }
  // The "__metadata__" strings.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  // A view of the mapping (a copy when an old file's offsets are not aligned to the element).
  Tensor tensor(std::string_view name) const;
  // Drops the tensor's pages from memory; they come back from the disk when read again.
  void release(std::string_view name) const;

 private:
  const Entry& entry(std::string_view name) const;

  std::shared_ptr<const MappedFile> file_;
  std::map<std::string, Entry, std::less<>> entries_;
  std::map<std::string, std::string> metadata_;
};

// The tensors of a checkpoint folder under their Hugging Face names, whatever the files call them
// (formats/tensor_names.h): model.safetensors, model.safetensors.index.json with its shards, or the
// Mistral-native consolidated.safetensors (or its index).
class Checkpoint {
 public:
  // Throws Error for a folder without weights, a missing shard, a tensor that its shard lacks, or a name that
  // occurs twice.
  static Checkpoint open(const std::filesystem::path& folder);

  const std::filesystem::path& folder() const { return folder_; }
  std::vector<std::string> names() const;  // sorted
  bool contains(std::string_view name) const { return places_.contains(name); }
  // Throws Error naming the tensor and the folder when it is absent. q and k of a Mistral-native folder are
  // copies (their rows are reordered); everything else is a view.
  Tensor tensor(std::string_view name) const;
  DType dtype(std::string_view name) const;
  const Shape& shape(std::string_view name) const;
  // Tells the system that the tensor is not needed soon.
  void release(std::string_view name) const;
  // Bytes of all tensors.
  std::uint64_t total_bytes() const;

 private:
  struct Place {
    std::size_t file = 0;
    std::string stored_name;
    std::int64_t rotary_heads = 0;  // > 0: rows are in the interleaved rotary order, for so many heads
  };
  const Place& place(std::string_view name) const;
  void add_file(SafetensorsFile file);
  void use_hugging_face_names(bool mistral_native);

  std::filesystem::path folder_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, Place, std::less<>> places_;
};

// A tensor that is going to be written.
struct PlannedTensor {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
};

// Writes model.safetensors, or model-0000i-of-0000n.safetensors with model.safetensors.index.json when one
// shard would exceed the limit. The bytes equal those of Python's safetensors for the same shard: tensors by
// dtype (in the format's own order, wide ones first), then by name; metadata {"format":"pt"}. But for the
// spaces after the header, of which there are as many as let the largest tensor begin with a cache line
// (Python: the first with a multiple of 8 bytes), since the CPU backend computes with the mapped file. Write
// into an AtomicFolder: the files exist from the start.
class CheckpointWriter {
 public:
  // Reserves all files at once. `plan` in the model's order: shards are filled in it. Throws Error when the
  // disk is too small or a name occurs twice.
  CheckpointWriter(const std::filesystem::path& folder, const std::vector<PlannedTensor>& plan,
                   std::uint64_t shard_bytes = 5'000'000'000);
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // Each planned tensor once, in any order, from any thread; dtype and shape must be the planned ones.
  void write(const std::string& name, const Tensor& tensor);
  // Flushes, closes and writes the index. Every planned tensor must have been written.
  void finish();

 private:
  struct Shard;
  struct Slot {
    PlannedTensor plan;
    std::size_t shard = 0, offset = 0;
    bool written = false;
  };
  void open_shards(const std::vector<std::vector<std::size_t>>& contents);

  std::filesystem::path folder_;
  std::vector<Slot> slots_;
  std::map<std::string, std::size_t> slot_of_;
  std::vector<std::unique_ptr<Shard>> shards_;
};

}  // namespace bise
