// Recovery tables against a model card's numbers and hand-made runs; result files as lm_eval writes them.
#include "report/recovery.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "base/clock.h"
#include "base/error.h"
#include "base/files.h"
#include "tests/formats/mutate.h"
#include "tests/test_support.h"

namespace bise {
namespace {

struct Score {
  const char *task, *metric;
  double value;
};

EvalRun run_of(const std::string& name, const std::vector<Score>& scores) {
  Json json = {{"model_name", name}, {"results", Json::object()}};
  for (const Score& score : scores) json["results"][score.task][score.metric] = score.value;
  return parse_eval_run(json, name);
}

std::vector<std::string> row(const Table& table, std::size_t index) {
  return table.rows.at(index);
}

TEST(Recovery, AModelCardsTable) {
  // Mixtral-8x22B-Instruct-v0.1 and its FP8 version, as their card prints them.
  const auto runs =
      std::vector{run_of("m/Mixtral-8x22B-Instruct-v0.1", {{"mmlu", "acc,none", .7777},
                                                           {"arc_challenge", "acc_norm,none", .7270},
                                                           {"gsm8k", "exact_match,strict-match", .8203},
                                                           {"hellaswag", "acc_norm,none", .8908},
                                                           {"winogrande", "acc,none", .8516},
                                                           {"truthfulqa_mc2", "acc,none", .6814}}),
                  run_of("m/Mixtral-8x22B-Instruct-v0.1-FP8", {{"mmlu", "acc,none", .7608},
                                                               {"arc_challenge", "acc_norm,none", .7253},
                                                               {"gsm8k", "exact_match,strict-match", .8340},
                                                               {"hellaswag", "acc_norm,none", .8810},
                                                               {"winogrande", "acc,none", .8437},
                                                               {"truthfulqa_mc2", "acc,none", .6632}})};
  const Table table = recovery_table(make_recovery(runs));
  EXPECT_EQ(table.header,
            (std::vector<std::string>{"model", "MMLU acc", "ARC-C acc_norm", "GSM8K strict-match",
                                      "HellaSwag acc_norm", "Winogrande acc", "TruthfulQA acc", "average"}));
  EXPECT_EQ(row(table, 0), (std::vector<std::string>{"Mixtral-8x22B-Instruct-v0.1", "77.77", "72.70", "82.03",
                                                     "89.08", "85.16", "68.14", "79.15"}));
  EXPECT_EQ(row(table, 1), (std::vector<std::string>{"Mixtral-8x22B-Instruct-v0.1-FP8", "76.08", "72.53",
                                                     "83.40", "88.10", "84.37", "66.32", "78.47"}));
  // The card cuts where we round: 97.82, 99.76, 101.6, 98.89, 99.07, 97.32, 99.14.
  EXPECT_EQ(row(table, 2), (std::vector<std::string>{"recovery %", "97.83", "99.77", "101.67", "98.90",
                                                     "99.07", "97.33", "99.14"}));
}

TEST(Recovery, AllMetricsSideBySide) {
  // Ministral-8B-Instruct-2410 and INT4, 250 samples, 5 examples.
  const auto make = [](const std::string& name, const std::vector<double>& v) {
    return run_of(name, {{"gsm8k", "exact_match,strict-match", v[0]},
                         {"gsm8k", "exact_match,flexible-extract", v[1]},
                         {"hellaswag", "acc,none", v[2]},
                         {"hellaswag", "acc_norm,none", v[3]},
                         {"piqa", "acc,none", v[4]},
                         {"piqa", "acc_norm,none", v[5]},
                         {"arc_easy", "acc,none", v[6]},
                         {"arc_easy", "acc_norm,none", v[7]}});
  };
  const Recovery recovery =
      make_recovery({make("bf16", {.816, .816, .568, .732, .788, .848, .832, .868}),
                     make("INT4-W4A16", {.752, .756, .572, .740, .800, .844, .812, .860})});
  const Table table = metrics_table(recovery);
  EXPECT_EQ(table.header, (std::vector<std::string>{"model", "GSM8K strict-match / flexible-extract",
                                                    "HellaSwag acc / acc_norm", "PIQA acc / acc_norm",
                                                    "ARC-Easy acc / acc_norm"}));
  EXPECT_EQ(row(table, 0), (std::vector<std::string>{"bf16", "0.816 / 0.816", "0.568 / 0.732",
                                                     "0.788 / 0.848", "0.832 / 0.868"}));
  EXPECT_EQ(row(table, 1), (std::vector<std::string>{"INT4-W4A16", "0.752 / 0.756", "0.572 / 0.740",
                                                     "0.800 / 0.844", "0.812 / 0.860"}));
  ASSERT_EQ(recovery.averages.size(), 1u) << "seed is everything here";
  // (0.752 + 0.740 + 0.844 + 0.860) / (0.816 + 0.732 + 0.848 + 0.868)
  EXPECT_NEAR(*recovery.averages[0].cells[1].recovery, 100 * 3.196 / 3.264, 1e-9);
}

TEST(Recovery, WhatCounts) {
  EvalRun base = run_of("a/x", {{"mmlu", "acc,none", 0.5},
                                {"mmlu_virology", "acc,none", 0.4},
                                {"wikitext", "word_perplexity,none", 20},
                                {"zero", "acc,none", 0},
                                {"only_here", "acc,none", 1}});
  base.tasks[0].subtasks = {"mmlu_virology"};
  base.tasks[2].metrics[0].higher_is_better = false;
  EvalRun other = run_of("b/x", {{"mmlu", "acc,none", 0.45},
                                 {"mmlu_virology", "acc,none", 0.3},
                                 {"wikitext", "word_perplexity,none", 25},
                                 {"zero", "acc,none", 0.1}});
  const Recovery recovery = make_recovery({base, other});
  EXPECT_NE(recovery.names[0], recovery.names[1]);
  ASSERT_EQ(recovery.rows.size(), 4u);
  EXPECT_TRUE(recovery.rows[0].averaged);
  EXPECT_FALSE(recovery.rows[1].averaged) << "a group's member counts in the group";
  EXPECT_FALSE(recovery.rows[2].averaged) << "perplexities are not averaged with accuracies";
  EXPECT_DOUBLE_EQ(*recovery.rows[2].cells[1].recovery, 80) << "20 / 25";
  EXPECT_FALSE(recovery.rows[3].cells[1].recovery) << "nothing to recover";
  EXPECT_EQ(recovery.left_out, std::vector<std::string>{"only_here"});
  EXPECT_DOUBLE_EQ(*recovery.averages.back().cells[0].value, 0.25);
  EXPECT_DOUBLE_EQ(*recovery.averages.back().cells[1].value, 0.275);
  EXPECT_THROW(make_recovery({base, run_of("c", {{"piqa", "acc,none", 1}})}), Error);
}

const char* kResults = R"({"results":{"piqa":{"alias":" - piqa","sample_len":3,"acc,none":0.6666,
"acc_stderr,none":0.33,"acc_norm,none":0.5,"acc_norm_stderr,none":"N/A"}},"group_subtasks":{"piqa":[]},
"n-shot":{"piqa":5},"higher_is_better":{"piqa":{"acc":true,"acc_norm":true}},
"n-samples":{"piqa":{"original":1838,"effective":3}},"model_name":"org/model"})";

