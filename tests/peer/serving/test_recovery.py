"""`bise compare` on result files against scipy: recovery, paired tests, averages of random runs."""

import json
import random
import statistics
import subprocess

import pytest

import server as serving

stats = pytest.importorskip("scipy.stats")

METRICS = {"piqa": ("acc_norm", "none"), "gsm8k": ("exact_match", "strict-match"), "truthfulqa_mc2": ("acc", "none")}


def write_run(folder, name, values):
    """One run as lm_eval leaves it, with `values` {task: [score of each document]}."""
    folder.mkdir()
    results, shots, samples = {}, {}, {}
    for task, scores in values.items():
        metric, filter_name = METRICS[task]
        results[task] = {"alias": task, f"{metric},{filter_name}": statistics.mean(scores),
                         f"{metric}_stderr,{filter_name}": statistics.stdev(scores) / len(scores) ** 0.5}
        shots[task], samples[task] = 5, {"original": len(scores), "effective": len(scores)}
        lines = [json.dumps({"doc_id": i, "filter": filter_name, "doc_hash": f"{task}{i}", metric: score}) for i, score in enumerate(scores)]
        random.shuffle(lines)
        (folder / f"samples_{task}_2026-01-01T00-00-00.000000.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "results_2026-01-01T00-00-00.000000.json").write_text(
        json.dumps({"results": results, "n-shot": shots, "n-samples": samples, "model_name": name}))


@pytest.mark.parametrize("seed", range(6))
def test_against_scipy(tmp_path, seed):
    random.seed(seed)
    count = random.choice([5, 40, 300])
    original = {"piqa": [float(random.random() < 0.7) for _ in range(count)],
                "gsm8k": [float(random.random() < 0.4) for _ in range(2 * count)],
                "truthfulqa_mc2": [random.random() for _ in range(count)]}
    other = {task: [random.random() if task == "truthfulqa_mc2" and random.random() < 0.5 else (1 - v if random.random() < 0.08 * seed else v)
                    for v in values] for task, values in original.items()}
    write_run(tmp_path / "base", "org/base", original)
    write_run(tmp_path / "quant", "org/quant", other)
    output = subprocess.run([serving.BISE, "compare", tmp_path / "base", tmp_path / "quant", "--json", "-o", tmp_path / "out"],
                            check=True, capture_output=True, text=True).stdout
    recovery = json.loads(output)
    assert recovery == json.loads((tmp_path / "out" / "recovery.json").read_text())
    assert recovery["runs"] == ["base", "quant"]
    variances, differences = [], []
    for entry in recovery["tasks"]:
        a, b = original[entry["task"]], other[entry["task"]]
        base, cell = entry["scores"]
        assert base["value"] == pytest.approx(statistics.mean(a))
        assert cell["recovery_percent"] == pytest.approx(100 * statistics.mean(b) / statistics.mean(a))
        paired = [y - x for x, y in zip(a, b)]
        test = cell["test"]
        assert test["samples"] == len(a)
        assert test["difference"] == pytest.approx(statistics.mean(paired))
        assert test["standard_error"] == pytest.approx(statistics.stdev(paired) / len(a) ** 0.5)
        if entry["task"] == "truthfulqa_mc2":
            assert test["method"] == "paired t"
            expected = stats.ttest_rel(b, a).pvalue
        else:
            gained, lost = sum(d > 0 for d in paired), sum(d < 0 for d in paired)
            assert (test["method"], test["gained"], test["lost"]) == ("McNemar, exact", gained, lost)
            expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1
        assert test["p"] == pytest.approx(expected, rel=1e-9)
        differences.append(statistics.mean(paired))
        variances.append(statistics.variance(paired) / len(a))
    (average,) = recovery["averages"]
    means = [statistics.mean(statistics.mean(v) for v in run.values()) for run in (original, other)]
    assert average["scores"][1]["recovery_percent"] == pytest.approx(100 * means[1] / means[0])
    z = statistics.mean(differences) / (sum(variances) ** 0.5 / 3)
    assert average["scores"][1]["test"]["p"] == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-9)
    for name in ("recovery.md", "recovery.html", "recovery.svg"):
        assert (tmp_path / "out" / name).stat().st_size > 500
