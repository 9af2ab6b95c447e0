"""What a reader does with the dashboard, in a real browser. Run beside tests/http: python3 -m pytest tests/browser"""
import hashlib
import http.server
import json
import shutil
import threading
import urllib.parse

import pytest

from chromium import paint, resize, steerd_http
from page import MODEL, SOURCE, button, count, find, has, open_page, settled, text_of, wait
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

PAGES = ["/", f"/{MODEL}", f"/{MODEL}/{SOURCE}", f"/{MODEL}/{SOURCE}/12", f"/{MODEL}/{SOURCE}/map", f"/{MODEL}/1", f"/{MODEL}/1/17", f"/{MODEL}/1-neuronpedia-resid-post/VECTOR", "/steer", "/inspect", "/lab", "/direction", "/graph", "/list", "/jobs"]
SWITCHES = "embed=true&embedexplanation=true&embedplots=true&embedtest=true&height=300"
OWN_ELEMENTS = set("a button code dd details div dl dt figcaption figure form g h1 h2 h3 input label legend li nav ol option p path pre "
                   "rect section select small span summary svg textarea ul fieldset i".split())
WEIGHT_MOST = 200_000  # bytes, uncompressed, of a page with its scripts and styles


@pytest.fixture
def path(request, bare):
    """The number of a kept vector is the server's choice: it takes the place of VECTOR."""
    return request.param.replace("VECTOR", bare.vector)


# ---- every page -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES, indirect=True)
def test_page_opens_fits_and_is_light(browser, site, path):
    open_page(browser, site + path)
    assert count(browser, "h1") == 1 and browser.title.endswith("steerd")
    assert "did not work" not in text_of(browser) and "Not on this server" not in text_of(browser)
    sizes = browser.execute_script("return [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
                                   ".filter((e) => e.initiatorType !== 'fetch').map((e) => [e.name, e.decodedBodySize])")
    assert sum(size for _, size in sizes) < WEIGHT_MOST, sizes
    assert all(urllib.parse.urlsplit(name).netloc == urllib.parse.urlsplit(site).netloc for name, _ in sizes), sizes


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES, indirect=True)
def test_no_sideways_scroll_on_a_phone(browser, site, path, scheme):
    resize(browser, 360, 740)
    paint(browser, scheme)
    open_page(browser, site + path)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    ground = browser.execute_script("return getComputedStyle(document.documentElement).backgroundColor")
    light = sum(int(part) for part in ground[4:-1].split(",")) > 380
    assert light == (scheme == "light")


@pytest.mark.parametrize("path", PAGES, indirect=True)
def test_everything_has_a_name(browser, site, path):
    open_page(browser, site + path)
    nameless = browser.execute_script("""
        const named = (e) => e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length || e.getAttribute('alt') !== null || e.title;
        return [...document.querySelectorAll('button, a, input, select, textarea, [role=img]')].filter((e) => !named(e)).map((e) => e.outerHTML)""")
    assert not nameless, nameless
    twice = browser.execute_script("const ids = [...document.querySelectorAll('[id]')].map((e) => e.id); return ids.filter((id, i) => ids.indexOf(id) !== i)")
    assert not twice, twice
    assert count(browser, "a[href*=undefined]") == 0
    assert count(browser, "main") == 1 and count(browser, "[style]:not(i):not(.middle):not(#tip)") == 0


@pytest.mark.parametrize("path", PAGES, indirect=True)
def test_every_control_is_reached_by_tab(browser, site, path):
    """Once round by Tab: each stop is on the screen and ringed, and no visible control is left out."""
    open_page(browser, site + path)
    browser.execute_script("""window.stops = new Set();
        window.look = () => { const e = document.activeElement, box = e.getBoundingClientRect(); window.stops.add(e);
          const shown = e.matches('.tabs input') ? e.nextElementSibling : e;
          return [e.tagName, getComputedStyle(shown).outlineStyle !== 'none' && box.width > 0 && box.bottom > 0 && box.top < innerHeight, e.outerHTML.slice(0, 200)]; };""")
    active = browser.switch_to.active_element
    for _ in range(150):
        active.send_keys(Keys.TAB)
        active = browser.switch_to.active_element
        tag, seen, markup = browser.execute_script("return window.look()")
        if tag == "BODY":
            break
        assert seen, markup
    left_out = browser.execute_script("""
        const all = [...document.querySelectorAll('a[href], button, input, select, textarea, summary')];
        const hidden = (e) => e.disabled || !e.checkVisibility({ contentVisibilityAuto: true }) || (e.closest('details:not([open])') && e.tagName !== 'SUMMARY') || (e.type === 'radio' && !e.checked) || e.closest('.grid');
        return all.filter((e) => !hidden(e) && !window.stops.has(e)).map((e) => e.outerHTML.slice(0, 200));""")
    assert not left_out, left_out


