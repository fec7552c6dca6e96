#include "eval/sandbox.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/descriptor.h"
#include "base/error.h"
#include "eval/sandbox_filter.h"

namespace bise {
namespace {

// The exit code of a program that came to its end; exit() inside it gives another.
constexpr int kPassedCode = 87, kSetupFailedCode = 99;
// As HF's code_eval runs a program: in an empty namespace of its own.
constexpr const char* kRunner =
    "import os\n"
    "exec(compile(open(0).read(), '<answer>', 'exec'), {})\n"
    "os._exit(87)\n";

void write_all(int descriptor, const std::string& text) {
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t count = ::write(descriptor, text.data() + done, text.size() - done);
    if (count < 0 && errno != EINTR) throw Error("cannot hand over a program: {}", std::strerror(errno));
    if (count > 0) done += static_cast<std::size_t>(count);
  }
}

bool limit(int resource, std::int64_t value) {
  const rlimit both{static_cast<rlim_t>(value), static_cast<rlim_t>(value)};
  return ::setrlimit(static_cast<__rlimit_resource>(resource), &both) == 0;
}

// In the child, before it becomes the interpreter: only calls that are safe after fork() in a process with
// threads. Returns when something is refused that must not be.
void confine_and_run(int program, int null, const char* python, const char* const* arguments,
                     const char* const* environment, const SandboxLimits& limits, const SeccompFilter& filter,
                     pid_t parent) {
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || ::getppid() != parent) return;
  if (::setpgid(0, 0) != 0) return;
  if (::dup2(program, 0) < 0 || ::dup2(null, 1) < 0 || ::dup2(null, 2) < 0) return;
  if (::syscall(SYS_close_range, 3, ~0u, 0) != 0) return;
  if (::chdir("/") != 0) return;
  // A second wall around what the filter refuses anyway; refused itself in many containers.
  if (::unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC) != 0) errno = 0;
  const auto processor_seconds = static_cast<std::int64_t>(limits.seconds) + 1;
  if (!limit(RLIMIT_CPU, processor_seconds) || !limit(RLIMIT_AS, limits.memory_bytes) ||
      !limit(RLIMIT_FSIZE, 0) || !limit(RLIMIT_NOFILE, limits.open_files) || !limit(RLIMIT_CORE, 0) ||
      !limit(RLIMIT_STACK, std::int64_t{64} << 20))
    return;
  if (!filter.apply()) return;
  ::execve(python, const_cast<char* const*>(arguments), const_cast<char* const*>(environment));
}

// Waits for the child until its time is over; kills what is left of its group.
std::pair<int, bool> wait_for(pid_t child, double seconds) {
  const Stopwatch watch;
  int status = 0;
  bool timeout = false;
  while (true) {
    const pid_t ended = ::waitpid(child, &status, WNOHANG);
    if (ended == child) break;
    if (ended < 0 && errno != EINTR) throw Error("lost a program: {}", std::strerror(errno));
    if (watch.seconds() > seconds) {
      timeout = true;
      ::kill(child, SIGKILL);
      while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
      }
      break;
    }
    ::poll(nullptr, 0, 2);  // ms
  }
  ::kill(-child, SIGKILL);
  return {status, timeout};
}

}  // namespace

Sandbox::Sandbox(std::filesystem::path python, SandboxLimits limits)
    : python_(std::move(python)), limits_(limits) {
  if (::access(python_.c_str(), X_OK) != 0)
    throw Error("no Python interpreter to run the answers with").at(python_.string());
  if (!SeccompFilter::supported())
    throw Error("this machine cannot confine the programs of code tasks")
        .expected("Linux on x86-64 with seccomp");
}

ProgramEnd Sandbox::run(const std::string& program) const {
  const Descriptor file(::memfd_create("answer", MFD_CLOEXEC)), null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (file.get() < 0 || null.get() < 0) throw Error("cannot start a program: {}", std::strerror(errno));
  write_all(file.get(), program);
  ::lseek(file.get(), 0, SEEK_SET);
  const std::array<const char*, 5> arguments = {python_.c_str(), "-I", "-c", kRunner, nullptr};
  const std::array<const char*, 3> environment = {"PYTHONHASHSEED=0", "LC_ALL=C.UTF-8", nullptr};
  const SeccompFilter filter;
  const pid_t parent = ::getpid(), child = ::fork();
  if (child < 0) throw Error("cannot start a program: {}", std::strerror(errno));
  if (child == 0) {
    confine_and_run(file.get(), null.get(), python_.c_str(), arguments.data(), environment.data(), limits_,
                    filter, parent);
    ::_exit(kSetupFailedCode);
  }
  const auto [status, timeout] = wait_for(child, limits_.seconds);
  if (timeout) return ProgramEnd::kTimeout;
  if (WIFSIGNALED(status)) return WTERMSIG(status) == SIGXCPU ? ProgramEnd::kTimeout : ProgramEnd::kKilled;
  if (WEXITSTATUS(status) == kSetupFailedCode) throw Error("cannot confine a program on this machine");
  return WEXITSTATUS(status) == kPassedCode ? ProgramEnd::kPassed : ProgramEnd::kFailed;
}

}  // namespace bise
