"""`bise download` and huggingface_hub on the same cache: each finds what the other brought."""

import hashlib
import http.server
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.parse

import pytest

from fake_hub import COMMIT, Hub

REPO = "owner/tiny-model"


@pytest.fixture
def hub():
    content = random.Random(1).randbytes
    files = {
        "config.json": json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64}).encode(),
        "model.safetensors": content(40_000_000),
        "tokenizer.json": content(50_000),
        "onnx/notes.txt": b"text\n",
    }
    hub = Hub(REPO, files, large={"model.safetensors", "tokenizer.json"})
    yield hub
    hub.close()


def plain_environment():
    return {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "TRANSFORMERS"))}


def environment(hub, cache, **more):
    return plain_environment() | {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
                  "NO_PROXY": "*"} | more


def python(code, env):
    """What a fresh interpreter prints: huggingface_hub reads the environment when it is imported."""
    return subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True).stdout.strip()


def download(bise, env, *flags):
    return subprocess.run([bise, "download", REPO, *flags], env=env, check=True, capture_output=True, text=True).stdout.strip()


def layout(cache):
    """Every name in the cache with what it is; locks and temporary names apart."""
    names = {}
    for path in sorted(cache.rglob("*")):
        name = str(path.relative_to(cache))
        if ".locks" in name or path.is_dir():
            continue
        names[name] = os.readlink(path) if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest()
    return names


SNAPSHOT = f"import huggingface_hub as h; print(h.snapshot_download('{REPO}'))"


