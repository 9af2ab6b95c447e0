"""`make install`: what it puts into a prefix serves from there, wherever it is started, and goes again. `make deb`: a package that
unpacks to a program that runs."""
import os
import pathlib
import shutil
import subprocess

import pytest
import requests

import conftest
from conftest import ROOT, Daemon, binary


BUILT_HERE = pathlib.Path(binary()).parent.parent == ROOT / "build"


def make(*arguments):
    variant = pathlib.Path(binary()).parent.name  # the build under test, which is there
    done = subprocess.run(["make", "-s", "-C", str(ROOT), f"VARIANT={variant}", *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not shutil.which("make") or not BUILT_HERE,
                    reason="skip: installation (the program under test is no build of this tree)")
def test_install_and_uninstall(tmp_path, monkeypatch):
    prefix = tmp_path / "usr"
    make("install", f"PREFIX={prefix}")
    unit = (prefix / "lib" / "systemd" / "system" / "steerd.service").read_text()
    assert f"ExecStart={prefix}/bin/steerd serve" in unit and "@" not in unit.replace("@system-service", "").replace(
        "@privileged", "").replace("@resources", "")
    assert all(os.stat(path).st_mode & 0o044 == 0o044 for path in prefix.rglob("*")), "everybody may read it"
    monkeypatch.setattr(conftest, "binary", lambda: str(prefix / "bin" / "steerd"))
    one = Daemon()  # its own folder is no part of the tree: what it finds came with the installation
    try:
        assert requests.get(one.url + "/models", timeout=60).json()["models"][0]["id"] == "demo"
        assert requests.get(one.url + "/static/app.js", timeout=60).status_code == 200
        known = requests.get(one.url + "/feature/demo/2-res-demo/1890", timeout=60).json()
        assert known["explanations"], "the demo's statistics came along"
    finally:
        one.finish()
    make("uninstall", f"PREFIX={prefix}")
    assert [path for path in prefix.rglob("*") if path.is_file()] == []


@pytest.mark.skipif(not shutil.which("make") or not shutil.which("dpkg-shlibdeps") or not BUILT_HERE,
                    reason="skip: the Debian package (apt-get install dpkg-dev, and a build of this tree)")
def test_debian_package(tmp_path):
    package = ROOT / make("deb").splitlines()[-1]
    subprocess.run(["dpkg-deb", "-R", package, tmp_path], check=True)
    control = (tmp_path / "DEBIAN" / "control").read_text()
    assert "libmicrohttpd12" in control and "\nMaintainer: " in control
    for script in ("postinst", "prerm", "postrm"):
        subprocess.run(["sh", "-n", tmp_path / "DEBIAN" / script], check=True)
    assert (tmp_path / "DEBIAN" / "conffiles").read_text() == "/etc/steerd/steerd.ini\n"
    assert (tmp_path / "etc" / "steerd" / "steerd.ini").read_text() == (ROOT / "config" / "steerd.ini").read_text()
    assert "ExecStart=/usr/bin/steerd serve" in (tmp_path / "usr/lib/systemd/system/steerd.service").read_text()
    inspected = subprocess.run([tmp_path / "usr/bin/steerd", "inspect", tmp_path / "usr/share/steerd/demo"], capture_output=True, text=True)
    assert inspected.returncode == 0 and "gpt2" in inspected.stdout, inspected.stderr
    assert not list(tmp_path.rglob("training")) and not list(tmp_path.rglob("__pycache__"))
