// Log lines in vLLM's form, so that scripts which wait for its words work:
//   (APIServer pid=7) INFO 11-21 08:00:00 [serve.cpp:12] Starting bise server on http://0.0.0.0:8000
//   (APIServer pid=7) INFO:     Application startup complete.
// They go to standard error. Thread-safe.
#pragma once

#include <fmt/format.h>

#include <source_location>
#include <string_view>
#include <type_traits>

#include "base/log.h"

namespace bise {

// Gives the lines of all layers (log_info and so on) that form, without the place in square brackets.
void use_server_log();

// A format string that remembers where it stands.
template <class... Args>
struct LocatedFormat {
  template <class Text>
  consteval LocatedFormat(const Text& format_text, std::source_location at = std::source_location::current())
      : format(format_text), location(at) {}
  fmt::format_string<Args...> format;
  std::source_location location;
};

void server_line(LogLevel level, const std::source_location& location, std::string_view text);

template <class... Args>
void server_info(std::type_identity_t<LocatedFormat<Args...>> format, Args&&... args) {
  server_line(LogLevel::kInfo, format.location, fmt::format(format.format, std::forward<Args>(args)...));
}
template <class... Args>
void server_warning(std::type_identity_t<LocatedFormat<Args...>> format, Args&&... args) {
  server_line(LogLevel::kWarning, format.location, fmt::format(format.format, std::forward<Args>(args)...));
}
template <class... Args>
void server_error(std::type_identity_t<LocatedFormat<Args...>> format, Args&&... args) {
  server_line(LogLevel::kError, format.location, fmt::format(format.format, std::forward<Args>(args)...));
}

// A line of the HTTP server's own, as uvicorn words them: "INFO:     " before the text.
void uvicorn_info(std::string_view text);

}  // namespace bise
