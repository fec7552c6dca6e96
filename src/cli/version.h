// Which program this is: for --version and for every result.
#pragma once

#include <string>

namespace bise {

// "0.1.0 (1c95fa8)"; the commit is that of the source tree when the build was configured.
std::string version_text();

}  // namespace bise
