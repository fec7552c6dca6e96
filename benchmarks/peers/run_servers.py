#!/usr/bin/env python3
"""Throughput of bise's server and of llama.cpp's, with the same client in one run: 1, 8 and 32 streams.

Each stream asks for one completion after the other: random prompts of --prompt-tokens token ids, --output-tokens tokens
each, streamed, end-of-sequence ignored. Servers take turns for each point (A B A B ...), so that a drift of the machine
hits both alike; only one runs at a time. Of each point the best round is reported and all are kept. Needs the standard
library only; llama-server comes from tools/peers/install_llama_cpp.sh, the GGUFs from tools/peers/make_models.sh.
Writes benchmarks/results/servers-DATE.json and prints a Markdown table.
"""

import argparse
import asyncio
import contextlib
import datetime
import json
import os
import pathlib
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import run_peers

PAIRS = {"bf16": "bf16", "W8A8": "q8_0", "W4A16": "q4_0"}  # bise's scheme: llama.cpp's file of like size


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(command, port):
    """The server's process, once GET /health answers 200."""
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 120
            while True:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                        if answer.status == 200:
                            break
                except OSError:
                    pass
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{command}\n{pathlib.Path(log.name).read_text(errors='replace')[-3000:]}")
                time.sleep(0.05)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def one_request(port, prompt, tokens):
    """(seconds to the first token, seconds, tokens of the answer)"""
    body = json.dumps({"prompt": prompt, "max_tokens": tokens, "stream": True, "ignore_eos": True, "temperature": 1, "top_p": 1,
                       "top_k": 0, "min_p": 0, "cache_prompt": False, "stream_options": {"include_usage": True}}).encode()
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    writer.write(f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
                 f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    first, data = None, b""
    while piece := await reader.read(1 << 16):
        if first is None and b"data: " in piece:
            first = time.perf_counter() - started
        data += piece
    writer.close()
    seconds = time.perf_counter() - started
    counts = re.findall(rb'"completion_tokens":(\d+)', data)
    if not counts or int(counts[-1]) != tokens:
        raise RuntimeError(f"expected {tokens} tokens, got {counts[-1:]}: {data[-500:]}")
    return first, seconds, tokens


async def load(port, streams, requests, args, seed):
    """Runs `requests` requests on `streams` streams; figures of the whole."""
    rng = random.Random(seed)
    prompts = [[rng.randrange(100, 40000) for _ in range(args.prompt_tokens)] for _ in range(requests)]
    results = []

    async def stream():
        while prompts:
            results.append(await one_request(port, prompts.pop(), args.output_tokens))

    started = time.perf_counter()
    await asyncio.gather(*[stream() for _ in range(streams)])
    seconds = time.perf_counter() - started
    ttft = [first for first, _, _ in results]
    tpot = [(whole - first) / (tokens - 1) for first, whole, tokens in results]
    return {"output_tok_s": sum(tokens for _, _, tokens in results) / seconds, "requests_s": len(results) / seconds,
            "ttft_ms_median": 1000 * statistics.median(ttft), "tpot_ms_median": 1000 * statistics.median(tpot), "seconds": seconds}


def command_of(engine, path, port, args):
    if engine == "bise":
        return [args.bise, "serve", path, "--host", "127.0.0.1", "--port", port, "--threads", args.threads, "--max-num-seqs",
                max(args.streams), "--max-model-len", args.prompt_tokens + args.output_tokens + 64, "--disable-uvicorn-access-log",
                "--disable-log-stats"]
    # One slot a stream, flash attention as is best for it on this CPU (run_peers.py says what was measured).
    context = max(args.streams) * (args.prompt_tokens + args.output_tokens + 64)
    return [run_peers.PEERS / "llama.cpp/bin/llama-server", "-m", path, "--host", "127.0.0.1", "--port", port, "-t", args.threads,
            "-tb", args.threads, "-np", max(args.streams), "-c", context, "-fa", args.flash_attention, "--no-cache-prompt",
            "-cram", "0", "--no-webui"]


def measure(engine, path, args, seed):
    port = free_port()
    points = {}
    with running(command_of(engine, path, port, args), port) as process:
        asyncio.run(load(port, 2, 4, args, seed))  # warm
        for streams in args.streams:
            requests = max(args.requests_per_stream * streams, 4)
            points[streams] = asyncio.run(load(port, streams, requests, args, seed + streams))
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        points["peak_rss_mb"] = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024 / 1e6
    return points


def find_runs(args):
    runs = []
    for scheme in args.scheme:
        folder = args.models / (args.model if scheme == "bf16" else f"{args.model}-{scheme}")
        gguf = args.models / "gguf" / args.model / f"{PAIRS[scheme]}.gguf"
        for engine, path in (("bise", folder), ("llama.cpp", gguf)):
            if not path.exists():
                sys.exit(f"{path}: missing; tools/peers/make_models.sh makes it")
            runs.append({"engine": engine, "scheme": scheme if engine == "bise" else PAIRS[scheme], "pair": scheme, "path": path})
    return runs


def markdown(runs, args):
    lines = ["| model | scheme | streams | bise tok/s | llama.cpp tok/s | ratio | bise TTFT ms | llama.cpp TTFT ms |",
             "|---|---|---:|---:|---:|---:|---:|---:|"]
    for pair in args.scheme:
        ours, theirs = (next(r for r in runs if r["pair"] == pair and r["engine"] == engine) for engine in ("bise", "llama.cpp"))
        for streams in args.streams:
            a, b = ours["best"][str(streams)], theirs["best"][str(streams)]
            lines.append(f"| {args.model} | {ours['scheme']} / {theirs['scheme']} | {streams} | {a['output_tok_s']:.0f} | "
                         f"{b['output_tok_s']:.0f} | {a['output_tok_s'] / b['output_tok_s']:.2f} | {a['ttft_ms_median']:.0f} | "
                         f"{b['ttft_ms_median']:.0f} |")
    return "\n".join(lines)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bise", type=pathlib.Path, required=True)
    parser.add_argument("--models", type=pathlib.Path, default=run_peers.REPO / "build" / "models")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--scheme", action="append", choices=list(PAIRS), help="repeatable (default: bf16)")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--requests-per-stream", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--flash-attention", default="auto", choices=["on", "off", "auto"], help="llama.cpp's -fa")
    parser.add_argument("--lock", help="hold this file's lock during each server's turn")
    parser.add_argument("--output", type=pathlib.Path)
    args = parser.parse_args()
    args.scheme = args.scheme or ["bf16"]
    return args


def main():
    args = parse_args()
    runs = find_runs(args)
    for run in runs:
        run["rounds"] = []
    for number in range(args.rounds):
        for run in runs:
            with run_peers.machine_lock(args.lock):
                points = measure(run["engine"], run["path"], args, 1000 * number)
            run["rounds"].append(points)
            print(f"round {number + 1}/{args.rounds} {run['engine']} {run['scheme']}: " + ", ".join(
                f"{streams}: {points[streams]['output_tok_s']:.0f} tok/s" for streams in args.streams), file=sys.stderr, flush=True)
    for run in runs:
        run["best"] = {str(streams): max((points[streams] for points in run["rounds"]), key=lambda point: point["output_tok_s"])
                       for streams in args.streams}
        run["path"] = str(run["path"])
    device, flags = run_peers.machine()
    commit = subprocess.run(["git", "-C", str(run_peers.REPO), "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    now = datetime.datetime.now(datetime.timezone.utc)
    options = {key: str(value) if isinstance(value, pathlib.Path) else value for key, value in vars(args).items()}
    result = {"device": device, "cpu_flags": flags, "commit": commit, "date": now.isoformat(timespec="seconds"), "options": options,
              "peers": run_peers.peer_versions(), "runs": runs}
    output = args.output or run_peers.REPO / "benchmarks" / "results" / f"servers-{now:%Y%m%dT%H%M%SZ}.json"
    partial = output.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(partial, output)
    print(markdown(runs, args))
    print(f"\n{output}", file=sys.stderr)


if __name__ == "__main__":
    main()
