"""The map of a source, in a real browser: drawn, zoomed, dragged, pointed at, walked over, searched, in both schemes, and offered as a job."""
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


def zoomed(driver):
    """How large it is drawn, as the control says."""
    return float(text_of(driver, ".zoom button:last-child").rstrip("×"))


def middle_of(driver, selector):
    """In CSS pixels of the window."""
    return driver.execute_script("const b = document.querySelector(arguments[0]).getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]", selector)


def a_point(driver):
    """Chooses the point that is nearest to the middle of the map, with the keys: what is said of it."""
    host = find(driver, ".map")
    middle = middle_of(driver, ".map")
    host.send_keys(Keys.ARROW_RIGHT)
    for _ in range(40):
        x, y = (here - there for here, there in zip(middle, middle_of(driver, ".map .here")))
        if max(abs(x), abs(y)) < 60:
            break
        host.send_keys((Keys.ARROW_RIGHT if x > 0 else Keys.ARROW_LEFT) if abs(x) > abs(y) else (Keys.ARROW_DOWN if y > 0 else Keys.ARROW_UP))
    return text_of(driver, "#tip")


def tip(driver):
    """What is said of the point that is pointed at; None of none."""
    return text_of(driver, "#tip") if find(driver, "#tip").is_displayed() else None


def hover(driver, x, y):
    driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})


def test_zoom_by_keys_and_control(browser, told):
    open_page(browser, f"{told.url}/{MODEL}/{SOURCE}/map")
    wait(browser, lambda: count(browser, ".map canvas") == 1 and ink(browser)[0] > 0)
    whole = find(browser, ".zoom button:last-child")
    assert zoomed(browser) == 1 and not whole.is_enabled()
    said, host = a_point(browser), find(browser, ".map")
    before = middle_of(browser, ".map .here")
    host.send_keys("++++")
    wait(browser, lambda: zoomed(browser) == 5.1)  # 1.5 to the fourth
    assert tip(browser) == said
    assert middle_of(browser, ".map .here") == pytest.approx(before, abs=1)  # a key zooms about the point it is at
    host.send_keys("-")
    wait(browser, lambda: zoomed(browser) == 3.4)
    # Points that are out of sight come into it.
    for _ in range(12):
        host.send_keys(Keys.ARROW_LEFT)
    box, (x, y) = host.rect, middle_of(browser, ".map .here")
    assert find(browser, ".map .here").is_displayed() and box["x"] <= x <= box["x"] + box["width"] and box["y"] <= y <= box["y"] + box["height"]
    host.send_keys("0")
    wait(browser, lambda: zoomed(browser) == 1 and not whole.is_enabled())
    find(browser, ".zoom button").click()
    wait(browser, lambda: zoomed(browser) == 1.5 and whole.is_enabled())
    whole.click()
    wait(browser, lambda: zoomed(browser) == 1)


def test_zoom_by_wheel_and_drag(browser, told):
    resize(browser, 1000, 500)  # a page that is longer than its window
    open_page(browser, f"{told.url}/{MODEL}/{SOURCE}/map")
    wait(browser, lambda: count(browser, ".map canvas") == 1 and ink(browser)[0] > 0)
    said = a_point(browser)
    x, y = middle_of(browser, ".map .here")
    find(browser, ".map").send_keys(Keys.ESCAPE)
    scrolled = browser.execute_script("return scrollY")
    wheel = lambda by: browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseWheel", "x": x, "y": y, "deltaX": 0, "deltaY": by})
    for _ in range(4):
        wheel(-300)
    wait(browser, lambda: zoomed(browser) > 5)
    assert browser.execute_script("return scrollY") == scrolled
    wait(browser, lambda: tip(browser) == said)  # what is under the pointer stays there
    mouse = lambda kind, dx, dy: browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind, "x": x + dx, "y": y + dy, "button": "left", "buttons": 1, "clickCount": 1})
    at = middle_of(browser, ".map .here")
    assert abs(at[0] - x) < 15 and abs(at[1] - y) < 15
    mouse("mousePressed", 0, 0)
    for step in range(1, 5):
        mouse("mouseMoved", 12 * step, -8 * step)
    mouse("mouseReleased", 48, -32)
    assert browser.current_url.endswith("/map")  # no press
    hover(browser, at[0] + 48, at[1] - 32)
    wait(browser, lambda: tip(browser) == said)
    assert middle_of(browser, ".map .here") == pytest.approx([at[0] + 48, at[1] - 32], abs=1.5)
    # Out again, and once all is seen the wheel is the page's.
    for _ in range(12):
        wheel(300)
    wait(browser, lambda: zoomed(browser) == 1 and browser.execute_script("return scrollY") > scrolled)


