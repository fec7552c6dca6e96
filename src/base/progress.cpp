#include "base/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace bise {
namespace {

constexpr int kBarWidth = 30;
constexpr double kTerminalInterval = 0.1, kPlainInterval = 10;  // seconds

std::string duration(double seconds) {
  const auto whole = static_cast<std::int64_t>(seconds + 0.5);
  return whole < 60 ? fmt::format("{} s", whole) : fmt::format("{} min {:02} s", whole / 60, whole % 60);
}

}  // namespace

Progress::Progress(std::string what, std::string unit, std::int64_t total)
    : what_(std::move(what)), unit_(std::move(unit)), total_(total), terminal_(::isatty(STDERR_FILENO) == 1) {
  show("", false);
}

Progress::~Progress() {
  if (terminal_ && !finished_) std::fputc('\n', stderr);
}

void Progress::advance(std::int64_t steps, const std::string& detail) {
  done_ = std::min(done_ + steps, total_);
  const bool last = done_ == total_ && !finished_;
  const double interval = terminal_ ? kTerminalInterval : kPlainInterval;
  if (last || watch_.seconds() - last_shown_ >= interval) show(detail, last);
  if (last) finished_ = true;
}

void Progress::show(const std::string& detail, bool last) {
  const double seconds = watch_.seconds();
  last_shown_ = seconds;
  const std::string time =
      last ? duration(seconds)
      : done_ > 0
          ? duration(seconds * static_cast<double>(total_ - done_) / static_cast<double>(done_)) + " left"
          : "";
  std::string line = fmt::format("{} {}/{} {}", what_, done_, total_, unit_);
  if (!time.empty()) line += ", " + time;
  if (!detail.empty()) line += ", " + detail;
  if (!terminal_) {
    line += '\n';
  } else {
    const auto filled = total_ > 0 ? static_cast<int>(kBarWidth * done_ / total_) : kBarWidth;
    line = fmt::format("\r[{:<{}}] {}\033[K{}", std::string(static_cast<std::size_t>(filled), '='), kBarWidth,
                       line, last ? "\n" : "");
  }
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace bise
