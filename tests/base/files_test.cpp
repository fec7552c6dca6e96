#include "base/files.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "tests/test_support.h"

namespace bise {
namespace {
namespace fs = std::filesystem;

std::string text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

TEST(Files, WriteThenReadAndMap) {
  const ScratchFolder scratch;
  const fs::path path = scratch.path() / "a.txt";
  for (const std::string& content : {std::string("one"), std::string(), std::string(100'000, 'x')}) {
    write_file(path, content);
    EXPECT_EQ(read_file(path), content);
    EXPECT_EQ(text_of(*MappedFile::open(path)), content);
  }
  EXPECT_FALSE(fs::exists(path.string() + ".partial"));
}

TEST(Files, AMappingOutlivesTheFilesName) {
  const ScratchFolder scratch;
  const fs::path path = scratch.path() / "a.txt";
  write_file(path, "still here");
  const auto file = MappedFile::open(path);
  fs::remove(path);
  EXPECT_EQ(text_of(*file), "still here");
  file->release(file->bytes());
  EXPECT_EQ(text_of(*file), "still here");
}

TEST(Files, WhatCannotBeReadIsAnError) {
  const ScratchFolder scratch;
  write_file(scratch.path() / "a.txt", "12345");
  EXPECT_THROW(read_file(scratch.path() / "absent"), Error);
  EXPECT_THROW(read_file(scratch.path()), Error);
  EXPECT_THROW(read_file(scratch.path() / "a.txt", 4), Error);
  EXPECT_THROW(MappedFile::open(scratch.path() / "absent"), Error);
  EXPECT_THROW(MappedFile::open(scratch.path()), Error);
  EXPECT_THROW(write_file(scratch.path() / "no folder" / "a.txt", "x"), Error);
}

TEST(AtomicFolder, AppearsOnlyWhenCommitted) {
  const ScratchFolder scratch;
  const fs::path target = scratch.path() / "out";
  {
    AtomicFolder folder(target);
    write_file(folder.path() / "a.txt", "x");
    EXPECT_FALSE(fs::exists(target));
  }
  EXPECT_TRUE(fs::is_empty(scratch.path()));
  AtomicFolder folder(target.string() + "/");
  write_file(folder.path() / "a.txt", "x");
  folder.commit();
  EXPECT_EQ(read_file(target / "a.txt"), "x");
  EXPECT_FALSE(fs::exists(folder.path()));
}

TEST(AtomicFolder, NeverMixesWithWhatIsThere) {
  const ScratchFolder scratch;
  const fs::path target = scratch.path() / "out";
  fs::create_directory(target);
  write_file(target / "old.txt", "old");
  EXPECT_THROW(AtomicFolder{target}, Error);
  EXPECT_EQ(read_file(target / "old.txt"), "old");
  // A killed process's leftovers are not taken over.
  fs::create_directory(target.string() + ".partial");
  write_file(target.string() + ".partial/stale.txt", "stale");
  AtomicFolder folder(target, true);
  write_file(folder.path() / "new.txt", "new");
  EXPECT_TRUE(fs::exists(target / "old.txt"));
  folder.commit();
  EXPECT_FALSE(fs::exists(target / "old.txt"));
  EXPECT_FALSE(fs::exists(target / "stale.txt"));
  EXPECT_EQ(read_file(target / "new.txt"), "new");
}

TEST(SizedFile, PiecesLandAtTheirOffsets) {
  const ScratchFolder scratch;
  const fs::path path = scratch.path() / "a.bin";
  SizedFile file(path, 6);
  const std::string right = "def", left = "abc";
  file.write(3, std::as_bytes(std::span(right)));
  file.write(0, std::as_bytes(std::span(left)));
  file.close();
  EXPECT_EQ(read_file(path), "abcdef");
}

TEST(SizedFile, MoreThanTheDiskHoldsIsAnError) {
  const ScratchFolder scratch;
  const fs::path path = scratch.path() / "a.bin";
  EXPECT_THROW(SizedFile(path, std::size_t{1} << 60), Error);
  EXPECT_FALSE(fs::exists(path));
}

}  // namespace
}  // namespace bise
