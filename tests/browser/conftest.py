"""Headless Chromium on the dashboard. Needs Debian's chromium, chromium-driver and python3-selenium; without them every
test of this folder is skipped by name.

`site` is a daemon with the stand-in of archive.py before it (a full store); `bare` is the daemon itself. After each test the
browser's logs are judged: no error on the console, and no request to anywhere but the page's own origin.
"""
import json
import os
import pathlib
import shutil

import pytest

import archive
from chromium import paint, resize, steerd_http

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
try:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service
    MISSING = None if CHROMIUM and DRIVER else "chromium and chromium-driver"
except ImportError:
    MISSING = "python3-selenium"

ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-proxy-server",
             "--force-device-scale-factor=1"]


@pytest.fixture(scope="session")
def chromium():
    if MISSING:
        pytest.skip(f"skip: the dashboard in a browser (install {MISSING})")
    options = Options()
    options.binary_location = CHROMIUM
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def bare():
    one = steerd_http.Daemon(steerd_http.model_options())
    kept = [one.post("/api/vector/new", {"modelId": steerd_http.MODEL, "layerNumber": layer, "hookType": "hook_resid_post", "vectorLabel": "kept for long",
                                         "vectorDefaultSteerStrength": 1.5, "vector": [(c + layer) % 7 - 3 for c in range(48)]}).json() for layer in (1, 2)]
    one.vector = kept[0]["vector"]["index"]  # the page of it is one of those that are looked at
    yield one
    one.finish()


@pytest.fixture(scope="session")
def site(bare):
    one = archive.Archive(bare.url, pace=0.05)
    yield one.url
    one.close()


@pytest.fixture(scope="session")
def demo():
    """A daemon with the demo model, which writes slowly enough to be watched. Skipped by name where it is not there."""
    data = pathlib.Path(os.environ.get("STEERD_DATA", steerd_http.ROOT.parent / "shared" / "data"))
    folder = next((path for path in (steerd_http.ROOT / "config" / "demo", data / "models" / "demo-candidate") if (path / "config.json").exists()), None)
    if not folder:
        pytest.skip("skip: the demo model (set STEERD_DATA)")
    one = steerd_http.Daemon(["--model", f"demo={folder}", "--source", f"demo/2-res-demo={folder / 'sources' / '2-res-demo'}"])
    yield one
    one.finish()


def requested(driver):
    """Addresses of all requests since the last look."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


@pytest.fixture
def browser(chromium, request):
    """A fresh page. Mark a test with allow_errors("501") where the console must name such failures."""
    allowed = [word for mark in request.node.iter_markers("allow_errors") for word in mark.args]
    chromium.get("about:blank")
    chromium.get_log("browser")
    requested(chromium)
    resize(chromium, 1440, 900)
    paint(chromium, "light")
    yield chromium
    errors = [entry["message"] for entry in chromium.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    errors = [text for text in errors if not any(word in text for word in allowed)]
    assert not errors, errors
    away = [url for url in requested(chromium) if not url.startswith(("http://127.0.0.1:", "http://localhost:", "about:", "data:"))]
    assert not away, away


def pytest_configure(config):
    config.addinivalue_line("markers", "allow_errors(word...): console messages with these words are expected")