def test_neurons_have_pages(browser, site):
    """From the model's page to a layer, to a neuron, to a text that is steered with it."""
    open_page(browser, site + f"/{MODEL}")
    find(browser, f"main a[href='/{MODEL}/1']").click()
    wait(browser, lambda: "Neurons of layer 1" in text_of(browser))
    has(browser, "blocks.1.mlp.hook_post")
    open_page(browser, site + f"/{MODEL}/1/17")
    has(browser, "Neuron 17 of layer 1, at blocks.1.mlp.hook_post")
    has(browser, "Nearest neurons")
    assert "this feature" not in text_of(browser)
    has(browser, "Pushes up")
    wait(browser, lambda: count(browser, "main ul.list a .name") > 0)  # the nearest
    find(browser, "main a.main").click()
    wait(browser, lambda: "1/17" in text_of(browser))


@pytest.mark.allow_errors("404")
@pytest.mark.parametrize("path", ["/nobody", f"/{MODEL}/9-none", f"/{MODEL}/{SOURCE}/99999", "/steer/nothing"])
def test_a_wrong_address_says_so_and_leads_on(browser, site, path):
    browser.get(site + path)
    wait(browser, lambda: count(browser, "main h1") == 1)
    has(browser, "There is nothing here")
    assert count(browser, "main a[href='/']") == 1 and browser.title.startswith("Not found")


def test_a_server_without_store_or_dictionaries(browser):
    """Empty places say what would fill them."""
    options = steerd_http.model_options()
    bare, empty = steerd_http.Daemon(options[:2], store=""), steerd_http.Daemon(options, store="")
    try:
        open_page(browser, bare.url + "/inspect")
        has(browser, "Strongest at")  # the neurons are there
        assert count(browser, "h1") == 1 and text_of(browser, "main select").startswith(f"{MODEL} / 0: neurons")
        open_page(browser, bare.url + "/")
        has(browser, f"--source {MODEL}/SOURCE=PATH")
        open_page(browser, empty.url + "/jobs")
        has(browser, "this server keeps nothing")
        assert "Start" not in [b.text for b in browser.find_elements(By.CSS_SELECTOR, "button")]
        for path in (f"/{MODEL}/{SOURCE}", f"/{MODEL}/{SOURCE}/12"):
            open_page(browser, empty.url + path)
            has(browser, "--store FILE")
    finally:
        bare.finish()
        empty.finish()


def test_theme_button_outlasts_the_page(browser, site):
    open_page(browser, site + "/")
    button(browser, "Dark").click()
    open_page(browser, site + "/inspect")
    assert browser.execute_script("return document.documentElement.dataset.theme") == "dark"
    button(browser, "Light").click()
    browser.execute_script("localStorage.clear()")


# ---- home and source ------------------------------------------------------------------------------------


def test_home_search_and_load(browser, site):
    open_page(browser, site + "/")
    has(browser, "1-res-relu")
    has(browser, "idle")
    find(browser, "input[type=search]").send_keys("flowers" + Keys.ENTER)
    has(browser, "colours of flowers")
    assert count(browser, "mark") > 0
    find(browser, "form[role=search] + div a").click()
    wait(browser, lambda: settled(browser) and "colours of flowers" in text_of(browser, "h1"))


def test_positions_that_statistics_are_of(browser, tmp_path):
    folder = tmp_path / "some"
    shutil.copytree(steerd_http.VECTORS / MODEL / "sources" / SOURCE, folder)
    (folder / "cfg.json").chmod(0o644)
    cfg = json.loads((folder / "cfg.json").read_text())
    cfg["metadata"] |= {"seqpos_slice": [5, -5], "exclude_special_tokens": [0, 3, 7]}
    (folder / "cfg.json").write_text(json.dumps(cfg))
    one = steerd_http.Daemon(steerd_http.model_options() + ["--source", f"{MODEL}/1-some={folder}"])
    try:
        open_page(browser, one.url + f"/{MODEL}/1-some")
        has(browser, "positions [5:-5] of a text, without 3 tokens")
        open_page(browser, one.url + f"/{MODEL}/{SOURCE}")  # it counts all of them, and the row is not there
        has(browser, "Units")
        assert "Statistics over" not in text_of(browser, "main")
    finally:
        one.finish()


