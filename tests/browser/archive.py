"""A stand-in for a daemon with a full store: answers what needs stored statistics with made-up rows in the documented
shapes, keeps explanations and jobs for as long as it runs, and hands everything else to a real daemon.

The rows are the same at every run. Some of their tokens are hostile: markup, control and direction characters.
"""
import http.client
import http.server
import json
import math
import random
import threading
import time
import urllib.parse

HOSTILE = ["<img src=x onerror=\"document.title='owned'\">", "</script><script>document.title='owned'</script>", "\u202eevil",
           "\u0000\u0007", "&lt;b&gt;", "{{7*7}}", "javascript:alert(1)"]
WORDS = ("the little rabbit ran into garden and saw a big red flower then it was very happy because mother said that "
         "they could stay until evening came over hill with golden light").split()
MEANINGS = ["animals that hop", "the start of a story", "quotation marks after said", "colours of flowers", "mothers and fathers",
            "commas between two deeds", "the end of a day", "places one goes into", "feelings after good news", "names of small children"]
FEATURES = 96  # as the dictionaries of tests/vectors/tiny-gpt2 have; the command below may set another number


def rng(*seed):
    return random.Random(repr(seed))


def rate_of(index):
    if index % 37 == 5:
        return 0.0
    return 10 ** rng("rate", index).gauss(-2.6, 0.7)


def row_of(index, told):
    rate, random_ = rate_of(index), rng("row", index)
    most = 0.0 if rate == 0 else 12 + 40 * random_.random()
    return {"index": index, "rate": min(rate, 1.0), "nFired": int(rate * 250000), "max": most, "mean": most * 0.21,
            "description": told[0]["description"] if told else None}


def example(model, source, index, slot, most, low, high, share):
    random_ = rng("example", index, slot)
    tokens = [" " + random_.choice(WORDS) for _ in range(48)]
    peak = 36
    values = [0.0] * 48
    values[peak] = high * (0.97 - 0.05 * random_.random()) if low >= 0 else most * (1 - 0.04 * slot)
    for offset in (1, 2, 3):
        values[peak - offset] = values[peak] * random_.random() * 0.6
    if low >= 0:
        values[2] = most  # an example of an interval may fire harder elsewhere
    for k in range(slot % 3):
        tokens[peak - 8 - k] = random_.choice(HOSTILE)
        tokens[peak - 1 - k] = HOSTILE[slot % len(HOSTILE)]
    if slot % 4 == 1:
        tokens[peak - 1] = "\n"
    return {"id": f"{model}/{source}/{index}/{slot}", "modelId": model, "layer": source, "index": str(index), "tokens": tokens,
            "values": values, "maxValue": max(values), "maxValueTokenIndex": values.index(max(values)), "minValue": min(values),
            "binMin": low, "binMax": high, "binContains": share, "qualifyingTokenIndex": peak, "dataIndex": str(slot),
            "dataSource": "stories", "dfaValues": [], "createdAt": "2026-01-01T00:00:00.000Z"}


def examples_of(model, source, index, most):
    if most == 0:
        return []
    rows = [example(model, source, index, i, most, -1, most, None) for i in range(16)]
    top = 2 ** math.ceil(math.log2(most))
    for k in range(8):
        low, high = top / 8 * (7 - k), top / 8 * (8 - k)
        if low < most:
            rows += [example(model, source, index, 100 + 10 * k + i, most, low, min(high, most), 0.02 / (8 - k)) for i in range(2)]
    return rows


def feature_of(model, source, index, told):
    row, random_ = row_of(index, told), rng("feature", index)
    most = row["max"]
    tokens = [" " + word for word in WORDS[:8]]
    bars = 64
    top = 2 ** math.ceil(math.log2(most)) if most else 0
    heights = [int(20000 * math.exp(-k / 7)) + random_.randrange(9) for k in range(bars) if (k * top / bars) < most]
    steps = [-3 + 6 * k / 49 for k in range(50)]
    neighbours = random_.sample([i for i in range(FEATURES) if i != index], 8)
    return {"modelId": model, "layer": source, "index": str(index), "sourceSetName": "res-demo", "maxActApprox": most,
            "frac_nonzero": row["rate"], "n_tokens": 250000, "n_fired": row["nFired"], "mean": row["mean"], "hookName": "blocks.2.hook_resid_pre",
            "hasVector": False, "vector": [], "topkCosSimIndices": neighbours, "topkCosSimValues": [0.71 - 0.05 * k for k in range(8)],
            "neg_str": tokens + ["<b>x</b>", "\n"], "neg_values": [-1.9 + 0.1 * k for k in range(10)],
            "pos_str": [HOSTILE[0], " \u202e"] + tokens, "pos_values": [2.6 - 0.13 * k for k in range(10)],
            "freq_hist_data_bar_heights": heights, "freq_hist_data_bar_values": [(k + 0.5) * top / bars for k in range(len(heights))],
            "logits_hist_data_bar_heights": [int(4096 / 12 * math.exp(-(x ** 2))) for x in steps], "logits_hist_data_bar_values": steps,
            "activations": examples_of(model, source, index, most), "explanations": told, "lists": [], "comments": []}


