#!/usr/bin/python3
"""How long a running stream stands still while edits of another request are put together and brought over.

    tests/bench/stream_gap.py build/release/steerd MODEL_FOLDER [TEXTS EDITS TOKENS]

One client streams text from /steer; another sends /v1/lab/next with so many texts of so many tokens, each with so many
patches from a further run. Prints the longest gaps between two events of the stream, alone and beside it.
"""
import json
import re
import subprocess
import sys
import threading
import time
import urllib.request


def post(url, path, body):
    data = json.dumps(body).encode()
    return urllib.request.urlopen(urllib.request.Request(url + path, data, {"Content-Type": "application/json"}))


def serve(binary, model):
    options = ["--listen", "127.0.0.1:0", "--self-test", "no", "--store", "", "--model", "m=" + model, "--max-new-tokens", "2000",
               "--generation-timeout", "600", "--queue-timeout", "600"]
    process = subprocess.Popen([binary, "serve", *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = ""
    while not (found := re.search(r"127\.0\.0\.1:(\d+)", said)):
        line = process.stdout.readline().decode()
        if not line:
            sys.exit(said)
        said += line
    threading.Thread(target=lambda: [None for _ in process.stdout], daemon=True).start()
    return process, "http://127.0.0.1:" + found[1]


class Stream(threading.Thread):
    """Texts one after the other; gaps are (seconds, when)."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.url, self.gaps, self.stop = url, [], False

    def run(self):
        while not self.stop:
            last = None
            reply = post(self.url, "/steer", {"prompt": "Once upon a time", "features": [], "n_tokens": 700, "types": ["DEFAULT"], "stream": True})
            while not self.stop and (line := reply.readline()):
                if line.startswith(b"data:"):
                    now = time.monotonic()
                    if last:
                        self.gaps.append((now - last, now))
                    last = now


def main():
    binary, model = sys.argv[1:3]
    texts, edits, tokens = (int(n) for n in (sys.argv[3:6] or (32, 250, 250)))
    process, url = serve(binary, model)
    layers = json.load(urllib.request.urlopen(url + "/models"))["models"][0]["layers"]
    points = [f"{kind}.{layer}" for layer in range(layers) for kind in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")]
    ids = [[(i * 7 + j * 13) % 200 + 1 for j in range(tokens)] for i in range(texts)]
    patches = [{"op": "patch", "point": points[e % len(points)], "from": {"tokens": ids[0]}} for e in range(edits)]
    stream = Stream(url)
    stream.start()
    time.sleep(3)
    begin = time.monotonic()
    reply = post(url, "/v1/lab/next", {"tokens": ids, "edits": patches, "topK": 1}).read()
    end = time.monotonic()
    stream.stop = True
    stream.join()
    for name, gaps in (("alone", [g for g in stream.gaps if g[1] < begin]), ("beside it", [g for g in stream.gaps if g[1] >= begin])):
        longest = ", ".join(f"{1e3 * seconds:.0f} ms" for seconds, _ in sorted(gaps)[:-6:-1])
        print(f"{name}: {len(gaps)} events, longest gaps {longest}")
    print(f"the request took {end - begin:.1f} s, its reply {len(reply)} bytes")
    process.terminate()
    process.wait()


if __name__ == "__main__":
    main()
