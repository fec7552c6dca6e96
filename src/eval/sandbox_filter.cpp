#include "eval/sandbox_filter.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

namespace bise {

#if defined(__x86_64__)

namespace {

constexpr int kAllowed[] = {
    // memory
    SYS_brk, SYS_mmap, SYS_munmap, SYS_mprotect, SYS_mremap, SYS_madvise,
    // reading, and writing to what is open: /dev/null
    SYS_read, SYS_pread64, SYS_readv, SYS_write, SYS_writev, SYS_lseek, SYS_close, SYS_fstat, SYS_stat,
    SYS_lstat, SYS_newfstatat, SYS_statx, SYS_access, SYS_faccessat, SYS_faccessat2, SYS_readlink,
    SYS_readlinkat, SYS_getdents64, SYS_getcwd, SYS_ioctl, SYS_fcntl, SYS_dup, SYS_dup2, SYS_dup3, SYS_pipe,
    SYS_pipe2, SYS_poll, SYS_ppoll, SYS_select, SYS_pselect6, SYS_epoll_create1,
    // time, signals to itself, random numbers
    SYS_clock_gettime, SYS_clock_getres, SYS_clock_nanosleep, SYS_nanosleep, SYS_gettimeofday, SYS_time,
    SYS_times, SYS_setitimer, SYS_getitimer, SYS_alarm, SYS_rt_sigaction, SYS_rt_sigprocmask,
    SYS_rt_sigreturn, SYS_sigaltstack, SYS_getrandom,
    // itself
    SYS_getpid, SYS_getppid, SYS_gettid, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_getpgrp,
    SYS_uname, SYS_sysinfo, SYS_getrlimit, SYS_getrusage, SYS_arch_prctl, SYS_set_tid_address,
    SYS_set_robust_list, SYS_rseq, SYS_futex, SYS_sched_yield, SYS_sched_getaffinity, SYS_membarrier,
    SYS_execve, SYS_exit, SYS_exit_group, SYS_wait4};

constexpr std::uint32_t kAllow = SECCOMP_RET_ALLOW, kRefuse = SECCOMP_RET_ERRNO | EPERM;

// The low half of argument `index`.
constexpr std::uint32_t argument(int index) {
  return static_cast<std::uint32_t>(offsetof(seccomp_data, args) + 8 * static_cast<std::size_t>(index));
}

using Program = std::vector<sock_filter>;

void load(Program& program, std::uint32_t offset) {
  program.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset));
}
void give(Program& program, std::uint32_t result) {
  program.push_back(BPF_STMT(BPF_RET | BPF_K, result));
}
void jump_unless_equal(Program& program, std::uint32_t value, std::uint8_t over) {
  program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, over));
}

// Call `number` is allowed when none of `bits` are set in argument `index`.
void allow_without(Program& program, int number, int index, std::uint32_t bits) {
  jump_unless_equal(program, static_cast<std::uint32_t>(number), 4);
  load(program, argument(index));
  program.push_back(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bits, 1, 0));
  give(program, kAllow);
  give(program, kRefuse);
}

}  // namespace

SeccompFilter::SeccompFilter() {
  Program& program = program_;
  load(program, offsetof(seccomp_data, arch));
  jump_unless_equal(program, AUDIT_ARCH_X86_64, 1);
  program.push_back(BPF_JUMP(BPF_JMP | BPF_JA, 1, 0, 0));
  give(program, SECCOMP_RET_KILL_PROCESS);
  load(program, offsetof(seccomp_data, nr));
  program.push_back(BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1));  // the x32 calls
  give(program, kRefuse);
  for (const int number : kAllowed) {
    jump_unless_equal(program, static_cast<std::uint32_t>(number), 1);
    give(program, kAllow);
  }
  constexpr std::uint32_t kChanges =
      O_WRONLY | O_RDWR | O_CREAT | O_TRUNC | O_APPEND | (O_TMPFILE & ~O_DIRECTORY);
  allow_without(program, SYS_open, 1, kChanges);
  allow_without(program, SYS_openat, 2, kChanges);
  allow_without(program, SYS_prlimit64, 2, ~0u);  // limits may be read: the argument with new ones is null
  give(program, kRefuse);                         // processes and threads among them
}

bool SeccompFilter::supported() {
  return ::prctl(PR_GET_SECCOMP) >= 0;
}

bool SeccompFilter::apply() const {
  const sock_fprog program{static_cast<unsigned short>(program_.size()),
                           const_cast<sock_filter*>(program_.data())};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

#else

SeccompFilter::SeccompFilter() = default;
bool SeccompFilter::supported() {
  return false;
}
bool SeccompFilter::apply() const {
  return false;
}

#endif

SeccompFilter::~SeccompFilter() = default;

}  // namespace bise
