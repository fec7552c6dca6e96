"""What no client library sends: wrong types on every route, deep nesting, invalid UTF-8, half requests, slow senders,
wrong lengths. The server answers or closes, in bounded time, and serves the next request as before."""

import json
import random
import socket
import time

import pytest

import server as serving

POSTS = ["/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize", "/invocations", "/v1/embeddings",
         "/v1/responses", "/v1/messages", "/ping", "/rerank"]
GETS = ["/health", "/ping", "/version", "/load", "/metrics", "/v1/models"]
FIELDS = ["model", "prompt", "messages", "max_tokens", "temperature", "top_p", "top_k", "min_p", "n", "stop", "seed",
          "logprobs", "top_logprobs", "prompt_logprobs", "logit_bias", "echo", "stream", "stream_options", "tools",
          "tool_choice", "response_format", "structured_outputs", "stop_token_ids", "allowed_token_ids", "bad_words",
          "min_tokens", "ignore_eos", "priority", "cache_salt", "truncate_prompt_tokens", "add_special_tokens",
          "chat_template_kwargs", "tokens", "suffix", "request_id", "user", "repetition_penalty", "stream_interval"]
VALUES = [None, True, -1, 0, 1, 2**31, 2**63, 2**70, -2**63, 1e308, 0.5, "", "text", "\x00", "\ud7ff\uffff", [], [[]],
          [None], [1], [[1]], [-1], [2**40], ["a", 1], {}, {"a": 1}, {"type": "json_schema"}, {"role": "user"},
          [{"role": "user", "content": None}], [{"type": "function"}], {"include_usage": 3}]


def answer_of(connection, timeout_s=20):
    """(status, body) of one response, or None when the connection was closed without one."""
    connection.settimeout(timeout_s)
    data = b""
    while b"\r\n\r\n" not in data:
        try:
            piece = connection.recv(65536)
        except ConnectionResetError:
            piece = b""
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0)
    while len(body) < length and (piece := connection.recv(65536)):
        body += piece
    return int(head.split()[1]), body


def send(server, raw, timeout_s=20):
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.sendall(raw)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return answer_of(connection, timeout_s)


def post_head(path, length, extra=""):
    return (f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{extra}"
            f"Content-Length: {length}\r\n\r\n").encode()


def assert_alive(server):
    status, answer = server.post("/v1/completions", {"prompt": "Hi", "max_tokens": 1})
    assert status == 200 and answer["usage"]["completion_tokens"] == 1


@pytest.fixture(scope="module")
def small():
    """A server with small limits."""
    with serving.Server("--load-format", "mock", "--mock-token-seconds", "0.001", "--max-request-bytes", "16M") as server:
        yield server
        assert server.process.poll() is None, server.log()


def test_wrong_types_everywhere(small):
    generator = random.Random(20261121)
    statuses = {}
    for field in FIELDS:
        for value in VALUES:
            path = generator.choice(POSTS[:5])
            good = {"/v1/completions": {"prompt": "a"}, "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}]},
                    "/tokenize": {"prompt": "a"}, "/detokenize": {"tokens": [1]}, "/invocations": {"prompt": "a"}}[path]
            status, _, body = small.request("POST", path, {"max_tokens": 2} | good | {field: value})
            statuses[status] = statuses.get(status, 0) + 1
            assert status in (200, 400, 404, 501), (path, field, value, status, body[:300])
            if status != 200:
                error = json.loads(body)["error"]
                assert error["message"] and error["code"] == status, (field, value, body)
    assert statuses[200] > 100 and statuses[400] > 200, statuses
    assert_alive(small)


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"5", b'"a"', b"{}", b'{"prompt": "\xff\xfe"}',
                                  b"[" * 5_000_000 + b"]" * 5_000_000, b'{"a":' * 2_000_000 + b"1" + b"}" * 2_000_000,
                                  b'{"prompt": [' + b"1," * 3_000_000 + b"1]}", b'{"prompt": "' + b"a" * 9_000_000 + b'"}',
                                  b'{"messages": [{"role": "user", "content": "' + b"\\u0000" * 1_000_000 + b'"}]}',
                                  b"\x00" * 1000, b'{"prompt": NaN}', b'{"prompt": "a", "prompt": "b", "max_tokens": 1e999}'],
                         ids=lambda body: repr(body[:14]))
def test_bad_bodies(small, path, body):
    started = time.monotonic()
    answer = send(small, post_head(path, len(body)) + body)
    assert answer is not None
    status, text = answer
    # /ping reads no body, and a long text can be tokenized.
    fine = path == "/ping" or (path == "/tokenize" and body.startswith((b'{"prompt": "aa', b'{"messages"')))
    assert status in ((200,) if fine else (400, 404, 501)), (status, text[:300])
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "", "application/json; charset=utf-8"])
def test_content_types(small, kind):
    status, _, _ = small.request("POST", "/v1/completions", {"prompt": "a", "max_tokens": 1}, headers={"Content-Type": kind})
    assert status == (200 if kind.startswith("application/json") else 400)


