"""A `bise serve` that a test starts, asks, and ends. Standard library only."""

import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

REPO = pathlib.Path(__file__).resolve().parent.parent.parent.parent
BISE = pathlib.Path(os.environ.get("BISE", REPO / "build" / "cpu" / "bise")).resolve()
SMOLLM2 = pathlib.Path(os.environ.get("BISE_MODEL", REPO / "build" / "models" / "smollm2")).resolve()
READY = "Application startup complete."


class Server:
    """Starts at once and waits until requests are taken; a context manager."""

    def __init__(self, *arguments, model=SMOLLM2, name="smollm2", program=BISE, env=None, wait_s=120):
        self.log_path = pathlib.Path(tempfile.mkstemp(prefix="bise-serve-", suffix=".log")[1])
        command = [str(program), "serve", str(model), "--served-model-name", name, *map(str, arguments)]
        if not {"--port", "--uds"} & set(arguments):
            command += ["--host", "127.0.0.1", "--port", "0"]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | (env or {}))
        self.wait_for(READY, wait_s)
        match = re.search(r"on (https?)://[^:]*:(\d+)", self.log())
        if match:
            self.scheme, self.port = match[1], int(match[2])
            self.url = f"{self.scheme}://127.0.0.1:{self.port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        self.log_path.unlink(missing_ok=True)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def wait_for(self, words, timeout_s=30):
        deadline = time.monotonic() + timeout_s
        while words not in self.log():
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.log()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f'no "{words}" after {timeout_s} s:\n{self.log()}')
            time.sleep(0.01)

    def stop(self, number=signal.SIGTERM, timeout_s=60):
        """The exit code; -9 when it had to be killed."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return -9

    def request(self, method, path, body=None, headers=None, timeout_s=60):
        """(status, headers, body); never raises for a status."""
        data = None if body is None else (body if isinstance(body, bytes) else json.dumps(body).encode())
        headers = {"Content-Type": "application/json"} | (headers or {})
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def post(self, path, body, **options):
        status, _, answer = self.request("POST", path, body, **options)
        return status, json.loads(answer)

    def metrics(self):
        """{"name{labels}": value}"""
        values = {}
        for line in self.request("GET", "/metrics")[2].decode().splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                values[name] = float(value)
        return values

    def metric(self, name, **labels):
        """The sum of a metric's samples that have these labels."""
        return sum(value for key, value in self.metrics().items()
                   if key.split("{")[0] == name and all(f'{k}="{v}"' in key for k, v in labels.items()))

    def wait_until_idle(self, timeout_s=30):
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            values = self.metrics()
            busy = [value for key, value in values.items()
                    if key.split("{")[0] in ("vllm:num_requests_running", "vllm:num_requests_waiting",
                                             "vllm:kv_cache_usage_perc")]
            if not any(busy):
                return
            time.sleep(0.02)
        raise AssertionError(f"not idle after {timeout_s} s: {self.metrics()}")

    def rss_bytes(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("no VmRSS")
