// Progress of a long command: a bar with the time left on a terminal, a plain line now and then elsewhere
// (standard error). One thread.
#pragma once

#include <cstdint>
#include <string>

#include "base/clock.h"

namespace bise {

class Progress {
 public:
  // `total` steps of `what` ("quantizing", "layers").
  Progress(std::string what, std::string unit, std::int64_t total);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void advance(std::int64_t steps = 1, const std::string& detail = "");

 private:
  void show(const std::string& detail, bool last);

  std::string what_, unit_;
  std::int64_t total_, done_ = 0;
  bool terminal_, finished_ = false;
  double last_shown_ = -1;
  Stopwatch watch_;
};

}  // namespace bise
