// Programs that misbehave are stopped; programs that compute are not.
#include "eval/sandbox.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "eval/dataset.h"
#include "tests/test_support.h"

namespace bise {
namespace {

constexpr const char* kPython = "/usr/bin/python3";

struct Case {
  const char* name;
  std::string program;
  ProgramEnd end;
};

class SandboxTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::access(kPython, X_OK) != 0) GTEST_SKIP() << "no Python at " << kPython;
  }
};

TEST_F(SandboxTest, ProgramsThatCompute) {
  const Sandbox sandbox(kPython);
  const Case cases[] = {
      {"arithmetic", "assert sum(range(10)) == 45", ProgramEnd::kPassed},
      {"modules",
       "import math, re, collections, itertools, functools, typing, heapq, hashlib, random, datetime",
       ProgramEnd::kPassed},
      {"a failing test", "assert 1 + 1 == 3", ProgramEnd::kFailed},
      {"no Python", "def f(:", ProgramEnd::kFailed},
      {"exit before the end", "import sys\nsys.exit(0)", ProgramEnd::kFailed},
      {"os._exit", "import os\nos._exit(0)", ProgramEnd::kFailed},
      {"not the main module", "assert __name__ != '__main__'", ProgramEnd::kPassed},
      {"output", "print('x' * 100000)", ProgramEnd::kPassed},
      {"no input", "input()", ProgramEnd::kFailed},
      {"deep recursion", "def f(n):\n  return f(n + 1)\nf(0)", ProgramEnd::kFailed},
      {"empty", "", ProgramEnd::kPassed},
  };
  for (const Case& test : cases) EXPECT_EQ(sandbox.run(test.program), test.end) << test.name;
}

TEST_F(SandboxTest, ProgramsThatDoHarm) {
  const ScratchFolder scratch;
  write_file(scratch.path() / "kept", "content");
  const std::string kept = "'" + (scratch.path() / "kept").string() + "'";
  const std::string folder = "'" + scratch.path().string() + "'";
  // Each ends in success only when what it tries works.
  const Case cases[] = {
      {"fork bomb", "import os\nwhile True:\n  os.fork()", ProgramEnd::kFailed},
      {"child process", "import subprocess\nsubprocess.run(['/bin/true'], check=True)", ProgramEnd::kFailed},
      {"threads", "import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()",
       ProgramEnd::kFailed},
      {"network call", "import socket\nsocket.create_connection(('127.0.0.1', 9), timeout=1)",
       ProgramEnd::kFailed},
      {"socket", "import socket\nsocket.socket()", ProgramEnd::kFailed},
      {"new file", "open(" + folder + " + '/new', 'w').write('x')", ProgramEnd::kFailed},
      {"overwriting", "open(" + kept + ", 'r+').write('x')", ProgramEnd::kFailed},
      {"truncating", "import os\nos.truncate(" + kept + ", 0)", ProgramEnd::kFailed},
      {"deleting", "import os\nos.remove(" + kept + ")", ProgramEnd::kFailed},
      {"deleting a tree", "import shutil\nshutil.rmtree(" + folder + ")", ProgramEnd::kFailed},
      {"renaming", "import os\nos.rename(" + kept + ", " + kept + " + '2')", ProgramEnd::kFailed},
      {"link", "import os\nos.symlink('/', " + folder + " + '/link')", ProgramEnd::kFailed},
      {"permissions", "import os\nos.chmod(" + kept + ", 0)", ProgramEnd::kFailed},
      {"killing others", "import os\nos.kill(" + std::to_string(::getpid()) + ", 9)", ProgramEnd::kFailed},
      {"killing all", "import os\nos.kill(-1, 9)", ProgramEnd::kFailed},
      {"raising its limits", "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1000, 1000))",
       ProgramEnd::kFailed},
      {"many files", "import os\nfiles = [open('/dev/null') for _ in range(1000)]", ProgramEnd::kFailed},
      {"10 GB in one piece", "x = bytearray(10 * 2**30)", ProgramEnd::kFailed},
      {"10 GB in small pieces", "x = [bytearray(2**20) for _ in range(10 * 2**10)]", ProgramEnd::kFailed},
      {"raw system call", "import ctypes\nassert ctypes.CDLL(None).syscall(57) > 0",
       ProgramEnd::kFailed},  // fork
  };
  const Sandbox sandbox(kPython);
  for (const Case& test : cases) {
    const ProgramEnd end = sandbox.run(test.program);
    EXPECT_NE(end, ProgramEnd::kPassed) << test.name;
    if (end != ProgramEnd::kKilled) {
      EXPECT_EQ(end, test.end) << test.name;
    }
  }
  EXPECT_EQ(read_file(scratch.path() / "kept"), "content");
  EXPECT_FALSE(std::filesystem::exists(scratch.path() / "new"));
}

TEST_F(SandboxTest, EndlessLoops) {
  const Sandbox sandbox(kPython, {.seconds = 1});
  for (const char* program :
       {"while True: pass", "import time\ntime.sleep(1000)",
        "while True:\n  try:\n    input()\n  except BaseException:\n    pass",
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: pass"}) {
    const Stopwatch watch;
    EXPECT_EQ(sandbox.run(program), ProgramEnd::kTimeout) << program;
    EXPECT_LT(watch.seconds(), 3) << program;
  }
}

// As humaneval puts them together; a function that returns nothing fails.
TEST_F(SandboxTest, CanonicalSolutionsOfHumanEval) {
  BISE_SKIP_IF_ABSENT(shared_path("data/humaneval"), "data/humaneval");
  const Sandbox sandbox(kPython);
  const auto rows = load_rows(shared_path("data/humaneval") / "test.jsonl");
  for (std::size_t i = 0; i < rows.size(); i += 8) {
    const auto text = [&](const char* key) { return require_string(rows[i], key, "humaneval"); };
    const std::string check = "\n" + text("test") + "\ncheck(" + text("entry_point") + ")";
    EXPECT_EQ(sandbox.run(text("prompt") + text("canonical_solution") + check), ProgramEnd::kPassed) << i;
    EXPECT_EQ(sandbox.run(text("prompt") + "    return None" + check), ProgramEnd::kFailed) << i;
  }
}

TEST_F(SandboxTest, NoInterpreter) {
  EXPECT_THROW(Sandbox("/no/such/python"), Error);
}

}  // namespace
}  // namespace bise
