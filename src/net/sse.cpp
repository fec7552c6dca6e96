#include "net/sse.h"

#include "base/error.h"

namespace bise {

std::string sse_frame(std::string_view text) {
  std::string frame;
  frame.reserve(text.size() + 8);
  for (std::size_t start = 0;;) {
    const std::size_t end = text.find_first_of("\r\n", start);
    frame += "data: ";
    frame += text.substr(start, end - start);
    frame += '\n';
    if (end == text.npos) break;
    start = end + (text.substr(end, 2) == "\r\n" ? 2 : 1);
  }
  frame += '\n';
  return frame;
}

void SseParser::feed(std::string_view bytes, const std::function<void(const SseEvent&)>& on_event) {
  if (after_cr_ && !bytes.empty()) {
    if (bytes[0] == '\n') bytes.remove_prefix(1);
    after_cr_ = false;
  }
  while (!bytes.empty()) {
    const std::size_t end = bytes.find_first_of("\r\n");
    const std::string_view part = bytes.substr(0, end);
    if (line_.size() + part.size() + event_.data.size() > max_bytes_) {
      throw Error("a server-sent event is longer than {} bytes", max_bytes_);
    }
    line_ += part;
    if (end == bytes.npos) return;
    const bool cr = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    if (cr && bytes.empty()) {
      after_cr_ = true;
    } else if (cr && bytes[0] == '\n') {
      bytes.remove_prefix(1);
    }
    end_line(on_event);
  }
}

void SseParser::end_line(const std::function<void(const SseEvent&)>& on_event) {
  std::string_view line = line_;
  if (first_line_ && line.starts_with("\xEF\xBB\xBF")) line.remove_prefix(3);
  first_line_ = false;
  if (line.empty()) {
    if (has_data_) {
      event_.data.pop_back();  // the newline behind the last line
      on_event(event_);
    }
    event_.type.clear();
    event_.data.clear();
    has_data_ = false;
  } else if (const std::size_t colon = line.find(':'); colon != 0) {
    const std::string_view name = line.substr(0, colon);
    std::string_view value = colon == line.npos ? std::string_view() : line.substr(colon + 1);
    if (value.starts_with(' ')) value.remove_prefix(1);
    if (name == "data") {
      event_.data.append(value) += '\n';
      has_data_ = true;
    } else if (name == "event") {
      event_.type = value;
    } else if (name == "id" && value.find('\0') == value.npos) {
      event_.id = value;
    }
  }
  line_.clear();
}

}  // namespace bise
