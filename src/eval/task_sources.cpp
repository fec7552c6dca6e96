#include "eval/task_sources.h"

#include <array>
#include <utility>

#include "base/check.h"

namespace bise {
namespace {

constexpr std::string_view kGsm8k = R"yaml(
task: gsm8k
dataset_path: gsm8k
training_split: train
test_split: test
fewshot_split: train
output_type: generate_until
doc_to_text: "Question: {{question}}\nAnswer:"
doc_to_target: "{{answer}}"
num_fewshot: 5
generation_kwargs: {until: ["Question:", "</s>", "<|im_end|>"], do_sample: false, temperature: 0.0}
metric_list:
  - metric: exact_match
    ignore_case: true
    regexes_to_ignore: [",", "\\$", "(?s).*#### ", "\\.$"]
filter_list:
  - name: strict-match
    filter: [{function: regex, regex_pattern: "#### (\\-?[0-9\\.\\,]+)"}, {function: take_first}]
  - name: flexible-extract
    filter:
      - {function: regex, group_select: -1, regex_pattern: "(-?[$0-9.,]{2,})|(-?[0-9]+)"}
      - {function: take_first}
metadata: {version: 3.0}
)yaml";

constexpr std::string_view kGsm8kCot = R"yaml(
task: gsm8k_cot
dataset_path: gsm8k
test_split: test
fewshot_config: {sampler: first_n}
output_type: generate_until
doc_to_text: "Q: {{question}}\nA:"
doc_to_target: "{{answer.split('####')[-1].strip() if answer is defined else target}}"
num_fewshot: 8
generation_kwargs: {until: ["Q:", "</s>", "<|im_end|>"], do_sample: false}
metric_list:
  - metric: exact_match
    ignore_case: true
    regexes_to_ignore: [",", "\\$", "(?s).*#### ", "\\.$"]
filter_list:
  - name: strict-match
    filter: [{function: regex, regex_pattern: "The answer is (\\-?[0-9\\.\\,]+)."}, {function: take_first}]
  - name: flexible-extract
    filter:
      - {function: regex, group_select: -1, regex_pattern: "(-?[$0-9.,]{2,})|(-?[0-9]+)"}
      - {function: take_first}
metadata: {version: 3.0}
)yaml";

constexpr std::string_view kHellaswag = R"yaml(
task: hellaswag
dataset_path: hellaswag
training_split: train
validation_split: validation
process_docs: hellaswag
output_type: multiple_choice
doc_to_text: "{{query}}"
doc_to_target: "{{label}}"
doc_to_choice: choices
metric_list: [{metric: acc}, {metric: acc_norm}]
metadata: {version: 1.0}
)yaml";

constexpr std::string_view kPiqa = R"yaml(
task: piqa
dataset_path: piqa
training_split: train
validation_split: validation
output_type: multiple_choice
doc_to_text: "Question: {{goal}}\nAnswer:"
doc_to_target: label
doc_to_choice: "{{[sol1, sol2]}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
metadata: {version: 1.0}
)yaml";

constexpr std::string_view kArc = R"yaml(
training_split: train
validation_split: validation
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{question}}\nAnswer:"
doc_to_target: "{{choices.label.index(answerKey)}}"
doc_to_choice: "{{choices.text}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
metadata: {version: 1.0}
)yaml";

constexpr std::string_view kWinogrande = R"yaml(
task: winogrande
dataset_path: winogrande
training_split: train
validation_split: validation
process_docs: winogrande
multiple_inputs: true
output_type: multiple_choice
doc_to_text: "{{gold}}"
doc_to_target: "{{suffix}}"
doc_to_choice: contexts
metric_list: [{metric: acc}]
metadata: {version: 1.0}
)yaml";

constexpr std::string_view kMmlu = R"yaml(
test_split: test
fewshot_split: dev
fewshot_config: {sampler: first_n}
process_docs: mmlu
output_type: multiple_choice
doc_to_text: "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:"
doc_to_choice: [A, B, C, D]
doc_to_target: answer
metric_list: [{metric: acc}]
metadata: {version: 1.0}
)yaml";

constexpr std::string_view kBbh = R"yaml(
test_split: test
fewshot_config: {sampler: first_n}
num_fewshot: 3
output_type: multiple_choice
doc_to_text: "Q: {{input}}\nA:"
doc_to_target: "{{target}}"
metric_list: [{metric: acc_norm}]
metadata: {version: 1.0}
)yaml";

