"""guidellm and aiperf run to their end without a failed request, and their reports can be read."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

import server as serving

pytest.importorskip("guidellm")
pytest.importorskip("aiperf")
PROGRAMS = pathlib.Path(sys.executable).parent


def run(command, folder):
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub-home"), "TOKENIZERS_PARALLELISM": "false",
                                "HOME": str(folder)}
    result = subprocess.run([str(word) for word in command], cwd=folder, env=environment, capture_output=True, text=True,
                            timeout=400)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]


def name_in_hub_cache(folder):
    """aiperf 0.13 takes names only: SmolLM2 under one, as if the hub's client had downloaded it."""
    cached = folder / "hub-home" / "hub" / "models--local--smollm2"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    (cached / "snapshots").mkdir()
    (cached / "snapshots" / ("0" * 40)).symlink_to(serving.SMOLLM2)
    return "local/smollm2"


@pytest.mark.parametrize("route", ["/v1/chat/completions", "/v1/completions"])
def test_guidellm(smollm2, tmp_path, route):
    run([PROGRAMS / "guidellm", "run", "--backend",
         json.dumps({"kind": "openai_http", "target": smollm2.url, "model": "smollm2", "request_format": route}),
         "--tokenizer", json.dumps({"kind": "huggingface_auto", "model": str(serving.SMOLLM2)}),
         "--data", "kind=synthetic_text,prompt_tokens=64,output_tokens=16", "--profile", "kind=concurrent,streams=4",
         "--constraint", "kind=max_requests,count=24", "--output", "kind=json,path=report.json", "--disable-console"], tmp_path)
    benchmark, = json.loads((tmp_path / "report.json").read_text())["benchmarks"]
    totals = benchmark["metrics"]["request_totals"]
    assert totals["successful"] == 24 and totals["errored"] == 0, totals
    output = benchmark["metrics"]["output_token_count"]["successful"]
    assert output["min"] == output["max"] == 16
    assert benchmark["metrics"]["time_to_first_token_ms"]["successful"]["mean"] > 0


@pytest.mark.parametrize("kind", ["chat", "completions"])
def test_aiperf(smollm2, tmp_path, kind):
    run([PROGRAMS / "aiperf", "profile", "--model", "smollm2", "--url", smollm2.url, "--endpoint-type", kind, "--streaming",
         "--tokenizer", name_in_hub_cache(tmp_path), "--concurrency", 4, "--isl", 64, "--osl", 16, "--request-count", 24,
         "--extra-inputs", "ignore_eos:true", "--artifact-dir", tmp_path / "out", "--ui", "none"], tmp_path)
    report = json.loads(next((tmp_path / "out").rglob("profile_export_aiperf.json")).read_text())
    assert report["request_count"]["avg"] == 24, report.keys()
    assert not report.get("error_summary"), report["error_summary"]
    assert report["output_sequence_length"]["avg"] == pytest.approx(16, abs=1)
    assert report["time_to_first_token"]["avg"] > 0
