"""Kept vectors in a real browser: the page of one, the list on the model's page, and steering with a label."""
import urllib.parse

from page import MODEL, button, count, find, has, open_page, text_of, wait
from selenium.webdriver.common.by import By

LABEL = "made & <kept>"


def keep(bare, layers, label=LABEL):
    made = [bare.post("/api/vector/new", {"modelId": MODEL, "layerNumber": layer, "hookType": "hook_resid_post", "vectorLabel": label, "vectorDefaultSteerStrength": 2,
                                          "vector": [(3 * c + layer) % 5 - 2 for c in range(48)]}).json() for layer in layers]
    return ["/" + one["url"].split("/", 3)[3] for one in made]


def kept(bare):
    return [row["vectorLabel"] for row in bare.post("/api/vector/list-owned", {"values": False}).json()["vectors"]]


def test_page_of_a_vector(browser, bare):
    one, two = keep(bare, (0, 2))
    open_page(browser, bare.url + one)
    assert find(browser, "h1").text == LABEL and "behind layer 0" in text_of(browser)
    assert count(browser, ".logits li") == 20 and count(browser, ".plots svg") == 1
    row = bare.get("/api/feature" + one).json()
    assert f"{row['decoder_norm']:.4g}" in text_of(browser)  # its length
    find(browser, "input[aria-label^='Text to try']").send_keys("Hello there you")
    button(browser, "Test").click()
    has(browser, "Most")
    want = bare.post("/api/activation/new", {"feature": {"modelId": MODEL, "layer": row["layer"], "index": row["index"]}, "customText": "Hello there you", "ignoreBos": True}).json()
    assert count(browser, ".tokens .tok") == len(want["tokens"])
    assert find(browser, "main").find_element(By.LINK_TEXT, "Steer with it").get_attribute("href").endswith(urllib.parse.quote(f"{row['layer']}/{row['index']}@2", safe=""))
    browser.find_element(By.CSS_SELECTOR, f"a[href='{two}']").click()
    wait(browser, lambda: "behind layer 2" in text_of(browser))
    # One of them is deleted, then the label.
    open_page(browser, bare.url + two)
    button(browser, "Delete this vector").click()
    wait(browser, lambda: urllib.parse.urlparse(browser.current_url).path == f"/{MODEL}")
    assert kept(bare).count(LABEL) == 1
    keep(bare, (1,))
    open_page(browser, bare.url + one)
    button(browser, "Delete all 2").click()
    wait(browser, lambda: urllib.parse.urlparse(browser.current_url).path == f"/{MODEL}")
    assert LABEL not in kept(bare)


def test_vectors_of_a_model(browser, bare):
    one, _ = keep(bare, (1, 2))
    try:
        open_page(browser, f"{bare.url}/{MODEL}")
        wait(browser, lambda: count(browser, f"a[href='{one}']") == 1)
        assert LABEL in text_of(browser) and "2 layers" in text_of(browser)
    finally:
        bare.post("/api/vector/delete", {"modelId": MODEL, "vectorLabel": LABEL})


def test_steering_with_a_label(browser, bare):
    """It is chosen by its name, stands in the address by it, and is asked for as the vectors it stands for."""
    places = [path.split("/")[2:] for path in keep(bare, (1, 2))]
    try:
        open_page(browser, f"{bare.url}/steer#{urllib.parse.urlencode({'model': MODEL, 'prompt': 'Hello', 'temperature': 0})}")
        browser.find_element(By.XPATH, f"//div[@class='found']/button[contains(., '{LABEL}')]").click()
        box = find(browser, f"input[type=number][aria-label^='Strength of {LABEL}']")
        assert box.get_attribute("value") == "2"
        browser.execute_script("arguments[0].value = '3.5'; arguments[0].dispatchEvent(new Event('input'))", box)
        assert urllib.parse.parse_qs(urllib.parse.urlparse(browser.current_url).fragment)["label"] == [f"{LABEL}@3.5"]
        button(browser, "Steer").click()
        has(browser, "Done in")
        features = [{"modelId": MODEL, "layer": source, "index": index, "strength": 3.5} for source, index in places]
        body = {"modelId": MODEL, "prompt": "Hello", "features": features, "temperature": 0, "n_tokens": 48, "seed": 42, "strength_multiplier": 1, "freq_penalty": 0}
        want = bare.post("/api/steer", {**body, "steer_method": "SIMPLE_ADDITIVE"}).json()
        shown = browser.execute_script("return document.querySelector('.steered .text').textContent")
        assert shown.replace("·", "")[:12] == want["STEERED"].replace("·", "")[:12] and want["STEERED"] != want["DEFAULT"]
        again = browser.current_url  # the address alone brings it back
        open_page(browser, bare.url + "/jobs")
        open_page(browser, again)
        assert find(browser, f"input[type=number][aria-label^='Strength of {LABEL}']").get_attribute("value") == "3.5"
    finally:
        bare.post("/api/vector/delete", {"modelId": MODEL, "vectorLabel": LABEL})
    open_page(browser, bare.url + "/jobs")
    open_page(browser, again)
    has(browser, "No vectors are kept under")
    assert count(browser, "li.feature") == 0
