"""A hub to pull from: what the Hugging Face hub answers to the few requests that `steerd pull` makes, with its redirects, its
statuses, and, where a test wishes, its failures."""
import hashlib
import http.server
import json
import threading
import urllib.parse

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"


def git_hash(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, data=b"", **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)


class Handler(Answers):
    def do_GET(self):
        self.server.hub.serve(self, self.server.is_store)


class Hub:
    """files: {repository: {path: bytes}}. Large files are told of with their SHA-256 and come from a second host, as
    the hub's do; `large` says from how many bytes on a file is large."""

    def __init__(self, files, large=1000):
        self.files, self.large = files, large
        self.commit, self.token, self.revisions = COMMIT, None, {"main"}
        self.requests, self.told = [], {}        # (host, path, Range, Authorization); {path: fields of the listing}
        self.cut, self.ranges, self.listing, self.fail = {}, True, None, {}
        self.hold = None                         # a function that is called in front of the body of a large file
        self.front, self.store = self.start(False), self.start(True)

    def start(self, is_store):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.hub, server.is_store = self, is_store
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def close(self):
        for server in (self.front, self.store):
            server.shutdown()
            server.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.front.server_port}"

    def fetched(self):
        """Paths of files that were asked for, each as often as it was."""
        return [path.split(f"/resolve/{self.commit}/")[1] for host, path, _, _ in self.requests if host == "front" and "/resolve/" in path]

    def serve(self, handler, is_store):
        path, _, query = handler.path.partition("?")
        self.requests.append(("store" if is_store else "front", handler.path, handler.headers.get("Range"), handler.headers.get("Authorization")))
        if is_store:
            return self.serve_bytes(handler, *urllib.parse.unquote(path)[1:].split("|"))
        if self.token and handler.headers.get("Authorization") != f"Bearer {self.token}":
            return handler.answer(401, b"{}")
        if path.startswith("/api/models/"):
            return self.serve_listing(handler, path, query)
        repository, _, rest = path[1:].partition("/resolve/")
        commit, _, name = rest.partition("/")
        name = urllib.parse.unquote(name)
        if commit != self.commit or name not in self.files.get(repository, {}):
            return handler.answer(404)
        if name in self.fail:
            return handler.answer(self.fail[name])
        if len(self.files[repository][name]) < self.large:
            return handler.answer(200, self.files[repository][name])
        place = urllib.parse.quote(f"{repository}|{name}")
        return handler.answer(302, Location=f"http://127.0.0.1:{self.store.server_port}/{place}")

    def serve_listing(self, handler, path, query):
        repository, _, revision = path[len("/api/models/"):].partition("/revision/")
        if repository not in self.files or urllib.parse.unquote(revision) not in self.revisions | {self.commit}:
            return handler.answer(404, b'{"error": "Repository not found"}')
        assert query == "blobs=true"
        if self.listing is not None:
            return handler.answer(200, self.listing)
        siblings = [self.describe(name, data) for name, data in self.files[repository].items()]
        return handler.answer(200, json.dumps({"id": repository, "sha": self.commit, "siblings": siblings}).encode())

    def describe(self, name, data):
        row = {"rfilename": name, "size": len(data), "blobId": git_hash(data)}
        if len(data) >= self.large:
            row["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return {**row, **self.told.get(name, {})}

    def serve_bytes(self, handler, repository, name):
        data, begin = self.files[repository][name], 0
        asked = handler.headers.get("Range")
        if asked and self.ranges:
            begin = int(asked.removeprefix("bytes=").split("-")[0])
            if begin >= len(data):
                return handler.answer(416)
        handler.send_response(206 if begin else 200)
        if begin:
            handler.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        handler.send_header("Content-Length", str(len(data) - begin))
        handler.end_headers()
        body = data[begin:self.cut.get(name, len(data))]
        handler.wfile.write(body)
        if self.hold:
            self.hold(handler)
        if len(body) < len(data) - begin:
            handler.close_connection = True
