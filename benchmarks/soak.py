#!/usr/bin/env python3
"""Sends a server thousands of mixed requests and checks that every one ends with the right reason, that the metrics add
up, and that neither cache blocks nor memory leak. Standard library only.

    benchmarks/soak.py --bise build/cpu/bise --model build/models/smollm2 --requests 20000 -- --load-format mock \\
        --mock-token-seconds 0.002 --num-gpu-blocks-override 120 --max-model-len 512 --max-num-seqs 32

What follows -- goes to `bise serve`. Writes one JSON object; exit code 1 when a check fails.
"""

import argparse
import asyncio
import collections
import datetime
import json
import os
import pathlib
import random
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "peer" / "serving"))
import server as serving

ROUTE = "/v1/completions"


class Failure(Exception):
    pass


def prompt(rng, longest=200):
    """Random token ids; a third of the prompts share a beginning, so that the prefix cache has work."""
    shared = [7 + i % 50 for i in range(64)] if rng.random() < 0.33 else []
    return shared + [rng.randrange(5, 2000) for _ in range(rng.randrange(1, longest))]


def unchunked(data):
    """The body of a chunked answer."""
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        body += data[:int(size, 16)]
        data = data[int(size, 16) + 2:]
    return body


class Client:
    def __init__(self, port):
        self.port = port
        self.sent_choices = 0           # of requests that were accepted for certain
        self.unsure_choices = 0         # of requests cut before the answer told
        self.completion_tokens = 0      # as usage told
        self.outcomes = collections.Counter()

    async def open(self, body, path=ROUTE, raw=None):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 22)
        data = json.dumps(body).encode() if raw is None else raw
        writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
                     f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
        await writer.drain()
        return reader, writer

    async def whole(self, body, path=ROUTE, raw=None):
        reader, writer = await self.open(body, path, raw)
        data = await reader.read()
        writer.close()
        head, _, answer = data.partition(b"\r\n\r\n")
        return int(head.split()[1]), answer

    def count(self, answer, choices):
        self.sent_choices += choices
        self.completion_tokens += answer["usage"]["completion_tokens"]

    def check(self, condition, what, seen):
        if not condition:
            raise Failure(f"{what}: {str(seen)[:400]}")

    # One coroutine a kind of request.

    async def plain(self, rng):
        n, tokens = rng.choice([1, 1, 1, 2, 3]), rng.randrange(1, 40)
        body = {"prompt": prompt(rng), "max_tokens": tokens, "n": n, "temperature": 1, "seed": rng.randrange(1000), "ignore_eos": True}
        if rng.random() < 0.3:
            body["logprobs"] = rng.randrange(0, 5)
        status, text = await self.whole(body)
        self.check(status == 200, "status", (status, text))
        answer = json.loads(text)
        self.count(answer, n)
        self.check([choice["finish_reason"] for choice in answer["choices"]] == ["length"] * n, "finish_reason", answer)
        self.check(answer["usage"]["completion_tokens"] == n * tokens, "tokens", (tokens, answer["usage"]))

    async def stream(self, rng):
        tokens = rng.randrange(1, 60)
        body = {"prompt": prompt(rng), "max_tokens": tokens, "stream": True, "stream_options": {"include_usage": True},
                "ignore_eos": True}
        status, text = await self.whole(body)
        self.check(status == 200, "status", (status, text))
        events = [line[6:] for line in unchunked(text).split(b"\n") if line.startswith(b"data: ")]
        self.check(events and events[-1].strip() == b"[DONE]", "no [DONE]", text[-300:])
        chunks = [json.loads(event) for event in events[:-1]]
        self.check("usage" in chunks[-1] and chunks[-1]["usage"]["completion_tokens"] == tokens, "usage", chunks[-1])
        reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]]
        self.check(reasons[-1] == "length" and not any(reasons[:-1]), "finish_reason", reasons)
        self.count(chunks[-1], 1)

    async def chat(self, rng):
        body = {"messages": [{"role": "user", "content": "word " * rng.randrange(1, 60)}], "max_tokens": rng.randrange(1, 30),
                "logprobs": rng.random() < 0.3}
        status, text = await self.whole(body, "/v1/chat/completions")
        self.check(status == 200, "status", (status, text))
        answer = json.loads(text)
        self.count(answer, 1)
        self.check(answer["choices"][0]["finish_reason"] in ("length", "stop"), "finish_reason", answer)

    async def stop_token(self, rng):
        body = {"prompt": prompt(rng), "max_tokens": 20, "allowed_token_ids": [100, 101], "stop_token_ids": [101], "seed": rng.randrange(99)}
        status, text = await self.whole(body)
        self.check(status == 200, "status", (status, text))
        answer = json.loads(text)
        self.count(answer, 1)
        self.check(answer["choices"][0]["finish_reason"] in ("stop", "length"), "finish_reason", answer)

    async def constrained(self, rng):
        body = {"prompt": prompt(rng, 50), "max_tokens": 30, "structured_outputs": {"choice": ["left", "right", "neither"]}}
        status, text = await self.whole(body)
        self.check(status == 200, "status", (status, text))
        answer = json.loads(text)
        self.count(answer, 1)

    async def left_stream(self, rng):
        body = {"prompt": prompt(rng), "max_tokens": 300, "stream": True, "ignore_eos": True}
        reader, writer = await self.open(body)
        for _ in range(rng.randrange(1, 6)):
            await reader.read(2000)
        self.unsure_choices += 1
        writer.transport.abort()

    async def left_whole(self, rng):
        _, writer = await self.open({"prompt": prompt(rng), "max_tokens": 300, "n": 2, "ignore_eos": True})
        await asyncio.sleep(rng.random() * 0.2)
        self.unsure_choices += 2
        writer.transport.abort()

    async def half_sent(self, rng):
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"POST {ROUTE} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n".encode() + b'{"prompt": [1, 2')
        await asyncio.sleep(rng.random() * 0.05)
        writer.transport.abort()

    async def bad(self, rng):
        raw, expected = rng.choice([(b"{", 400), (b'{"prompt": "\xff"}', 400), (b'{"prompt": "a", "temperature": 9}', 400),
                                    (b'{"prompt": "a", "model": "other"}', 404), (b'{"prompt": []}', 400), (b"[" * 10000, 400),
                                    (b'{"prompt": "a", "n": -1}', 400), (b'{"prompt": [999999999]}', 400),
                                    (b'{"prompt": "a", "structured_outputs": {"regex": "("}}', 400)])
        status, text = await self.whole(None, raw=raw)
        self.check(status == expected, "status", (raw[:60], status, text))

    async def tokenized(self, rng):
        status, text = await self.whole({"prompt": "some words " * rng.randrange(1, 200)}, "/tokenize")
        self.check(status == 200 and json.loads(text)["count"] > 0, "tokenize", (status, text))

    KINDS = {"plain": 30, "stream": 25, "chat": 8, "stop_token": 5, "constrained": 3, "left_stream": 9, "left_whole": 5, "half_sent": 4,
             "bad": 8, "tokenized": 3}

    async def one(self, rng):
        kind = rng.choices(list(self.KINDS), self.KINDS.values())[0]
        try:
            await getattr(self, kind)(rng)
        except (ConnectionError, asyncio.IncompleteReadError) as problem:
            raise Failure(f"{kind}: {problem!r}")
        self.outcomes[kind] += 1


