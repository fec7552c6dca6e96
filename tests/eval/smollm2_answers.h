// SmolLM2's answers in float32, as the reference runs of golden/lm_eval have them.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "eval/evaluate.h"
#include "eval/local_model.h"
#include "eval/task_registry.h"
#include "model/loader.h"
#include "tests/model/test_backends.h"
#include "tests/test_support.h"

namespace bise {

// The tasks of these names, answered by the checkpoint in `folder` on the data in shared/data.
inline std::vector<TaskResult> smollm2_answers(const std::filesystem::path& folder,
                                               const std::vector<std::string>& names,
                                               EvaluationOptions options) {
  options.data_dir = shared_path("data");
  std::vector<TaskResult> tasks = prepare_tasks(TaskRegistry().select(names).tasks, options);
  const ModelLoader loader(folder);
  const auto tokenizer = Tokenizer::load(folder);
  ThreadPool pool;
  const auto backend = make_cpu_backend(pool, available_isas().back(), true);
  const ModelWeights weights = loader.load_model(*backend);
  Decoder decoder(*backend, loader.config(), weights, {});
  LocalModelOptions model_options;
  model_options.kv_cache_dtype = DType::kF32;
  model_options.eos_token_ids = {*tokenizer->eos_token_id()};
  LocalModel model(decoder, pool, *tokenizer, model_options);
  answer_tasks(tasks, options, model);
  return tasks;
}

}  // namespace bise
