"""The metrics add up after a mixed load."""

import json
import threading

import server as serving


def test_sums_agree_after_a_mixed_load():
    with serving.Server("--load-format", "mock", "--mock-token-seconds", "0.002", "--max-num-seqs", "8",
                        "--num-gpu-blocks-override", "40", "--max-model-len", "512") as server:
        usage = {"prompt_tokens": 0, "completion_tokens": 0, "ok": 0, "bad": 0}
        lock = threading.Lock()

        def client(seed):
            for i in range(12):
                bad = i % 6 == 5
                body = {"prompt": [5 + (seed * 7 + i) % 90] * (1 + (seed * 13 + i * 29) % 200), "max_tokens": 1 + (seed + i) % 60,
                        "n": 2 if i % 4 == 1 else 1, "temperature": 9 if bad else 1, "ignore_eos": True}
                status, answer = server.post("/v1/completions", body)
                with lock:
                    if bad:
                        assert status == 400
                        usage["bad"] += 1
                        continue
                    assert status == 200, answer
                    assert all(choice["finish_reason"] == "length" for choice in answer["choices"])
                    usage["ok"] += len(answer["choices"])
                    usage["completion_tokens"] += answer["usage"]["completion_tokens"]
                    usage["prompt_tokens"] += answer["usage"]["prompt_tokens"] * len(answer["choices"])

        threads = [threading.Thread(target=client, args=(seed,)) for seed in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        server.wait_until_idle()
        m = server.metric
        assert usage["ok"] > 100 and usage["bad"] == 32
        assert m("vllm:num_preemptions_total") > 0, "the cache is small"
        assert m("vllm:generation_tokens_total") == usage["completion_tokens"]
        assert m("vllm:request_generation_tokens_sum") == usage["completion_tokens"]
        assert m("vllm:request_prompt_tokens_sum") == usage["prompt_tokens"]
        assert m("vllm:prompt_tokens_total") == usage["prompt_tokens"]
        assert m("vllm:prompt_tokens_by_source_total") == usage["prompt_tokens"]
        assert m("vllm:request_success_total") == m("vllm:request_success_total", finished_reason="length") == usage["ok"]
        for name in ("e2e_request_latency_seconds", "request_queue_time_seconds", "request_prefill_time_seconds",
                     "request_decode_time_seconds", "time_to_first_token_seconds", "request_prompt_tokens"):
            assert m(f"vllm:{name}_count") == usage["ok"], name
            assert m(f"vllm:{name}_bucket", le="+Inf") == usage["ok"], name
        # Every output but the first of each sequence is an interval; the mock gives one token an output.
        assert m("vllm:inter_token_latency_seconds_count") == usage["completion_tokens"] - usage["ok"]
        assert m("http_requests_total", handler="/v1/completions", status="2xx") == 16 * 10
        assert m("http_requests_total", handler="/v1/completions", status="4xx") == usage["bad"]
        assert m("vllm:request_params_n_count") == 16 * 10
        assert m("process_resident_memory_bytes") > 1e6 and m("process_cpu_seconds_total") > 0
