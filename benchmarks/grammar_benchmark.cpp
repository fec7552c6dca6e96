// Times of structured output: building a vocabulary's tries, compiling constraints, and per generated token
// the mask and the step, on the tokens of valid texts. Takes a tokenizer and the cases first:
//   grammar_benchmark TOKENIZER_FILE benchmarks/grammar_cases.json [--benchmark_...]
// "cold" is the first text under a freshly compiled grammar, "warm" one whose states have been seen.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/json.h"
#include "grammar/grammar.h"
#include "grammar/matcher.h"
#include "text/tokenizer.h"

namespace bise {
namespace {

std::unique_ptr<Tokenizer> tokenizer;
std::shared_ptr<const TokenTrie> trie;

struct Constraint {
  std::string name;
  std::function<GrammarPtr()> compile;
  std::string text;  // that it allows
};

// The JSON schemas of the file, which benchmarks/peers/grammar_peers.py reads as well, and other kinds.
std::vector<Constraint> read_constraints(const std::filesystem::path& path) {
  std::vector<Constraint> result;
  for (const Json& entry : read_json_file(path)) {
    const std::string schema = json_text(entry.at("schema"));
    result.push_back({entry.at("name"), [schema] { return compile_json_schema(std::string_view(schema)); },
                      entry.at("text")});
  }
  result.push_back({"regex_date", [] { return compile_regex("[A-Z][a-z]+, \\d{1,2} [A-Z][a-z]+ \\d{4}"); },
                    "Saturday, 21 November 2026"});
  result.push_back({"gbnf_sum",
                    [] {
                      return compile_ebnf(
                          "root ::= root \" + \" term | term\nterm ::= term \" * \" f | f\n"
                          "f ::= [0-9]+ | \"(\" root \")\"");
                    },
                    "12 + 3 * (45 + 6 * (7 + 89)) + 1000 * 2 + (3 + 4) * 5"});
  return result;
}

void build_trie(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(TokenTrie::build(*tokenizer));
}

void compile(benchmark::State& state, const Constraint& constraint) {
  for (auto _ : state) benchmark::DoNotOptimize(constraint.compile());
}

// One iteration is a whole text; the counters are microseconds per token.
void masks(benchmark::State& state, const Constraint& constraint, bool cold) {
  const std::vector<std::int32_t> ids = tokenizer->encode(constraint.text, {.add_special_tokens = false});
  std::vector<std::uint32_t> bits(trie->mask_words());
  const std::vector<std::int32_t> stops = {tokenizer->eos_token_id().value_or(2)};
  GrammarPtr grammar = constraint.compile();
  double total = 0, step_total = 0, worst = 0;
  std::int64_t count = 0;
  std::vector<double> times;
  const auto run = [&](bool counted) {
    Matcher matcher(grammar, trie, stops);
    for (const std::int32_t id : ids) {
      const Stopwatch watch;
      matcher.fill_mask(bits);
      const double mask_time = watch.seconds();
      if (!matcher.accept(id)) throw Error("the text of {} is not allowed", constraint.name);
      const double step_time = watch.seconds() - mask_time;
      if (!counted) continue;
      total += mask_time;
      step_total += step_time;
      worst = std::max(worst, mask_time);
      times.push_back(mask_time);
      ++count;
    }
    if (!matcher.accepts()) throw Error("the text of {} is not complete", constraint.name);
  };
  if (!cold) run(false);
  for (auto _ : state) {
    if (cold) {
      state.PauseTiming();
      grammar = constraint.compile();
      state.ResumeTiming();
    }
    run(true);
  }
  std::sort(times.begin(), times.end());
  state.counters["tokens"] = static_cast<double>(ids.size());
  state.counters["mask_us"] = 1e6 * total / static_cast<double>(count);
  state.counters["median_us"] = 1e6 * times[times.size() / 2];
  state.counters["max_us"] = 1e6 * worst;
  state.counters["step_us"] = 1e6 * step_total / static_cast<double>(count);
}

}  // namespace
}  // namespace bise

int main(int argc, char** argv) {
  using namespace bise;
  if (argc < 3) {
    fmt::print(stderr, "usage: grammar_benchmark TOKENIZER_FILE CASES_FILE [--benchmark_...]\n");
    return 1;
  }
  tokenizer = Tokenizer::load_file(argv[1]);
  trie = TokenTrie::build(*tokenizer);
  benchmark::AddCustomContext("vocabulary", std::to_string(tokenizer->vocab_size()));
  benchmark::RegisterBenchmark("trie", build_trie)->Unit(benchmark::kMillisecond);
  const std::vector<Constraint> constraints = read_constraints(argv[2]);
  for (const Constraint& constraint : constraints) {
    const std::string& name = constraint.name;
    benchmark::RegisterBenchmark(("compile/" + name).c_str(), [&](benchmark::State& s) {
      compile(s, constraint);
    })->Unit(benchmark::kMicrosecond);
    for (const bool cold : {true, false})
      benchmark::RegisterBenchmark(((cold ? "cold/" : "warm/") + name).c_str(),
                                   [&constraint, cold](benchmark::State& s) { masks(s, constraint, cold); })
          ->Unit(benchmark::kMicrosecond)
          ->MinTime(0.2);
  }
  argv[2] = argv[0];
  int count = argc - 2;
  benchmark::Initialize(&count, argv + 2);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
