#include "cli/serve_signals.h"

#include <pthread.h>

#include <cmath>
#include <ctime>

namespace bise {

ShutdownSignals::ShutdownSignals() {
  sigemptyset(&signals_);
  sigaddset(&signals_, SIGTERM);
  sigaddset(&signals_, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals_, &previous_);
}

ShutdownSignals::~ShutdownSignals() {
  pthread_sigmask(SIG_SETMASK, &previous_, nullptr);
}

int ShutdownSignals::wait(double seconds) {
  const double whole = std::floor(seconds);
  const struct timespec timeout {
    static_cast<std::time_t>(whole), static_cast<long>((seconds - whole) * 1e9)
  };
  const int signal = sigtimedwait(&signals_, nullptr, &timeout);
  if (signal <= 0) return 0;
  // A shell's background jobs ignore SIGINT; here the second one must end the process all the same.
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  pthread_sigmask(SIG_UNBLOCK, &signals_, nullptr);
  return signal;
}

}  // namespace bise