std::string sample_line(int doc, double acc, const std::string& hash = "h") {
  return json_text({{"doc_id", doc},
                    {"filter", "none"},
                    {"doc_hash", hash + std::to_string(doc)},
                    {"acc", acc},
                    {"acc_norm", acc != 0}}) +
         "\n";
}

TEST(Recovery, FilesOfAnEvaluation) {
  const ScratchFolder scratch;
  const auto write = [&](const std::string& folder, const std::string& time, const std::string& samples) {
    std::filesystem::create_directories(scratch.path() / folder / "org__model");
    write_file(scratch.path() / folder / "org__model" / ("results_" + time + ".json"), kResults);
    if (!samples.empty())
      write_file(scratch.path() / folder / "org__model" / ("samples_piqa_" + time + ".jsonl"), samples);
  };
  write("a", "2026-01-01T00-00-00.000000", sample_line(0, 1) + sample_line(1, 0) + "\n" + sample_line(2, 1));
  write("b", "2026-01-02T00-00-00.000000", sample_line(0, 1) + sample_line(1, 1) + sample_line(2, 1));
  write("b", "2026-01-03T00-00-00.000000", sample_line(0, 0) + sample_line(1, 1) + sample_line(2, 1));
  EXPECT_TRUE(is_eval_result(scratch.path() / "a"));
  EXPECT_FALSE(is_eval_result(scratch.path() / "absent"));
  const EvalRun a = read_eval_run(scratch.path() / "a"),
                b = read_eval_run(scratch.path() / "b" / "org__model");
  EXPECT_EQ(a.name, "org/model");
  EXPECT_EQ(a.tasks[0].alias, "piqa");
  EXPECT_EQ(a.tasks[0].shots, 5);
  EXPECT_EQ(a.tasks[0].documents, 3);
  EXPECT_EQ(a.tasks[0].metrics[0].standard_error, 0.33);
  EXPECT_FALSE(a.tasks[0].metrics[1].standard_error);
  const Recovery recovery = make_recovery({a, b});
  const auto& test = recovery.rows[0].cells[1].test;
  ASSERT_TRUE(test) << recovery.rows[0].cells[1].no_test;
  EXPECT_EQ(test->gained, 1) << "the later file counts";
  EXPECT_EQ(test->lost, 1);
  EXPECT_EQ(test->p, 1);
  EXPECT_NE(recovery_notes(recovery).find("McNemar, exact"), std::string::npos);

  write("c", "2026-01-02T00-00-00.000000",
        sample_line(0, 1, "other") + sample_line(1, 1) + sample_line(2, 1));
  const Recovery others = make_recovery({a, read_eval_run(scratch.path() / "c")});
  EXPECT_FALSE(others.rows[0].cells[1].test);
  EXPECT_NE(others.rows[0].cells[1].no_test.find("not the same"), std::string::npos);
  write("d", "2026-01-02T00-00-00.000000", "");
  EXPECT_FALSE(make_recovery({a, read_eval_run(scratch.path() / "d")}).rows[0].cells[1].test);

  EvalRun more = b;
  more.tasks[0].documents = 4;
  EXPECT_THROW(make_recovery({a, more}), Error) << "another number of documents";
  write("e", "2026-01-02T00-00-00.000000", sample_line(0, 1) + sample_line(0, 1));
  EXPECT_THROW(read_eval_run(scratch.path() / "e"), Error) << "a document twice";
}

