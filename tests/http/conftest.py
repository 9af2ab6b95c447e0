"""Starts the real daemon on a free port, for every test of this folder.

STEERD_BINARY names the program (default build/steerd). The daemon runs in its own temporary folder with its own
store. A test that fails shows the end of the daemon's log; a sanitizer report in the log, or an exit status that
is not 0, is a failure of its own.
"""
import json
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.parse

import pytest
import requests

ROOT = pathlib.Path(__file__).resolve().parents[2]
VECTORS = ROOT / "tests" / "vectors"
MODEL = "tiny-gpt2"
# One request at most; sanitizer builds on a busy machine are slow, and the emulated device (STEERD_TEST_CUDA) there slower still.
REQUEST_SECONDS = int(os.environ.get("STEERD_TEST_SECONDS", 30))
START_SECONDS = 120
STOP_SECONDS = 60
SANITIZER = ("AddressSanitizer", "LeakSanitizer", "ThreadSanitizer", "runtime error:", "MemorySanitizer")

running = []  # for the log tail of a failing test


def binary():
    path = pathlib.Path(os.environ.get("STEERD_BINARY", ROOT / "build" / "steerd"))
    if not path.exists():
        pytest.exit(f"{path} is not there: run `make build`, or set STEERD_BINARY", returncode=1)
    return str(path.resolve())


def model_options():
    """--model and --source for the tiny model with all its dictionaries."""
    folder = VECTORS / MODEL
    options = ["--model", f"{MODEL}={folder / 'model'}"]
    for source in sorted((folder / "sources").iterdir()):
        if source.is_dir():
            options += ["--source", f"{MODEL}/{source.name}={source}"]
    return options


def source_ids():
    return sorted(p.name for p in (VECTORS / MODEL / "sources").iterdir() if p.is_dir())


class Session(requests.Session):
    """A requests session whose paths are relative to one daemon, and which never waits for ever."""

    def __init__(self, url):
        super().__init__()
        self.url = url
        self.trust_env = False

    def request(self, method, path, **arguments):
        arguments.setdefault("timeout", REQUEST_SECONDS)
        address = path if path.startswith("http://") else self.url + path
        return super().request(method, address, **arguments)


class Daemon:
    """One running steerd. Options: header_timeout=0.5 becomes --header-timeout 0.5; a list repeats the flag."""

    def __init__(self, arguments=(), environment=None, **options):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="steerd-test-"))
        self.log_path = self.folder / "log"
        # Leak checking needs a process that can be traced, so core dumps are allowed here.
        defaults = {"listen": "127.0.0.1:0", "store": str(self.folder / "store.sqlite"), "core_dumps": "yes",
                    "self_test": "no"}  # they would run beside the first requests, and metrics would count them
        flags = list(arguments)
        for name, value in {**defaults, **options}.items():
            for item in value if isinstance(value, (list, tuple)) else [value]:
                flags += ["--" + name.replace("_", "-"), str(item)]
        self.command = [binary(), "serve", *flags]
        self.log_file = open(self.log_path, "wb")
        # Only the place of the data passes through: a developer's own settings must not change a test.
        clean = {k: v for k, v in os.environ.items() if not k.startswith("STEERD_")}
        # STEERD_TEST_CUDA: a library of the CUDA backend that all these tests are to run on (tests/cuda_host).
        if "STEERD_TEST_CUDA" in os.environ:
            clean |= {"STEERD_CUDA_LIBRARY": os.environ["STEERD_TEST_CUDA"], "STEERD_DEVICE": "cuda", "STEERD_DETERMINISTIC": "yes"}
        clean["STEERD_DATA"] = os.environ.get("STEERD_DATA", str(ROOT.parent / "shared" / "data"))
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=self.log_file,
                                        stdin=subprocess.DEVNULL, cwd=self.folder, env={**clean, **(environment or {})})
        running.append(self)
        self.urls = [self._ready_line() for _ in range(len(options["listen"]) if isinstance(options.get("listen"), list) else 1)]
        self.url = self.urls[0]
        self.port = int(self.url.rsplit(":", 1)[1])
        self.client = Session(self.url)

    def _ready_line(self):
        end = time.monotonic() + START_SECONDS
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))
            byte = os.read(self.process.stdout.fileno(), 1) if ready else b""
            if not byte:
                self.kill()
                pytest.fail(f"no ready line, exit status {self.process.poll()}:\n{self.log_tail()}")
            line += byte
        assert line.startswith(b"ready http://"), line
        return line[len(b"ready "):].decode().strip()

    def get(self, path, **arguments):
        return self.client.get(path, **arguments)

    def post(self, path, body=None, **arguments):
        if body is not None:
            arguments["json"] = body
        return self.client.post(path, **arguments)

    def log(self):
        self.log_file.flush()
        return self.log_path.read_text(errors="replace")

    def log_tail(self, lines=20):
        return "\n".join(self.log().splitlines()[-lines:])

    def alive(self):
        return self.process.poll() is None

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self, seconds=STOP_SECONDS):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"still running {seconds} s after the signal:\n{self.log_tail()}")

    def kill(self):
        if self.alive():
            self.process.kill()
        self.process.wait()

    def finish(self, expected=0):
        """Stops it and judges how it ended."""
        self.client.close()
        if self.alive():
            self.signal()
        status = self.wait()
        log = self.log()
        self.close()
        reports = [word for word in SANITIZER if word in log]
        assert not reports, f"sanitizer report:\n{log[-6000:]}"
        assert status == expected, f"exit status {status}:\n{log[-3000:]}"

    def close(self):
        self.kill()
        if self in running:
            running.remove(self)
        self.log_file.close()
        self.process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)