@pytest.mark.parametrize("path", GETS + POSTS)
def test_every_method_on_every_route(small, path):
    for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "BREW"):
        answer = send(small, f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode())
        assert answer is not None and answer[0] in (200, 400, 404, 405, 501), (method, path, answer)
        if method in ("PUT", "DELETE"):
            assert answer[0] == 405
            assert json.loads(answer[1]) == {"detail": "Method Not Allowed"}


@pytest.mark.parametrize("raw,expected", [
    (b"nonsense\r\n\r\n", {400}),
    (b"GET /health HTTP/9.9\r\n\r\n", {400, 505}),
    (b"GET  /health HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
    (b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", {400, 404}),
    (b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", {400, 404}),
    (b"GET /%0d%0aX-Evil:1 HTTP/1.1\r\nHost: x\r\n\r\n", {400, 404}),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100, {400}),
    (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", {400}),
    (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", {400, 413}),
    (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", {400}),
    (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", {400}),
    (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", {400}),
    (b"GET /health HTTP/1.1\r\n" + b"".join(b"X-%d: 1\r\n" % i for i in range(300)) + b"\r\n", {400, 431}),
    (b"GET /health HTTP/1.1\r\nX: " + b"a" * 5_000_000 + b"\r\n\r\n", {400, 431}),
    (b"GET /" + b"a" * 5_000_000 + b" HTTP/1.1\r\n\r\n", {400, 404, 414, 431}),
], ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else None)
def test_broken_http(small, raw, expected):
    answer = send(small, raw)
    assert answer is None or answer[0] in expected, answer
    assert small.request("GET", "/health")[0] == 200


def test_a_body_over_the_limit_is_413(small):
    answer = send(small, post_head("/v1/completions", 32 << 20))
    assert answer is not None and answer[0] == 413
    assert json.loads(answer[1])["error"]["code"] == 413


def test_half_requests_and_lengths_that_lie(small):
    body = json.dumps({"prompt": "a", "max_tokens": 1}).encode()
    for raw in (b"POST /v1/comp", post_head("/v1/completions", len(body)), post_head("/v1/completions", len(body)) + body[:5],
                post_head("/v1/completions", len(body) + 10) + body):
        with socket.create_connection(("127.0.0.1", small.port)) as connection:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            answer = answer_of(connection)
            assert answer is None or answer[0] in (400, 408), answer
    # Shorter than the body: what is left over is no request.
    with socket.create_connection(("127.0.0.1", small.port)) as connection:
        connection.sendall(post_head("/v1/completions", len(body) - 1) + body)
        assert answer_of(connection)[0] == 400
    assert_alive(small)


def test_a_slow_sender_is_served_and_blocks_nobody(small):
    body = json.dumps({"prompt": "a", "max_tokens": 1}).encode()
    raw = post_head("/v1/completions", len(body)) + body
    connections = [socket.create_connection(("127.0.0.1", small.port)) for _ in range(50)]
    for i in range(len(raw)):
        for connection in connections:
            connection.sendall(raw[i:i + 1])
        if i % 40 == 0:
            started = time.monotonic()
            assert small.request("GET", "/health")[0] == 200
            assert time.monotonic() - started < 1
    assert [answer_of(connection)[0] for connection in connections] == [200] * len(connections)
    for connection in connections:
        connection.close()


def test_requests_one_after_the_other_on_one_connection(small):
    body = json.dumps({"prompt": "a", "max_tokens": 1}).encode()
    raw = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" + post_head("/v1/completions", len(body)) + body
    with socket.create_connection(("127.0.0.1", small.port)) as connection:
        connection.sendall(raw * 20)
        connection.settimeout(20)
        data = b""
        while data.count(b"HTTP/1.1 200 OK") < 40 or not data.endswith(b"}"):
            data += connection.recv(65536)
    assert data.count(b"HTTP/1.1 200 OK") == 40


def test_random_bytes(small):
    generator = random.Random(1)
    good = post_head("/v1/completions", 30) + b'{"prompt": "a", "max_tokens":1}'
    for _ in range(300):
        raw = bytearray(good)
        for _ in range(generator.randrange(1, 6)):
            raw[generator.randrange(len(raw))] = generator.randrange(256)
        with socket.create_connection(("127.0.0.1", small.port)) as connection:
            connection.sendall(bytes(raw))
            connection.shutdown(socket.SHUT_WR)
            answer_of(connection)
    small.wait_until_idle()
    assert_alive(small)
