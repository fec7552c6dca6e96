#!/usr/bin/env python3
"""Wall time of the `seed` group (gsm8k, hellaswag, piqa, arc_easy; 5-shot) on one model: bise eval in both
precisions, lm_eval with transformers (float32 and bfloat16), and lm_eval's local-completions on `bise serve`.

    benchmarks/eval_peers.py --bise build/cpu/bise --model build/models/smollm2 --data ../shared/data --limit 10 \
        --peer ~/.cache/bise-peers/lm_eval/bin/python --output benchmarks/results/eval_peers.json [--only NAME,...]

One run at a time; each is a process of its own, timed as a whole (loading included). Runs already in the output
file are kept, so that the comparison can be made in pieces. On two cores of a Sapphire Rapids server,
at --limit 10: bise 19 s in float32 and 8 s in serving precision, lm_eval with transformers 140 s in float32; at
--limit 250: bise about 5 minutes, lm_eval about 50. lm_eval's venv: pip install "lm_eval[api]==0.4.13" beside
tools/peers/install_python.sh's packages.
"""
import argparse
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

SEED = ["gsm8k", "hellaswag", "piqa", "arc_easy"]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def peer_tasks(folder, data, python):
    """lm_eval's own task files on the local data."""
    code = "import lm_eval, pathlib; print(pathlib.Path(lm_eval.__file__).parent / 'tasks')"
    tasks = pathlib.Path(subprocess.check_output([python, "-c", code], text=True).split()[-1])
    sources = {"gsm8k": "gsm8k/gsm8k.yaml", "hellaswag": "hellaswag/hellaswag.yaml", "piqa": "piqa/piqa.yaml",
               "arc_easy": "arc/arc_easy.yaml"}
    for name, source in sources.items():
        files = {p.stem: str(p.resolve()) for p in (pathlib.Path(data) / name).glob("*.jsonl")}
        files.setdefault("validation", files.get("test"))
        lines = [f"include: {tasks / source}", f"task: local_{name}", "tag: null", "dataset_path: json",
                 "dataset_name: null", "dataset_kwargs:", "  data_files:"]
        lines += [f"    {split}: {path}" for split, path in files.items() if path]
        (folder / f"{name}.yaml").write_text("\n".join(lines) + "\n")


def scores(output):
    files = sorted(pathlib.Path(output).rglob("results_*.json"))
    result = json.loads(files[-1].read_text())
    return {f"{task.removeprefix('local_')} {key}": value for task, metrics in result["results"].items()
            for key, value in metrics.items() if "," in key and "_stderr" not in key}, result


def run(name, command, output, env=None):
    print("running", name, flush=True)
    start = time.monotonic()
    subprocess.run(command, check=True, env={**os.environ, **(env or {})}, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - start
    found, result = scores(output)
    entry = {"seconds": round(seconds, 2), "scores": found}
    if result.get("scored_tokens"):
        entry["scored_tokens"], entry["computed_tokens"] = result["scored_tokens"], result["computed_tokens"]
    return entry


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server is ended too
    parser = argparse.ArgumentParser()
    for flag in ("--bise", "--model", "--data", "--peer", "--output"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--limit", type=int, default=10)
    parser.add_argument("--tasks", default=",".join(SEED))
    parser.add_argument("--batch-size", default="8", help="of lm_eval")
    parser.add_argument("--only", default="bise_float32,bise_serving,transformers_float32,transformers_bfloat16,server")
    args = parser.parse_args()
    tasks = args.tasks.split(",")
    path = pathlib.Path(args.output)
    record = json.loads(path.read_text()) if path.exists() else {"runs": {}}
    record.update(model=args.model, num_fewshot=5, processors=os.cpu_count(), lm_eval="0.4.13",
                  lm_eval_batch_size=args.batch_size)

    def keep(name, entry):
        record["runs"][f"{name} limit={args.limit} {','.join(tasks)}"] = entry
        path.write_text(json.dumps(record, indent=1) + "\n")
        print(name, entry["seconds"], "s", flush=True)

    common = ["--num_fewshot", "5", "--limit", str(args.limit)]
    env = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch) / "tasks"
        folder.mkdir()
        peer_tasks(folder, args.data, args.peer)
        peer = [args.peer, "-m", "lm_eval", "run", "--tasks", ",".join("local_" + t for t in tasks), "--include_path",
                str(folder), *common]
        for name in args.only.split(","):
            out = str(pathlib.Path(scratch) / name)
            if name.startswith("bise_"):
                command = [args.bise, "eval", args.model, "--tasks", ",".join(tasks), "--data-dir", args.data,
                           "--precision", name.removeprefix("bise_"), "--output-path", out, *common]
                keep(name, run(name, command, out))
            elif name.startswith("transformers_"):
                dtype = name.removeprefix("transformers_")
                command = [*peer, "--model", "hf", "--model_args", f"pretrained={args.model},dtype={dtype}", "--device",
                           "cpu", "--batch_size", args.batch_size, "--output_path", out]
                keep(name, run(name, command, out, env))
            elif name == "server":
                port = free_port()
                server = subprocess.Popen([args.bise, "serve", args.model, "--port", str(port), "--host", "127.0.0.1",
                                           "--served-model-name", "m"], stderr=subprocess.DEVNULL)
                try:
                    for _ in range(100):
                        try:
                            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
                            break
                        except OSError:
                            time.sleep(0.1)
                    arguments = (f"model=m,base_url=http://127.0.0.1:{port}/v1/completions,tokenizer={args.model},"
                                 "num_concurrent=8,tokenized_requests=True,max_length=4096")
                    command = [*peer, "--model", "local-completions", "--model_args", arguments, "--output_path", out]
                    entry = run(name, command, out, env)
                    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
                    for key in ("prefix_cache_queries_total", "prefix_cache_hits_total"):
                        entry[key] = sum(float(line.split()[-1]) for line in text.splitlines()
                                         if line.startswith("vllm:" + key + "{"))
                    keep(name, entry)
                finally:
                    server.terminate()
                    server.wait()
            else:
                sys.exit(f"unknown run {name}")


if __name__ == "__main__":
    main()
