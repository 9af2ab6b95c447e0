"""SIGTERM under load, over and over: streams, kept connections, heads and bodies that stop half way, bodies too large, readers that
do not read, clients that come and go while the listener closes. However a stop falls, the daemon ends in time, with status 0
and without a word of the HTTP library's own abort or of a sanitizer.

STEERD_STOP_ROUNDS is how many daemons are started and stopped (10). Each round's load and moment come of its number, so that one that
failed can be run again: STEERD_STOP_FIRST is the first number (0)."""
import os
import random
import socket
import threading
import time

import pytest

from conftest import MODEL, Daemon, model_options
from test_server import long_body, post_bytes, raw, steer_body

ROUNDS = int(os.environ.get("STEERD_STOP_ROUNDS", 10))
FIRST = int(os.environ.get("STEERD_STOP_FIRST", 0))
ENDS = 20  # seconds that a stop may take: the drain time (at most 1), the farewell (2), and a sanitizer build on a busy machine


def get_bytes(path, extra=""):
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n".encode()


def read_all(s):
    while s.recv(65536):
        pass


def stream(one, rng):
    with raw(one, post_bytes("/api/steer", long_body(seed=rng.randrange(1000)))) as s:
        read_all(s)


def completions(one, rng):
    body = {"model": MODEL, "prompt": "The", "max_tokens": 100, "n": rng.randint(1, 4), "stream": rng.random() < 0.5}
    with raw(one, post_bytes("/v1/completions", body)) as s:
        read_all(s)


def kept(one, rng):
    """Many small requests over one connection."""
    with raw(one) as s:
        for _ in range(rng.randint(1, 200)):
            s.sendall(get_bytes(rng.choice(["/health", "/ready", "/models", "/metrics", "/nothing"])))
            if not s.recv(65536):
                return


def idle(one, rng):
    with raw(one, get_bytes("/ready")) as s:
        read_all(s)  # waits until the server closes


def pipelined(one, rng):
    with raw(one, get_bytes("/health") * rng.randint(2, 30) + get_bytes("/models", "Connection: close\r\n")) as s:
        read_all(s)


def half_head(one, rng):
    whole = post_bytes("/api/steer", steer_body())
    with raw(one, whole[:rng.randint(1, whole.index(b"\r\n\r\n"))]) as s:
        read_all(s)


def half_body(one, rng):
    whole = post_bytes("/api/steer", long_body(prompt="x" * rng.randint(1, 1000)))
    with raw(one, whole[:rng.randint(whole.index(b"\r\n\r\n") + 4, len(whole) - 1)]) as s:
        read_all(s)


def big_body(one, rng):
    """Within the limit or beyond it, piece by piece."""
    size = rng.choice([200_000, 900_000, 1_100_000, 5_000_000])
    with raw(one, f"POST /api/tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode()) as s:
        for _ in range(0, size, 50_000):
            s.sendall(b"x" * 50_000)
        read_all(s)


def chunked(one, rng):
    with raw(one, b"POST /api/tokenize HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n") as s:
        for _ in range(rng.randint(1, 50)):
            s.sendall(b"4\r\nabcd\r\n")
            time.sleep(0.005)


def deaf(one, rng):
    """Asks for a long stream and does not read it."""
    with raw(one) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.sendall(post_bytes("/v1/completions", {"model": MODEL, "prompt": "The", "max_tokens": 100, "n": 8, "stream": True, "logprobs": 5}))
        time.sleep(rng.random())


def gone(one, rng):
    """Hangs up at once, at times rudely."""
    with raw(one, post_bytes("/api/steer", long_body())[:rng.randint(0, 400)]) as s:
        if rng.random() < 0.5:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def laboratory(one, rng):
    with raw(one, post_bytes("/v1/lab/heads", {"batch": 8, "length": 40})) as s:
        read_all(s)


def events(one, rng):
    with raw(one, get_bytes("/v1/jobs") + get_bytes("/v1/jobs/1/events")) as s:
        read_all(s)


CLIENTS = [stream, completions, kept, idle, pipelined, half_head, half_body, big_body, chunked, deaf, gone, laboratory, events]


def keep_doing(one, rng, over):
    while not over.is_set():
        try:
            rng.choice(CLIENTS)(one, rng)
        except OSError:  # refused, reset, timed out: what a stop looks like from outside
            time.sleep(0.002)


def stop_under_load(number):
    """The daemon of one round: its status, how long the stop took, and what it logged."""
    rng = random.Random(number)
    one = Daemon(model_options(), drain_timeout=rng.choice([0, 0.05, 0.3, 1]), http_threads=rng.choice([1, 2, 4, 8]),
                 listen=["127.0.0.1:0"] * rng.choice([1, 2]), header_timeout=rng.choice([0.1, 5]), max_queue=rng.choice([2, 64]))
    over = threading.Event()
    clients = [threading.Thread(target=keep_doing, args=(one, random.Random(rng.random()), over)) for _ in range(rng.randint(4, 16))]
    try:
        for client in clients:
            client.start()
        time.sleep(rng.choice([0, 0.01, 0.1, 0.4]) * rng.random())
        begin = time.monotonic()
        one.signal()
        status = one.wait(ENDS)
        return status, time.monotonic() - begin, one.log()
    finally:
        over.set()
        one.close()  # what clients still wait for ends with it
        for client in clients:
            client.join()


@pytest.mark.parametrize("number", range(FIRST, FIRST + ROUNDS))
def test_stops_under_load(number):
    status, seconds, log = stop_under_load(number)
    told = [line for line in log.splitlines() if "libmicrohttpd stopped" in line or "Sanitizer" in line or "runtime error" in line]
    assert not told and status == 0, f"round {number}: status {status} after {seconds:.1f} s\n{log[-4000:]}"
