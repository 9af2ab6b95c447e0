"""What the browser tests share beside their fixtures: the daemon of tests/http, and the window's size and colours."""
import importlib.util
import pathlib

HTTP = pathlib.Path(__file__).resolve().parents[1] / "http" / "conftest.py"
spec = importlib.util.spec_from_file_location("steerd_http", HTTP)
steerd_http = importlib.util.module_from_spec(spec)
spec.loader.exec_module(steerd_http)


def resize(driver, width, height):
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False})


def paint(driver, scheme):
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
