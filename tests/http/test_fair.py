"""Clients wait in turn: one that has filled its share of the queue keeps nobody else from being answered soon."""
import json
import select
import socket
import time

import pytest

from conftest import MODEL

KEYS = ["first key of sixteen", "second key of sixteen"]
GREEDY = 40  # requests of one client


def post_bytes(body, key=None):
    data = json.dumps(body).encode()
    head = f"POST /api/steer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    return (head + (f"X-Api-Key: {key}\r\n" if key else "") + "\r\n").encode() + data


def steer_body(n_tokens):
    return {"modelId": MODEL, "prompt": "The", "features": [], "temperature": 0, "n_tokens": n_tokens, "freq_penalty": 0,
            "seed": 1, "strength_multiplier": 1}


def ask(daemon, body, address="127.0.0.1", key=None):
    s = socket.create_connection(("127.0.0.1", daemon.port), timeout=60, source_address=(address, 0))
    s.sendall(post_bytes(body, key))
    return s


def status_of(s):
    answer = b""
    while b"\r\n" not in answer:
        piece = s.recv(4096)
        assert piece, "the connection was closed without a reply"
        answer += piece
    return int(answer.split()[1])


def queued(daemon, key=None):
    text = daemon.get("/metrics", headers={"X-Api-Key": key} if key else {}).text
    return next(int(float(line.split()[1])) for line in text.splitlines() if line.startswith("steerd_queue_length "))


def wait_for_queue(daemon, n, key=None):
    end = time.monotonic() + 20
    while queued(daemon, key) < n:
        assert time.monotonic() < end, f"{queued(daemon, key)} requests wait, not {n}"
        time.sleep(0.01)


def close_all(sockets):
    for s in sockets:
        s.close()


@pytest.mark.parametrize("by_key", [False, True])
def test_a_second_client_does_not_wait_behind_all_of_the_first(start_daemon, tmp_path, by_key):
    file = tmp_path / "keys"
    file.write_text("\n".join(KEYS) + "\n")
    keys = KEYS if by_key else [None, None]
    daemon = start_daemon(max_sessions=2, max_queue=128, **({"keys": [str(file)]} if by_key else {}))
    greedy = [ask(daemon, steer_body(150), key=keys[0]) for _ in range(GREEDY)]
    try:
        wait_for_queue(daemon, GREEDY - 10, keys[0])
        other = ask(daemon, steer_body(2), "127.0.0.1" if by_key else "127.0.0.2", keys[1])
        assert status_of(other) == 200
        other.close()
        # One that runs and one that was first in the line, and what was done before the second client came: 10 of 40.
        # First come, first served would have left none.
        answered = len(select.select(greedy, [], [], 0)[0])
        assert answered <= 15, f"{answered} of {GREEDY} requests of one client came before the one of another"
    finally:
        close_all(greedy)


def test_no_client_fills_the_queue(start_daemon):
    """Of 8 places one client gets those that leave as many free; whoever comes next is let in all the same."""
    daemon = start_daemon(max_sessions=2, max_queue=8)
    greedy = [ask(daemon, steer_body(150)) for _ in range(20)]
    try:
        wait_for_queue(daemon, 4)
        other = ask(daemon, steer_body(2), "127.0.0.2")
        assert status_of(other) == 200
        other.close()
        statuses = [status_of(s) for s in greedy]
        assert set(statuses) == {200, 503} and statuses.count(503) >= 5, statuses
    finally:
        close_all(greedy)


def test_a_refusal_says_why(start_daemon):
    daemon = start_daemon(max_sessions=2, max_queue=4)
    greedy = [ask(daemon, steer_body(150)) for _ in range(12)]
    try:
        for s in greedy:
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += s.recv(4096)
            if b" 503 " not in answer.split(b"\r\n")[0]:
                continue
            head, body = answer.split(b"\r\n\r\n", 1)
            assert b"Retry-After:" in head
            told = json.loads(body)
            assert told["code"] == "busy" and "of your requests wait already" in told["message"]
            return
        pytest.fail("12 requests at once, 4 places, and none was refused")
    finally:
        close_all(greedy)
