"""lm_eval's local-completions model: scoring and generation through token ids and through text, against `bise score`."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

import server as serving

pytest.importorskip("lm_eval")
FACTS = [("The capital of France is", [" Paris", " London", " Berlin"], 0), ("The opposite of hot is", [" red", " cold", " tall"], 1),
         ("Two plus two equals", [" four", " nine", " eleven"], 0), ("Cows give us", [" iron", " wool", " milk"], 2),
         ("A week has seven", [" days", " hours", " years"], 0), ("Fish live in", [" water", " trees", " fire"], 0)]


def write_tasks(folder):
    rows = [{"question": q, "choices": c, "gold": g} for q, c, g in FACTS]
    (folder / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = f"dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {folder}/facts.jsonl\ntest_split: test\n"
    (folder / "facts.yaml").write_text(
        "task: facts\n" + common + "output_type: multiple_choice\ndoc_to_text: '{{question}}'\ndoc_to_choice: '{{choices}}'\n"
        "doc_to_target: gold\ntarget_delimiter: ''\nmetric_list:\n  - metric: acc\n")
    (folder / "write.yaml").write_text(
        "task: write\n" + common + "output_type: generate_until\ndoc_to_text: '{{question}}'\ndoc_to_target: '{{choices[gold]}}'\n"
        "generation_kwargs:\n  until: ['.']\n  max_gen_toks: 12\n  do_sample: false\nmetric_list:\n  - metric: exact_match\n")


def evaluate(server, folder, name, arguments):
    output = folder / name
    command = [pathlib.Path(sys.executable).parent / "lm_eval", "run", "--model", "local-completions", "--model_args",
               f"model=smollm2,base_url={server.url}/v1/completions,num_concurrent=4,{arguments}", "--tasks", "facts,write",
               "--include_path", folder, "--output_path", output, "--log_samples", "--batch_size", "2"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    run = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True, timeout=400)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-3000:]
    results = json.loads(next(output.rglob("results_*.json")).read_text())["results"]
    samples = {}
    for task in ("facts", "write"):
        lines = next(output.rglob(f"samples_{task}_*.jsonl")).read_text().splitlines()
        samples[task] = sorted((json.loads(line) for line in lines), key=lambda sample: sample["doc_id"])
    return results, samples


@pytest.fixture(scope="module")
def by_token_ids(smollm2, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ids")
    write_tasks(folder)
    return evaluate(smollm2, folder, "ids", f"tokenizer={serving.SMOLLM2},tokenized_requests=True")


def likelihoods(samples):
    return [[float(response[0][0]) for response in sample["resps"]] for sample in samples["facts"]]


def test_scores_equal_those_of_bise_score(by_token_ids):
    results, samples = by_token_ids
    assert results["facts"]["acc,none"] == 1
    rows = [{"text": question + choice} for question, choices, _ in FACTS for choice in choices]
    run = subprocess.run([serving.BISE, "score", serving.SMOLLM2], input="".join(json.dumps(row) + "\n" for row in rows),
                         capture_output=True, text=True, check=True)
    # Each choice here is one token, the last.
    scored = [json.loads(line)["logprobs"][-1] for line in run.stdout.splitlines()]
    assert sum(likelihoods(samples), []) == pytest.approx(scored, abs=0.02)


def test_text_requests_give_the_same(by_token_ids, smollm2, tmp_path):
    write_tasks(tmp_path)
    results, samples = evaluate(smollm2, tmp_path, "text", f"tokenizer={serving.SMOLLM2},tokenized_requests=False")
    assert results["facts"]["acc,none"] == by_token_ids[0]["facts"]["acc,none"]
    for mine, other in zip(likelihoods(samples), likelihoods(by_token_ids[1]), strict=True):
        assert mine == pytest.approx(other, abs=1e-3)
    texts = [[sample["resps"] for sample in run["write"]] for run in (samples, by_token_ids[1])]
    assert texts[0] == texts[1]
