// The flags of one command: declared with their help text and default, parsed in one call. A thin layer over
// CLI11, which flags.cpp alone includes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace bise {

class Flags {
 public:
  Flags(const std::string& command, const std::string& summary);
  ~Flags();

  // The options declared from here on stand under this heading in --help.
  void group(const std::string& heading);

  // Declarations; the variables hold the defaults and outlive parse(). Names as the user types them:
  // "--threads", or "model" for a positional argument. An option given twice has its last value; one with a
  // list collects them.
  void positional(const std::string& name, std::string& value, const std::string& help);
  void optional_positional(const std::string& name, std::string& value, const std::string& help);
  void positionals(const std::string& name, std::vector<std::string>& values, const std::string& help);
  // A MODEL argument, "model" in --help: after parse() the variable holds a folder that exists, also where
  // the user named a model in the hub's cache (model_folder() in cli/hub_settings.h). typed_model() is what
  // they typed. An optional one may stay "".
  void model(std::string& value, const std::string& help =
                                     "checkpoint folder, or owner/name of a model that "
                                     "bise download brought");
  void optional_model(std::string& value, const std::string& help);
  const std::string& typed_model() const { return typed_model_; }
  void option(const std::string& name, std::string& value, const std::string& help);
  void option(const std::string& name, std::int64_t& value, const std::string& help);
  void option(const std::string& name, double& value, const std::string& help);
  void option(const std::string& name, std::vector<std::string>& values, const std::string& help);
  void required_option(const std::string& name, std::string& value, const std::string& help);
  void flag(const std::string& name, bool& value, const std::string& help);
  // The same, with a second flag that turns it off: "--x" and "--no-x".
  void flag_pair(const std::string& name, bool& value, const std::string& help);

  // Fills the variables. Returns false when --help was asked for and printed. Throws Error for unknown flags
  // (with near matches), missing values and values of the wrong type.
  bool parse(const std::vector<std::string>& arguments);

  // Whether the user gave this option.
  bool given(const std::string& name) const;
  // All that the user gave, with values joined by ", "; a switch has "true" or "false".
  std::vector<std::pair<std::string, std::string>> given_values() const;

 private:
  struct Parser;
  std::unique_ptr<Parser> parser_;
  std::string* model_ = nullptr;
  std::string typed_model_;
};

}  // namespace bise
