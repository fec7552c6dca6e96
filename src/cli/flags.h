// The flags of one command: declared with their help text and default, parsed in one call. A thin layer over
// CLI11, which flags.cpp alone includes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace bise {

class Flags {
 public:
  Flags(const std::string& command, const std::string& summary);
  ~Flags();

  // Declarations; the variables hold the defaults and outlive parse(). Names as the user types them:
  // "--threads", or "model" for a positional argument.
  void positional(const std::string& name, std::string& value, const std::string& help);
  void optional_positional(const std::string& name, std::string& value, const std::string& help);
  void positionals(const std::string& name, std::vector<std::string>& values, const std::string& help);
  void option(const std::string& name, std::string& value, const std::string& help);
  void option(const std::string& name, std::int64_t& value, const std::string& help);
  void option(const std::string& name, double& value, const std::string& help);
  void option(const std::string& name, std::vector<std::string>& values, const std::string& help);
  void required_option(const std::string& name, std::string& value, const std::string& help);
  void flag(const std::string& name, bool& value, const std::string& help);

  // Fills the variables. Returns false when --help was asked for and printed. Throws Error for unknown flags
  // (with near matches), missing values and values of the wrong type.
  bool parse(const std::vector<std::string>& arguments);

  // Whether the user gave this option.
  bool given(const std::string& name) const;

 private:
  struct Parser;
  std::unique_ptr<Parser> parser_;
};

}  // namespace bise
