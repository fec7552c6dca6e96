// The language of a text, by script and, among languages that share one, by frequent words. Stands in for
// langdetect's trained model and may differ from it. Pure.
#pragma once

#include <string>
#include <string_view>

namespace bise {

// ISO 639-1, Chinese "zh-cn"; "" when nothing tells.
std::string detected_language(std::string_view text);

}  // namespace bise
