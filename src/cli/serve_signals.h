// SIGTERM and SIGINT, waited for by the main thread: the first asks for an orderly end, a second one ends the
// process at once.
#pragma once

#include <csignal>

namespace bise {

class ShutdownSignals {
 public:
  // Blocks the signals in this thread and those it starts later: make it before any other thread.
  ShutdownSignals();
  ~ShutdownSignals();

  // The signal that came, or 0 after `seconds` without one. After a signal the next one has its default
  // effect again, which ends the process.
  int wait(double seconds);

 private:
  sigset_t signals_, previous_;
};

}  // namespace bise
