"""What `docker/` has besides recipes: the health check asks a daemon as it does in a container; building says what is missing."""
import hashlib
import socket
import subprocess

import pytest

from conftest import ROOT

KEY = "a-key-of-a-test-of-containers"


def healthy(listen):
    return subprocess.run(["/bin/bash", ROOT / "docker" / "healthy.sh"], env={"STEERD_LISTEN": listen}, capture_output=True, timeout=30)


@pytest.mark.parametrize("options", [{"insecure": "yes"}, {"keys": "sha256:" + hashlib.sha256(KEY.encode()).hexdigest()}],
                         ids=["open", "keys"])
def test_health_check(start_daemon, options):
    one = start_daemon(listen="0.0.0.0:0", **options)
    assert healthy(f"0.0.0.0:{one.port}").returncode == 0
    assert healthy(f"0.0.0.0:{one.port},[::]:{one.port}").returncode == 0


def test_health_check_of_nothing():
    with socket.socket() as taken:  # bound, so that nobody else answers there
        taken.bind(("127.0.0.1", 0))
        assert healthy("0.0.0.0:%d" % taken.getsockname()[1]).returncode == 1


def test_health_check_of_something_else():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        asked = subprocess.Popen(["/bin/bash", ROOT / "docker" / "healthy.sh"], env={"STEERD_LISTEN": "0.0.0.0:%d" % other.getsockname()[1]})
        other.settimeout(30)
        client, _ = other.accept()
        with client:
            head = b""
            while b"\r\n\r\n" not in head:
                piece = client.recv(4096)
                assert piece, head
                head += piece
            assert head.startswith(b"GET /health HTTP/1.1\r\n")
            client.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
        assert asked.wait(30) == 1


def test_building_without_docker_says_so():
    done = subprocess.run(["/bin/bash", ROOT / "docker" / "build.sh", "cpu", "0.0.0", "abc"], env={"PATH": "/nowhere"}, capture_output=True,
                          text=True, timeout=30)
    assert done.returncode == 0
    assert done.stdout == "skip: the container image steerd (neither docker nor podman found)\n"
