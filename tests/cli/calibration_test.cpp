// Calibration rows of token ids: no tokenizer is asked for, and none need be there.
#include "cli/calibration.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/files.h"
#include "tests/test_support.h"

namespace bise {
namespace {

TEST(Calibration, RowsOfTokenIdsNeedNoTokenizer) {
  const ScratchFolder scratch;
  DeviceFlags flags;
  flags.device = "cpu";
  flags.threads = 1;
  Runtime runtime(flags);
  CalibrationOptions options;
  options.source = (scratch.path() / "rows.jsonl").string();
  options.max_seq_length = 3;
  options.num_calibration_samples = 2;
  write_file(
      options.source,
      "{\"token_ids\": [5, 6, 7, 8]}\n{\"token_ids\": []}\n{\"token_ids\": [9]}\n{\"token_ids\": [1]}\n");
  EXPECT_EQ(calibration_sequences(scratch.path().string(), options, runtime),
            (std::vector<std::vector<std::int32_t>>{{5, 6, 7}, {9}}));
  write_file(options.source, "{\"text\": \"words\"}\n");
  EXPECT_THROW(calibration_sequences(scratch.path().string(), options, runtime), Error);
}

}  // namespace
}  // namespace bise