def test_search_without_hits_says_so(browser, site):
    open_page(browser, site + "/")
    find(browser, "input[type=search]").send_keys("zebra" + Keys.ENTER)
    has(browser, "No explanation holds these words")


def test_random_feature(browser, site):
    open_page(browser, site + f"/{MODEL}/{SOURCE}")
    button(browser, "A random feature").click()
    wait(browser, lambda: browser.current_url.endswith(f"/{SOURCE}/7"))


def test_table_sorts_and_pages(browser, site):
    open_page(browser, site + f"/{MODEL}/{SOURCE}")
    column = lambda n: [row.text for row in browser.find_elements(By.CSS_SELECTOR, f"tbody td:nth-child({n})")]
    assert column(1)[:3] == ["0", "1", "2"]
    button(browser, "Max").click()
    wait(browser, lambda: count(browser, "th[aria-sort=descending]") == 1 and count(browser, "tbody tr") > 0)
    largest = [float(value) for value in column(3)]
    assert largest == sorted(largest, reverse=True)
    button(browser, "Next").click()
    has(browser, "26 to 50 of 96")
    assert float(column(3)[0]) <= largest[-1]


def test_text_turns_features_on(browser, site):
    open_page(browser, site + f"/{MODEL}/{SOURCE}")
    find(browser, "textarea").send_keys("Hello there" + Keys.ENTER)
    wait(browser, lambda: count(browser, "section .tokens .tok") > 0)


# ---- a feature ------------------------------------------------------------------------------------------


def test_words_are_moved_by_features(browser, demo):
    """Features that raise words, and those whose logits lean, as the API tells them."""
    open_page(browser, f"{demo.url}/demo/2-res-demo")
    button(browser, "Find features").click()
    has(browser, "No words yet.")
    find(browser, "input[placeholder^='girl']").send_keys("girl, Lily" + Keys.ENTER)
    wait(browser, lambda: "2 tokens: girl, Lily." in text_of(browser))
    told = demo.post("/v1/lab/dictionaries/demo/2-res-demo/enrichment", {"sets": [{"name": "x", "words": ["girl", "Lily"]}], "topK": 12, "end": "top"}).json()
    card = next(c for c in browser.find_elements(By.CSS_SELECTOR, "section.card") if "What moves words" in c.text)
    assert [a.text for a in card.find_elements(By.CSS_SELECTOR, "a.name")] == [str(top["index"]) for top in told["sets"][0]["top"]]
    button(browser, "Show the most skewed").click()
    wait(browser, lambda: "Kurtosis: how much of it" in text_of(browser))
    rows = demo.get("/v1/lab/dictionaries/demo/2-res-demo/logit-stats?order=skewness&descending=true&limit=12").json()["rows"]
    table = next(t for t in browser.find_elements(By.CSS_SELECTOR, "table") if "Skewness" in t.text)
    assert [a.text for a in table.find_elements(By.CSS_SELECTOR, "a.name")] == [str(row["index"]) for row in rows]


def test_feature_shows_everything(browser, site):
    open_page(browser, site + f"/{MODEL}/{SOURCE}/12")
    for words in ("quotation marks after said", "Fires on", "Pushes up", "Pushes down", "Nearest features", "Examples", "Test"):
        assert words in text_of(browser), words
    assert count(browser, "svg.chart[role=img][aria-label]") == 2
    assert count(browser, ".example") == 12


def test_hostile_tokens_stay_text(browser, site):
    open_page(browser, site + f"/{MODEL}/{SOURCE}/12")
    browser.execute_script("document.querySelector('.tabs input[value=expanded]').click()")
    has(browser, "<img src=x")
    has(browser, "</script><script>")
    made = set(browser.execute_script("return [...document.querySelectorAll('main *')].map((e) => e.localName)"))
    assert made <= OWN_ELEMENTS, made - OWN_ELEMENTS
    assert "owned" not in browser.title
    assert "\u202e" not in text_of(browser) and "\\x00" in text_of(browser)


