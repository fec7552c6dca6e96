// Filters and exact_match on the texts of spec/evaluation.md section 2.4, whose values lm-evaluation-harness
// gave.
#include "eval/filters.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "base/error.h"
#include "eval/task_registry.h"

namespace bise {
namespace {

TEST(Filters, Gsm8kAnswers) {
  struct Case {
    std::string text, strict;
    bool strict_right;
    std::string flexible;
    bool flexible_right;
  };
  const Case cases[] = {
      {" so 72.\n#### 72", "72", true, "72", true},
      {"#### 72. ok", "72.", true, "72.", true},
      {"The answer is 72.", "[invalid]", false, "72.", true},
      {"The answer is 72", "[invalid]", false, "72", true},
      {"The answer is $72.00.", "[invalid]", false, "$72.00.", false},
      {"he pays $72", "[invalid]", false, "$72", true},
      {"72...", "[invalid]", false, "72...", false},
      {"total: $72,", "[invalid]", false, "$72,", true},
      {"x = -72%", "[invalid]", false, "-72", false},
      {"", "[invalid]", false, "[invalid]", false},
  };
  const TaskConfig task = TaskRegistry().select({"gsm8k"}).tasks.front();
  ASSERT_EQ(task.filters.size(), 2u);
  const std::string gold = "some steps\n<<70+2=72>>\n#### 72";
  for (const Case& test : cases) {
    const std::string strict = apply_filters(task.filters[0], test.text, {}, task.task);
    const std::string flexible = apply_filters(task.filters[1], test.text, {}, task.task);
    EXPECT_EQ(strict, test.strict) << test.text;
    EXPECT_EQ(flexible, test.flexible) << test.text;
    EXPECT_EQ(exact_match(task.metrics[0], strict, gold), test.strict_right) << test.text;
    EXPECT_EQ(exact_match(task.metrics[0], flexible, gold), test.flexible_right) << test.text;
  }
  EXPECT_TRUE(exact_match(task.metrics[0], "1234", "x\n#### 1,234"));
  EXPECT_TRUE(exact_match(task.metrics[0], "72.\n", "72\n")) << "$ stands before a last newline";
}

TEST(Filters, UnknownOnesAreErrors) {
  EXPECT_THROW(apply_filters({"none", {{.function = "no_such_filter"}}}, "text", {}, "task"), Error);
  EXPECT_THROW(apply_filters({"none", {{.function = "regex", .regex_pattern = "("}}}, "text", {}, "task"),
               Error);
}

TEST(Sha256, PublishedVectors) {
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

}  // namespace
}  // namespace bise
