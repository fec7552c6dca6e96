#include "hub/local_folder.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <chrono>
#include <sstream>

#include "base/error.h"
#include "base/files.h"
#include "hub/cache.h"
#include "hub/digest.h"

namespace bise {
namespace fs = std::filesystem;
namespace {

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw Error("cannot make the folder: {}", error.message()).at(folder.string());
}

double modification_time(const fs::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return 0;
  return static_cast<double>(status.st_mtim.tv_sec) + static_cast<double>(status.st_mtim.tv_nsec) * 1e-9;
}

}  // namespace

LocalFolder::LocalFolder(fs::path root) : root_(std::move(root)), notes_(root_ / ".cache" / "huggingface") {
  make_folder(notes_ / "download");
  write_cache_tag(notes_);
  std::error_code absent;
  if (!fs::exists(notes_ / ".gitignore", absent)) write_file(notes_ / ".gitignore", "*");
}

fs::path LocalFolder::notes(const HubFile& file, const char* extension) const {
  return notes_ / "download" / (file.path + extension);
}

fs::path LocalFolder::staged(const HubFile& file) const {
  const fs::path place = notes(file, "");
  return place.parent_path() / (sha256_hex(file.path).substr(0, 16) + "." + file.etag());
}

fs::path LocalFolder::lock(const HubFile& file) const {
  return notes(file, ".lock");
}

bool LocalFolder::has(const HubFile& file, const std::string& commit) {
  const fs::path path = root_ / file.path, noted = notes(file, ".metadata");
  std::error_code absent;
  make_folder(noted.parent_path());
  if (!fs::is_regular_file(path, absent) || fs::file_size(path, absent) != file.size) return false;
  std::string noted_commit, noted_etag;
  double time = 0;
  if (fs::is_regular_file(noted, absent))
    std::istringstream(read_file(noted, 4096)) >> noted_commit >> noted_etag >> time;
  // huggingface_hub's rule: notes older than the file by more than a second speak of another content.
  const bool fresh = modification_time(path) - 1 <= time;
  if (!(fresh && noted_etag == file.etag()) && content_etag(path, file.etag()) != file.etag()) return false;
  if (noted_commit != commit || !fresh) write_notes(file, commit);
  return true;
}

void LocalFolder::stage_copy(const HubFile& file, const fs::path& blob) {
  std::error_code absent;
  const fs::path target = staged(file);
  if (!fs::is_regular_file(blob, absent) || fs::file_size(blob, absent) != file.size) return;
  if (fs::exists(target, absent)) return;
  const fs::path temporary = target.string() + ".copy";
  std::error_code error;
  fs::copy_file(blob, temporary, fs::copy_options::overwrite_existing, error);
  if (!error) fs::rename(temporary, target, error);
  if (error) throw Error("cannot copy from the cache: {}", error.message()).at(target.string());
}

void LocalFolder::place(const HubFile& file, const std::string& commit) {
  const fs::path path = root_ / file.path;
  make_folder(path.parent_path());
  std::error_code error;
  fs::rename(staged(file), path, error);
  if (error) throw Error("cannot write: {}", error.message()).at(path.string());
  write_notes(file, commit);
}

void LocalFolder::write_notes(const HubFile& file, const std::string& commit) {
  const double now =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  write_file(notes(file, ".metadata"), fmt::format("{}\n{}\n{:.6f}\n", commit, file.etag(), now));
}

}  // namespace bise
