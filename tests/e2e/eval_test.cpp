// bise eval as a program: an interrupted run goes on, a server gives what the checkpoint gives, mistakes are
// named.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/clock.h"
#include "base/files.h"
#include "base/json.h"
#include "tests/test_support.h"

namespace bise {
namespace {

namespace fs = std::filesystem;

// Output and errors go to `log`.
pid_t start(const std::vector<std::string>& arguments, const fs::path& log) {
  const std::string program = bise_program().string();
  write_file(log, "");
  const pid_t child = ::fork();
  if (child != 0) return child;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // a test that is stopped leaves nothing behind
  const int file = ::open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  ::dup2(file, 1);
  ::dup2(file, 2);
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  ::execv(program.c_str(), argv.data());
  ::_exit(127);
}

int wait_for(pid_t child) {
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

int run(const std::vector<std::string>& arguments, const fs::path& log) {
  return wait_for(start(arguments, log));
}

fs::path find_file(const fs::path& folder, const std::string& beginning) {
  if (fs::exists(folder))
    for (const auto& entry : fs::recursive_directory_iterator(folder))
      if (entry.path().filename().string().starts_with(beginning)) return entry.path();
  return {};
}

std::size_t lines_in(const fs::path& file) {
  return file.empty() ? 0 : static_cast<std::size_t>(std::ranges::count(read_file(file), '\n'));
}

// A server that ends with the test, however that ends.
class Server {
 public:
  Server(const std::string& port, const fs::path& log)
      : child_(start({"serve", smollm2_path().string(), "--host", "127.0.0.1", "--port", port}, log)) {
    const Stopwatch watch;
    while (read_file(log).find("Application startup complete") == std::string::npos && watch.seconds() < 20)
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  ~Server() {
    ::kill(child_, SIGKILL);
    wait_for(child_);
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

 private:
  pid_t child_;
};

class EvalProgram : public testing::Test {
 protected:
  void SetUp() override {
    BISE_SKIP_IF_ABSENT(bise_program(), "the program");
    BISE_SKIP_IF_ABSENT(smollm2_path(), "the SmolLM2 checkpoint");
    BISE_SKIP_IF_ABSENT(shared_path("data"), "the folder of data sets");
  }

  std::vector<std::string> command(const std::string& tasks, const std::string& output) const {
    return {"eval",          smollm2_path().string(),
            "--tasks",       tasks,
            "--data-dir",    shared_path("data").string(),
            "--num_fewshot", "1",
            "--output_path", (scratch_.path() / output).string(),
            "--log_samples"};
  }
  fs::path in(const std::string& name) const { return scratch_.path() / name; }
  std::string log() const { return read_file(in("log")); }

  ScratchFolder scratch_;
};

TEST_F(EvalProgram, GoesOnWhereItWasKilled) {
  std::vector<std::string> whole = command("gsm8k,arc_easy", "whole"), cut = command("gsm8k,arc_easy", "cut");
  for (auto* arguments : {&whole, &cut})
    arguments->insert(arguments->end(),
                      {"--limit", "8", "--gen_kwargs", "max_gen_toks=48,until=", "--batch_size", "1"});
  ASSERT_EQ(run(whole, in("log")), 0) << log();
  const pid_t child = start(cut, in("log"));
  const Stopwatch watch;
  while (lines_in(find_file(in("cut"), "answers_")) < 36 &&
         watch.seconds() < 60)  // the choices and some texts
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  ::kill(child, SIGKILL);
  EXPECT_EQ(wait_for(child), -SIGKILL) << "it was done before it could be killed";
  EXPECT_TRUE(find_file(in("cut"), "results_").empty());
  ASSERT_EQ(run(cut, in("log")), 0) << log();
  EXPECT_NE(log().find("going on with"), std::string::npos) << log();
  EXPECT_TRUE(find_file(in("cut"), "answers_").empty()) << "the journal stays only until the run is done";
  for (const char* samples : {"samples_gsm8k_", "samples_arc_easy_"})
    EXPECT_EQ(read_file(find_file(in("cut"), samples)), read_file(find_file(in("whole"), samples)));
  const Json results = read_json_file(find_file(in("cut"), "results_"));
  EXPECT_EQ(results["config"]["model_args"]["precision"], "float32");
  EXPECT_EQ(results["n-samples"]["gsm8k"]["effective"], 8);
}

TEST_F(EvalProgram, AServerGivesWhatItsCheckpointGives) {
  const std::string port = std::to_string(20000 + ::getpid() % 20000);
  const Server server(port, in("server"));
  std::vector<std::string> direct = command("arc_easy,gsm8k", "direct");
  direct.insert(direct.end(), {"--limit", "4", "--precision", "serving", "--gen_kwargs", "max_gen_toks=16"});
  std::vector<std::string> remote = direct;
  remote[1] = "--base-url=http://127.0.0.1:" + port;
  *std::ranges::find(remote, in("direct").string()) = in("remote").string();
  remote.erase(std::ranges::find(remote, "--precision"), std::ranges::find(remote, "--precision") + 2);
  ASSERT_EQ(run(direct, in("log")), 0) << log();
  ASSERT_EQ(run(remote, in("log")), 0) << log();
  const Json a = read_json_file(find_file(in("direct"), "results_")),
             b = read_json_file(find_file(in("remote"), "results_"));
  EXPECT_EQ(a["results"], b["results"]);
  EXPECT_EQ(a["task_hashes"], b["task_hashes"]);
}

TEST_F(EvalProgram, MistakesAreNamed) {
  struct Case {
    std::vector<std::string> extra;
    std::string tasks, message;
  };
  for (const Case& test :
       {Case{{}, "no_such_task", "Tasks not found: no_such_task"},
        Case{{}, "humaneval", "--allow-code-execution"},
        Case{{}, "mmlu_pro_biology", "bise download --dataset mmlu_pro"},
        Case{{}, "truthfulqa_mc1", "preamble.txt"}, Case{{}, "gsm8k_cot", "fewshot.jsonl"},
        Case{{"--limit", "many"}, "gsm8k", "--limit"},
        Case{{"--gen_kwargs", "nonsense"}, "gsm8k", "--gen-kwargs"},
        Case{{"--batch_size", "0"}, "gsm8k", "--batch-size"}, Case{{"--seed", "1,2"}, "gsm8k", "--seed"},
        Case{{"--base-url", "http://127.0.0.1:1"}, "gsm8k", "one of MODEL and --base-url"}}) {
    std::vector<std::string> arguments = command(test.tasks, "out");
    arguments.insert(arguments.end(), test.extra.begin(), test.extra.end());
    EXPECT_EQ(run(arguments, in("log")), 1) << test.message;
    EXPECT_NE(log().find(test.message), std::string::npos) << log();
  }
}

}  // namespace
}  // namespace bise
