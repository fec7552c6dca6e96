// The arguments of `bise serve` as vLLM lets them be written, brought to the form that Flags parses:
// underscores for dashes, -tp and other short names, --flag.key value for members of JSON flags, a YAML file
// of --config, and vLLM flags that have no effect here.
#pragma once

#include <string>
#include <vector>

namespace bise {

struct ServeArguments {
  std::vector<std::string> arguments;       // for Flags::parse
  std::vector<std::string> without_effect;  // flags taken out, each once: "--enforce-eager"
};

// Throws Error naming the flag or the file's key. What stands on the command line wins over the file.
ServeArguments prepare_serve_arguments(const std::vector<std::string>& arguments);

}  // namespace bise
