// IFEval's two checks that stand in for trained models, and arguments that are wrong. The others are compared
// with the harness in eval_goldens_test.cpp.
#include "eval/instructions.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "base/clock.h"
#include "base/error.h"
#include "eval/detected_language.h"
#include "eval/latex_value.h"
#include "eval/math_answers.h"
#include "eval/row_transforms.h"

namespace bise {
namespace {

TEST(Instructions, Sentences) {
  struct Case {
    const char* text;
    std::int64_t count;
  };
  for (const Case& test :
       {Case{"One. Two! Three?", 3}, Case{"Dr. Low met Mr. High.", 1}, Case{"It is 3.5 km long.", 1},
        Case{"No mark at the end", 1}, Case{"He said \"Stop.\" Then he left.", 2}, Case{"", 0},
        Case{"Wait... what?!", 2}, Case{"J. Smith came.\nHe left.", 2}})
    EXPECT_EQ(count_sentences(test.text), test.count) << test.text;
}

TEST(Instructions, Languages) {
  struct Case {
    const char *text, *language;
  };
  for (const Case& test :
       {Case{"The river is long and it is in the north of the country.", "en"},
        Case{"Der Fluss ist lang und das Wasser ist nicht warm.", "de"},
        Case{"Le fleuve est dans le nord et les bateaux sont pour la ville.", "fr"},
        Case{"El río es largo y los barcos están en la ciudad con la gente.", "es"},
        Case{"Эта река не на севере, и это как раз то, что надо.", "ru"}, Case{"これは川です。", "ja"},
        Case{"这是一条河流", "zh-cn"}, Case{"이것은 강입니다", "ko"}, Case{"यह नदी उत्तर में है और लंबी है", "hi"},
        Case{"ఇది ఒక నది", "te"}, Case{"12345 !!", ""}})
    EXPECT_EQ(detected_language(test.text), test.language) << test.text;
}

TEST(Instructions, WrongRowsAreErrors) {
  for (const char* row :
       {R"({"prompt": "p", "instruction_id_list": ["no:such"], "kwargs": [{}]})",
        R"({"prompt": "p", "instruction_id_list": ["punctuation:no_comma"], "kwargs": []})",
        R"({"prompt": "p", "instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": null}]})",
        R"({"prompt": "p", "instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": ["("]}]})",
        R"({"prompt": "p", "instruction_id_list": [7], "kwargs": [{}]})"})
    EXPECT_THROW(followed_instructions(Json::parse(row), "text", false, "row"), Error) << row;
}

TEST(MathAnswers, ComparedByValue) {
  struct Case {
    const char *a, *b;
    bool same;
  };
  for (const Case& test :
       {Case{"\\frac{1}{2}", "0.5", true}, Case{"\\frac12", "\\dfrac{1}{2}", true},
        Case{"2\\sqrt{3}", "\\sqrt{12}", true}, Case{"x^2+2x+1", "(x+1)^2", true}, Case{"x^2", "x^3", false},
        Case{"\\pi/2", "\\frac{\\pi}{2}", true}, Case{"(1,2)", "(1,2)", true}, Case{"(1,2)", "(2,1)", false},
        Case{"2^{10}", "1024", true}, Case{"5!", "120", true}, Case{"50\\%", "0.5", true},
        Case{"\\sqrt[3]{8}", "2", true}, Case{"\\left(3\\right)", "3", true}, Case{"", "", false},
        Case{"x", "y", false}})
    EXPECT_EQ(same_math_answer(test.a, test.b), test.same) << test.a << " and " << test.b;
}

TEST(MathAnswersFuzz, AnyTextHasAnAnswer) {
  const std::string seed =
      R"(So $\boxed{\frac{1}{2}\sqrt[3]{x}^{2}}$. Final Answer: The final answer is $-3.5!$.)";
  std::mt19937 random(20261121);
  const Stopwatch watch;
  for (int i = 0; i < 20000 && watch.seconds() < 2; ++i) {
    std::string text = seed;
    for (unsigned edits = 1 + random() % 4; edits > 0 && !text.empty(); --edits) {
      const std::size_t at = random() % text.size();
      switch (random() % 3) {
        case 0: text.erase(at, 1 + random() % 10); break;
        case 1: text.insert(at, text.substr(random() % text.size(), random() % 30)); break;
        default: text[at] = static_cast<char>(32 + random() % 95); break;
      }
    }
    const std::string answer = extracted_math_answer(text);
    same_math_answer(normalized_math_answer(answer, MathRules::kMinerva),
                     normalized_math_answer(answer, MathRules::kLeaderboard));
    same_aime_answer(aime_answer(text), seed);
  }
  EXPECT_FALSE(same_latex_value(std::string(100000, '('), "1"));
  EXPECT_FALSE(same_latex_value(std::string(1000, '('), "1"));
}

TEST(RowTransforms, PythonLists) {
  EXPECT_EQ(python_string_list(R"(['a', "b's", 'c\'d', 'e\n'])", "row"),
            (std::vector<std::string>{"a", "b's", "c'd", "e\n"}));
  const std::string seed = R"(['a', "b's", 'c\'d'])";
  std::mt19937 random(20261121);
  for (int i = 0; i < 5000; ++i) {
    std::string text = seed;
    text[random() % text.size()] = static_cast<char>(random() % 128);
    text.erase(random() % text.size(), random() % 3);
    try {
      python_string_list(text, "mutated");
    } catch (const Error&) {
    }
  }
  for (const char* text : {"", "[", "[]", "['a'", "['a] ", "[1]", "['a'] x"})
    EXPECT_THROW(python_string_list(text, "row"), Error) << text;
}

}  // namespace
}  // namespace bise
