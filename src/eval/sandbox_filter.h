// The system calls that a confined interpreter may make. Internal to the sandbox.
#pragma once

#include <vector>

struct sock_filter;

namespace bise {

class SeccompFilter {
 public:
  static bool supported();

  SeccompFilter();
  ~SeccompFilter();
  SeccompFilter(const SeccompFilter&) = delete;
  SeccompFilter& operator=(const SeccompFilter&) = delete;

  // For the calling thread and all that it becomes; safe after fork(). False when the kernel refuses.
  bool apply() const;

 private:
  std::vector<sock_filter> program_;
};

}  // namespace bise
