// Runs untrusted Python programs: the answers of code tasks. A program is a process of its own, under
//   - a seccomp filter (Linux, x86-64) that lets through what an interpreter needs to compute and refuses the
//     rest: sockets, new processes, opening files for writing, changes to the file system, signals to others;
//   - limits of processor time, memory, open files and written bytes; no core file;
//   - where the kernel allows it, user, network and IPC namespaces of its own;
//   - a wall clock: it is killed when its time is over, and when this process ends.
// It has no standard output. Any thread; the calls of one Sandbox may overlap.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace bise {

struct SandboxLimits {
  double seconds = 4;  // on the wall, the start of the interpreter included
  std::int64_t memory_bytes = std::int64_t{2} << 30;
  std::int64_t open_files = 64;
};

enum class ProgramEnd {
  kPassed,   // ran to its end
  kFailed,   // an exception, exit() before its end, a refused operation
  kKilled,   // a signal: the filter's, or for lack of memory
  kTimeout,  // its time was over
};

class Sandbox {
 public:
  // `python`: the interpreter itself, not a script that finds it. Throws Error where there is no such file,
  // or this machine cannot confine a program.
  Sandbox(std::filesystem::path python, SandboxLimits limits = {});

  // Throws Error when no process can be started.
  ProgramEnd run(const std::string& program) const;

 private:
  std::filesystem::path python_;
  SandboxLimits limits_;
};

}  // namespace bise
