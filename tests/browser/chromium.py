"""What the browser tests share beside their fixtures: the daemon and the files of tests/http, and the window's size and colours."""
import importlib.util
import pathlib

HTTP = pathlib.Path(__file__).resolve().parents[1] / "http"


def load(name, file):
    spec = importlib.util.spec_from_file_location(name, HTTP / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


steerd_http = load("steerd_http", "conftest.py")
tensors = load("steerd_tensors", "tensors.py")


def resize(driver, width, height):
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})


def paint(driver, scheme):
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