def job(number, state, done, **more):
    return {"id": number, "kind": "stats", "state": state, "done": done, "total": 250000, "unit": "tokens", "share": done / 250000,
            "rate": 4100.0 if state == "running" else 0, "secondsLeft": (250000 - done) / 4100 if state == "running" else None,
            "message": "counting" if state == "running" else None, "error": None, "cancelling": False, "result": None,
            "resumable": state == "cancelled", "notResumable": None if state == "cancelled" else f"it is {state}",
            "parameters": {"modelId": "demo", "source": "2-res-demo", "corpus": "/data/stories.txt", "lines": True},
            "createdAt": "2026-01-01T00:00:00.000Z", **more}


class Rows:
    """What the stand-in remembers."""

    def __init__(self):
        self.lock = threading.Lock()
        self.written = {}  # index: explanations by hand
        self.deleted = set()
        self.next_id = 900000
        self.shares = {}
        self.jobs = [job(3, "running", 96000), job(2, "failed", 1200, error="'/data/old.txt' is not there",
                                                                    notResumable="corpus '/data/old.txt' is not a file that can be read"), job(1, "done", 250000)]

    def told(self, index):
        auto = [] if index % 5 == 4 else [{"id": str(index), "description": MEANINGS[index % len(MEANINGS)], "typeName": "steerd-auto",
                                           "explanationModelName": "rules-1", "scores": [], "origin": "automatic"}]
        return [one for one in self.written.get(index, []) if one["id"] not in self.deleted] + auto


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    rows: Rows
    upstream: str
    pace: float  # seconds between the events of a stream: a tiny model writes faster than anybody can press stop

    def log_message(self, *_):
        pass

    def say(self, value, status=200, headers=()):
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in (("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers):
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def read(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def own(self, body):
        """True when this was one of ours."""
        split = urllib.parse.urlsplit(self.path)
        parts = [urllib.parse.unquote(part) for part in split.path.strip("/").split("/")]
        query = dict(urllib.parse.parse_qsl(split.query))
        rows = self.rows
        if self.command == "GET" and parts[:2] == ["api", "feature"]:
            self.say(feature_of(parts[2], parts[3], int(parts[4]), rows.told(int(parts[4]))))
        elif self.path == "/api/features":
            asked = json.loads(body)
            self.say([{**feature_of(one["modelId"], one["layer"], int(one["index"]), rows.told(int(one["index"]))), "activations": []} for one in asked])
        elif self.command == "GET" and parts == ["explanations"]:
            words = query.get("q", "").lower().split()
            found = [{"modelId": query["modelId"], "layer": query.get("saeId", "1-res-relu"), "index": str(i), **rows.told(i)[0]}
                     for i in range(FEATURES) if rows.told(i) and all(word in rows.told(i)[0]["description"] for word in words)]
            self.say(found[: int(query.get("limit", 20))], headers=[("X-Total-Count", str(len(found)))])
        elif self.path == "/api/explanation/new":
            asked = json.loads(body)
            with rows.lock:
                rows.next_id += 1
                one = {"id": str(rows.next_id), "description": asked["description"], "typeName": None, "explanationModelName": None, "scores": [], "origin": "manual"}
                rows.written.setdefault(int(asked["index"]), []).insert(0, one)
            self.say(one)
        elif parts[:2] == ["api", "explanation"] and parts[-1] == "delete":
            rows.deleted.add(parts[2])
            self.say({"message": "Success"})
        elif parts[:3] == ["v1", "lab", "dictionaries"]:
            self.dictionary(parts, query)
        elif parts[:2] == ["v1", "jobs"]:
            self.work(parts, body)
        elif self.path == "/api/steer-load":
            one = rows.shares.get(json.loads(body)["steerOutputId"])
            self.say(one or {"error": "there is no such result", "message": "there is no such result", "code": "not_found"}, 200 if one else 404)
        else:
            return False
        return True

    def dictionary(self, parts, query):
        name = parts[5] if len(parts) > 5 else ""
        if name == "density":
            self.say({"features": FEATURES, "nTokens": 250000, "rates": [min(1.0, rate_of(i)) for i in range(FEATURES)]})
        elif name == "random":
            self.say({"modelId": parts[3], "source": parts[4], "index": 7})
        elif name == "features":
            table = [row_of(i, self.rows.told(i)) for i in range(FEATURES)]
            table.sort(key=lambda row: row[query.get("order", "index")], reverse=query.get("descending") == "true")
            offset, limit = int(query.get("offset", 0)), int(query.get("limit", 100))
            self.say({"total": FEATURES, "offset": offset, "features": table[offset:offset + limit]})
        else:
            self.say({"modelId": parts[3], "source": parts[4], "features": FEATURES, "statistics": {"nTokens": 250000, "dead": 56,
                      "conventions": {"corpus": "stories", "documents": 1000, "madeAt": "2026-01-01T00:00:00.000Z", "lines": True}}})

    def work(self, parts, body):
        rows = self.rows
        if self.command == "POST":
            rows.jobs.insert(0, job(len(rows.jobs) + 1, "queued", 0))
            self.say(rows.jobs[0])
        elif len(parts) == 2:
            self.say({"jobs": rows.jobs})
        elif parts[-1] == "events":
            self.events(next(one for one in rows.jobs if str(one["id"]) == parts[2]))
        else:
            one = next(one for one in rows.jobs if str(one["id"]) == parts[2])
            if self.command == "DELETE":
                one.update(state="cancelled", resumable=True, notResumable=None)
            self.say(one)

    def events(self, one):
        self.begin_events()
        while one["state"] == "running" and one["done"] < one["total"]:
            one["done"] += 2000
            self.wfile.write(f"data: {json.dumps(one)}\n\n".encode())
            self.wfile.flush()
            time.sleep(0.3)

    def pass_on(self, body):
        """To the daemon and back; streams stay streams."""
        link = http.client.HTTPConnection(self.upstream, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection", "accept-encoding")}
        link.request(self.command, self.path, body or None, headers)
        reply = link.getresponse()
        self.send_response(reply.status)
        for name, value in reply.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "date", "server"):
                self.send_header(name, value)
        whole = reply.getheader("Content-Length") is not None or reply.status == 304
        if not whole:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        try:
            while piece := reply.read1(65536):
                self.wfile.write(piece)
                self.wfile.flush()
        finally:
            link.close()

    def ask(self, body):
        """A steer request, whole."""
        link = http.client.HTTPConnection(self.upstream, timeout=60)
        link.request("POST", "/api/steer", json.dumps(body), {"Content-Type": "application/json"})
        reply = link.getresponse()
        told = json.loads(reply.read())
        link.close()
        return reply.status, told

    def write_slowly(self, body):
        """The stream of a model that writes at a pace: two characters more with each event."""
        asked = json.loads(body)
        status, told = self.ask({**asked, "stream": False})
        if status != 200:
            return self.say(told, status)
        self.begin_events()
        start, end = len(asked["prompt"]), max(len(told["STEERED"]), len(told["DEFAULT"]))
        for most in [*range(start + 2, end, 2), end]:
            part = {**told, "STEERED": told["STEERED"][:most], "DEFAULT": told["DEFAULT"][:most], "id": told["id"] if most == end else None}
            self.wfile.write(f"data: {json.dumps(part)}\n\n".encode())
            self.wfile.flush()
            time.sleep(self.pace)

    def begin_events(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def answer(self):
        body = self.read()
        try:
            if self.path == "/api/steer" and b'"share":true' in body:
                return self.share(body)
            if self.path == "/api/steer" and self.pace > 0 and b'"stream":true' in body:
                return self.write_slowly(body)
            if not self.own(body):
                self.pass_on(body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def share(self, body):
        asked = json.loads(body)
        _, reply = self.ask({**asked, "share": False})
        reply.update(id="abc123", shareUrl=f"http://{self.headers['Host']}/steer/abc123")
        self.rows.shares["abc123"] = {**reply, "modelId": asked["modelId"], "inputText": asked["prompt"], "outputTextIncludesPrompt": True,
                                      **{name: asked[name] for name in ("features", "temperature", "n_tokens", "seed", "steer_method")}}
        self.say(reply)

    do_GET = do_POST = do_DELETE = do_HEAD = answer


class Archive:
    """Runs on a free port in front of the daemon at `url`."""

    def __init__(self, url, port=0, pace=0.0):
        handler = type("Bound", (Handler,), {"rows": Rows(), "upstream": url.split("//")[1], "pace": pace})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


if __name__ == "__main__":  # for looking at pages: archive.py http://127.0.0.1:8080 [PORT [FEATURES]]
    import sys
    if len(sys.argv) > 3:
        FEATURES = int(sys.argv[3])
    print(Archive(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0).url, flush=True)
    threading.Event().wait()
