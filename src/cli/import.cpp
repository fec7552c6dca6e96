#include <filesystem>
#include <memory>

#include "base/clock.h"
#include "base/files.h"
#include "base/log.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "formats/gguf_import.h"

namespace bise {

int run_import(const Arguments& arguments) {
  std::string source, output;
  bool force = false;
  Flags flags("import", "Turn a GGUF file of the Llama family into a Hugging Face checkpoint (bf16).");
  flags.positional("file", source, "the GGUF file");
  flags.required_option("-o,--output", output, "folder to write");
  flags.flag("--force", force, "replace the output folder when it exists");
  if (!flags.parse(arguments)) return 0;

  const Stopwatch watch;
  const GgufFile gguf = GgufFile::open(source);
  AtomicFolder folder(output, force);
  std::unique_ptr<Progress> progress;
  std::size_t shown = 0;
  import_gguf(gguf, folder.path(), [&](std::size_t done, std::size_t total) {
    if (!progress)
      progress = std::make_unique<Progress>("importing", "tensors", static_cast<std::int64_t>(total));
    progress->advance(static_cast<std::int64_t>(done - shown));
    shown = done;
  });
  folder.commit();
  log_info("wrote {} ({:.1f} MB) in {:.1f} s", output, static_cast<double>(folder_bytes(output)) / 1e6,
           watch.seconds());
  return 0;
}

}  // namespace bise
