// The data sets on the hub behind the tasks of `bise eval`, as the task files name them.
#pragma once

#include <string>
#include <vector>

namespace bise {

struct DatasetSource {
  std::string folder;               // under the data folder: "gsm8k", "mmlu/virology"
  std::string repo, config;         // config "": the only one
  std::vector<std::string> splits;  // that tasks read
};

// The data of a task or group, or the folder `name` and those below it ("mmlu": 57). Empty when the name is
// neither.
std::vector<DatasetSource> find_dataset_sources(const std::string& name);

}  // namespace bise