def test_example_views_and_intervals(browser, site):
    open_page(browser, site + f"/{MODEL}/{SOURCE}/12")
    assert count(browser, ".tokens.compact") == 12
    browser.execute_script("document.querySelector('.tabs input[value=stacked]').click()")
    wait(browser, lambda: count(browser, ".tokens.stacked .tok small") > 100)
    chosen = find(browser, "select[aria-label='Interval of activations']")
    options = [option.text for option in chosen.find_elements(By.TAG_NAME, "option")]
    assert options[0] == "Strongest" and options[-1] == "Every interval" and len(options) > 4
    chosen.send_keys(options[1])
    wait(browser, lambda: 0 < count(browser, ".example") < 12)
    has(browser, options[1])
    low, high = (float(word) for word in options[2].split(" to "))
    chosen.find_elements(By.TAG_NAME, "option")[2].click()
    wait(browser, lambda: options[2] in text_of(browser, ".card h3.soft"))
    shown = [float(one.text) for one in browser.find_elements(By.CSS_SELECTOR, ".example > .number")]
    assert shown and all(low <= value <= high for value in shown), (low, shown, high)  # of the marked token, not of the text


def test_values_show_on_hover_and_by_arrows(browser, site):
    open_page(browser, site + f"/{MODEL}/{SOURCE}/12")
    line = find(browser, ".example .tokens")
    line.send_keys(Keys.ARROW_RIGHT)
    wait(browser, lambda: find(browser, "#tip").is_displayed())
    first = text_of(browser, "#tip")
    line.send_keys(Keys.ARROW_RIGHT)
    assert text_of(browser, "#tip") != first and text_of(browser, "#said")
    browser.execute_script("document.querySelector('.example .tok:last-of-type').dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))")
    assert "\n" in find(browser, "#tip").get_attribute("textContent")


def test_test_box_reads_with_the_engine(browser, site):
    open_page(browser, site + f"/{MODEL}/{SOURCE}/3")
    find(browser, "input[aria-label^='Text to try']").send_keys("Hello there")
    # what it says depends on the tiny model
    wait(browser, lambda: "Strongest: " in text_of(browser) or "does not fire on this text" in text_of(browser))
    assert count(browser, ".tokens:not(.compact) .tok[data-v]") > 2, "every token of the text has its value"


def test_explanation_is_written_and_deleted(browser, site):
    open_page(browser, site + f"/{MODEL}/{SOURCE}/14")
    button(browser, "Write one").click()
    find(browser, "section textarea").send_keys("mine <b>alone</b>")
    button(browser, "Save").click()
    wait(browser, lambda: "mine <b>alone</b>" == text_of(browser, "h1"))
    button(browser, "Delete").click()
    wait(browser, lambda: text_of(browser, "h1") == "Feature 14")


def test_unknown_addresses_get_a_page_that_says_so(chromium, bare):
    for path, words in ((f"/{MODEL}/{SOURCE}/96", "no feature 96"), (f"/{MODEL}/9-none", "no source '9-none'"), ("/nobody", "nobody")):
        open_page(chromium, bare.url + path)
        has(chromium, words)


@pytest.mark.parametrize("width, height", [(1200, 300), (800, 600), (360, 300)])
def test_embedded_form(browser, site, width, height):
    resize(browser, width, height)
    open_page(browser, f"{site}/{MODEL}/{SOURCE}/12?{SWITCHES}")
    assert not find(browser, "#top").is_displayed()
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    for selector in ("h1", "svg.chart", "input"):
        assert find(browser, selector).is_displayed(), selector
        if width > 640:
            assert find(browser, selector).location["y"] < 300, f"{selector} is seen at once"
    assert browser.execute_script("return document.activeElement === document.body"), "a frame does not take the focus"
    assert browser.execute_script("return document.cookie") == ""


def test_embed_switches_and_given_text(browser, site):
    open_page(browser, f"{site}/{MODEL}/{SOURCE}/12?embed=true&embedplots=false&embedactivations=false&embedlink=false&embedsteer=false"
                       f"&embedexplanation=false&defaulttesttext={urllib.parse.quote('Hello there')}")
    assert text_of(browser, "h1") == "Feature 12" and count(browser, "svg, .example, main a") == 0
    wait(browser, lambda: count(browser, ".tokens") == 1)


