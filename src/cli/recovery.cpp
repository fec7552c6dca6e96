#include "cli/recovery.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "base/log.h"
#include "report/eval_results.h"
#include "report/recovery.h"

namespace bise {

bool are_eval_results(const std::vector<std::string>& paths) {
  const auto is_result = [](const std::string& path) { return is_eval_result(path); };
  if (std::ranges::none_of(paths, is_result)) return false;
  for (const std::string& path : paths)
    if (!is_result(path))
      throw Error("checkpoints and results of evaluations cannot be compared with each other")
          .at(path)
          .expected("a result file or folder of bise eval or lm_eval, as the others are");
  return true;
}

int compare_eval_results(const std::vector<std::string>& paths, const std::string& output, bool json) {
  std::vector<EvalRun> runs;
  for (const std::string& path : paths) runs.push_back(read_eval_run(path));
  const Recovery recovery = make_recovery(runs);
  if (!output.empty()) {
    AtomicFolder folder(output, true);
    write_file(folder.path() / "recovery.json", json_text(to_json(recovery), 2) + "\n");
    write_file(folder.path() / "recovery.md", recovery_markdown(recovery));
    write_file(folder.path() / "recovery.html", recovery_page(recovery));
    write_file(folder.path() / "recovery.svg", recovery_svg(recovery));
    folder.commit();
  }
  if (json) {
    fmt::print("{}\n", json_text(to_json(recovery), 2));
  } else {
    fmt::print("{}\n{}\n\n{}", terminal_table(recovery_table(recovery)), recovery_notes(recovery),
               terminal_table(detail_table(recovery)));
  }
  if (!output.empty()) log_info("wrote {}/recovery.html, .md, .svg and .json", output);
  return 0;
}

}  // namespace bise
