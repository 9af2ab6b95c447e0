"""What one client may take from the others: requests a minute, guesses of a key, replies that it leaves unread."""
import json
import re
import socket
import time

import pytest
import requests

from conftest import MODEL

KEYS = ["first key of sixteen", "second key of sixteen"]
WRONG = 30  # wrong keys that an address may send in a minute
STEER = {"modelId": MODEL, "prompt": "The", "features": [], "temperature": 0, "n_tokens": 2, "freq_penalty": 0, "seed": 1, "strength_multiplier": 1}
# Scores and patterns of all pairs of tokens at three layers, as text: more than sockets take in before anybody reads.
LARGE = {"modelId": MODEL, "tokens": [[5] * 150] * 4, "points": ["pattern.*", "attn_scores.*"]}
LARGE_BYTES = 8_000_000


def key_file(tmp_path):
    file = tmp_path / "keys"
    file.write_text("\n".join(KEYS) + "\n")
    return str(file)


def metric(daemon, name, **more):
    return float(re.search(rf"^{name} (\S+)$", daemon.get("/metrics", **more).text, re.M)[1])


def steer(daemon, key=None, path="/api/steer", body=STEER):
    return daemon.post(path, body, headers={"X-Api-Key": key} if key else {})


def refused_for_rate(reply, words):
    error = reply.json()
    assert reply.status_code == 429 and error["code"] == "rate" and words in error["message"]
    return int(reply.headers["Retry-After"])


# ---- requests a minute ------------------------------------------------------------------------------------


def test_a_client_has_a_rate(start_daemon, tmp_path):
    one = start_daemon(rate=20, keys=key_file(tmp_path))
    for _ in range(20):
        assert steer(one, KEYS[0]).status_code == 200
    assert 1 <= refused_for_rate(steer(one, KEYS[0]), "'rate'") <= 3
    assert steer(one, KEYS[1]).status_code == 200  # the other's is its own
    for path in ("/health", "/version", "/v1/models"):  # nothing is computed for these
        assert one.get(path, headers={"X-Api-Key": KEYS[0]}).status_code == 200
    refused = one.post("/v1/completions", {"prompt": "The"}, headers={"Authorization": f"Bearer {KEYS[0]}"})
    assert refused.status_code == 429 and refused.json()["error"]["code"] == "rate" and int(refused.headers["Retry-After"]) <= 3
    time.sleep(int(refused.headers["Retry-After"]))
    assert steer(one, KEYS[0]).status_code == 200
    assert metric(one, "steerd_http_too_many_total", headers={"X-Api-Key": KEYS[1]}) >= 2


def test_without_keys_an_address_has_it(start_daemon):
    one = start_daemon(rate=1)
    assert steer(one).status_code == 200
    assert 50 < refused_for_rate(steer(one), "'rate'") <= 60
    with socket.create_connection(("127.0.0.1", one.port), timeout=20, source_address=("127.0.0.2", 0)) as s:
        data = json.dumps(STEER).encode()
        s.sendall(b"POST /api/steer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
        assert s.recv(65536).startswith(b"HTTP/1.1 200 ")
    bad = one.post("/api/steer", {"modelId": MODEL})
    assert bad.status_code == 429  # what is refused later counts as well: a client in a loop has a mistake more often than not


def test_no_rate_unless_it_is_set(daemon):
    assert all(steer(daemon, body={**STEER, "n_tokens": 1}).status_code == 200 for _ in range(70))


# ---- guessing ---------------------------------------------------------------------------------------------


def test_guessing_a_key(start_daemon, tmp_path):
    one = start_daemon(keys=key_file(tmp_path))
    assert steer(one, KEYS[0]).status_code == 200
    for i in range(WRONG):
        assert steer(one, f"wrong key of sixteen {i}").status_code == 401
    assert 1 <= refused_for_rate(steer(one, "another wrong key"), "wrong keys") <= 2
    assert refused_for_rate(steer(one, KEYS[1]), "wrong keys") <= 2  # a right guess is not told from a wrong one
    assert steer(one, KEYS[0]).status_code == 200                   # who was in goes on
    assert one.get("/health").status_code == 200 and requests.post(one.url + "/api/steer", json=STEER, timeout=30).status_code == 401
    session = requests.Session()
    session.get_adapter("http://").init_poolmanager(1, 1, source_address=("127.0.0.2", 0))
    assert session.post(one.url + "/api/steer", json=STEER, headers={"X-Api-Key": KEYS[1]}, timeout=30).status_code == 200
    assert metric(one, "steerd_http_wrong_keys_total", headers={"X-Api-Key": KEYS[0]}) == WRONG + 3
    deadline = time.monotonic() + 10
    while steer(one, KEYS[1]).status_code == 429 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert steer(one, KEYS[1]).status_code == 200


# ---- replies that are left unread -------------------------------------------------------------------------


def ask(daemon, accept="application/json"):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.settimeout(60)
    s.connect(("127.0.0.1", daemon.port))
    data = json.dumps(LARGE).encode()
    s.sendall(b"POST /v1/lab/run HTTP/1.1\r\nHost: localhost\r\nAccept: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (accept.encode(), len(data)) + data)
    head = s.recv(512)
    assert head.startswith(b"HTTP/1.1 200 "), head
    return s


def held(daemon):
    return metric(daemon, "steerd_http_held_bytes")


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


@pytest.mark.parametrize("accept", ["application/json", "application/vnd.safetensors"])
def test_replies_that_nobody_reads_leave_room(start_daemon, accept):
    one = start_daemon(max_held=1 << 20)
    plain = {"Accept": accept, "Accept-Encoding": "identity"}  # packing takes its time
    large = one.post("/v1/lab/run", LARGE, headers=plain)
    assert large.status_code == 200 and len(large.content) > 1 << 22
    with ask(one, accept):
        assert held(one) > 1 << 22
        refused = one.post("/v1/lab/run", LARGE, headers=plain)
        assert refused.status_code == 503 and refused.json()["code"] == "busy" and "max_held" in refused.json()["message"]
        assert "Retry-After" in refused.headers
        assert steer(one).status_code == 200
    until(lambda: held(one) == 0)
    again = one.post("/v1/lab/run", LARGE, headers=plain)
    assert again.status_code == 200 and again.content == large.content


def test_a_reader_that_crawls_is_cut(start_daemon):
    one = start_daemon(stall_timeout=2, min_send_rate=200_000)
    with ask(one) as s:
        total, begin = 0, time.monotonic()
        s.settimeout(0.05)
        while held(one):  # 20,000 bytes a second
            assert time.monotonic() - begin < 20
            try:
                total += len(s.recv(1000))
            except socket.timeout:
                pass
            time.sleep(0.05)
        assert time.monotonic() - begin > 1.5 and 0 < total < LARGE_BYTES
    reply = requests.post(one.url + "/v1/lab/run", json=LARGE, timeout=60, stream=True, headers={"Accept-Encoding": "identity"})
    read = 0
    for piece in reply.iter_content(1 << 18):  # some 5 MB a second: longer than a window, and fast enough
        read += len(piece)
        time.sleep(0.05)
    assert read > LARGE_BYTES