def test_fingers(browser, told):
    open_page(browser, f"{told.url}/{MODEL}/{SOURCE}/map")
    wait(browser, lambda: count(browser, ".map canvas") == 1 and ink(browser)[0] > 0)
    said = a_point(browser)
    x, y = middle_of(browser, ".map .here")
    find(browser, ".map").send_keys(Keys.ESCAPE)
    touch = lambda kind, *places: browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": a, "y": b, "id": i} for i, (a, b) in enumerate(places)]})
    touch("touchStart", (x - 30, y), (x + 30, y))
    for apart in range(40, 121, 10):
        touch("touchMove", (x - apart, y), (x + apart, y))
    touch("touchEnd")
    wait(browser, lambda: zoomed(browser) == 4)  # 240 pixels apart that were 60
    touch("touchStart", (x, y))
    touch("touchEnd")
    wait(browser, lambda: tip(browser) == said)  # a first touch says what is there
    assert browser.current_url.endswith("/map")
    touch("touchStart", (x, y))
    touch("touchEnd")
    wait(browser, lambda: browser.current_url.endswith(f"/{SOURCE}/{said.split()[1]}"))


def test_from_a_feature_to_its_place(browser, told):
    open_page(browser, f"{told.url}/{MODEL}/{SOURCE}/5")
    browser.find_element(By.LINK_TEXT, "Where it is on the map").click()
    wait(browser, lambda: "feature 5\nthe sea" in text_of(browser, "#tip"))
    assert browser.current_url.endswith("/map#5") and zoomed(browser) == 4 and find(browser, ".map .here").is_displayed()


# Points of a view of its own: what is found by squares is what a look at all of them finds.
MANY = """
const done = arguments[arguments.length - 1];
import('/static/mapview.js').then(async ({ mapView, squares }) => {
  let seed = 1;
  const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
  const points = Array.from({ length: 24576 }, (_, i) => ({ index: i, x: 20 * random() + 10 * random(), y: 30 * random() ** 2 }));
  const view = mapView(points, { label: 'many', wordsOf: (p) => `point ${p.index}`, open: () => {} });
  document.querySelector('main').replaceChildren(view.node);
  const colours = ['#113355', '#aa2244', '#22aa66'];
  view.repaint({ colour: (p) => colours[p.index % 3], found: null });
  const frame = () => new Promise((tell) => requestAnimationFrame((began) => setTimeout(() => tell(performance.now() - began))));
  await frame();
  await frame();
  const host = document.querySelector('.map'), box = host.getBoundingClientRect(), near = squares(points, box.width, box.height);
  let wrong = 0;
  for (let i = 0; i < 300; i++) {
    const [x, y, most] = [box.width * random() * 1.1, box.height * random() * 1.1, 1 + 20 * random()];
    const all = points.reduce(([d, best], p) => { const e = Math.hypot(p.bx - x, p.by - y); return e < d ? [e, p] : [d, best]; }, [most, null]);
    if (near(x, y, most) !== all[1]) wrong++;
  }
  done([wrong, points.length]);
});
"""


def test_tens_of_thousands(browser, told):
    open_page(browser, f"{told.url}/{MODEL}/{SOURCE}/map")
    wait(browser, lambda: count(browser, ".map canvas") == 1)
    assert browser.execute_async_script(MANY) == [0, 24576]
    wait(browser, lambda: ink(browser)[0] > 2 * 24576 and ink(browser)[1] >= 3)
    find(browser, ".map").send_keys(Keys.ARROW_RIGHT, "+" * 9)
    wait(browser, lambda: zoomed(browser) == 38 and ink(browser)[0] > 100)
    assert text_of(browser, "#tip") == "point 0"


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
        browser.find_element(By.LINK_TEXT, "Look at the map").click()
        wait(browser, lambda: count(browser, ".map canvas") == 1 and ink(browser)[0] > 4200)
    finally:
        one.finish()
