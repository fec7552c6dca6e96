// SHA-256 (FIPS 180-4), for the hashes in sample files.
#pragma once

#include <string>
#include <string_view>

namespace bise {

// 64 lower-case hex digits.
std::string sha256_hex(std::string_view bytes);

}  // namespace bise
