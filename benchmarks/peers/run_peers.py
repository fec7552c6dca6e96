#!/usr/bin/env python3
"""Measures bise and its peers in one run on one machine: llama.cpp, transformers (torch bf16), and bise.

The folder --models holds, for each NAME: the bf16 checkpoint NAME/, its GGUFs gguf/NAME/{bf16,q8_0,q4_0}.gguf
and what bise quantized, NAME-SCHEME/. tools/peers/make_models.sh makes all of them.
Engines take turns (A B C A B C ...), so that a drift of the machine hits each of them alike. Each run starts when
the machine is quiet: others used less than --quiet-percent of all CPUs for 2 s. A sample during which others used
more is taken again, up to --retries times. The best sample is reported, one with others at work only where there is
no other, and all are kept.

Decode is measured after the prompt in each engine; decode_empty_tok_s of llama.cpp is llama-bench's usual figure,
from an empty cache. Needs the standard library only; the peers come from tools/peers/install_*.sh.
Writes benchmarks/results/peers-DATE.json and prints a Markdown table.
"""

import argparse
import contextlib
import datetime
import fcntl
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
REPO = HERE.parent.parent
PEERS = pathlib.Path(os.environ.get("BISE_PEERS", pathlib.Path.home() / ".cache" / "bise-peers"))
GGUF_SCHEMES = {"bf16": "bf16", "Q8_0": "q8_0", "Q4_0": "q4_0"}
# Schemes of like size are compared with each other.
BITS = {"bf16": 16, "Q8_0": 8, "W8A16": 8, "W8A8": 8, "FP8_DYNAMIC": 8,
        "Q4_0": 4, "W4A16": 4, "W4A16_ASYM": 4, "NF4": 4}
VERSIONS_OF = ["torch", "transformers", "compressed-tensors"]


def cpu_seconds():
    """Busy CPU seconds of the machine since it started, all CPUs together (without idle, I/O wait and steal)."""
    fields = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq = map(int, fields[:7])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def others_percent(busy, own, wall):
    return max(0.0, 100 * (busy - own) / (wall * os.cpu_count()))


def wait_until_quiet(limit_percent, timeout_s):
    deadline = time.monotonic() + timeout_s
    while True:
        busy, start = cpu_seconds(), time.monotonic()
        time.sleep(2)
        if others_percent(cpu_seconds() - busy, 0, time.monotonic() - start) < limit_percent:
            return
        if time.monotonic() > deadline:
            print(f"the machine was not quiet for {timeout_s:.0f} s; measuring all the same", file=sys.stderr)
            return


def run_measured(command, environment={}):
    """Runs command; returns (stdout, peak resident MB of that process, others' CPU percent while it ran)."""
    busy, start = cpu_seconds(), time.monotonic()
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors, env=os.environ | {"HF_HUB_OFFLINE": "1"} | environment)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - start
        busy = cpu_seconds() - busy
        output.seek(0)
        errors.seek(0)
        if os.waitstatus_to_exitcode(status) != 0:
            raise RuntimeError(f"{command}\n{errors.read().decode(errors='replace')[-2000:]}")
        share = others_percent(busy, usage.ru_utime + usage.ru_stime, wall)
        return output.read().decode(), usage.ru_maxrss * 1024 / 1e6, share


def llama_cpp_bin(args):
    return PEERS / "llama.cpp" / ("bin-no-amx" if args.isa == "avx512" else "bin")


def bench_llama_cpp(gguf, args):
    """Three tests in one process each: prefill, decode after the prompt, decode from an empty cache.

    Flash attention, as measured on AMX: prefill 1870 with it and 1180 without, decode after 512 tokens 93 and 248
    (SmolLM2 Q4_0). So each test has the setting that is best for llama.cpp.
    """
    base = [str(llama_cpp_bin(args) / "llama-bench"), "-m", str(gguf), "-t", str(args.threads), "-r", "1", "-o", "json"]
    prompt, output = str(args.prompt_tokens), str(args.output_tokens)
    figures, rss, others = {}, 0.0, 0.0
    for key, test in {"prefill_tok_s": ["-p", prompt, "-n", "0", "-fa", "1"],
                      "decode_tok_s": ["-p", "0", "-n", output, "-d", prompt, "-fa", "0"],
                      "decode_empty_tok_s": ["-p", "0", "-n", output, "-fa", "0"]}.items():
        text, peak, share = run_measured(base + test)
        figures[key] = json.loads(text)[0]["samples_ts"][0]
        rss, others = max(rss, peak), max(others, share)
    return figures | {"rss_mb": rss}, others


