// A run of text with its origin. A rendered chat template is a list of segments: what the template itself
// says is trusted, what came from message data is not.
#pragma once

#include <string>

namespace bise {

struct TextSegment {
  std::string text;
  // Control tokens are recognised only in trusted text. "<|im_end|>" in an untrusted segment stays the
  // characters it is made of.
  bool trusted = false;

  bool operator==(const TextSegment&) const = default;
};

}  // namespace bise
