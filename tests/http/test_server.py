"""The porch: how the daemon starts, stops, waits for slow clients, and what every reply carries."""
import concurrent.futures
import gzip
import hashlib
import json
import re
import signal
import socket
import time
import urllib.parse

import pytest
import requests

from conftest import MODEL, REQUEST_SECONDS, START_SECONDS, Daemon, model_options, run_steerd

SLACK = 2.5  # seconds on top of a deadline: the watcher looks every 50 ms, the machine may be busy


def steer_body(**changes):
    body = {"modelId": MODEL, "prompt": "The", "features": [], "temperature": 0, "n_tokens": 4, "freq_penalty": 0,
            "seed": 1, "strength_multiplier": 1}
    return {**body, **changes}


def long_body(**changes):
    """As many tokens as the server allows: runs long enough to be interrupted."""
    return steer_body(n_tokens=200, stream=True, **changes)


def raw(daemon, data=b""):
    s = socket.create_connection(("127.0.0.1", daemon.port), timeout=20)
    s.sendall(data)
    return s


def until_closed(s, seconds):
    """Everything the server says until it closes; fails when it keeps the connection open."""
    s.settimeout(seconds)
    data = b""
    try:
        while True:
            piece = s.recv(65536)
            if not piece:
                return data
            data += piece
    except ConnectionResetError:
        return data
    except socket.timeout:
        pytest.fail(f"still open after {seconds} s, got {data[:200]!r}")


def status_of(data):
    return int(data.split()[1]) if data.startswith(b"HTTP/1.1 ") else None


def post_bytes(path, body, extra=""):
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n{extra}\r\n"
    return head.encode() + data


def wait_for(condition, seconds=10, what="condition"):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.02)
    pytest.fail(f"not within {seconds} s: {what}")


# ---- starting ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_a_service_manager_hears_of_it(start_daemon, tmp_path, abstract):
    """systemd's units of Type=notify: READY=1 once requests are answered, STOPPING=1 when it ends."""
    name = f"@steerd-test-{tmp_path.name}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if abstract else name)
        manager.settimeout(START_SECONDS)
        one = start_daemon(environment={"NOTIFY_SOCKET": name})
        assert manager.recv(4096) == b"READY=1"
        assert one.get("/health").status_code == 200
        one.signal()
        assert manager.recv(4096) == b"STOPPING=1"
        assert one.wait() == 0


def heard_within(manager, seconds):
    """What a service manager hears in that time."""
    said, end = [], time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        manager.settimeout(left)
        try:
            said.append(manager.recv(4096))
        except TimeoutError:
            break
    return said


@pytest.mark.parametrize("for_whom", ["anybody", "another process"])
def test_a_watchdog_is_fed(start_daemon, tmp_path, for_whom):
    """systemd's WatchdogSec: twice in each interval, while nothing is to be done as well; not where another process is meant."""
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name)
        manager.settimeout(START_SECONDS)
        environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "200000"}
        if for_whom != "anybody":
            environment["WATCHDOG_PID"] = "1"
        start_daemon(environment=environment)
        assert manager.recv(4096) == b"READY=1"
        said = heard_within(manager, 1.0)
        assert set(said) == ({b"WATCHDOG=1"} if for_whom == "anybody" else set())
        assert for_whom != "anybody" or 3 <= len(said) <= 12  # ten; fewer on a busy machine


