#!/usr/bin/env python3
"""Prefill of bise beside torch bf16 in many short turns, for machines whose speed changes from second to second.

Torch's model stays loaded in one process and computes one prompt at a time; between two of its prompts each of bise's
schemes computes some. So both see the same seconds. Reported of each: the median and the best, and the median of its
rate over that of torch in the same turn. run_peers.py measures more, but each figure seconds to minutes apart.

Models as run_peers.py has them. Writes a JSON and prints a Markdown table.
"""

import argparse
import datetime
import json
import pathlib
import statistics
import subprocess
import sys
import time

import run_peers

WORKER = """
import pathlib, sys, time
import torch
from transformers import AutoModelForCausalLM
sys.path.insert(0, sys.argv[1])
import amx_palette
amx_palette.apply(pathlib.Path(torch.__file__).resolve().parent / "lib" / "libtorch_cpu.so")
torch.set_num_threads(int(sys.argv[4]))
torch.manual_seed(0)
model = AutoModelForCausalLM.from_pretrained(sys.argv[2], dtype=torch.bfloat16).eval()
prompt = torch.randint(0, model.config.vocab_size, (1, int(sys.argv[3])))
with torch.inference_mode():
    for line in sys.stdin:
        for _ in range(2):  # the first one warms up
            start = time.perf_counter()
            model(prompt, use_cache=True, logits_to_keep=1).logits[:, -1].argmax(-1).item()
            passed = time.perf_counter() - start
        print(prompt.shape[1] / passed, flush=True)
"""
# Threads of torch spin for a while after their work.
PAUSE_S = 0.4


class Torch:
    def __init__(self, checkpoint, args):
        python = run_peers.PEERS / "venv/bin/python"
        self.process = subprocess.Popen(
            [python, "-c", WORKER, run_peers.HERE, checkpoint, str(args.prompt_tokens), str(args.threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def prefill(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit("torch's process ended: run transformers_bench.py by hand to see why")
        return float(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def bise_prefill(checkpoint, args):
    command = [args.bise, "bench", checkpoint, "--json", "--repetitions", "1", "--output-tokens", "1",
               "--prompt-tokens", str(args.prompt_tokens), "--threads", str(args.threads)]
    return json.loads(subprocess.check_output(command, stderr=subprocess.DEVNULL))["prefill_tok_s"]


def measure(name, schemes, args):
    torch = Torch(args.models / name, args)
    torch.prefill()
    turns = []
    for number in range(args.turns):
        turn = {"torch bf16": torch.prefill()}
        for scheme, path in schemes.items():
            time.sleep(PAUSE_S)
            turn[scheme] = bise_prefill(path, args)
        turns.append(turn)
        print(f"{name} {number + 1}/{args.turns} " + ", ".join(f"{k} {v:.0f}" for k, v in turn.items()),
              file=sys.stderr, flush=True)
    torch.close()
    return turns


def summary(turns):
    return {key: {"median": statistics.median(t[key] for t in turns), "best": max(t[key] for t in turns),
                  "median_ratio": statistics.median(t[key] / t["torch bf16"] for t in turns)} for key in turns[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=pathlib.Path, default=run_peers.REPO / "build" / "models")
    parser.add_argument("--model", action="append", help="a NAME in it; repeatable (default: smollm2 and llama-1b)")
    parser.add_argument("--bise", required=True, help="the bise program")
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=pathlib.Path, required=True, help="the JSON to write")
    args = parser.parse_args()
    device, cpu_flags = run_peers.machine()
    result = {"device": device, "cpu_flags": cpu_flags, "prompt_tokens": args.prompt_tokens, "threads": args.threads,
              "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "models": {}}
    lines = ["| model | weights | median tok/s | best tok/s | median over torch's |", "|---|---|---:|---:|---:|"]
    for name in args.model or ["smollm2", "llama-1b"]:
        schemes = {s: args.models / f"{name}-{s}" for s in run_peers.BITS} | {"bf16": args.models / name}
        turns = measure(name, {s: p for s, p in schemes.items() if (p / "config.json").is_file()}, args)
        result["models"][name] = {"summary": summary(turns), "turns": turns}
        lines += [f"| {name} | {key} | {s['median']:.0f} | {s['best']:.0f} | {s['median_ratio']:.2f} |"
                  for key, s in summary(turns).items()]
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
