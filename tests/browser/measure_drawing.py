"""How soon a page stands: python3 tests/browser/measure_drawing.py [URL] [LOADS], by default the demo in a daemon of its own.

Each page is opened LOADS times in one headless Chromium, its files in the browser's cache after the first time. From the start of the
navigation, by the browser's own clock (performance.now, performance.timing): the first byte of the page, the first contentful
paint, the frame in which the page's heading stands, and the frame in which nothing in it is loading any more. A frame is counted when
the browser has drawn it (two animation frames on, so 17 to 33 ms after the page was ready). "own work" is what the page's scripts, styles
and layout took of all that, by the browser's count. The first line is a page of one line of JSON: the browser's own share."""
import math
import sys

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

from chromium import resize, steerd_http

PAGES = ["/version", "/", "/demo", "/demo/2-res-demo", "/demo/2-res-demo/{}", "/steer", "/inspect", "/lab", "/jobs"]
WATCH = """
  window.marks = {};
  const mark = (name) => requestAnimationFrame(() => requestAnimationFrame(() => { window.marks[name] ??= performance.now(); }));
  const look = () => {
    if (!document.querySelector('main h1')) return;
    if (!window.seen) { window.seen = true; mark('heading'); }
    if (!document.querySelector('.state.wait') && !window.still) { window.still = true; mark('whole'); }
  };
  new MutationObserver(look).observe(document, { childList: true, subtree: true });
"""
READ = """
  const paint = performance.getEntriesByName('first-contentful-paint')[0], navigation = performance.getEntriesByType('navigation')[0];
  if (paint && document.contentType === 'application/json') return [navigation.responseStart, paint.startTime, NaN, NaN];
  return paint && window.marks.whole ? [navigation.responseStart, paint.startTime, window.marks.heading, window.marks.whole] : null;
"""


def chromium():
    options = Options()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    resize(driver, 1280, 900)
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
    driver.execute_cdp_cmd("Performance.enable", {})
    return driver


WORK = ("ScriptDuration", "LayoutDuration", "RecalcStyleDuration", "V8CompileDuration")


def measure(driver, url):
    driver.get(url)
    marks = WebDriverWait(driver, 30, poll_frequency=0.02).until(lambda one: one.execute_script(READ))
    counts = {one["name"]: one["value"] for one in driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]}
    return [float("nan") if mark is None else mark for mark in marks] + [1000 * sum(counts[name] for name in WORK)]


def main():
    loads = int(sys.argv[2]) if len(sys.argv) > 2 else 30
    own = None if len(sys.argv) > 1 else steerd_http.Daemon([])
    base = sys.argv[1].rstrip("/") if len(sys.argv) > 1 else own.url
    driver = chromium()
    try:
        print(f"{loads} loads; median and 95th percentile in ms\n{'page':<24}{'first byte':>14}{'first paint':>14}{'heading':>14}{'whole page':>14}{'own work':>14}")
        for page in PAGES:
            measure(driver, base + page.format(0))
            rows = [measure(driver, base + page.format(1 + i)) for i in range(loads)]  # another feature each time: none is kept
            columns = [sorted(column) for column in zip(*rows)]
            cells = ["" if math.isnan(c[0]) else f"{c[len(c) // 2]:.0f} / {c[min(len(c) - 1, int(len(c) * 0.95))]:.0f}" for c in columns]
            print(f"{page.format('N'):<24}" + "".join(f"{cell:>14}" for cell in cells), flush=True)
    finally:
        driver.quit()
        if own:
            own.finish()


if __name__ == "__main__":
    main()
