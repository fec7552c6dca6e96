// A broken invariant of the program itself (never bad input: that is Error). Ends the command with exit
// code 70 and this message.
#pragma once

#include <source_location>
#include <stdexcept>

namespace bise {

class InternalError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

// Throws InternalError naming the caller's file and line unless `condition` holds.
void check(bool condition, const char* invariant,
           std::source_location caller = std::source_location::current());

}  // namespace bise