TEST(Recovery, AGroupIsTestedOnItsMembersSamples) {
  const auto make = [](const std::string& name, const std::vector<std::vector<double>>& members) {
    EvalRun run =
        run_of(name, {{"mmlu", "acc,none", 0.5}, {"mmlu_a", "acc,none", 0.5}, {"mmlu_b", "acc,none", 0.5}});
    run.tasks[0].subtasks = {"mmlu_a", "mmlu_b"};
    for (std::size_t m = 0; m < members.size(); ++m)
      for (std::size_t i = 0; i < members[m].size(); ++i)
        run.tasks[m + 1].metrics[0].samples[static_cast<std::int64_t>(i)] = {"", members[m][i]};
    return run;
  };
  const Recovery recovery =
      make_recovery({make("a", {{1, 1, 1, 1}, {1, 1, 1, 0}}), make("b", {{0, 0, 0, 1}, {0, 0, 0, 0}})});
  ASSERT_TRUE(recovery.rows[0].cells[1].test);
  EXPECT_EQ(recovery.rows[0].cells[1].test->lost, 6);
  EXPECT_NEAR(recovery.rows[0].cells[1].test->p, 2.0 / 64, 1e-12);
  EXPECT_EQ(recovery.rows[1].cells[1].test->lost, 3);
  EXPECT_NE(recovery_markdown(recovery).find("| recovery % | 100.00* |"), std::string::npos)
      << recovery_markdown(recovery);
}

