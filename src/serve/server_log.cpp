#include "serve/server_log.h"

#include <fmt/chrono.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <ctime>
#include <string>

namespace bise {
namespace {

const char* level_name(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug: return "DEBUG";
    case LogLevel::kInfo: return "INFO";
    case LogLevel::kWarning: return "WARNING";
    case LogLevel::kError: return "ERROR";
  }
  return "?";
}

// One write for the whole line, so that lines of different threads never mix.
void put(std::string_view text) {
  const std::string line = fmt::format("(APIServer pid={}) {}\n", ::getpid(), text);
  std::fwrite(line.data(), 1, line.size(), stderr);
}

std::string head(LogLevel level) {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  return fmt::format("{} {:%m-%d %H:%M:%S}", level_name(level), local);
}

void write_line(LogLevel level, std::string_view text) {
  put(fmt::format("{} {}", head(level), text));
}

}  // namespace

void use_server_log() {
  set_log_writer(write_line);
}

void server_line(LogLevel level, const std::source_location& location, std::string_view text) {
  std::string_view file = location.file_name();
  file.remove_prefix(file.find_last_of('/') + 1);
  log_line(level, fmt::format("[{}:{}] {}", file, location.line(), text));
}

void uvicorn_info(std::string_view text) {
  put(fmt::format("INFO:     {}", text));
}

}  // namespace bise