def test_ten_frames_in_a_notebook(browser, site):
    """A page of another port, as a notebook is, holds ten frames; all are drawn soon."""
    frames = "<!doctype html><link rel=icon href='data:,'>" + "".join(f"<iframe width=1200 height=300 src='{site}/{MODEL}/{SOURCE}/{i}?{SWITCHES}'></iframe>" for i in range(10))

    class Notebook(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(frames.encode())

        def log_message(self, *_):
            pass

    notebook = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Notebook)
    threading.Thread(target=notebook.serve_forever, daemon=True).start()
    browser.get(f"http://localhost:{notebook.server_address[1]}/")

    def drawn():
        done = 0
        for frame in browser.find_elements(By.TAG_NAME, "iframe"):
            browser.switch_to.frame(frame)
            done += count(browser, "main h1")
            browser.switch_to.default_content()
        return done == 10

    wait(browser, drawn)
    browser.get("about:blank")
    notebook.shutdown()
    notebook.server_close()


def test_whole_pages_cannot_be_framed(bare):
    policy = lambda path: bare.get(path, headers={"Accept": "text/html"}).headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy(f"/{MODEL}/{SOURCE}/12")
    assert "frame-ancestors 'none'" in policy("/steer")
    embedded = policy(f"/{MODEL}/{SOURCE}/12?embed=true")
    assert "http://localhost:*" in embedded and "vscode-webview:" in embedded and "'unsafe" not in embedded


# ---- steer ----------------------------------------------------------------------------------------------

GROWTH = """
window.grown = [];
new MutationObserver(() => { const t = document.querySelector('.steered .text').textContent; 
  if (t !== grown.at(-1)) grown.push(t);
  if (grown.length === window.stopAt) [...document.querySelectorAll('button')].find((b) => b.textContent === 'Stop').click(); })
  .observe(document.querySelector('.steered .text'), { childList: true, subtree: true, characterData: true });"""


def steer_page(browser, site, **more):
    values = {"model": MODEL, "feature": f"{SOURCE}/5@30", "prompt": "Hello there", "n_tokens": 40, **more}
    open_page(browser, f"{site}/steer#{urllib.parse.urlencode(values)}")
    browser.execute_script(GROWTH)


def test_steering_streams_side_by_side(browser, site):
    steer_page(browser, site)
    button(browser, "Steer").click()
    has(browser, "Done in")
    grown = browser.execute_script("return grown")
    assert len(grown) > 10, "the text grows token by token"
    assert all(b.startswith(a) or a.startswith("Press") for a, b in zip(grown, grown[1:]))
    plain, steered = text_of(browser, ".plain .text"), text_of(browser, ".steered .text")
    assert plain.startswith("Hello there") and steered.startswith("Hello there") and plain != steered
    assert count(browser, "[role=log][aria-live=polite] p") > 0
    assert count(browser, ".steered .given") == 1 and count(browser, ".steered .other") == 1


@pytest.mark.allow_errors("501")
def test_real_model_streams_and_stops(browser, demo):
    """The engine itself: its events arrive one by one, and stopping ends its work."""
    steer_page(browser, demo.url, model="demo", feature="2-res-demo/1992@20", n_tokens=200)
    browser.execute_script("window.stopAt = 8")  # from inside the page: a busy machine must not come too late
    button(browser, "Steer").click()
    has(browser, "Stopped after")
    wait(browser, lambda: "steerd_sessions_running 0" in demo.get("/metrics").text)
    button(browser, "Steer").click()
    has(browser, "Done in")


def test_where_to_start(browser, demo):
    """The front page says what to try first with the demo; a page begins with a dictionary of the stream, not with a transcoder."""
    open_page(browser, demo.url)
    browser.find_element(By.PARTIAL_LINK_TEXT, "Turn up “little girl”").click()
    has(browser, "2-res-demo/1890")
    assert find(browser, "textarea").get_attribute("value") == "One day, the children went to the"
    button(browser, "Steer").click()
    wait(browser, lambda: count(browser, ".steered .other") == 1)  # the feature is pushed: the texts part
    first = "import('/static/api.js').then((api) => arguments[1](api.firstSource({ every: arguments[0].map((kind) => ({ kind })) }).kind))"
    for kinds, wanted in ((["topk transcoder", "topk", "neurons"], "topk"), (["topk transcoder", "neurons"], "topk transcoder"), (["neurons"], "neurons")):
        assert browser.execute_async_script(first, kinds) == wanted


