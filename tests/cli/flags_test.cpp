#include "cli/flags.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace bise {
namespace {

struct Parsed {
  std::string model, scheme = "W4A16";
  std::int64_t threads = 0;
  double share = 0.5;
  std::vector<std::string> ignore;
  bool json = false, proceed = false;
};

Parsed parse(const std::vector<std::string>& arguments) {
  Parsed values;
  Flags flags("test", "a test");
  flags.positional("model", values.model, "a folder");
  flags.option("--scheme", values.scheme, "a scheme");
  flags.option("--threads", values.threads, "a number");
  flags.option("--share", values.share, "a share");
  flags.option("--ignore", values.ignore, "names");
  flags.flag("--json", values.json, "print JSON");
  values.proceed = flags.parse(arguments);
  return values;
}

TEST(Flags, DefaultsStayAndGivenValuesWin) {
  const Parsed plain = parse({"dir"});
  EXPECT_EQ(plain.model, "dir");
  EXPECT_EQ(plain.scheme, "W4A16");
  EXPECT_FALSE(plain.json);
  const Parsed given = parse({"--json", "--threads", "3", "dir", "--scheme=NF4", "--share", "0.25",
                              "--ignore", "a", "--ignore", "b"});
  EXPECT_TRUE(given.json && given.proceed);
  EXPECT_EQ(given.threads, 3);
  EXPECT_EQ(given.share, 0.25);
  EXPECT_EQ(given.scheme, "NF4");
  EXPECT_EQ(given.ignore, (std::vector<std::string>{"a", "b"}));
}

TEST(Flags, WrongOnesAreErrorsWithNearMatches) {
  struct Case {
    std::vector<std::string> arguments;
    std::string message;
  };
  for (const Case& test : std::vector<Case>{{{}, "model is required"},
                                            {{"dir", "--thread", "3"}, "did you mean --threads?"},
                                            {{"dir", "--threads", "three"}, "three"},
                                            {{"dir", "--threads"}, "--threads"},
                                            {{"dir", "other"}, "unknown argument other"}}) {
    try {
      parse(test.arguments);
      FAIL() << "accepted; expected " << test.message;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(test.message), std::string::npos) << error.what();
    }
  }
}

TEST(Flags, HelpIsPrintedAndEndsTheCommand) {
  testing::internal::CaptureStdout();
  EXPECT_FALSE(parse({"--help"}).proceed);
  const std::string help = testing::internal::GetCapturedStdout();
  for (const char* part : {"bise test", "a test", "--scheme", "W4A16", "--json", "print JSON"})
    EXPECT_NE(help.find(part), std::string::npos) << part << "\n" << help;
}

}  // namespace
}  // namespace bise
