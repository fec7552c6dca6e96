#include "cli/flags.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <numeric>

#include "base/error.h"
#include "cli/hub_settings.h"

namespace bise {

struct Flags::Parser {
  explicit Parser(const std::string& summary) : app(summary) {}
  CLI::App app;
};

namespace {

// Levenshtein's edit distance.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0]++;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t above = row[j + 1];
      row[j + 1] = a[i] == b[j] ? diagonal : 1 + std::min({diagonal, above, row[j]});
      diagonal = above;
    }
  }
  return row.back();
}

// The declared flags that `typed` may have meant.
std::vector<std::string> near_matches(const CLI::App& app, const std::string& typed) {
  std::vector<std::string> near;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames())
      if (const std::string flag = "--" + name;
          distance(flag, typed) <= std::max<std::size_t>(2, typed.size() / 4))
        near.push_back(flag);
  }
  return near;
}

}  // namespace

Flags::Flags(const std::string& command, const std::string& summary)
    : parser_(std::make_unique<Parser>(summary)) {
  parser_->app.name("bise " + command);
  parser_->app.option_defaults()->always_capture_default();
  parser_->app.get_formatter()->column_width(34);
}

Flags::~Flags() = default;

void Flags::positional(const std::string& name, std::string& value, const std::string& help) {
  parser_->app.add_option(name, value, help)->required();
}
void Flags::optional_positional(const std::string& name, std::string& value, const std::string& help) {
  parser_->app.add_option(name, value, help);
}
void Flags::positionals(const std::string& name, std::vector<std::string>& values, const std::string& help) {
  parser_->app.add_option(name, values, help)->required();
}
void Flags::model(std::string& value, const std::string& help) {
  positional("model", value, help);
  model_ = &value;
}
void Flags::optional_model(std::string& value, const std::string& help) {
  optional_positional("model", value, help);
  model_ = &value;
}
void Flags::option(const std::string& name, std::string& value, const std::string& help) {
  parser_->app.add_option(name, value, help)->take_last();
}
void Flags::option(const std::string& name, std::int64_t& value, const std::string& help) {
  parser_->app.add_option(name, value, help)->take_last();
}
void Flags::option(const std::string& name, double& value, const std::string& help) {
  parser_->app.add_option(name, value, help)->take_last();
}
void Flags::option(const std::string& name, std::vector<std::string>& values, const std::string& help) {
  parser_->app.add_option(name, values, help);
}
void Flags::required_option(const std::string& name, std::string& value, const std::string& help) {
  parser_->app.add_option(name, value, help)->required();
}
void Flags::flag(const std::string& name, bool& value, const std::string& help) {
  parser_->app.add_flag(name, value, help);
}

void Flags::flag_pair(const std::string& name, bool& value, const std::string& help) {
  parser_->app.add_flag(fmt::format("{},!--no-{}", name, name.substr(2)), value, help)->take_last();
}
void Flags::group(const std::string& heading) {
  parser_->app.option_defaults()->group(heading);
}

bool Flags::parse(const std::vector<std::string>& arguments) {
  // CLI11 takes the arguments from the back.
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
  try {
    parser_->app.allow_extras();
    parser_->app.parse(reversed);
  } catch (const CLI::CallForHelp&) {
    std::fputs(parser_->app.help().c_str(), stdout);
    return false;
  } catch (const CLI::ParseError& problem) {
    throw Error("{} (see {} --help)", problem.what(), parser_->app.get_name());
  }
  for (const std::string& extra : parser_->app.remaining()) {
    const std::vector<std::string> near = near_matches(parser_->app, extra);
    const std::string hint = near.empty() ? "" : fmt::format("; did you mean {}?", fmt::join(near, " or "));
    throw Error("unknown argument {}{} (see {} --help)", extra, hint, parser_->app.get_name());
  }
  if (model_ && !model_->empty()) {
    typed_model_ = *model_;
    *model_ = model_folder(*model_).string();
  }
  return true;
}

bool Flags::given(const std::string& name) const {
  return parser_->app.count(name) > 0;
}

std::vector<std::pair<std::string, std::string>> Flags::given_values() const {
  std::vector<std::pair<std::string, std::string>> values;
  for (const CLI::Option* option : parser_->app.get_options())
    if (option->count() > 0)
      values.emplace_back(option->get_name(), fmt::format("{}", fmt::join(option->reduced_results(), ", ")));
  return values;
}

}  // namespace bise
