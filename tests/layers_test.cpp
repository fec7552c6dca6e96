// Reads every #include under src/ and fails where a folder includes something that stands above it or
// beside it in design.md, or where a library's header leaves the folder that may use it.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>

#include "tests/test_support.h"

namespace {
namespace fs = std::filesystem;

// Folder -> the folders it may include besides itself.
const std::map<std::string, std::set<std::string>> kMayInclude = {
    {"base", {}},
    {"tensor", {"base"}},
    {"text", {"base"}},
    {"net", {"base"}},
    {"report", {"base"}},
    {"grammar", {"base", "text"}},
    {"formats", {"base", "tensor"}},
    {"backend", {"base", "tensor"}},
    {"hub", {"base", "net"}},
    {"model", {"base", "tensor", "formats", "backend"}},
    {"quantize", {"base", "tensor", "formats", "backend", "model"}},
    {"engine", {"base", "tensor", "backend", "model"}},
    {"serve", {"base", "text", "net", "report", "grammar", "formats", "engine"}},
    {"eval", {"base", "text", "net", "report", "formats", "engine"}},
    {"bench", {"base", "text", "net", "report", "formats", "engine"}},
    {"cli",
     {"base", "tensor", "text", "net", "report", "grammar", "formats", "backend", "hub", "model", "quantize",
      "engine", "serve", "eval", "bench"}},
};

// Library header prefix -> the only folders that may include it.
const std::map<std::string, std::set<std::string>> kLibraryHomes = {
    {"boost/", {"net"}},    {"openssl/", {"net", "base"}}, {"CLI/", {"cli"}},       {"pcre2", {"text"}},
    {"cblas", {"backend"}}, {"lapacke", {"backend"}},      {"yaml-cpp/", {"base"}}, {"cuda", {"backend"}},
};

TEST(Layers, EveryIncludePointsDown) {
  const fs::path source = bise::source_root() / "src";
  const std::regex include(R"re(^\s*#\s*include\s*["<]([^">]+)[">])re");
  int seen = 0;
  for (const auto& entry : fs::recursive_directory_iterator(source)) {
    const std::string extension = entry.path().extension();
    if (extension != ".h" && extension != ".cpp" && extension != ".cu" && extension != ".cuh") continue;
    const fs::path relative = fs::relative(entry.path(), source);
    const std::string folder = *relative.begin();
    ASSERT_TRUE(kMayInclude.contains(folder)) << relative << ": folder " << folder << " is not in design.md";
    std::ifstream file(entry.path());
    std::string line;
    for (int number = 1; std::getline(file, line); ++number) {
      std::smatch match;
      if (!std::regex_search(line, match, include)) continue;
      ++seen;
      const std::string target = match[1];
      const std::string first = target.substr(0, target.find('/'));
      if (kMayInclude.contains(first) && first != folder) {
        EXPECT_TRUE(kMayInclude.at(folder).contains(first))
            << relative.string() << ":" << number << ": " << folder << "/ may not include " << target;
      }
      for (const auto& [prefix, homes] : kLibraryHomes) {
        if (target.starts_with(prefix)) {
          EXPECT_TRUE(homes.contains(folder))
              << relative.string() << ":" << number << ": " << target << " stays out of " << folder << "/";
        }
      }
      if (target == "nlohmann/json.hpp") {
        EXPECT_NE(extension, ".h") << relative.string() << ":" << number
                                   << ": nlohmann/json.hpp in .cpp files only";
      }
    }
  }
  EXPECT_GT(seen, 10);
}

// The headers of net/ that show Boost's types, themselves or through another: no other folder includes one.
TEST(Layers, BoostStaysInNet) {
  const fs::path source = bise::source_root() / "src";
  const std::regex include(R"re(^\s*#\s*include\s*["<]([^">]+)[">])re");
  std::map<std::string, std::set<std::string>> includes;  // "net/x.h" -> what it includes
  for (const auto& entry : fs::recursive_directory_iterator(source)) {
    const std::string extension = entry.path().extension();
    if (extension != ".h" && extension != ".cpp") continue;
    auto& of_file = includes[fs::relative(entry.path(), source).string()];
    std::ifstream file(entry.path());
    for (std::string line; std::getline(file, line);) {
      std::smatch match;
      if (std::regex_search(line, match, include)) of_file.insert(match[1]);
    }
  }
  std::set<std::string> inside;
  for (std::size_t before = 1; before != inside.size();) {
    before = inside.size();
    for (const auto& [file, targets] : includes) {
      if (!file.ends_with(".h")) continue;
      for (const std::string& target : targets) {
        if (target.starts_with("boost/") || inside.contains(target)) inside.insert(file);
      }
    }
  }
  EXPECT_TRUE(inside.contains("net/transport.h"));
  for (const auto& [file, targets] : includes) {
    if (file.starts_with("net/")) continue;
    for (const std::string& target : targets) {
      EXPECT_FALSE(inside.contains(target))
          << file << " includes " << target << ", which shows Boost's types";
    }
  }
}

}  // namespace
