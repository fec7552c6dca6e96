#include "base/log.h"

#include <atomic>
#include <cstdio>
#include <string>

namespace bise {
namespace {

std::atomic<LogLevel> lowest_level{LogLevel::kInfo};

std::atomic<void (*)(LogLevel, std::string_view)> log_writer{nullptr};

const char* prefix(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug: return "debug: ";
    case LogLevel::kInfo: return "";
    case LogLevel::kWarning: return "warning: ";
    case LogLevel::kError: return "error: ";
  }
  return "";
}

}  // namespace

void set_log_level(LogLevel level) {
  lowest_level = level;
}

void set_log_writer(void (*writer)(LogLevel level, std::string_view line)) {
  log_writer = writer;
}

void log_line(LogLevel level, std::string_view line) {
  if (level < lowest_level) return;
  if (const auto writer = log_writer.load()) return writer(level, line);
  // One write for the whole line, so that lines of different threads never mix.
  const std::string text = fmt::format("{}{}\n", prefix(level), line);
  std::fwrite(text.data(), 1, text.size(), stderr);
}

}  // namespace bise