def test_the_layout_is_the_same(bise, hub, tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    folder = download(bise, environment(hub, ours))
    assert folder == str(ours / "models--owner--tiny-model" / "snapshots" / COMMIT)
    python(SNAPSHOT, environment(hub, theirs))
    a, b = layout(ours), layout(theirs)
    for names in (a, b):  # the words of the tag, the white space of the list
        names.pop("CACHEDIR.TAG", None)
        names.pop(f"models--owner--tiny-model/trees/{COMMIT}.json", None)
    assert a == b
    trees = [json.loads((c / "models--owner--tiny-model" / "trees" / f"{COMMIT}.json").read_text()) for c in (ours, theirs)]
    assert trees[0] == trees[1]


def test_they_find_ours_offline(bise, hub, tmp_path):
    folder = download(bise, environment(hub, tmp_path))
    env = environment(hub, tmp_path, HF_HUB_OFFLINE="1")
    requests = len(hub.requests)
    assert python(SNAPSHOT, env) == folder
    found = python(f"import huggingface_hub as h; print(h.hf_hub_download('{REPO}', 'onnx/notes.txt'))", env)
    assert found == folder + "/onnx/notes.txt"
    config = f"import transformers as t; print(t.AutoConfig.from_pretrained('{REPO}').hidden_size)"
    assert python(config, env) == "64"
    assert len(hub.requests) == requests, "nothing was asked for"
    assert "owner/tiny-model" in python("import huggingface_hub as h; print([r.repo_id for r in h.scan_cache_dir().repos])", env)


def test_they_take_nothing_again_online(bise, hub, tmp_path):
    download(bise, environment(hub, tmp_path))
    before = [r for r in hub.requests if "/store/" in r[1]]
    python(SNAPSHOT, environment(hub, tmp_path))
    assert [r for r in hub.requests if "/store/" in r[1]] == before


def test_we_find_theirs(bise, hub, tmp_path):
    folder = python(SNAPSHOT, environment(hub, tmp_path))
    before = len(hub.requests)
    assert download(bise, environment(hub, tmp_path, HF_HUB_OFFLINE="1")) == folder
    assert len(hub.requests) == before
    assert download(bise, environment(hub, tmp_path)) == folder
    assert not [r for r in hub.requests[before:] if "/store/" in r[1] or "/resolve/" in r[1]]


def test_a_folder_is_theirs_too(bise, hub, tmp_path):
    folder = tmp_path / "model"
    download(bise, environment(hub, tmp_path / "cache"), "--local-dir", str(folder))
    before = len([r for r in hub.requests if "/store/" in r[1]])
    code = f"import huggingface_hub as h; print(h.snapshot_download('{REPO}', local_dir='{folder}'))"
    assert python(code, environment(hub, tmp_path / "cache")) == str(folder)
    assert len([r for r in hub.requests if "/store/" in r[1]]) == before, "their notes say that all is here"


def test_patterns_select_the_same(bise, hub, tmp_path):
    for number, (include, exclude) in enumerate([(["*.json"], []), ([], ["*.safetensors"]), (["onnx/"], []), (["[!m]*"], ["t?k*"])]):
        ours, theirs = tmp_path / f"ours{number}", tmp_path / f"theirs{number}"
        flags = [flag for p in include for flag in ("--include", p)] + [flag for p in exclude for flag in ("--exclude", p)]
        download(bise, environment(hub, ours), *flags)
        python(f"import huggingface_hub as h; h.snapshot_download('{REPO}', allow_patterns={include or None}, "
               f"ignore_patterns={exclude or None})", environment(hub, theirs))
        snapshots = [sorted(n for n in layout(cache) if "/snapshots/" in n) for cache in (ours, theirs)]
        assert snapshots[0] == snapshots[1]


def test_killed_and_resumed(bise, hub, tmp_path):
    env = environment(hub, tmp_path)
    blobs = tmp_path / "models--owner--tiny-model" / "blobs"
    hub.slow = 0.002
    process = subprocess.Popen([bise, "download", REPO], env=env, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:  # until some megabytes are here
        partial = list(blobs.glob("*.bise.incomplete")) if blobs.exists() else []
        if partial and sum(p.stat().st_blocks for p in partial) * 512 > 8_000_000:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list((tmp_path / "models--owner--tiny-model" / "snapshots").iterdir()), "nothing looks complete"
    before = len(hub.requests)
    hub.slow = 0
    folder = download(bise, env)
    model = os.path.join(folder, "model.safetensors")
    with open(model, "rb") as file:
        assert file.read() == hub.files["model.safetensors"]
    ranges = [r[2] for r in hub.requests[before:] if r[0] == "GET" and "/store/" in r[1] and r[2]]
    asked = sum(int(last) - int(first) + 1 for first, last in (r.removeprefix("bytes=").split("-") for r in ranges))
    assert 0 < asked < len(hub.files["model.safetensors"]) - 6_000_000, "only what was missing"
    assert not list(blobs.glob("*incomplete*"))


def test_both_at_once(bise, hub, tmp_path):
    env = environment(hub, tmp_path)
    hub.slow = 0.0005
    processes = [subprocess.Popen([bise, "download", REPO], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
    processes.append(subprocess.Popen([sys.executable, "-c", SNAPSHOT], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    assert [p.wait(timeout=120) for p in processes] == [0, 0, 0]
    folder = download(bise, env)
    for name, content in hub.files.items():
        with open(os.path.join(folder, name), "rb") as file:
            assert file.read() == content
    sent = sum(1 for r in hub.requests if r[0] == "GET" and "/store/" in r[1] and not (r[2] or "").startswith("bytes=3"))
    assert sent == 2, "each content came once"


def test_over_tls(bise, tmp_path):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
                    "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", key, "-out", certificate], check=True, capture_output=True)
    hub = Hub(REPO, {"config.json": b"{}", "w": b"x" * 100_000}, {"w"}, (certificate, key))
    try:
        env = environment(hub, tmp_path / "cache")
        refused = subprocess.run([bise, "download", REPO], env=env, capture_output=True, text=True)
        assert refused.returncode == 1 and "certificate" in refused.stderr, "nobody vouches for it"
        folder = download(bise, env | {"SSL_CERT_FILE": str(certificate)})
        assert os.path.getsize(os.path.join(folder, "w")) == 100_000
    finally:
        hub.close()


def test_a_model_by_its_name(bise, smollm2, tmp_path):
    files = {path.name: path.read_bytes() for path in smollm2.iterdir() if path.is_file()}
    hub = Hub("owner/smollm2", files, {"model.safetensors"})
    try:
        env = environment(hub, tmp_path, HF_HUB_OFFLINE="1")
        missing = subprocess.run([bise, "inspect", "owner/smollm2"], env=env, capture_output=True, text=True)
        assert missing.returncode == 1 and "bise download owner/smollm2" in missing.stderr
        subprocess.run([bise, "download", "owner/smollm2"], env=environment(hub, tmp_path), check=True, capture_output=True)
        by_name, by_folder = (subprocess.check_output([bise, "inspect", "--json", model], env=env)
                              for model in ("owner/smollm2", smollm2))
        assert by_name == by_folder
        text = subprocess.run([bise, "tokenize", f"owner/smollm2@{COMMIT}"], input='{"text": "Hello"}\n', env=env, check=True,
                              capture_output=True, text=True).stdout
        assert json.loads(text)["token_ids"]
    finally:
        hub.close()


class RowsHandler(http.server.BaseHTTPRequestHandler):
    """The rows API of datasets-server, as far as it is used."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = {name: values[0] for name, values in urllib.parse.parse_qs(url.query).items()}
        self.server.requests.append((url.path, query))
        rows = self.server.rows.get((query["dataset"], query.get("config"), query.get("split")), [])
        if url.path == "/splits":
            answer = {"splits": [{"dataset": d, "config": c, "split": s} for d, c, s in self.server.rows if d == query["dataset"]]}
        else:
            first = int(query["offset"])
            answer = {"features": [], "num_rows_total": len(rows), "num_rows_per_page": 100, "partial": False,
                      "rows": [{"row_idx": first + i, "row": row, "truncated_cells": []} for i, row in enumerate(rows[first : first + int(query["length"])])]}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("X-Revision", "r1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def rows_api():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), RowsHandler)
    server.rows, server.requests = {}, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_data_sets(bise, rows_api, tmp_path):
    def row(number):
        return {"question": f"How many {number}?\n\"é\" \U0001f600", "answer": f"#### {number}", "extra": [None, 1.5, {"label": ["A"]}]}

    for split, count in (("train", 453), ("test", 100), ("unused", 3)):
        rows_api.rows["openai/gsm8k", "main", split] = [row(i) for i in range(count)]
    rows_api.rows["openai/gsm8k", "socratic", "train"] = [row(1)]
    url = f"http://127.0.0.1:{rows_api.server_address[1]}"

    def run(*flags):
        return json.loads(subprocess.run([bise, "download", "--json", "--rows-endpoint", url, *flags], cwd=tmp_path,
                                         env=plain_environment(), check=True, capture_output=True, text=True).stdout)["files"]

    files = run("--dataset", "gsm8k")
    assert [f["path"] for f in files] == ["data/gsm8k/train.jsonl", "data/gsm8k/test.jsonl"]
    for file, count in zip(files, (453, 100)):
        content = (tmp_path / file["path"]).read_bytes()
        assert [json.loads(line) for line in content.splitlines()] == [row(i) for i in range(count)]
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
    assert all(f["was_here"] for f in run("--dataset", "gsm8k"))
    assert [f["path"] for f in run("--dataset", "gsm8k", "--split", "test", "-o", "elsewhere")] == ["elsewhere/test.jsonl"]
    found = run("--dataset", "openai/gsm8k", "-o", "all")
    assert sorted(f["path"] for f in found) == ["all/main/test.jsonl", "all/main/train.jsonl", "all/main/unused.jsonl", "all/socratic/train.jsonl"]
