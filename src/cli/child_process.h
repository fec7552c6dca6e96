// Runs this program again as a child, so that a measurement has a process of its own.
#pragma once

#include <string>
#include <vector>

namespace bise {

// The child's standard output; its standard error goes to ours. Throws Error when it cannot be started or
// ends with another exit code than 0.
std::string run_self(const std::vector<std::string>& arguments);

}  // namespace bise