def test_an_engine_that_stands_still_is_not_healthy(start_daemon, tmp_path):
    """With a limit below one step's time every long step looks stuck: /health says so, and all is well again behind it, for
    the service manager too."""
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name)
        one = start_daemon(stuck_timeout=0.001, max_sessions=64, max_step_rows=16384,
                           environment={"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "20000"})
        seen, end = None, time.monotonic() + 30
        while seen is None and time.monotonic() < end:
            sockets = [raw(one, post_bytes("/api/steer", steer_body(prompt="The " * 70 + str(i)))) for i in range(24)]
            for _ in range(20):
                reply = one.get("/health")
                if reply.status_code != 200:
                    seen = reply
            for s in sockets:
                s.close()
        assert seen is not None, "no step took longer than a millisecond"
        assert seen.status_code == 503 and "has not moved for" in seen.json()["message"] and "Retry-After" in seen.headers
        wait_for(lambda: one.get("/health").status_code == 200, what="healthy again")
        heard_within(manager, 0.1)
        assert b"WATCHDOG=1" in heard_within(manager, 1.0)


@pytest.mark.parametrize("place", ["", "@", "no-path", "/nowhere/notify", "/" + 200 * "x"])
def test_a_service_manager_that_is_not_there_does_no_harm(start_daemon, place):
    assert start_daemon(environment={"NOTIFY_SOCKET": place}).get("/health").status_code == 200


def test_ready_line_names_a_port_that_answers(daemon):
    assert re.fullmatch(r"http://127\.0\.0\.1:[1-9][0-9]*", daemon.url)
    reply = daemon.get("/health")
    assert reply.status_code == 200 and reply.headers["Content-Type"].startswith("application/json")


def test_several_addresses_and_ipv6(start_daemon):
    one = start_daemon(listen=["127.0.0.1:0", "[::1]:0"])
    assert one.urls[1].startswith("http://[::1]:")
    for url in one.urls:
        assert requests.get(url + "/health", timeout=10).status_code == 200


def test_used_port_gives_one_line_and_status_1(daemon):
    status, out, err = run_steerd("serve", "--listen", f"127.0.0.1:{daemon.port}", *model_options())
    assert status == 1 and out == ""
    assert len(err.strip().splitlines()) == 1 and str(daemon.port) in err and "--listen" in err


@pytest.mark.parametrize("arguments, words", [
    (["serve", "--lisen", "x"], ["unknown flag '--lisen'", "--listen"]),
    (["serve", "--colour", "x"], ["unknown flag '--colour'", "steerd help serve"]),
    (["serve", "--max-body", "12x"], ["max_body", "'12x'", "--max-body", "1024"]),
    (["serve", "--max-body", "-1"], ["max_body", "'-1'", "1024"]),
    (["serve", "--header-timeout", "nan"], ["header_timeout", "'nan'", "seconds"]),
    (["serve", "--log-format", "xml"], ["log_format", "'xml'", "text|json"]),
    (["serve", "--insecure", "maybe"], ["insecure", "'maybe'", "yes or no"]),
    (["serve", "--max-body"], ["'--max-body' needs a value"]),
    (["serve", "max_body", "5"], ["'max_body' is not a flag"]),
    (["serve", "--listen", "nowhere"], ["'nowhere' is not ADDR:PORT"]),
    (["serve", "--listen", "127.0.0.1:99999"], ["127.0.0.1:99999"]),
    (["serve", "--listen", "127.0.0.1:0", "--model", "=x"], ["'=x' is not ID=PLACE"]),
    (["serve", "--listen", "127.0.0.1:0", "--source", "a=b"], ["'a=b' is not MODEL/SOURCE=PLACE"]),
    (["serve", "--listen", "0.0.0.0:0"], ["0.0.0.0:0", "keys", "--insecure"]),
    (["serve", "--listen", "127.0.0.1:0", "--keys", "sha256:12"], ["keys", "64 hexadecimal"]),
    (["serve", "--max-body", "4096", "--max-batch-body", "2048"], ["max_batch_body", "2048", "4096"]),
    (["serve", "--port", "8081"], ["unknown flag '--port'", "--listen"]),
    (["dance"], ["unknown verb 'dance'", "steerd help lists them"]),
    (["expert"], ["unknown verb 'expert'", "did you mean 'export'"]),
    (["version", "now"], ["takes no arguments"]),
])
def test_bad_usage_exits_2_and_says_why(arguments, words):
    status, out, err = run_steerd(*arguments)
    assert status == 2 and out == ""
    assert len(err.strip().splitlines()) == 1 and err.startswith("steerd: ")
    for word in words:
        assert word in err, err


def test_bad_environment_and_file_name_their_place(tmp_path):
    status, _, err = run_steerd("serve", environment={"STEERD_MAX_QUEUE": "many"})
    assert status == 2 and "environment STEERD_MAX_QUEUE" in err and "'many'" in err
    file = tmp_path / "my.ini"
    file.write_text("[engine]\n\nmax_queue = few\n")
    status, _, err = run_steerd("serve", "--config", str(file))
    assert status == 2 and f"{file}:3" in err and "'few'" in err
    file.write_text("max_qeue = 3\n")
    status, _, err = run_steerd("serve", "--config", str(file))
    assert status == 2 and "did you mean 'max_queue'" in err
    file.write_text("[a]\nmax_queue = 3\n[b]\nmax_queue = 4\n")
    status, _, err = run_steerd("serve", "--config", str(file))
    assert status == 2 and "already stands" in err


def test_missing_files_exit_1(tmp_path):
    status, _, err = run_steerd("serve", "--config", str(tmp_path / "none.ini"))
    assert status == 1 and "none.ini" in err
    status, out, err = run_steerd("serve", "--listen", "127.0.0.1:0", "--model", f"m={tmp_path / 'nothing'}")
    assert status == 1 and "nothing" in err and out == ""


def test_layers_of_settings(start_daemon, tmp_path):
    """A flag beats the environment, the environment a file: shown by the body that is still accepted."""
    file = tmp_path / "a.ini"
    file.write_text("max_body = 2048\nmax_batch_body = 2048\nmax_header_count = 20\n")
    one = start_daemon(environment={"STEERD_MAX_BODY": "4096", "STEERD_MAX_BATCH_BODY": "8192"}, config=str(file),
                       max_body=8192)
    assert one.post("/api/steer", steer_body(junk="x" * 6000)).status_code != 413
    assert one.post("/api/steer", steer_body(junk="x" * 9000)).status_code == 413
    assert one.get("/health", headers={f"X-{i}": "1" for i in range(30)}).status_code == 431


@pytest.mark.parametrize("store, kept", [("auto", True), ("", False)])
def test_the_demo_keeps_nothing_where_told_to(tmp_path, store, kept):
    """Left out, its store is in the user's cache; an empty one is a word of its own."""
    one = Daemon(environment={"XDG_CACHE_HOME": str(tmp_path)}, store=store)
    assert ("X-Store" not in one.get("/explanations?q=little").headers) == kept
    assert (tmp_path / "steerd" / "demo.sqlite").exists() == kept
    one.finish()


def test_small_verbs():
    assert run_steerd("version")[0] == 0 and run_steerd("version")[1].startswith("steerd ")
    assert "steerd serve" in run_steerd("help")[1]
    assert "steerd serve" in run_steerd("--help")[1]
    for arguments in (["help", "serve"], ["serve", "--help"], ["--listen", "127.0.0.1:0", "--help"]):
        status, out, err = run_steerd(*arguments)
        assert status == 0 and "--max-body" in out and "--drain-timeout" in out and err == ""
        assert max(map(len, out.splitlines())) <= 110, "a terminal of usual width"
    status, out, _ = run_steerd("routes")
    assert status == 0 and re.search(r"^GET +/health\b", out, re.M)
    assert "max_body = 1048576" in run_steerd("config")[1]


# ---- stopping ---------------------------------------------------------------------------------------------


def test_sigterm_lets_a_stream_finish(start_daemon):
    one = start_daemon()
    kept = requests.Session()
    assert kept.get(one.url + "/ready", timeout=10).status_code == 200
    with requests.post(one.url + "/api/steer", json=steer_body(n_tokens=40, stream=True), stream=True, timeout=30) as reply:
        lines = reply.iter_lines()
        first = next(lines)
        assert first.startswith(b"data: ")
        one.signal(signal.SIGTERM)
        rest = [line for line in lines if line]
    assert all(line.startswith(b"data: ") for line in rest)
    assert one.wait() == 0
    with pytest.raises(requests.ConnectionError):
        requests.get(one.url + "/health", timeout=5)


def test_draining_says_not_ready_on_open_connections(start_daemon):
    one = start_daemon()
    with raw(one, b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n") as kept, raw(one, post_bytes("/api/steer", long_body())) as busy:
        assert b" 200 " in kept.recv(65536).split(b"\r\n")[0]
        busy.recv(4096)
        one.signal(signal.SIGTERM)
        time.sleep(0.2)
        kept.sendall(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = until_closed(kept, 10)
        # The stream may have ended in between on a fast machine: then there is nobody left to ask.
        assert answer == b"" or (status_of(answer) == 503 and b"Connection: close" in answer)
    assert one.wait() == 0


def test_drain_time_ends_a_long_stream(start_daemon):
    one = start_daemon(drain_timeout=0.2, max_new_tokens=100000)
    with raw(one, post_bytes("/api/steer", long_body())) as s:
        s.recv(4096)
        begin = time.monotonic()
        one.signal(signal.SIGTERM)
        until_closed(s, 10)
        assert one.wait() == 0
        assert time.monotonic() - begin < 0.2 + 2 + SLACK


def test_second_signal_ends_at_once(start_daemon):
    one = start_daemon(max_queue=8)
    # Several at once, so that work is left when the signals come however fast one of them runs.
    sockets = [raw(one, post_bytes("/api/steer", long_body())) for _ in range(6)]
    sockets[0].recv(1)
    one.signal(signal.SIGTERM)
    time.sleep(0.05)
    if one.alive():
        one.signal(signal.SIGTERM)
    status = one.wait(10)
    for s in sockets:
        s.close()
    # 0 only when everything was done before the second signal.
    assert status in (0, 1)
    one.close()


# ---- clients that leave -----------------------------------------------------------------------------------


def in_flight(daemon):
    """Requests besides the one that asks."""
    text = daemon.get("/metrics").text
    names = re.findall(r"^(steerd_(?:requests_)?(?:running|queued|in_flight))(?:\{[^}]*\})? ([0-9.]+)$", text, re.M)
    assert names, text
    return sum(float(value) for name, value in names if not name.endswith("in_flight"))


@pytest.mark.parametrize("stream", [True, False])
def test_hang_up_frees_the_engine(start_daemon, stream):
    one = start_daemon()
    for _ in range(5):
        body = {**long_body(), "stream": stream}
        sockets = [raw(one, post_bytes("/api/steer", body)) for _ in range(4)]
        time.sleep(0.05)
        for s in sockets:
            s.close()
        wait_for(lambda: in_flight(one) == 0, what="nothing queued or running after the clients left")
    assert one.post("/api/steer", steer_body()).status_code == 200


def test_hang_up_of_one_leaves_others_alone(daemon):
    expected = daemon.post("/api/steer", steer_body(n_tokens=30)).json()["STEERED"]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        futures = []
        for i in range(24):
            futures.append(pool.submit(requests.post, daemon.url + "/api/steer", json=steer_body(n_tokens=30), timeout=60))
            s = raw(daemon, post_bytes("/api/steer", long_body()))
            time.sleep(0.005 * (i % 4))
            s.close()
        for future in futures:
            reply = future.result()
            assert reply.status_code == 200 and reply.json()["STEERED"] == expected


def test_client_that_sends_nothing_more_but_listens(daemon):
    """A half-closed client gets the reply to what needs no waiting."""
    with raw(daemon, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n") as s:
        s.shutdown(socket.SHUT_WR)
        assert status_of(until_closed(s, 10)) == 200


# ---- deadlines --------------------------------------------------------------------------------------------


def test_silent_connection_is_closed(start_daemon):
    one = start_daemon(header_timeout=0.4)
    begin = time.monotonic()
    with raw(one) as s:
        assert until_closed(s, 0.4 + SLACK) == b""
    assert time.monotonic() - begin >= 0.35


@pytest.mark.parametrize("before, expected", [
    (b"GET /hea", {None}),                                         # the request line itself drips
    (b"GET /health HTTP/1.1\r\nHost: local", {408, None}),         # a header drips
])
def test_dripping_head_is_cut(start_daemon, before, expected):
    one = start_daemon(header_timeout=0.6)
    with raw(one, before) as s:
        s.settimeout(0.1)
        begin, data = time.monotonic(), b""
        while time.monotonic() - begin < 0.6 + SLACK:
            try:
                s.sendall(b"a")
                piece = s.recv(4096)
                if not piece:
                    break
                data += piece
            except socket.timeout:
                continue
            except OSError:
                break
        else:
            pytest.fail("the connection outlived its header deadline")
    assert status_of(data) in expected


def test_dripping_body_is_answered_408(start_daemon):
    one = start_daemon(body_timeout=0.5)
    with raw(one, b"POST /api/steer HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: drip\r\nContent-Length: 100\r\n\r\n{") as s:
        data = until_closed(s, 0.5 + SLACK)
    assert status_of(data) == 408 and b"X-Request-Id: drip" in data and b"Connection: close" in data
    assert json.loads(data.split(b"\r\n\r\n", 1)[1])
    wait_for(lambda: "id=drip" in one.log(), what="an access log line")
    assert re.search(r"id=drip .*status=408", one.log())


def test_idle_connection_is_closed_but_lives_between_requests(start_daemon):
    one = start_daemon(idle_timeout=0.8, header_timeout=0.3)
    ask = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with raw(one, ask) as s:
        for _ in range(3):
            assert status_of(s.recv(65536)) == 200
            time.sleep(0.5)  # longer than a head may take, shorter than idleness
            s.sendall(ask)
        s.recv(65536)
        begin = time.monotonic()
        assert until_closed(s, 0.8 + SLACK) == b""
        assert time.monotonic() - begin > 0.6
    with raw(one, ask) as s:
        s.recv(65536)
        s.sendall(b"GET /he")  # a first byte ends idleness: now the header deadline counts
        begin = time.monotonic()
        until_closed(s, 0.3 + SLACK)
        assert time.monotonic() - begin < 0.75


def test_running_request_has_no_header_or_body_deadline(start_daemon):
    one = start_daemon(header_timeout=0.2, body_timeout=0.2, idle_timeout=0.2, stall_timeout=0.2)
    reply = one.post("/api/steer", steer_body(n_tokens=100))
    assert reply.status_code == 200


# ---- what every reply carries -----------------------------------------------------------------------------


def test_request_ids(daemon):
    assert daemon.get("/health", headers={"X-Request-Id": "my-id_1.2"}).headers["X-Request-Id"] == "my-id_1.2"
    for odd in ("has space", "x" * 65, "semi;colon", "<b>"):
        given = daemon.get("/health", headers={"X-Request-Id": odd}).headers["X-Request-Id"]
        assert re.fullmatch("[0-9a-f]{16}", given)
    ids = {daemon.get("/nowhere").headers["X-Request-Id"] for _ in range(20)}
    assert len(ids) == 20


def test_safety_headers(daemon):
    for path in ("/health", "/nowhere", "/metrics"):
        headers = daemon.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
    page = daemon.get("/")
    if page.headers.get("Content-Type", "").startswith("text/html"):
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy and "unsafe-inline" not in policy


def test_gzip(daemon):
    url = daemon.url + "/openapi.json"
    plain = requests.get(url, headers={"Accept-Encoding": "identity"}, timeout=30)
    assert "Content-Encoding" not in plain.headers and len(plain.content) > 1024
    for accept in ("gzip", "br, gzip;q=0.5", "GZIP"):
        packed = requests.get(url, headers={"Accept-Encoding": accept}, timeout=30, stream=True)
        assert packed.headers["Content-Encoding"] == "gzip"
        data = packed.raw.read()
        assert gzip.decompress(data) == plain.content and len(data) < len(plain.content)
    for accept in ("gzip;q=0", "br", "gzipped"):
        assert "Content-Encoding" not in requests.get(url, headers={"Accept-Encoding": accept}, timeout=30).headers
    small = requests.get(daemon.url + "/health", headers={"Accept-Encoding": "gzip"}, timeout=30)
    assert "Content-Encoding" not in small.headers
    with requests.post(daemon.url + "/api/steer", json=steer_body(stream=True), stream=True, timeout=30,
                       headers={"Accept-Encoding": "gzip"}) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        assert "Content-Encoding" not in stream.headers
        assert all(line.startswith(b"data: ") for line in stream.iter_lines() if line)


def test_keep_alive_and_pipelining(daemon):
    ask = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with raw(daemon, ask * 10 + ask.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")) as s:
        assert until_closed(s, 20).count(b"HTTP/1.1 200") == 11


def test_a_refusal_keeps_the_connection(daemon):
    """A wrong path, a wrong method, a wrong origin: what has no body to be thrown away leaves nothing to close for."""
    ask = b"%s %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n"
    with raw(daemon, b"".join([ask % (b"GET", b"/v1/none", b""), ask % (b"GET", b"/a/b/c/d", b""), ask % (b"DELETE", b"/health", b""),
                               ask % (b"GET", b"/models", b"Origin: http://evil.example\r\n"),
                               ask % (b"GET", b"/health", b"Connection: close\r\n")])) as s:
        replies = until_closed(s, 10)
    assert re.findall(rb"HTTP/1.1 (\d+)", replies) == [b"404", b"404", b"405", b"403", b"200"], replies
    assert replies.count(b"Connection: close") == 1


def test_expect_100_continue(daemon):
    body = json.dumps(steer_body()).encode()
    head = f"POST /api/steer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    with raw(daemon, head.encode()) as s:
        assert s.recv(100).startswith(b"HTTP/1.1 100")
        s.sendall(body)
        assert status_of(until_closed(s, 20)) == 200
    too_long = head.replace(f"Length: {len(body)}", "Length: 99999999999")
    with raw(daemon, too_long.encode()) as s:
        assert status_of(until_closed(s, 20)) == 413


def test_refused_body_is_read_so_that_the_reply_arrives(daemon):
    reply = daemon.client.post("/api/steer", data=b"x" * 3_000_000)
    assert reply.status_code == 413 and reply.json()
    reply = daemon.client.post("/nowhere", data=b"x" * 1_000_000)
    assert reply.status_code == 404


# ---- keys -------------------------------------------------------------------------------------------------


def test_keys(start_daemon, tmp_path):
    plain, hashed = "correct-horse-battery-staple", "another-key-0123456789"
    file = tmp_path / "keys"
    file.write_text(f"# for tests\n\n{plain}\n")
    digest = hashlib.sha256(hashed.encode()).hexdigest()
    one = start_daemon(keys=[str(file), f"sha256:{digest}"])
    assert one.get("/health").status_code == 200
    for headers in ({"x-api-key": plain}, {"X-SECRET-KEY": plain}, {"Authorization": f"Bearer {plain}"}, {"x-api-key": hashed}):
        assert one.get("/version", headers=headers).status_code == 200
    wrong = [{}, {"x-api-key": ""}, {"x-api-key": plain[:-1]}, {"x-api-key": plain + "x"}, {"x-api-key": digest},
             {"x-api-key": f"sha256:{digest}"}, {"Authorization": plain}, {"Authorization": f"Basic {plain}"}]
    bodies = set()
    for headers in wrong:
        reply = one.get("/version", headers=headers)
        assert reply.status_code == 401 and reply.headers["WWW-Authenticate"] == "Bearer"
        bodies.add(reply.text)
    assert len(bodies) == 1  # it does not say what was wrong
    assert one.post("/api/steer", steer_body()).status_code == 401
    preflight = one.client.options("/version", headers={"Origin": "http://localhost:3000", "Access-Control-Request-Method": "GET"})
    assert preflight.status_code == 204
    log = one.log()
    assert plain not in log and hashed not in log


def test_other_addresses_need_keys_or_a_word(start_daemon, tmp_path):
    assert start_daemon(listen="0.0.0.0:0", insecure="yes").urls[0].startswith("http://0.0.0.0:")


def test_links_of_a_daemon_that_listens_everywhere(start_daemon):
    """No address is its own, and a port may be published under another number: links begin as the client asked. (The demo: it
    comes with statistics.)"""
    one = start_daemon([], listen="0.0.0.0:0", insecure="yes", hosts="steerd.example")
    port = urllib.parse.urlsplit(one.urls[0]).port
    base = f"http://127.0.0.1:{port}"
    page_path = "/v1/lab/dictionaries/demo/2-res-demo/features?limit=2"
    vector = {"modelId": "demo", "layerNumber": 0, "hookType": "resid-pre", "vector": [1.0] * 256}
    for host in (f"127.0.0.1:{port}", "localhost:9000", "steerd.example"):
        headers = {"Host": host}
        shared = requests.post(base + "/api/steer", json=steer_body(modelId="demo", share=True), headers=headers, timeout=REQUEST_SECONDS).json()
        assert shared["shareUrl"] == f"http://{host}/steer/{shared['id']}"
        made = requests.post(base + "/api/vector/new", json=vector, headers=headers, timeout=REQUEST_SECONDS).json()
        assert made["url"].startswith(f"http://{host}/demo/0-")
    for host in 2 * (f"127.0.0.1:{port}", "localhost:9000"):  # a reply that was kept would have the first asker's name in it
        page = requests.get(base + page_path, headers={"Host": host}, timeout=REQUEST_SECONDS)
        assert page.links["next"]["url"].startswith(f"http://{host}/v1/"), page.headers
    assert requests.get(base + "/openapi.json", timeout=REQUEST_SECONDS).json()["servers"] == [{"url": "/"}]


# ---- CORS -------------------------------------------------------------------------------------------------


def test_cors(start_daemon):
    one = start_daemon(cors_origins="https://notebook.example,http://10.0.0.5:3000")
    for origin in ("http://localhost:3000", "http://127.0.0.1:8888", "http://[::1]:5000", "https://localhost",
                   "https://notebook.example", "http://10.0.0.5:3000"):
        reply = one.get("/health", headers={"Origin": origin})
        assert reply.status_code == 200
        assert reply.headers["Access-Control-Allow-Origin"] == origin and "Origin" in reply.headers["Vary"]
        preflight = one.client.options("/api/steer", headers={
            "Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"})
        assert preflight.status_code == 204
        assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
        assert "content-type" in preflight.headers["Access-Control-Allow-Headers"].lower()
    for origin in ("http://evil.example", "null", "https://notebook.example.evil.net", "http://notebook.example",
                   "http://localhost.evil.net", "http://10.0.0.5:3001", "file://", "http://localhost:3000/"):
        reply = one.get("/health", headers={"Origin": origin})
        assert reply.status_code == 403 and "Access-Control-Allow-Origin" not in reply.headers, origin
        assert "Access-Control-Allow-Credentials" not in reply.headers


# ---- log --------------------------------------------------------------------------------------------------


def test_access_log_as_text(start_daemon):
    one = start_daemon()
    one.get("/health?secret=prompt-text", headers={"X-Request-Id": "id-one"})
    one.post("/api/steer", steer_body(prompt="whispered words"), headers={"X-Request-Id": "id-two"})
    wait_for(lambda: "id=id-two" in one.log(), what="two lines")
    log = one.log()
    assert re.search(r'request id=id-one method="GET" path="/health" status=200 ms=[0-9.]+ in=0 out=[0-9]+ prompt_tokens=0 new_tokens=0 cut=no', log)
    two = re.search(r'request id=id-two method="POST" path="/api/steer" status=200 ms=[0-9.]+ in=([0-9]+) out=[0-9]+ prompt_tokens=([0-9]+) new_tokens=([0-9]+)', log)
    assert two and int(two[1]) > 0 and int(two[2]) > 0 and int(two[3]) > 0
    assert "whispered" not in log and "prompt-text" not in log


def test_access_log_as_json(start_daemon):
    one = start_daemon(log_format="json", log_level="debug")
    hostile = ["/a%E2%80%AEb", "/%22%7D%7B", "/\\x1b[31m", "/" + "a" * 3000, "/%C3%A9", "/%00"]
    for path in hostile:
        with raw(one, f"GET {path}?q=canary-secret HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()) as s:
            until_closed(s, 10)
    one.get("/health", headers={"X-Request-Id": "last"})
    wait_for(lambda: '"last"' in one.log(), what="the last line")
    one.signal()
    assert one.wait() == 0
    lines = one.log().splitlines()
    entries = [json.loads(line) for line in lines]
    assert all({"time", "level"} <= set(entry) for entry in entries)
    requests_seen = [entry for entry in entries if "request" in entry]
    assert len(requests_seen) == len(hostile) + 1
    for entry in requests_seen:
        assert {"method", "path", "status", "ms", "in", "out", "prompt_tokens", "new_tokens"} <= set(entry)
        assert len(entry["path"]) <= 200
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", "\n".join(lines))
    assert "canary-secret" not in one.log()
    one.close()


# ---- limits -----------------------------------------------------------------------------------------------


def test_connection_limits(start_daemon):
    one = start_daemon(max_connections=10, max_connections_per_address=1000)
    held = [raw(one) for _ in range(10)]
    time.sleep(0.2)
    with raw(one, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n") as s:
        assert until_closed(s, 10) == b""
    for s in held:
        s.close()
    wait_for(lambda: _answers(one), what="an answer after the others left")


def test_connection_limit_of_one_address(start_daemon):
    one = start_daemon(max_connections_per_address=5)
    held = [raw(one) for _ in range(5)]
    time.sleep(0.2)
    with raw(one) as s:
        assert until_closed(s, 10) == b""
    for s in held:
        s.close()
    wait_for(lambda: _answers(one), what="an answer after the others left")


def _answers(daemon):
    try:
        return requests.get(daemon.url + "/health", timeout=5).status_code == 200
    except requests.ConnectionError:
        return False
