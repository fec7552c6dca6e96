"""The program around the routes: start-up, flags, keys, TLS, sockets, limits, signals, clients and folders that vanish."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

import server as serving

MOCK = ("--load-format", "mock")


def wait(condition, timeout_s=20):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Stream(threading.Thread):
    """A streamed completion; `text` holds what came so far, `broken` what cut it."""

    def __init__(self, server, max_tokens=2000):
        super().__init__(daemon=True)
        self.server, self.max_tokens, self.text, self.broken = server, max_tokens, b"", None
        self.start()

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        try:
            connection.request("POST", "/v1/completions", json.dumps({"prompt": "a", "max_tokens": self.max_tokens, "stream": True,
                                                                      "ignore_eos": True}), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            while piece := answer.read1(65536):
                self.text += piece
        except Exception as problem:
            self.broken = problem

    def finish_reason(self):
        reasons = re.findall(rb'"finish_reason":"(\w+)"', self.text)
        return reasons[-1].decode() if reasons else None


def test_start_up_lines_are_in_order_and_fast():
    with serving.Server() as server:
        log = server.log()
    places = [log.find(words) for words in (
        "bise server version", "non-default args: {", "Initializing a bise engine", "Loading weights took",
        "Model loading took", "KV cache", "init engine (profile, create kv cache, warmup model) took", "Supported tasks:",
        "Starting bise server", "Available routes are:", "Route: /v1/chat/completions, Methods: POST", "Application startup complete.")]
    assert -1 not in places and places == sorted(places), (places, log)
    assert re.search(r"^\(APIServer pid=\d+\) INFO \d\d-\d\d \d\d:\d\d:\d\d \[\w+\.cpp:\d+\] ", log)
    assert float(re.search(r"Ready after ([\d.]+) seconds", log)[1]) < 1


def test_wrong_flags_end_at_once_with_a_hint(tmp_path):
    for arguments, words in ((["--max-model-length", "5"], "did you mean --max-model-len?"),
                             (["--max-model-len", "9000"], "--max-model-len"),
                             (["-tp", "2"], "one device"), (["--quantization", "awq"], "--quantization"),
                             (["--chat-template", str(tmp_path / "absent")], "absent"),
                             (["--ssl-certfile", str(tmp_path / "absent.pem")], "absent.pem")):
        run = subprocess.run([serving.BISE, "serve", serving.SMOLLM2, "--port", "0", *arguments], capture_output=True,
                             text=True, timeout=60)
        assert run.returncode == 1 and words in run.stderr, (arguments, run.stderr)
    run = subprocess.run([serving.BISE, "serve", tmp_path], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1 and str(tmp_path) in run.stderr


def test_a_port_in_use_is_an_error():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        run = subprocess.run([serving.BISE, "serve", serving.SMOLLM2, *MOCK, "--host", "127.0.0.1", "--port", port],
                             capture_output=True, text=True, timeout=60)
    assert run.returncode == 1 and port in run.stderr


def test_config_file_keys_and_cors(tmp_path):
    config = tmp_path / "serve.yaml"
    config.write_text('served_model_name: [a, b]\nload-format: mock\nmock-token-seconds: 0.001\nallowed-origins: \'["*"]\'\n'
                      "enforce-eager: true\napi-key: secret\nenable-request-id-headers: true\nroot-path: /proxy\n")
    with serving.Server("--config", config, "--api-key-for-all-routes", name="c") as server:
        key = {"Authorization": "Bearer secret"}
        assert server.request("GET", "/v1/models")[0] == 401
        assert server.request("GET", "/metrics")[0] == 401
        assert server.request("GET", "/health")[0] == 200
        status, headers, body = server.request("GET", "/proxy/v1/models", headers=key | {"Origin": "https://x.example"})
        assert status == 200 and json.loads(body)["data"][0]["id"] == "c"
        assert headers["access-control-allow-origin"] == "*" and len(headers["x-request-id"]) == 32
        status, headers, _ = server.request("OPTIONS", "/v1/models", headers={
            "Origin": "https://x.example", "Access-Control-Request-Method": "POST"})
        assert status == 200 and "POST" in headers["access-control-allow-methods"]
        assert "--enforce-eager is accepted" in server.log() and "secret" not in server.log()


def test_key_from_the_environment():
    with serving.Server(*MOCK, env={"VLLM_API_KEY": "k"}) as server:
        assert server.request("GET", "/v1/models")[0] == 401
        assert server.request("GET", "/v1/models", headers={"Authorization": "Bearer k"})[0] == 200
        assert server.request("GET", "/metrics")[0] == 200


def test_development_routes_need_the_environment():
    with serving.Server(*MOCK) as server:
        assert server.request("POST", "/reset_prefix_cache")[0] == 404
        assert server.request("GET", "/server_info")[0] == 404
    with serving.Server(*MOCK, env={"VLLM_SERVER_DEV_MODE": "1"}) as server:
        assert server.post("/reset_prefix_cache", {}) == (200, {"success": True})
        assert json.loads(server.request("GET", "/server_info")[2])["vllm_config"]["max_model_len"] == 8192
        assert server.request("POST", "/sleep")[0] == 501


def test_unix_socket(tmp_path):
    path = tmp_path / "s.sock"
    with serving.Server(*MOCK, "--uds", str(path)) as server:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(path))
        connection.request("GET", "/v1/models")
        assert connection.getresponse().status == 200
        connection.close()
    assert not path.exists()


def test_tls(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "1",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    with serving.Server(*MOCK, "--ssl-certfile", str(certificate), "--ssl-keyfile", str(key)) as server:
        assert server.scheme == "https"
        context = ssl.create_default_context(cafile=certificate)
        connection = http.client.HTTPSConnection("localhost", server.port, context=context, timeout=20)
        connection.request("POST", "/v1/completions", json.dumps({"prompt": "a", "max_tokens": 3}), {"Content-Type": "application/json"})
        assert connection.getresponse().status == 200
        connection.close()
        with socket.create_connection(("127.0.0.1", server.port)) as plain:
            plain.sendall(b"GET /health HTTP/1.1\r\n\r\n")
            plain.settimeout(20)
            assert b"200 OK" not in plain.recv(1000)


def test_a_full_queue_is_503_with_retry_after():
    with serving.Server(*MOCK, "--mock-token-seconds", "0.05", "--max-num-seqs", "1", "--max-num-queued-reqs", "1") as server:
        streams = [Stream(server, 200)]
        wait(lambda: server.metric("vllm:num_requests_running") == 1)
        streams.append(Stream(server, 200))
        wait(lambda: server.metric("vllm:num_requests_waiting") == 1)
        status, headers, body = server.request("POST", "/v1/completions", {"prompt": "a", "max_tokens": 1})
        assert status == 503 and int(headers["Retry-After"]) > 0 and json.loads(body)["error"]["code"] == 503
        assert server.metric("vllm:admission_rejections_total", reason="max_num_queued_reqs") == 1


def test_load_and_version():
    with serving.Server(*MOCK, "--mock-token-seconds", "0.05", "--enable-server-load-tracking") as server:
        assert json.loads(server.request("GET", "/load")[2]) == {"server_load": 0}
        stream = Stream(server, 40)
        wait(lambda: json.loads(server.request("GET", "/load")[2]) == {"server_load": 1})
        stream.join()
        wait(lambda: json.loads(server.request("GET", "/load")[2]) == {"server_load": 0})
        assert re.match(r"\d+\.\d+\.\d+", json.loads(server.request("GET", "/version")[2])["version"])


def test_sigterm_aborts_what_runs():
    with serving.Server(*MOCK, "--mock-token-seconds", "0.02") as server:
        streams = [Stream(server) for _ in range(20)]
        wait(lambda: all(stream.text for stream in streams))
        started = time.monotonic()
        assert server.stop(signal.SIGTERM) == 0
        assert time.monotonic() - started < 4
        for stream in streams:
            stream.join(10)
            # Each is told, and closed in order.
            assert stream.finish_reason() == "abort" and stream.text.rstrip().endswith(b"data: [DONE]"), stream.text[-300:]


def refuses_connections(server):
    try:
        socket.create_connection(("127.0.0.1", server.port), timeout=2).close()
        return False
    except OSError:
        return True


def test_sigterm_with_a_timeout_lets_requests_end():
    with serving.Server(*MOCK, "--mock-token-seconds", "0.01", "--shutdown-timeout", "20") as server:
        streams = [Stream(server, 150) for _ in range(10)]
        wait(lambda: all(stream.text for stream in streams))
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("Waiting up to 20 s")
        # The line comes just before the port is closed.
        wait(lambda: refuses_connections(server))
        assert server.process.poll() is None
        assert server.process.wait(30) == 0
        for stream in streams:
            stream.join(10)
            assert stream.finish_reason() == "length" and b"[DONE]" in stream.text


def test_a_second_signal_ends_at_once():
    with serving.Server(*MOCK, "--mock-token-seconds", "0.05", "--shutdown-timeout", "60") as server:
        stream = Stream(server, 2000)
        wait(lambda: stream.text)
        server.process.send_signal(signal.SIGINT)
        server.wait_for("Waiting up to 60 s")
        started = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(10) == -signal.SIGINT
        assert time.monotonic() - started < 2


def test_a_failed_step_ends_requests_and_the_process():
    with serving.Server(*MOCK, "--mock-token-seconds", "0.02", "--mock-fail-after-steps", "30") as server:
        streams = [Stream(server) for _ in range(10)]
        started = time.monotonic()
        assert server.process.wait(10) == 70
        assert time.monotonic() - started < 8
        for stream in streams:
            stream.join(10)
            # Told in the stream, which is closed in order.
            assert b'"error"' in stream.text and stream.text.rstrip().endswith(b"data: [DONE]"), stream.text[-300:]
        assert "the mock's device is gone" in server.log()


def test_killed_clients_leave_nothing_behind(smollm2):
    program = (f"import http.client, json, time\n"
               f"c = [http.client.HTTPConnection('127.0.0.1', {smollm2.port}) for _ in range(6)]\n"
               "for i, x in enumerate(c):\n"
               "    x.request('POST', '/v1/completions', json.dumps({'prompt': f'Tale {i}', 'max_tokens': 4000, 'ignore_eos': True,"
               " 'stream': i % 2 == 0}), {'Content-Type': 'application/json'})\n"
               "time.sleep(60)\n")
    aborted = smollm2.metric("vllm:request_success_total", finished_reason="abort")
    client = subprocess.Popen([sys.executable, "-c", program])
    wait(lambda: smollm2.metric("vllm:num_requests_running") == 6)
    client.kill()
    client.wait()
    smollm2.wait_until_idle(10)
    assert smollm2.metric("vllm:request_success_total", finished_reason="abort") == aborted + 6


def test_the_models_folder_may_vanish_while_serving(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(serving.SMOLLM2, folder)
    question = {"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
    with serving.Server(model=folder) as server:
        before = server.post("/v1/completions", question)[1]["choices"][0]["text"]
        shutil.rmtree(folder)
        assert server.post("/v1/completions", question)[1]["choices"][0]["text"] == before
        long = server.post("/v1/completions", {"prompt": "word " * 3000, "max_tokens": 20, "temperature": 0})
        assert long[0] == 200
        assert server.request("GET", "/health")[0] == 200


def test_refused_routes_are_clear():
    with serving.Server(*MOCK) as server:
        for path, expected in (("/v1/embeddings", 404), ("/score", 404), ("/v1/responses", 501), ("/v1/messages", 501)):
            status, error = server.post(path, {})
            assert status == expected and path in error["error"]["message"]


def test_log_lines(tmp_path):
    with serving.Server(*MOCK, "--mock-token-seconds", "0.001", "--enable-log-requests",
                        "--disable-access-log-for-endpoints", "/health") as server:
        server.post("/v1/completions", {"prompt": 'quote " and\nline', "max_tokens": 1}, headers={"X-Request-Id": "mine"})
        server.request("GET", "/health")
        server.wait_for('"POST /v1/completions HTTP/1.1" 200 OK')
        assert "Received request mine: POST /v1/completions" in server.log()
        assert '"GET /health' not in server.log()
        answer = server.post("/v1/completions", {"prompt": "a", "max_tokens": 1}, headers={"X-Request-Id": "mine"})[1]
        assert answer["id"] == "cmpl-mine"
        server.wait_for("Engine 000: Avg prompt throughput:", 15)
    with serving.Server(*MOCK, "--disable-uvicorn-access-log") as server:
        server.request("GET", "/v1/models")
        assert "GET /v1/models HTTP" not in server.log()
