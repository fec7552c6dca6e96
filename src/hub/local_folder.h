// A folder that holds a repository's files under their own names, with huggingface_hub's notes beside them:
//   DIR/.cache/huggingface/download/<path>.metadata   commit, etag and time, one a line
// Files wait there too until all have come. Not thread-safe.
#pragma once

#include <filesystem>
#include <string>

#include "hub/repository.h"

namespace bise {

class LocalFolder {
 public:
  // Makes the folder and that of the notes.
  explicit LocalFolder(std::filesystem::path root);

  // Whether the file is here as it is at the commit: by the notes when it has not changed since, else by its
  // checksum. Then the notes say so.
  bool has(const HubFile& file, const std::string& commit);
  // Where the file waits, named by its path and etag.
  std::filesystem::path staged(const HubFile& file) const;
  std::filesystem::path lock(const HubFile& file) const;
  // Copies `blob` there when it exists.
  void stage_copy(const HubFile& file, const std::filesystem::path& blob);
  // Gives the waiting file its name and notes where it is from.
  void place(const HubFile& file, const std::string& commit);

 private:
  std::filesystem::path notes(const HubFile& file, const char* extension) const;
  void write_notes(const HubFile& file, const std::string& commit);

  std::filesystem::path root_, notes_;
};

}  // namespace bise