def test_stop(browser, site):
    steer_page(browser, site, n_tokens=120)
    assert not button(browser, "Stop").is_enabled()
    button(browser, "Steer").click()
    wait(browser, lambda: len(browser.execute_script("return grown")) > 4)
    button(browser, "Stop").click()
    has(browser, "Stopped after")
    length = len(text_of(browser, ".steered .text"))
    assert button(browser, "Steer").is_enabled() and length > len("Hello there")
    # nothing comes after it
    browser.execute_async_script("setTimeout(arguments[0], 400)")
    assert len(text_of(browser, ".steered .text")) == length


def test_setup_is_changed_by_hand(browser, site):
    steer_page(browser, site)
    prompt = find(browser, "textarea")
    prompt.clear()
    prompt.send_keys("It's a test")
    find(browser, "input[aria-label^='Feature number']").send_keys("17" + Keys.ENTER)
    wait(browser, lambda: count(browser, ".feature") == 2)
    browser.execute_script("const r = document.querySelectorAll('.feature input[type=range]')[1]; r.value = -20; r.dispatchEvent(new Event('input'))")
    browser.execute_script("document.querySelector('.tabs input[value=ORTHOGONAL_DECOMP]').click()")
    has(browser, "factor")
    code = find(browser, "pre").get_attribute("textContent")
    assert "It'\\''s a test" in code and '"index":17' in code and "ORTHOGONAL_DECOMP" in code
    browser.execute_script("document.querySelector('.tabs input[value=python]').click()")
    python = next(pre.text for pre in browser.find_elements(By.TAG_NAME, "pre") if pre.is_displayed())
    compile(python, "copied", "exec")
    assert "requests.post(" in python
    find(browser, "button[aria-label='Remove 1-res-relu/17']").click()
    wait(browser, lambda: count(browser, ".feature") == 1)


@pytest.mark.parametrize("page", ["/steer", "/inspect", "/lab"])
def test_a_setup_is_followed_by_address_and_back(browser, site, page):
    """A link to a setup that is pasted over another one differs behind # only, and a browser loads nothing anew for that."""
    open_page(browser, site + page + "#" + urllib.parse.urlencode({"prompt": "The first"}))
    wait(browser, lambda: find(browser, "textarea").get_attribute("value") == "The first")
    browser.execute_script("location.hash = 'prompt=The+second'")
    wait(browser, lambda: find(browser, "textarea").get_attribute("value") == "The second")
    browser.back()
    wait(browser, lambda: find(browser, "textarea").get_attribute("value") == "The first")
    browser.execute_script("document.querySelector('.skip').click()")  # '#main' is no setup
    assert find(browser, "textarea").get_attribute("value") == "The first"


def test_a_prompt_is_asked_for(browser, site):
    open_page(browser, site + "/steer")
    prompt = find(browser, "textarea")
    prompt.clear()
    button(browser, "Steer").click()
    assert browser.execute_script("return document.querySelector('textarea').matches(':invalid')")
    assert not text_of(browser, "main [role=alert]") and "Press Steer" in text_of(browser)


@pytest.mark.allow_errors("400")
def test_a_long_prompt_is_not_cut_in_silence(browser, site):
    open_page(browser, site + "/steer#" + urllib.parse.urlencode({"prompt": "a " * 10000}))
    button(browser, "Steer").click()
    has(browser, "found 20000 characters")
    has(browser, "Press Steer")


def test_features_of_the_prompt_are_offered(browser, site):
    steer_page(browser, site, feature=f"{SOURCE}/1@5")
    find(browser, "select[aria-label=Source]").send_keys(SOURCE)
    button(browser, "What does the prompt turn on?").click()
    wait(browser, lambda: count(browser, ".found button") > 0 or "Nothing found" in text_of(browser))


def test_curl_that_is_shown_gives_the_text_that_is_shown(browser, site, bare):
    steer_page(browser, site)
    button(browser, "Steer").click()
    has(browser, "Done in")
    code = find(browser, "pre").get_attribute("textContent")
    body = json.loads(code.split(" -d ")[1].strip("'").replace("'\\''", "'"))
    assert bare.post("/api/steer", body).json()["STEERED"] == find(browser, ".steered .text").get_attribute("textContent")


