#!/usr/bin/env python3
"""Runs lm_eval 0.4.13's own task code on tests/data/eval/data with a model that makes its answers up, and writes
the hashes of all prompts and the metrics to tests/data/eval/goldens.json (eval_goldens_test.cpp reads it).

    python tools/peers/lm_eval_goldens.py      # in a venv with lm_eval[math,ifeval]==0.4.13

The made-up model: log-likelihood -(h % 10000) / 100 with h = the first 8 hex digits of
sha256(context + continuation), greedy when h is odd; the i-th generated text is answers[i % n] of the task's
family in answers.json.
"""
import hashlib
import json
import pathlib
import sys
import tempfile

import lm_eval
import nltk
import yaml
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

# IFEval's task file asks for nltk's data when it is imported; no instruction in our data needs it.
nltk.download = nltk.data.find = lambda *args, **kwargs: True
ROOT = pathlib.Path(__file__).resolve().parents[2] / "tests/data/eval"
TASKS = pathlib.Path(lm_eval.__file__).parent / "tasks"
# task, yaml of lm_eval, data folder, shots, family of answers, then for some: "multi" or "single" turns of a chat,
# system instruction
CASES = [
    ("truthfulqa_mc1", "truthfulqa/truthfulqa_mc1.yaml", "truthfulqa", None, ""),
    ("truthfulqa_mc2", "truthfulqa/truthfulqa_mc2.yaml", "truthfulqa", None, ""),
    ("winogrande", "winogrande/default.yaml", "winogrande", 3, ""),
    ("mmlu_anatomy", "mmlu/default/mmlu_anatomy.yaml", "mmlu/anatomy", 5, ""),
    ("mmlu_flan_cot_zeroshot_anatomy", "mmlu/flan_cot_zeroshot/mmlu_anatomy.yaml", "mmlu/anatomy", None, "mmlu_cot"),
    ("mmlu_pro_biology", "mmlu_pro/mmlu_pro_biology.yaml", "mmlu_pro", 2, "mmlu_pro"),
    ("mmlu_pro_computer_science", "mmlu_pro/mmlu_pro_computer_science.yaml", "mmlu_pro", None, "mmlu_pro"),
    ("leaderboard_mmlu_pro", "leaderboard/mmlu_pro/mmlu_pro.yaml", "mmlu_pro", None, ""),
    ("leaderboard_gpqa_diamond", "leaderboard/gpqa/gpqa_diamond_zeroshot.yaml", "gpqa/gpqa_diamond", None, ""),
    ("leaderboard_musr_murder_mysteries", "leaderboard/musr/musr_murder_mysteries.yaml", "musr", None, ""),
    ("leaderboard_musr_team_allocation", "leaderboard/musr/musr_team_allocation.yaml", "musr", None, ""),
    ("leaderboard_math_algebra_hard", "leaderboard/math/math_algebra.yaml", "math/algebra", None, "math"),
    ("minerva_math500", "minerva_math/minerva_math500.yaml", "math500", None, "math"),
    ("aime24", "aime/aime24.yaml", "aime24", None, "aime"),
    ("aime25", "aime/aime25.yaml", "aime25", None, "aime"),
    ("wikitext", "wikitext/wikitext.yaml", "wikitext", None, ""),
    ("leaderboard_ifeval", "leaderboard/ifeval/ifeval.yaml", "ifeval", None, "ifeval"),
    ("mmlu_anatomy", "mmlu/default/mmlu_anatomy.yaml", "mmlu/anatomy", 2, "", "multi", None),
    ("mmlu_anatomy", "mmlu/default/mmlu_anatomy.yaml", "mmlu/anatomy", 2, "", "single", "Be brief."),
    ("mmlu_anatomy", "mmlu/default/mmlu_anatomy.yaml", "mmlu/anatomy", 2, "", None, "Be brief."),
    ("winogrande", "winogrande/default.yaml", "winogrande", 2, "", "multi", "Be brief."),
    ("winogrande", "winogrande/default.yaml", "winogrande", 2, "", "single", None),
    ("mmlu_pro_biology", "mmlu_pro/mmlu_pro_biology.yaml", "mmlu_pro", 2, "mmlu_pro", "multi", None),
]


class MadeUp(LM):
    def __init__(self, answers):
        super().__init__()
        self.answers, self.all = answers, ""

    @staticmethod
    def number(text):
        return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)

    @property
    def tokenizer_name(self):
        return "made_up"

    def chat_template(self, chat_template=False):
        return "made up"

    def apply_chat_template(self, chat_history, add_generation_prompt=True):
        text = "".join(f"<|{m['role']}|>{m['content']}\n" for m in chat_history)
        return text + ("<|assistant|>" if add_generation_prompt else "")

    def loglikelihood(self, requests):
        result = []
        for context, continuation in (r.args for r in requests):
            self.all += context + continuation
            h = self.number(context + continuation)
            result.append((-(h % 10000) / 100, h % 2 == 1))
        return result

    def loglikelihood_rolling(self, requests):
        result = []
        for (text,) in (r.args for r in requests):
            self.all += text
            result.append(-(self.number(text) % 10000) / 100)
        return result

    def generate_until(self, requests):
        self.all += "".join(r.args[0] for r in requests)
        return [self.answers[i % len(self.answers)] for i in range(len(requests))]


def local_yaml(folder, name, source, data):
    files = {p.stem: str(p) for p in sorted((ROOT / "data" / data).glob("*.jsonl"))}
    for split in ("train", "validation", "test"):  # some tasks name splits that they do not read
        files.setdefault(split, next(iter(files.values())))
    config = {"include": str(TASKS / source), "task": name, "dataset_path": "json", "dataset_name": None,
              "dataset_kwargs": {"data_files": files}, "tag": None}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))


def main():
    answers = json.loads((ROOT / "answers.json").read_text())
    goldens = []
    wanted = sys.argv[1:]
    for name, source, data, shots, family, *more in CASES:
        chat, system = more or (None, None)
        if wanted and name not in wanted:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            folder = pathlib.Path(scratch)
            own = "golden_" + name
            local_yaml(folder, own, source, data)
            model = MadeUp(answers.get(family, [""]))
            result = lm_eval.simple_evaluate(
                model=model, tasks=[own], num_fewshot=shots, apply_chat_template=bool(chat),
                fewshot_as_multiturn=chat == "multi", system_instruction=system, bootstrap_iters=0 if name == "wikitext" else 100000,
                task_manager=TaskManager(include_path=scratch, include_defaults=False), log_samples=True)
            samples = result["samples"][own]
            golden = {"task": name, "num_fewshot": shots, "answers": family, "chat": chat,
                      "system_instruction": system, "documents": result["n-samples"][own]["effective"],
                      "all": hashlib.sha256(model.all.encode()).hexdigest()[:16],
                      "doc_hash": samples[0]["doc_hash"], "target": str(samples[0]["target"]),
                      "metrics": {k: v for k, v in result["results"][own].items() if "," in k}}
            for metric in {k.split(",")[0] for k in golden["metrics"]}:
                if "stderr" not in metric:
                    golden.setdefault("values", {})[metric] = [s[metric] for s in samples if metric in s]
            goldens.append(golden)
            print(name, golden["metrics"])
    if not wanted:
        (ROOT / "goldens.json").write_text(json.dumps(goldens, indent=1) + "\n")


if __name__ == "__main__":
    main()
