// What `bise download --dataset NAME` brings for the names that tasks and their data have.
#include "cli/dataset_sources.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "eval/task_registry.h"

namespace bise {
namespace {

TEST(DatasetSources, NamesOfFoldersTasksAndGroups) {
  const auto gsm8k = find_dataset_sources("gsm8k");
  ASSERT_EQ(gsm8k.size(), 1u);
  EXPECT_EQ(gsm8k[0].repo, "openai/gsm8k");
  EXPECT_EQ(gsm8k[0].config, "main");
  EXPECT_EQ(gsm8k[0].splits, (std::vector<std::string>{"train", "test"}));
  EXPECT_EQ(find_dataset_sources("gsm8k_cot").at(0).folder, "gsm8k") << "a task that reads the same data";
  const auto virology = find_dataset_sources("mmlu/virology");
  ASSERT_EQ(virology.size(), 1u);
  EXPECT_EQ(virology[0].repo, "cais/mmlu");
  EXPECT_EQ(virology[0].config, "virology");
  EXPECT_EQ(find_dataset_sources("mmlu").size(), 57u);
  EXPECT_EQ(find_dataset_sources("mmlu_virology").at(0).folder, "mmlu/virology");
  EXPECT_TRUE(find_dataset_sources("no_such_thing").empty());
  EXPECT_TRUE(find_dataset_sources("mml").empty()) << "no part of a name";
  std::vector<std::string> folders;
  for (const DatasetSource& source : find_dataset_sources("seed")) folders.push_back(source.folder);
  std::ranges::sort(folders);
  EXPECT_EQ(folders, (std::vector<std::string>{"arc_easy", "gsm8k", "hellaswag", "piqa"}));
}

TEST(DatasetSources, EveryTasksDataCanBeBrought) {
  const TaskRegistry registry;
  for (const TaskConfig& task : registry.select(registry.names()).tasks) {
    const auto sources = find_dataset_sources(task.dataset);
    ASSERT_EQ(std::ranges::count(sources, task.dataset, &DatasetSource::folder), 1) << task.task;
    EXPECT_NE(sources[0].repo.find('/'), std::string::npos) << task.task;
    EXPECT_FALSE(sources[0].splits.empty()) << task.task;
  }
}

}  // namespace
}  // namespace bise