def flags(args):
    return ["--prompt-tokens", str(args.prompt_tokens), "--output-tokens", str(args.output_tokens),
            "--threads", str(args.threads)]


def bench_transformers(checkpoint, args):
    command = [str(PEERS / "venv/bin/python"), str(HERE / "transformers_bench.py"), str(checkpoint)] + flags(args)
    # oneDNN's name for AVX-512 with bf16, without AMX.
    text, rss, others = run_measured(command, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"} if args.isa == "avx512" else {})
    return json.loads(text) | {"rss_mb": rss}, others


def bench_bise(checkpoint, args):
    """One measurement after one to warm up, as the peers have it."""
    command = [str(args.bise), "bench", str(checkpoint), "--json", "--repetitions", "1", "--isa", args.isa] + flags(args)
    text, _, others = run_measured(command)
    figures = json.loads(text)
    figures.pop("samples")
    # The process itself grows larger after this, when it measures the memory's bandwidth.
    return figures | {"rss_mb": figures["peak_rss_mb"]}, others


def find_runs(args):
    """The things to measure: dicts {engine, model, scheme, path, bench}, in the order of their turns."""
    runs = []
    for name in args.model:
        checkpoint = args.models / name
        if not (checkpoint / "config.json").is_file():
            sys.exit(f"{checkpoint}: expected a checkpoint folder with config.json")
        for scheme, stem in GGUF_SCHEMES.items():
            path = args.models / "gguf" / name / f"{stem}.gguf"
            if not path.is_file():
                sys.exit(f"{path}: missing; tools/peers/make_gguf.sh makes it")
            runs.append({"engine": "llama.cpp", "model": name, "scheme": scheme, "path": path, "bench": bench_llama_cpp})
        runs.append({"engine": "transformers", "model": name, "scheme": "bf16", "path": checkpoint,
                     "bench": bench_transformers})
        if args.bise:
            quantized = {scheme: args.models / f"{name}-{scheme}" for scheme in BITS}
            for scheme, path in (quantized | {"bf16": checkpoint}).items():
                if (path / "config.json").is_file():
                    runs.append({"engine": "bise", "model": name, "scheme": scheme, "path": path, "bench": bench_bise})
    return [r for r in runs if (not args.engine or r["engine"] in args.engine)
            and (not args.scheme or r["scheme"] in args.scheme)]


@contextlib.contextmanager
def machine_lock(path):
    """Holds an exclusive lock on path, if one was given, for programs that take turns on this machine."""
    if not path:
        yield
        return
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def take_sample(run, args):
    with machine_lock(args.lock):
        wait_until_quiet(args.quiet_percent, args.quiet_timeout)
        figures, others = run["bench"](run["path"], args)
    return figures | {"others_cpu_percent": others}


def best(samples, quiet_percent):
    """Of each figure the largest over the quiet samples (over all when none was quiet); memory: the largest seen."""
    quiet = [s for s in samples if s["others_cpu_percent"] < quiet_percent] or samples
    figures = {key: max(s[key] for s in quiet) for key in quiet[0] if isinstance(quiet[0][key], (int, float))}
    figures["others_cpu_percent"] = max(s["others_cpu_percent"] for s in quiet)
    return figures


def peer_versions(args):
    versions = {}
    manifest = llama_cpp_bin(args) / "version.json"
    if manifest.is_file():
        versions["llama.cpp"] = json.loads(manifest.read_text())
    python = PEERS / "venv/bin/python"
    if python.is_file():
        code = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {VERSIONS_OF}}}))"
        versions |= json.loads(subprocess.check_output([str(python), "-c", code]))
    return versions


def machine():
    info = pathlib.Path("/proc/cpuinfo").read_text()
    field = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in info.splitlines())}
    wanted = ("avx2", "avx512", "avx_vnni", "amx")
    return (f"{field.get('model name', 'unknown CPU')}, {os.cpu_count()} CPUs",
            [f for f in field.get("flags", "").split() if f.startswith(wanted)])


