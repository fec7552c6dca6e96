// Times of structured output: building a vocabulary's tries, compiling constraints, and per generated token
// the mask and the step, on the tokens of valid texts. Takes the tokenizer first:
//   grammar_benchmark TOKENIZER_FILE [--benchmark_...]
// "cold" is the first text under a freshly compiled grammar, "warm" one whose states have been seen.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "grammar/grammar.h"
#include "grammar/matcher.h"
#include "text/tokenizer.h"

namespace bise {
namespace {

std::unique_ptr<Tokenizer> tokenizer;
std::shared_ptr<const TokenTrie> trie;

struct Constraint {
  const char* name;
  GrammarPtr (*compile)();
  std::string text;  // that it allows
};

GrammarPtr person() {
  return compile_json_schema(std::string_view(
      R"({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "email": {"type": "string"},
          "address": {"type": "object", "properties": {"street": {"type": "string"}, "city": {"type": "string"}, "zip": {"type": "string"}}, "required": ["street", "city"]},
          "hobbies": {"type": "array", "items": {"type": "string"}}, "active": {"type": "boolean"}}, "required": ["name", "age"]})"));
}

GrammarPtr bounded() {
  return compile_json_schema(std::string_view(
      R"({"type": "object", "properties": {"id": {"type": "string", "format": "uuid"}, "title": {"type": "string", "minLength": 1, "maxLength": 80},
          "summary": {"type": "string", "maxLength": 500}, "rating": {"type": "number", "minimum": 0, "maximum": 5},
          "when": {"type": "string", "format": "date-time"}, "kind": {"enum": ["news", "opinion", "review", "advert"]},
          "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z][a-z0-9-]{1,20}$"}, "maxItems": 5}},
          "required": ["id", "title", "summary", "rating", "when", "kind", "tags"]})"));
}

const std::vector<Constraint>& constraints() {
  static const std::vector<Constraint> all = {
      {"json_object", [] { return compile_json_object(); },
       R"({"title": "A day at the sea", "pages": 212, "authors": [{"first": "J\u00f6rg", "last": "Müller"}, {"first": "Ana", "last": "Silva"}], "price": {"amount": 12.99, "currency": "EUR"}, "in_print": true, "isbn": null})"},
      {"person", person,
       R"({"name": "Marie Curie", "age": 66, "email": "marie@example.org", "address": {"street": "12 Rue de la Glacière", "city": "Paris", "zip": "75013"}, "hobbies": ["cycling", "reading about radium", "long walks"], "active": false})"},
      {"bounded", bounded,
       R"({"id": "123e4567-e89b-12d3-a456-426614174000", "title": "The cold north wind returns", "summary": "Forecasters expect several days of strong wind along the coast, with temperatures well below the average of the season. Ferries may be late.", "rating": 4.25, "when": "2026-11-21T08:30:00Z", "kind": "news", "tags": ["weather", "north-coast", "wind-2026"]})"},
      {"regex_date", [] { return compile_regex("[A-Z][a-z]+, \\d{1,2} [A-Z][a-z]+ \\d{4}"); },
       "Saturday, 21 November 2026"},
      {"gbnf_sum",
       [] {
         return compile_ebnf(
             "root ::= root \" + \" term | term\nterm ::= term \" * \" f | f\nf ::= [0-9]+ | \"(\" root "
             "\")\"");
       },
       "12 + 3 * (45 + 6 * (7 + 89)) + 1000 * 2 + (3 + 4) * 5"},
  };
  return all;
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
  if (argc < 2) {
    fmt::print(stderr, "usage: grammar_benchmark TOKENIZER_FILE [--benchmark_...]\n");
    return 1;
  }
  tokenizer = Tokenizer::load_file(argv[1]);
  trie = TokenTrie::build(*tokenizer);
  benchmark::AddCustomContext("vocabulary", std::to_string(tokenizer->vocab_size()));
  benchmark::RegisterBenchmark("trie", build_trie)->Unit(benchmark::kMillisecond);
  for (const Constraint& constraint : constraints()) {
    const std::string name = constraint.name;
    benchmark::RegisterBenchmark(("compile/" + name).c_str(), [&](benchmark::State& s) {
      compile(s, constraint);
    })->Unit(benchmark::kMicrosecond);
    for (const bool cold : {true, false})
      benchmark::RegisterBenchmark(((cold ? "cold/" : "warm/") + name).c_str(),
                                   [&constraint, cold](benchmark::State& s) { masks(s, constraint, cold); })
          ->Unit(benchmark::kMicrosecond)
          ->MinTime(0.2);
  }
  argv[1] = argv[0];
  int count = argc - 1;
  benchmark::Initialize(&count, argv + 1);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
