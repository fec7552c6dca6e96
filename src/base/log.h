// Lines for people, on standard error; standard output is for results only. Thread-safe.
#pragma once

#include <fmt/format.h>

#include <string_view>

namespace bise {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// Lines below `level` are dropped. Default kInfo.
void set_log_level(LogLevel level);

void log_line(LogLevel level, std::string_view line);

// From now on `writer` writes the lines that pass the level; a command with a format of its own sets it
// before it starts threads. The writer adds the newline.
void set_log_writer(void (*writer)(LogLevel level, std::string_view line));

template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kWarning, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::kDebug, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace bise