def ratio_columns(run, runs):
    """How a bise row stands to llama.cpp at the same bits (decode) and to the fastest peer (prefill)."""
    if run["engine"] != "bise":
        return "", ""
    peers = [r for r in runs if r["model"] == run["model"] and r["engine"] != "bise"]
    same_bits = [r for r in peers if BITS[r["scheme"]] == BITS[run["scheme"]]]
    decode = max((r["decode_tok_s"] for r in same_bits), default=None)
    prefill = max((r["prefill_tok_s"] for r in same_bits + [p for p in peers if p["engine"] == "transformers"]),
                  default=None)
    return (f"{run['prefill_tok_s'] / prefill:.2f}x" if prefill else "",
            f"{run['decode_tok_s'] / decode:.2f}x" if decode else "")


def markdown(runs):
    lines = ["| model | engine | scheme | prefill tok/s | vs best peer | decode tok/s | vs best at same bits | peak RSS MB | others' CPU % |",
             "|---|---|---|---:|---:|---:|---:|---:|---:|"]
    for run in runs:
        prefill, decode = ratio_columns(run, runs)
        lines.append(f"| {run['model']} | {run['engine']} | {run['scheme']} | {run['prefill_tok_s']:.0f} | {prefill} "
                     f"| {run['decode_tok_s']:.1f} | {decode} | {run['rss_mb']:.0f} | {run['others_cpu_percent']:.1f} |")
    return "\n".join(lines)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=pathlib.Path, default=REPO / "build" / "models",
                        help="folder of the models (%(default)s)")
    parser.add_argument("--model", action="append", help="a NAME in it; repeatable (default: smollm2 and llama-1b)")
    parser.add_argument("--bise", type=pathlib.Path, help="the bise program; without it only the peers are measured")
    parser.add_argument("--engine", action="append", help="measure only these engines; repeatable")
    parser.add_argument("--scheme", action="append", help="measure only these schemes; repeatable")
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--output-tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--isa", choices=["auto", "avx512"], default="auto",
                        help="avx512: all engines without AMX (llama.cpp from install_llama_cpp.sh --no-amx)")
    parser.add_argument("--rounds", type=int, default=3, help="samples of each (default %(default)s)")
    parser.add_argument("--quiet-percent", type=float, default=6.0, help="others' CPU share that counts as quiet")
    parser.add_argument("--quiet-timeout", type=float, default=120.0, help="seconds to wait for it")
    parser.add_argument("--retries", type=int, default=2, help="of a sample that was not quiet (default %(default)s)")
    parser.add_argument("--lock", help="hold this file's lock during each sample, to take turns with other programs")
    parser.add_argument("--output", type=pathlib.Path, help="the JSON to write (default benchmarks/results/peers-DATE.json)")
    args = parser.parse_args()
    args.model = args.model or ["smollm2", "llama-1b"]
    return args


def main():
    args = parse_args()
    runs = find_runs(args)
    samples = [[] for _ in runs]
    for round_number in range(args.rounds):
        for run, taken in zip(runs, samples):
            for _ in range(1 + args.retries):
                taken.append(take_sample(run, args))
                print(f"round {round_number + 1}/{args.rounds} {run['model']} {run['engine']} {run['scheme']}: "
                      "prefill {prefill_tok_s:.0f}, decode {decode_tok_s:.1f} tok/s, others {others_cpu_percent:.1f} %"
                      .format(**taken[-1]), file=sys.stderr, flush=True)
                if taken[-1]["others_cpu_percent"] < args.quiet_percent:
                    break

    device, cpu_flags = machine()
    commit = subprocess.run(["git", "-C", str(REPO), "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    now = datetime.datetime.now(datetime.timezone.utc)
    result = {
        "device": device, "cpu_flags": cpu_flags, "commit": commit, "date": now.isoformat(timespec="seconds"),
        "prompt_tokens": args.prompt_tokens, "output_tokens": args.output_tokens, "threads": args.threads,
        "isa": args.isa, "peers": peer_versions(args),
        "runs": [{k: run[k] for k in ("engine", "model", "scheme")} | best(taken, args.quiet_percent)
                 | {"samples": taken} for run, taken in zip(runs, samples)],
    }
    output = args.output or REPO / "benchmarks" / "results" / f"peers-{now:%Y%m%dT%H%M%SZ}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(partial, output)
    print(markdown(result["runs"]))
    print(f"\n{output}", file=sys.stderr)


if __name__ == "__main__":
    main()
