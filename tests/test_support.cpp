#include "tests/test_support.h"

#include <unistd.h>

#include <cstdlib>

namespace bise {
namespace fs = std::filesystem;
namespace {

fs::path existing(const fs::path& path) {
  return fs::exists(path) ? path : fs::path();
}

}  // namespace

fs::path source_root() {
  return BISE_SOURCE_DIR;
}

fs::path shared_path(const std::string& relative) {
  const char* place = std::getenv("BISE_SHARED");
  const fs::path root = place ? fs::path(place) : source_root().parent_path() / "shared";
  return existing(root / relative);
}

fs::path test_data(const std::string& relative) {
  return source_root() / "tests" / "data" / relative;
}

fs::path smollm2_path() {
  const char* place = std::getenv("BISE_MODEL");
  return existing(place ? fs::path(place) : source_root() / "build" / "models" / "smollm2");
}

fs::path bise_program() {
  return existing(fs::path(BISE_BINARY_DIR) / "bise");
}

ScratchFolder::ScratchFolder() {
  std::string name = (fs::temp_directory_path() / "bise-test-XXXXXX").string();
  if (!mkdtemp(name.data())) throw std::runtime_error("cannot make a scratch folder at " + name);
  path_ = name;
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace bise
