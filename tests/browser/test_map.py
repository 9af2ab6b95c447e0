"""The map of a source, in a real browser: drawn, pointed at, walked over, searched, in both schemes, and offered as a job."""
import numpy as np
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from chromium import paint, resize, steerd_http, tensors
from page import MODEL, SOURCE, button, count, find, has, open_page, text_of, wait

HOSTILE = "<img src=x onerror=\"document.title='owned'\">evil"

# Pixels that are not the ground, of each scheme; and how many colours they have.
INK = """
const c = document.querySelector('.map canvas'), copy = document.createElement('canvas'), read = copy.getContext('2d', { willReadFrequently: true });
[copy.width, copy.height] = [c.width, c.height];
read.drawImage(c, 0, 0);
const d = read.getImageData(0, 0, c.width, c.height).data;
let ink = 0; const colours = new Set();
for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 0) { ink++; if (d[i + 3] > 200) colours.add(`${d[i] >> 5},${d[i + 1] >> 5},${d[i + 2] >> 5}`); }
return [ink, colours.size];
"""


@pytest.fixture(scope="module")
def told(bare):
    """Some features that somebody has explained."""
    for index, words in ((3, "ships at sea"), (5, "the sea"), (9, HOSTILE)):
        reply = bare.post("/api/explanation/new", {"modelId": MODEL, "layer": SOURCE, "index": index, "description": words})
        assert reply.status_code == 200, reply.text
    return bare


def ink(driver):
    return driver.execute_script(INK)


def test_drawn(browser, told):
    open_page(browser, f"{told.url}/{MODEL}/{SOURCE}")
    browser.find_element(By.LINK_TEXT, "The map").click()
    wait(browser, lambda: count(browser, ".map canvas") == 1 and ink(browser)[0] > 0)
    assert text_of(browser, "h1") == f"Map of {SOURCE}" and "96" in text_of(browser)
    light = ink(browser)
    assert light[0] > 96 * 10 and light[1] > 3
    paint(browser, "dark")
    wait(browser, lambda: ink(browser)[0] > 0)
    resize(browser, 400, 800)
    wait(browser, lambda: find(browser, ".map").size["width"] < 400 and ink(browser)[0] > 96)
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_pointer_and_keys(browser, told):
    open_page(browser, f"{told.url}/{MODEL}/{SOURCE}/map")
    wait(browser, lambda: count(browser, ".map canvas") == 1)
    host = find(browser, ".map")
    host.send_keys(Keys.ARROW_RIGHT)
    assert "feature 0" in text_of(browser, "#tip") and not find(browser, ".map .here").get_attribute("hidden")
    left = find(browser, ".map .here").location["x"]
    host.send_keys(Keys.ARROW_RIGHT)
    second = text_of(browser, "#tip")
    assert "feature 0" not in second and find(browser, ".map .here").location["x"] > left
    # The pointer, at the place of that point, finds the same one.
    mark, box = find(browser, ".map .here").rect, host.rect
    host.send_keys(Keys.ESCAPE)
    assert not find(browser, "#tip").is_displayed()
    dx, dy = mark["x"] + mark["width"] / 2 - box["x"] - box["width"] / 2, mark["y"] + mark["height"] / 2 - box["y"] - box["height"] / 2
    ActionChains(browser).move_to_element_with_offset(host, round(dx), round(dy)).perform()
    wait(browser, lambda: text_of(browser, "#tip") == second)
    ActionChains(browser).click().perform()
    index = second.split()[1]
    wait(browser, lambda: browser.current_url.endswith(f"/{SOURCE}/{index}"))


def test_search(browser, told):
    open_page(browser, f"{told.url}/{MODEL}/{SOURCE}/map")
    wait(browser, lambda: count(browser, ".map canvas") == 1)
    box = find(browser, "input[type=search]")
    box.send_keys("sea")
    has(browser, "2 found")
    assert sorted(a.text for a in browser.find_elements(By.CSS_SELECTOR, "ul.list a")) == ["3", "5"]
    box.send_keys(" ships")
    has(browser, "1 found")
    find(browser, ".map").send_keys(Keys.ARROW_RIGHT)
    assert "ships at sea" in text_of(browser, "#tip")
    box.clear()
    box.send_keys("evil")
    has(browser, HOSTILE)
    box.clear()
    box.send_keys("nobody says this")
    has(browser, "No explanation has these words")
    assert browser.title != "owned"


@pytest.mark.allow_errors("404")
def test_a_large_one_is_a_job(browser, told, tmp_path):
    folder = tmp_path / "1-large"
    folder.mkdir()
    rows = np.random.default_rng(1).normal(size=(4200, 48)).astype(np.float32)
    tensors.write_tensors(folder / "sae_weights.safetensors", {"W_enc": rows.T.copy(), "b_enc": np.zeros(4200, np.float32), "W_dec": rows, "b_dec": np.zeros(48, np.float32)})
    about = (steerd_http.VECTORS / MODEL / "sources" / SOURCE / "cfg.json").read_text().replace('"d_sae": 96', '"d_sae": 4200')
    (folder / "cfg.json").write_text(about.replace(f"{MODEL}/{SOURCE}", f"{MODEL}/1-large"))
    one = steerd_http.Daemon(["--model", f"{MODEL}={steerd_http.VECTORS / MODEL / 'model'}", "--source", f"{MODEL}/1-large={folder}"])
    try:
        open_page(browser, f"{one.url}/{MODEL}/1-large/map")
        has(browser, "There is no map of this source yet")
        button(browser, "Make it").click()
        wait(browser, lambda: browser.current_url.endswith("/jobs"))
        wait(browser, lambda: "map 1" in text_of(browser) and "done" in text_of(browser), 120)
        open_page(browser, f"{one.url}/{MODEL}/1-large/map")
        wait(browser, lambda: count(browser, ".map canvas") == 1 and ink(browser)[0] > 4200)
    finally:
        one.finish()