def test_share_link_is_followed(browser, site):
    steer_page(browser, site)
    button(browser, "Share this result").click()
    wait(browser, lambda: count(browser, "a[href='/steer/abc123']") == 1)
    steered = find(browser, ".steered .text").get_attribute("textContent")
    find(browser, "a[href='/steer/abc123']").click()
    wait(browser, lambda: "A shared result" in text_of(browser, "h1"))
    assert find(browser, ".steered .text").get_attribute("textContent") == steered
    assert find(browser, "textarea").get_attribute("value") == "Hello there" and count(browser, ".feature") == 1


@pytest.mark.allow_errors("400")
def test_refusal_shows_the_servers_words(browser, site):
    steer_page(browser, site, n_tokens=5000)
    button(browser, "Steer").click()
    has(browser, "must be an integer from 1 to 256, found 5000")
    assert count(browser, "[role=alert]") == 1 and button(browser, "Steer").is_enabled()


def test_keyboard_alone_steers(browser, site):
    """From the top of the page by Tab: every stop is visible, the prompt is reached, Ctrl and Enter steers."""
    steer_page(browser, site)
    active = browser.switch_to.active_element
    seen = []
    for _ in range(40):
        active.send_keys(Keys.TAB)
        active = browser.switch_to.active_element
        seen.append(active.tag_name)
        outline = browser.execute_script("const s = getComputedStyle(document.activeElement); return [s.outlineStyle, s.outlineWidth]")
        ringed = browser.execute_script("const e = document.activeElement; const s = e.matches('.tabs input') ? getComputedStyle(e.nextElementSibling) : getComputedStyle(e); return s.outlineStyle !== 'none'")
        assert ringed, (active.tag_name, outline)
        if active.tag_name == "textarea":
            break
    assert seen[0] == "a", "the first stop skips to the content"
    assert "textarea" in seen
    active.send_keys(Keys.CONTROL, Keys.ENTER)
    has(browser, "Done in")


# ---- without a store, and without permission ------------------------------------------------------------


@pytest.mark.allow_errors("501", "404", "503")
@pytest.mark.parametrize("path", PAGES, indirect=True)
def test_pages_of_a_daemon_without_statistics_stand(browser, bare, path):
    open_page(browser, bare.url + path)
    assert count(browser, "h1") == 1
    assert "undefined" not in text_of(browser) and "NaN" not in text_of(browser) and "[object" not in text_of(browser)


@pytest.mark.allow_errors("401", "501")
def test_key_is_asked_for_and_kept_for_the_tab(browser):
    one = steerd_http.Daemon(steerd_http.model_options(), keys="sha256:" + hashlib.sha256(b"open sesame").hexdigest())
    try:
        open_page(browser, one.url + "/inspect")
        has(browser, "valid key is needed")
        find(browser, "input[type=password]").send_keys("open sesame" + Keys.ENTER)
        wait(browser, lambda: count(browser, ".pick button") > 0)
        assert one.get("/models").status_code == 401
        assert one.get("/steer").status_code == 200
        two = steerd_http.Daemon(steerd_http.model_options(), static="", keys="sha256:" + hashlib.sha256(b"open sesame").hexdigest())
        assert two.get("/").status_code == 401, "the plain page lists the models"
        two.finish()
    finally:
        browser.execute_script("sessionStorage.clear()")
        browser.get("about:blank")
        one.finish()


# ---- files ----------------------------------------------------------------------------------------------


def test_files_are_revalidated(bare):
    first = bare.get("/static/app.js")
    assert first.status_code == 200 and first.headers["Cache-Control"] == "no-cache"
    assert first.headers["Content-Type"] == "text/javascript; charset=utf-8"
    again = bare.get("/static/app.js", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304 and again.content == b"" and again.headers["ETag"] == first.headers["ETag"]
    assert bare.get("/static/app.js", headers={"If-None-Match": 'W/"0"'}).status_code == 200
    for path in ("/static/nothing.js", "/static/app.js.orig", "/static/index"):
        assert bare.get(path).status_code == 404, path
    page = bare.get("/", headers={"Accept": "text/html"})
    assert page.headers["Content-Type"] == "text/html; charset=utf-8" and "<script>" not in page.text and "style=" not in page.text