TEST(Recovery, PagesAreSelfContainedAndEscapeNames) {
  const auto runs =
      std::vector{run_of("a/<b>base", {{"piqa", "acc,none", 0.5}, {"arc_easy", "acc,none", 0.5}}),
                  run_of("a/quant", {{"piqa", "acc,none", 0.4}, {"arc_easy", "acc,none", 0.5}})};
  const Recovery recovery = make_recovery(runs);
  const std::string page = recovery_page(recovery), svg = recovery_svg(recovery);
  EXPECT_EQ(page.find("http"), std::string::npos);
  EXPECT_EQ(page.find("<b>base"), std::string::npos);
  EXPECT_NE(page.find("&lt;b&gt;base"), std::string::npos);
  EXPECT_NE(page.find("<td>80.00</td>"), std::string::npos);
  EXPECT_TRUE(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\" width="));
  EXPECT_EQ(svg.find("href"), std::string::npos);
  EXPECT_EQ(svg.find("<b>"), std::string::npos);
  EXPECT_NE(svg.find(">80.00<"), std::string::npos);
  EXPECT_EQ(to_json(recovery)["tasks"][0]["scores"][1]["recovery_percent"], 80);
  EXPECT_NE(recovery_markdown(recovery).find("| recovery % | 80.00 | 100.00 | 90.00 |"), std::string::npos);
}

TEST(Recovery, Fuzz) {
  std::mt19937 random(20261121);
  int accepted = 0, refused = 0;
  const Stopwatch watch;
  const std::string samples = sample_line(0, 1) + sample_line(1, 0.5);
  for (int i = 0; i < 20000 && watch.seconds() < 2; ++i) {
    try {
      EvalRun run = parse_eval_run(parse_json(mutated(kResults, random), "fuzz"), "fuzz");
      if (!run.tasks.empty()) add_samples(mutated(samples, random), run.tasks[0], "fuzz");
      const Recovery recovery = make_recovery({run, run});
      recovery_page(recovery);
      ++accepted;
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(accepted, 5);
  EXPECT_GT(refused, 50);
}

// lm_eval's own files.
TEST(Recovery, GoldenFiles) {
  const auto path = shared_path("golden/lm_eval/results_piqa_0shot.json");
  BISE_SKIP_IF_ABSENT(path, "lm_eval's results");
  const EvalRun run = read_eval_run(path);
  ASSERT_EQ(run.tasks.size(), 1u);
  EXPECT_EQ(run.tasks[0].metrics[0].samples.size(), 200u);
  const Recovery recovery = make_recovery({run, run});
  EXPECT_DOUBLE_EQ(*recovery.rows[0].cells[1].recovery, 100);
  EXPECT_EQ(recovery.rows[0].cells[1].test->p, 1);
  double right = 0;
  for (const auto& [_, sample] : run.tasks[0].metrics[0].samples) right += sample.value;
  EXPECT_DOUBLE_EQ(right / 200, run.tasks[0].metrics[0].value);
  const EvalRun gsm8k = read_eval_run(shared_path("golden/lm_eval/results_gsm8k_5shot.json"));
  EXPECT_EQ(gsm8k.tasks[0].metrics[1].samples.size(), 40u) << "each filter has its samples";
}

}  // namespace
}  // namespace bise