constexpr std::array kBbhTasks = {
    BbhTask{"boolean_expressions", 0, "False|True"},
    BbhTask{"causal_judgement", 0, "Yes|No"},
    BbhTask{"date_understanding", 6, ""},
    BbhTask{"disambiguation_qa", 3, ""},
    BbhTask{"formal_fallacies", 0, "valid|invalid"},
    BbhTask{"geometric_shapes", 11, ""},
    BbhTask{"hyperbaton", 2, ""},
    BbhTask{"logical_deduction_five_objects", 5, ""},
    BbhTask{"logical_deduction_seven_objects", 7, ""},
    BbhTask{"logical_deduction_three_objects", 3, ""},
    BbhTask{"movie_recommendation", 6, ""},
    BbhTask{"navigate", 0, "Yes|No"},
    BbhTask{"object_counting", 0, "0|1|2|3|4|5|6|7|8|9|10|11|12|13|14|15|16|17|18"},
    BbhTask{"penguins_in_a_table", 5, ""},
    BbhTask{"reasoning_about_colored_objects", 18, ""},
    BbhTask{"ruin_names", 6, ""},
    BbhTask{"salient_translation_error_detection", 6, ""},
    BbhTask{"snarks", 2, ""},
    BbhTask{"sports_understanding", 0, "yes|no"},
    BbhTask{"temporal_sequences", 4, ""},
    BbhTask{"tracking_shuffled_objects_five_objects", 5, ""},
    BbhTask{"tracking_shuffled_objects_seven_objects", 7, ""},
    BbhTask{"tracking_shuffled_objects_three_objects", 3, ""},
    BbhTask{"web_of_lies", 0, "Yes|No"},
};

constexpr std::array<std::string_view, 57> kMmluSubjects = {
    "abstract_algebra",
    "anatomy",
    "astronomy",
    "business_ethics",
    "clinical_knowledge",
    "college_biology",
    "college_chemistry",
    "college_computer_science",
    "college_mathematics",
    "college_medicine",
    "college_physics",
    "computer_security",
    "conceptual_physics",
    "econometrics",
    "electrical_engineering",
    "elementary_mathematics",
    "formal_logic",
    "global_facts",
    "high_school_biology",
    "high_school_chemistry",
    "high_school_computer_science",
    "high_school_european_history",
    "high_school_geography",
    "high_school_government_and_politics",
    "high_school_macroeconomics",
    "high_school_mathematics",
    "high_school_microeconomics",
    "high_school_physics",
    "high_school_psychology",
    "high_school_statistics",
    "high_school_us_history",
    "high_school_world_history",
    "human_aging",
    "human_sexuality",
    "international_law",
    "jurisprudence",
    "logical_fallacies",
    "machine_learning",
    "management",
    "marketing",
    "medical_genetics",
    "miscellaneous",
    "moral_disputes",
    "moral_scenarios",
    "nutrition",
    "philosophy",
    "prehistory",
    "professional_accounting",
    "professional_law",
    "professional_medicine",
    "professional_psychology",
    "public_relations",
    "security_studies",
    "sociology",
    "us_foreign_policy",
    "virology",
    "world_religions",
};

constexpr std::array kSources = {
    std::pair{std::string_view("gsm8k"), kGsm8k},
    std::pair{std::string_view("gsm8k_cot"), kGsm8kCot},
    std::pair{std::string_view("hellaswag"), kHellaswag},
    std::pair{std::string_view("piqa"), kPiqa},
    std::pair{std::string_view("arc"), kArc},
    std::pair{std::string_view("winogrande"), kWinogrande},
    std::pair{std::string_view("mmlu"), kMmlu},
    std::pair{std::string_view("bbh"), kBbh},
};

}  // namespace

std::string_view task_source(std::string_view name) {
  for (const auto& [known, source] : kSources)
    if (known == name) return source;
  check(false, "there is a source of that name");
  return {};
}

std::span<const std::string_view> mmlu_subjects() {
  return kMmluSubjects;
}

std::span<const BbhTask> bbh_tasks() {
  return kBbhTasks;
}

}  // namespace bise
