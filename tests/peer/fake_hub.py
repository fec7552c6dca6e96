"""A hub on this machine: the routes of huggingface.co that huggingface_hub and bise use, for one folder of files.

Large files are redirected to a store of another origin. `Hub(...).slow` makes the store send slowly.
"""

import hashlib
import http.server
import json
import re
import ssl
import threading
import time
import urllib.parse

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"


def git_blob(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        pause = self.server.hub.slow if self.server.is_store else 0
        step = 16384 if pause else 1 << 20
        for at in range(0, len(body), step):
            try:
                self.wfile.write(memoryview(body)[at : at + step])
            except OSError:
                return
            time.sleep(pause)

    def send_content(self, content, **headers):
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not match:
            return self.send(200, content, **headers)
        first, last = int(match[1]), min(int(match[2] or len(content)), len(content) - 1)
        self.send(206, content[first : last + 1], Content_Range=f"bytes {first}-{last}/{len(content)}", **headers)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        hub = self.server.hub
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        with hub.lock:
            hub.requests.append((self.command, path, self.headers.get("Range"), self.headers.get("Authorization")))
        if self.server.is_store:
            return self.send_content(hub.blobs[path.removeprefix("/store/")])
        if path.startswith(f"/api/models/{hub.repo}/tree/"):
            return self.send(200, json.dumps(hub.tree()).encode())
        if path in (f"/api/models/{hub.repo}", f"/api/models/{hub.repo}/revision/main", f"/api/models/{hub.repo}/revision/{COMMIT}"):
            siblings = [{"rfilename": name} for name in hub.files]
            return self.send(200, json.dumps({"id": hub.repo, "sha": COMMIT, "siblings": siblings}).encode())
        match = re.fullmatch(rf"/{re.escape(hub.repo)}/resolve/(?:main|{COMMIT})/(.+)", path)
        if match and match[1] in hub.files:
            content = hub.files[match[1]]
            if match[1] not in hub.large:
                return self.send_content(content, ETag=f'"{git_blob(content)}"', X_Repo_Commit=COMMIT)
            sha = hashlib.sha256(content).hexdigest()
            return self.send(302, X_Repo_Commit=COMMIT, X_Linked_Etag=f'"{sha}"', X_Linked_Size=str(len(content)),
                             Location=f"{hub.store_url}/store/{sha}")
        code = "EntryNotFound" if match else "RepoNotFound"
        self.send(404, b"{}", X_Error_Code=code, X_Repo_Commit=COMMIT)


class Hub:
    def __init__(self, repo, files, large, certificate=None):
        self.certificate = certificate  # (file, key): https
        self.repo, self.files, self.large = repo, files, large
        self.blobs = {hashlib.sha256(files[name]).hexdigest(): files[name] for name in large}
        self.lock, self.requests, self.slow = threading.Lock(), [], 0
        self.servers = []
        self.url, self.store_url = self.serve(False), self.serve(True)

    def serve(self, is_store):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        server.hub, server.is_store, server.daemon_threads = self, is_store, True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.servers.append(server)
        # Another name for the store: huggingface_hub 1.x compares hosts without their ports.
        host = "localhost" if is_store else "127.0.0.1"
        return f"{'https' if self.certificate else 'http'}://{host}:{server.server_address[1]}"

    def tree(self):
        entries = []
        for name, content in self.files.items():
            entry = {"type": "file", "path": name, "size": len(content), "oid": git_blob(content)}
            if name in self.large:
                entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
            entries.append(entry)
        return entries

    def close(self):
        for server in self.servers:
            server.shutdown()
            server.server_close()
