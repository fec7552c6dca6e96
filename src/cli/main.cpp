// The table of commands, and the one place where errors become exit codes.
#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string_view>

#include "base/check.h"
#include "base/error.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/version.h"

namespace {

struct Command {
  std::string_view name, summary;
  int (*run)(const bise::Arguments&);
};

constexpr std::array kCommands{
    Command{"download", "bring a model or a data set from the Hugging Face hub", bise::run_download},
    Command{"import", "turn a GGUF file into a Hugging Face checkpoint", bise::run_import},
    Command{"inspect", "architecture, parameters, scheme per layer, bytes on disk", bise::run_inspect},
    Command{"quantize", "write a quantized checkpoint", bise::run_quantize},
    Command{"generate", "complete one prompt or a file of prompts", bise::run_generate},
    Command{"chat", "a conversation in the terminal", bise::run_chat},
    Command{"score", "log-probabilities of texts or token ids (JSONL)", bise::run_score},
    Command{"perplexity", "perplexity on a text, divergence from another model", bise::run_perplexity},
    Command{"tokenize", "text to token ids and back (JSONL)", bise::run_tokenize},
    Command{"eval", "scores on lm-evaluation-harness tasks", bise::run_eval},
    Command{"serve", "an OpenAI-compatible server, in place of `vllm serve`", bise::run_serve},
    Command{"bench", "prefill and decode speed, memory, share of the memory bandwidth", bise::run_bench},
    Command{"compare", "size, memory, speed and loss of several checkpoints side by side", bise::run_compare},
    Command{"report", "one self-contained HTML page from a comparison", bise::run_report},
};

void print_usage(std::FILE* out) {
  fmt::print(out, "bise {}: make language models small and fast\n\nusage: bise COMMAND [flags]\n\n",
             bise::version_text());
  for (const Command& command : kCommands) fmt::print(out, "  {:<12} {}\n", command.name, command.summary);
  fmt::print(out, "\n'bise COMMAND --help' lists a command's flags with their defaults.\n");
}

int run(std::string_view name, const bise::Arguments& arguments) {
  for (const Command& command : kCommands)
    if (command.name == name) return command.run(arguments);
  throw bise::Error("unknown command \"{}\" (see bise --help)", name);
}

}  // namespace

int main(int argc, char** argv) {
  const bise::Arguments arguments(argv + 1, argv + argc);
  if (arguments.empty()) {
    print_usage(stderr);
    return 1;
  }
  if (arguments[0] == "--help" || arguments[0] == "-h" || arguments[0] == "help") {
    print_usage(stdout);
    return 0;
  }
  if (arguments[0] == "--version") {
    fmt::print("bise {}\n", bise::version_text());
    return 0;
  }
  try {
    return run(arguments[0], {arguments.begin() + 1, arguments.end()});
  } catch (const bise::Error& error) {
    bise::log_line(bise::LogLevel::kError, error.what());
    return 1;
  } catch (const std::filesystem::filesystem_error& error) {
    bise::log_line(bise::LogLevel::kError, error.what());
    return 1;
  } catch (const std::exception& error) {
    bise::log_line(bise::LogLevel::kError, fmt::format("internal error: {}", error.what()));
    return 70;
  }
}