async def run_load(client, args, on_progress):
    rng = random.Random(args.seed)
    left = iter(range(args.requests))

    async def worker():
        for i in left:
            await asyncio.wait_for(client.one(random.Random(rng.random())), args.request_timeout)
            if i % 500 == 499:
                on_progress(i + 1)

    workers = [asyncio.create_task(worker()) for _ in range(args.concurrency)]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in workers:
            task.cancel()


def check_sums(server, client):
    """The metrics against what the clients saw; what was cut may have been accepted or not."""
    m = server.metric
    finished = m("vllm:request_success_total")
    accepted = m("vllm:request_params_n_sum")
    problems = []

    def expect(condition, text):
        if not condition:
            problems.append(text)

    expect(finished == accepted, f"{finished} sequences finished, {accepted} accepted")
    expect(client.sent_choices <= finished <= client.sent_choices + client.unsure_choices,
           f"{finished} sequences finished; clients know of {client.sent_choices}, and {client.unsure_choices} cut")
    ended = m("vllm:request_success_total", finished_reason="stop") + m("vllm:request_success_total", finished_reason="length")
    expect(client.sent_choices <= ended <= finished, f"{ended} ended by themselves, {client.sent_choices} were seen to")
    expect(m("vllm:request_success_total", finished_reason="error") == 0, "sequences ended with an error")
    generated = m("vllm:generation_tokens_total")
    expect(client.completion_tokens <= generated, f"{generated} tokens generated, clients got {client.completion_tokens}")
    # The engine may have drawn one token more than was handed out before an abort reached it.
    handed = m("vllm:request_generation_tokens_sum")
    expect(client.completion_tokens <= handed <= generated, f"{handed} tokens handed out, {generated} generated")
    expect(m("vllm:kv_cache_usage_perc") == 0, "blocks are still held")
    expect(m("vllm:num_requests_running") == m("vllm:num_requests_waiting") == 0, "requests still run")
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bise", type=pathlib.Path, default=serving.BISE)
    parser.add_argument("--model", type=pathlib.Path, default=serving.SMOLLM2)
    parser.add_argument("--requests", type=int, default=20000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--request-timeout", type=float, default=120, help="seconds after which a request counts as hung")
    parser.add_argument("--memory-growth-mb", type=float, default=64, help="most that memory may grow after the first fifth")
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--output", type=pathlib.Path)
    parser.add_argument("serve", nargs="*", help="flags of bise serve")
    args = parser.parse_args()

    memory = []
    with serving.Server("--disable-uvicorn-access-log", *args.serve, program=args.bise.resolve(), model=args.model) as server:
        client = Client(server.port)

        def on_progress(done):
            memory.append((done, server.rss_bytes() / 1e6))
            print(f"{done} requests, {memory[-1][1]:.1f} MB resident", file=sys.stderr, flush=True)

        started = time.monotonic()
        problems = []
        try:
            asyncio.run(run_load(client, args, on_progress))
            seconds = time.monotonic() - started
            server.wait_until_idle()
            problems = check_sums(server, client)
        except (Failure, AssertionError, asyncio.TimeoutError) as problem:
            seconds = time.monotonic() - started
            problems = [repr(problem)[:2000]]
        preemptions = server.metric("vllm:num_preemptions_total")
        generated = server.metric("vllm:generation_tokens_total")
        threads = server.metric("process_threads")
        open_files = server.metric("process_open_fds")
        code = server.stop()
        log = server.log()
    if code != 0:
        problems.append(f"the server ended with {code}: {log[-3000:]}")
    early = [mb for done, mb in memory if done >= args.requests / 5][:1]
    growth = memory[-1][1] - early[0] if early else 0
    if growth > args.memory_growth_mb:
        problems.append(f"memory grew by {growth:.1f} MB after the first fifth")
    commit = subprocess.run(["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    cpu = next((line.partition(":")[2].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    result = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "commit": commit,
              "device": f"{cpu}, {os.cpu_count()} CPUs", "serve": args.serve, "requests": args.requests, "concurrency": args.concurrency,
              "seconds": round(seconds, 1), "kinds": dict(client.outcomes), "preemptions": preemptions, "generated_tokens": generated,
              "resident_mb": memory, "memory_growth_mb": round(growth, 2), "threads": threads, "open_files": open_files,
              "problems": problems}
    text = json.dumps(result, indent=1)
    if args.output:
        args.output.write_text(text + "\n")
    print(text)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