# ---- every reply against the specification ----------------------------------------------------------------


def breaches(schema, value, spec, where=""):
    """Where a value is not what a schema of /openapi.json says, in words. The parts of JSON schema that steerd writes."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return breaches(spec["components"]["schemas"][name], value, spec, f"{where}<{name}>")
    if "anyOf" in schema:
        tries = [breaches(one, value, spec, where) for one in schema["anyOf"]]
        return min(tries, key=len) if all(tries) else []
    kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None), "array": list, "object": dict}
    wanted = schema.get("type", [])
    wanted = [wanted] if isinstance(wanted, str) else wanted
    fits = any(isinstance(value, kinds[kind]) and (kind == "boolean" or not isinstance(value, bool)) for kind in wanted)
    if wanted and not fits:
        return [f"{where}: {value!r:.60} is not {' or '.join(wanted)}"]
    found = []
    if isinstance(value, list):
        for i, item in enumerate(value):
            found += breaches(schema.get("items", {}), item, spec, f"{where}[{i}]")
    if isinstance(value, dict):
        members, more = schema.get("properties", {}), schema.get("additionalProperties", True)
        found += [f"{where}: '{name}' is missing" for name in schema.get("required", []) if name not in value]
        for name, item in value.items():
            if name not in members and more is False:
                found.append(f"{where}: nobody has told of '{name}' (api/shapes.c)")
            else:
                found += breaches(members.get(name, more if isinstance(more, dict) else {}), item, spec, f"{where}.{name}")
    return found


def reply_schema(spec, method, path, status, kind="application/json", member="schema"):
    """The schema of a JSON reply (or, as x-event-data, of a stream's events), or None. Of two paths that fit the one with fewer
    placeholders is meant."""
    pattern = lambda template: re.sub(r"\\\{[^}]*\\\}", "[^/]+", re.escape(template)) + "/?"
    fitting = [one for one in spec["paths"] if method.lower() in spec["paths"][one] and re.fullmatch(pattern(one), path)]
    if not fitting:
        return None
    replies = spec["paths"][min(fitting, key=lambda one: one.count("{"))][method.lower()]["responses"]
    return replies.get(str(status), {}).get("content", {}).get(kind, {}).get(member)


def events_of(text):
    """What the events of a stream carry, without the words it may end with: an error, [DONE]."""
    for event in text.split("\n\n"):
        if event.startswith("data: ") and event != "data: [DONE]":
            yield json.loads(event[len("data: "):])


@pytest.fixture(scope="session", autouse=True)
def told_and_done():
    """What a daemon answers is what its specification says: looked at for every JSON reply of every test."""
    send, known = requests.Session.send, {}

    def ask_spec(url):
        with requests.Session() as plain:
            plain.trust_env = False
            reply = send(plain, requests.Request("GET", url + "/openapi.json").prepare(), timeout=REQUEST_SECONDS)
        return reply.json() if reply.status_code == 200 else None

    def check(reply, request):
        daemon = next((one for one in running if getattr(one, "url", None) and reply.url.startswith(one.url + "/")), None)
        kind = reply.headers.get("Content-Type", "").split(";")[0]
        if not daemon or reply.status_code >= 300 or kind not in ("application/json", "text/event-stream"):
            return
        if not known.get("spec"):
            known["spec"] = ask_spec(daemon.url)
        spec = known["spec"]
        path = urllib.parse.unquote(urllib.parse.urlsplit(reply.url).path)
        stream = kind == "text/event-stream"
        schema = spec and reply_schema(spec, request.method, path, reply.status_code, kind, "x-event-data" if stream else "schema")
        assert schema or not (spec and stream), f"{request.method} {path}: nobody has told what its events carry (api/shapes.c)"
        for value in (events_of(reply.content.decode()) if stream else [reply.json()]) if schema else []:
            found = breaches(schema, value, spec)
            assert not found, f"{request.method} {path} does not answer what /openapi.json says: {found[:5]}"

    def checked(self, request, **arguments):
        reply = send(self, request, **arguments)
        if request.method != "HEAD" and not arguments.get("stream"):
            check(reply, request)
        return reply

    requests.Session.send = checked
    yield
    requests.Session.send = send


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for daemon in running:
            report.sections.append((f"log of {daemon.process.pid}", daemon.log_tail()))


@pytest.fixture(scope="session")
def daemon():
    """The daemon that most tests share: tiny-gpt2 with all its sources."""
    one = Daemon(model_options())
    yield one
    one.finish()


@pytest.fixture
def start_daemon():
    """A factory: start_daemon(header_timeout=0.5), or start_daemon(models={id: path}, sources={"id/source": path}) in
    place of tiny-gpt2. Every daemon it made must end well."""
    made = []

    def start(arguments=None, environment=None, models=None, sources=None, **options):
        if models is not None:
            arguments = [flag for name, path in models.items() for flag in ("--model", f"{name}={path}")]
            arguments += [flag for name, path in (sources or {}).items() for flag in ("--source", f"{name}={path}")]
        made.append(Daemon(model_options() if arguments is None else arguments, environment, **options))
        return made[-1]

    yield start
    failures = []
    for one in made:
        if one in running:
            try:
                one.finish()
            except BaseException as failure:  # the others must be stopped too
                failures.append(failure)
                one.close()
    if failures:
        raise failures[0]


def run_steerd(*arguments, environment=None, seconds=60):
    """Runs the program to its end: (exit status, standard output, standard error)."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("STEERD_")}
    done = subprocess.run([binary(), *arguments], capture_output=True, text=True, timeout=seconds,
                          stdin=subprocess.DEVNULL, env={**clean, **(environment or {})})
    return done.returncode, done.stdout, done.stderr
