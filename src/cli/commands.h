// The commands of the program. Each parses its own flags, writes results to standard output and messages to
// standard error, and returns an exit code: 0 ok, 2 a stated limit was missed. Bad input is thrown as Error
// (exit code 1), broken invariants as InternalError (70).
#pragma once

#include <string>
#include <vector>

namespace bise {

using Arguments = std::vector<std::string>;

int run_download(const Arguments& arguments);
int run_import(const Arguments& arguments);
int run_inspect(const Arguments& arguments);
int run_quantize(const Arguments& arguments);
int run_generate(const Arguments& arguments);
int run_chat(const Arguments& arguments);
int run_score(const Arguments& arguments);
int run_perplexity(const Arguments& arguments);
int run_tokenize(const Arguments& arguments);
int run_eval(const Arguments& arguments);
int run_serve(const Arguments& arguments);
int run_bench(const Arguments& arguments);
int run_bench_kernels(const Arguments& arguments);  // bise bench kernels
int run_bench_schemes(const Arguments& arguments);  // bise bench --random-weights
int run_compare(const Arguments& arguments);
int run_report(const Arguments& arguments);

}  // namespace bise
