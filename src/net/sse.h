// Server-sent events (WHATWG HTML, section 9.2): the frame writer and an incremental parser.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace bise {

// "data: TEXT\n\n"; a text of several lines becomes several data fields.
std::string sse_frame(std::string_view text);

struct SseEvent {
  std::string type;  // the event field; "" means "message"
  std::string data;  // lines joined by '\n'
  std::string id;    // the last id seen
};

// Takes the body in pieces cut anywhere. Lines end in LF, CR or CRLF. Comments and unknown fields are
// skipped; an event without data is none; one that the stream ends in is dropped.
class SseParser {
 public:
  explicit SseParser(std::size_t max_event_bytes = std::size_t{64} << 20) : max_bytes_(max_event_bytes) {}

  // Calls `on_event` for each event that these bytes complete. Throws Error when one is too long.
  void feed(std::string_view bytes, const std::function<void(const SseEvent&)>& on_event);

 private:
  void end_line(const std::function<void(const SseEvent&)>& on_event);

  const std::size_t max_bytes_;
  std::string line_;
  SseEvent event_;
  bool has_data_ = false, after_cr_ = false, first_line_ = true;
};

}  // namespace bise
