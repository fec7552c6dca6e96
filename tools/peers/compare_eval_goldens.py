#!/usr/bin/env python3
"""Runs bise eval as each reference run of shared/golden/lm_eval was made and compares every sample: largest
difference of a log-likelihood, decisions, generated texts, scores.

    tools/peers/compare_eval_goldens.py --bise build/cpu/bise --model build/models/smollm2 --shared ../shared [RUN ...]

RUN is a name such as piqa_5shot; all by default. Exit code 2 when a log-likelihood is off by more than 0.02, or a
decision or text differs that is no tie (0.001).
"""
import argparse
import gzip
import json
import pathlib
import subprocess
import tempfile

TOLERANCE, TIE = 0.02, 1e-3


def lines(path):
    with (gzip.open(path, "rt") if path.suffix == ".gz" else open(path)) as file:
        return [json.loads(line) for line in file]


def margin(golden):
    best = sorted((answer[0] for answer in golden["filtered_resps"]), reverse=True)
    return best[0] - best[1] if len(best) > 1 else 1


def compare(golden, own):
    own = {(s["doc_id"], s["filter"]): s for s in own}
    worst, scored, flips, texts, changed = 0.0, 0, [], 0, []
    for g in golden:
        s = own[(g["doc_id"], g["filter"])]
        assert s["doc_hash"] == g["doc_hash"] and s["prompt_hash"] == g["prompt_hash"], g["doc_id"]
        if isinstance(g["filtered_resps"][0], str):
            texts += 1
            if s["resps"][0][0] != g["resps"][0][0]:
                changed.append(g["doc_id"])
            continue
        for mine, reference in zip(s["filtered_resps"], g["filtered_resps"]):
            worst = max(worst, abs(float(mine[0]) - reference[0]))
            scored += 1
        for metric in g["metrics"]:
            if s[metric] != g[metric] and margin(g) > TIE:
                flips.append((g["doc_id"], metric))
    return worst, scored, flips, texts, sorted(set(changed))


def main():
    parser = argparse.ArgumentParser()
    for flag in ("--bise", "--model", "--shared"):
        parser.add_argument(flag, required=True)
    parser.add_argument("runs", nargs="*")
    args = parser.parse_args()
    goldens = pathlib.Path(args.shared) / "golden/lm_eval"
    bad = False
    for path in sorted(goldens.glob("results_*.json")):
        name = path.stem.removeprefix("results_")
        if args.runs and name not in args.runs:
            continue
        task, shots = name.rsplit("_", 1)
        reference = json.loads(path.read_text())
        count = reference["n-samples"][task]["effective"]
        with tempfile.TemporaryDirectory() as out:
            subprocess.run([args.bise, "eval", args.model, "--tasks", task, "--num-fewshot", shots.removesuffix("shot"),
                            "--limit", str(count), "--data-dir", str(pathlib.Path(args.shared) / "data"),
                            "--output-path", out, "--log-samples"], check=True, capture_output=True)
            own = lines(next(pathlib.Path(out).rglob("samples_*.jsonl")))
            results = json.loads(next(pathlib.Path(out).rglob("results_*.json")).read_text())["results"][task]
        samples = next(goldens.glob(f"samples_{name}.jsonl*"))
        worst, scored, flips, texts, changed = compare(lines(samples), own)
        same = all(results[k] == v for k, v in reference["results"][task].items() if "," in k and "stderr" not in k)
        print(f"{name}: {count} documents, {scored} log-likelihoods, largest difference {worst:.5f}, "
              f"{len(flips)} decisions differ {flips or ''}, {texts // 2} texts, {len(changed)} differ {changed or ''}, "
              f"scores {'equal' if same else 'differ'}", flush=True)
        bad |= worst > TOLERANCE or bool(flips)
    raise SystemExit(2 if bad else 0)


if __name__ == "__main__":
    main()
