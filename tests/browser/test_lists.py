"""Lists of features and what was uploaded, in a real browser: made by hand, filled from a feature's page, read, changed, deleted."""
import json
import urllib.parse

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from page import MODEL, SOURCE, button, count, find, has, open_page, settled, text_of, wait

HOSTILE = "<img src=x onerror=\"document.title='owned'\">\u202eevil"


def post(bare, path, body):
    reply = bare.post(path, body)
    assert reply.status_code == 200, (path, reply.text)
    return reply.json()


@pytest.fixture(scope="module")
def uploaded(bare):
    """A model without weights, with two features that have hostile texts everywhere."""
    post(bare, "/api/model/new", {"id": "pup-browser", "layers": 2, "displayName": HOSTILE, "url": "javascript:document.title='owned'"})
    post(bare, "/api/source-set/new", {"name": "mine", "modelId": "pup-browser"})
    rows = [{"index": i, "density": 0.01, "activations": [{"tokens": ["The", HOSTILE, " dog"], "values": [0, 0.5, 2.5]}],
             "explanations": [{"text": f"dogs {i} {HOSTILE}"}], "topLogits": [{"token": HOSTILE, "value": 1}]} for i in (0, 3)]
    post(bare, "/api/feature/upload-batch", {"modelId": "pup-browser", "source": "1-mine", "features": rows})
    return "pup-browser"


def test_a_list_by_hand(browser, bare):
    open_page(browser, bare.url + "/list")
    find(browser, "form input").send_keys("By hand")
    button(browser, "Make it").click()
    has(browser, "Nothing is in this list yet")
    address = browser.current_url
    assert "/list/" in address and text_of(browser, "h1") == "By hand"
    open_page(browser, f"{bare.url}/{MODEL}/{SOURCE}/12")
    next(s for s in browser.find_elements(By.CSS_SELECTOR, "summary") if s.text == "Add to a list").click()
    wait(browser, lambda: count(browser, "details[open] select") == 1)
    Select(find(browser, "details[open] select")).select_by_visible_text("By hand")
    browser.find_elements(By.CSS_SELECTOR, "details[open] input")[-1].send_keys("a good one")
    button(browser, "Add").click()
    has(browser, "It is in By hand now")
    open_page(browser, address)
    has(browser, "1 feature")
    assert find(browser, "ul.list a").text == "a good one" and f"{MODEL} / {SOURCE} / 12" in text_of(browser)
    button(browser, "Take out").click()
    has(browser, "Nothing is in this list yet")
    find(browser, "summary").click()
    button(browser, "Delete the list").click()
    wait(browser, lambda: browser.current_url.endswith("/list") and settled(browser))
    assert "By hand" not in text_of(browser)


def test_a_long_list_has_pages(browser, bare):
    rows = [{"modelId": MODEL, "layer": SOURCE, "index": i, "description": f"number {i}"} for i in range(60)]
    number = post(bare, "/api/list/new-with-features", {"name": "Long", "features": rows})["id"]
    open_page(browser, f"{bare.url}/list/{number}")
    has(browser, "60 features")
    has(browser, "1 to 50 of 60")
    assert count(browser, "ul.list li") == 50
    button(browser, "Next").click()
    has(browser, "51 to 60 of 60")
    assert [a.text for a in browser.find_elements(By.CSS_SELECTOR, "ul.list a")] == [f"number {i}" for i in range(50, 60)]
    button(browser, "Previous").click()
    has(browser, "1 to 50 of 60")
    open_page(browser, f"{bare.url}/{MODEL}/{SOURCE}/7")
    has(browser, "In the list Long.")
    open_page(browser, f"{bare.url}/{MODEL}/1/17")
    has(browser, "Nobody has said yet what this neuron means.")
    post(bare, "/api/list/delete", {"listId": number})


def test_into_a_new_list(browser, bare, uploaded):
    open_page(browser, f"{bare.url}/{uploaded}/1-mine/3")
    next(s for s in browser.find_elements(By.CSS_SELECTOR, "summary") if s.text == "Add to a list").click()
    wait(browser, lambda: count(browser, "details[open] select") == 1)
    Select(find(browser, "details[open] select")).select_by_visible_text("A new list…")
    browser.find_elements(By.CSS_SELECTOR, "details[open] input")[0].send_keys("Dogs")
    button(browser, "Add").click()
    has(browser, "It is in Dogs now")
    next(a for a in browser.find_elements(By.CSS_SELECTOR, "main a") if a.text == "Dogs").click()
    wait(browser, lambda: "/list/" in browser.current_url and settled(browser))
    assert text_of(browser, "h1") == "Dogs" and "dogs 3 <img src=x" in text_of(browser) and count(browser, ".tokens .tok") == 1


def test_what_has_no_weights(browser, bare, uploaded):
    """Its pages say what there is, offer nothing that cannot be, and take no text for anything else."""
    open_page(browser, bare.url + "/")
    assert "Registered without weights" in text_of(browser)
    open_page(browser, f"{bare.url}/{uploaded}")
    assert "1-mine" in text_of(browser) and not [b for b in browser.find_elements(By.CSS_SELECTOR, "a.button") if b.text == "Steer it"]
    assert not browser.find_elements(By.CSS_SELECTOR, "a[href^=javascript]")
    open_page(browser, f"{bare.url}/{uploaded}/1-mine")
    assert "There is no dictionary behind this name" in text_of(browser) and "What a text turns on" not in text_of(browser)
    assert count(browser, "tbody tr") == 2
    open_page(browser, f"{bare.url}/{uploaded}/0-mine")
    assert "No features were uploaded yet" in text_of(browser)
    open_page(browser, f"{bare.url}/{uploaded}/1-mine/3")
    assert "dogs 3" in text_of(browser, "h1") and "Steer with it" not in text_of(browser) and count(browser, "main img") == 0
    assert "\u202e" not in text_of(browser)
    open_page(browser, f"{bare.url}/{uploaded}/1-mine/3?embed=true")
    assert "dogs 3" in text_of(browser) and "Try a text" not in browser.page_source


@pytest.mark.allow_errors("404")
def test_a_list_that_is_not_there(browser, bare):
    browser.get(bare.url + "/list/99999")
    has(browser, "There is no list 99999")


def quick(bare, features, name="some"):
    """An address as SAELens' get_neuronpedia_quick_list writes it."""
    return f"{bare.url}/quick-list/?name={urllib.parse.quote(name)}&features={urllib.parse.quote(features if isinstance(features, str) else json.dumps(features))}"


def test_a_list_in_the_address(browser, bare, uploaded):
    rows = [{"modelId": MODEL, "layer": SOURCE, "index": "7"}, {"modelId": uploaded, "layer": "1-mine", "index": "3", "description": HOSTILE},
            {"modelId": MODEL, "layer": SOURCE, "index": "99999"}, {"modelId": "nowhere", "layer": "1-x", "index": "1"}]
    open_page(browser, quick(bare, rows, HOSTILE))
    has(browser, "2 features")
    has(browser, "2 more are named, and are not here")
    assert [a.get_attribute("href").removeprefix(bare.url) for a in browser.find_elements(By.CSS_SELECTOR, "ul.list a")] == [f"/{MODEL}/{SOURCE}/7", f"/{uploaded}/1-mine/3"]
    assert "evil" in find(browser, "ul.list li:last-child a").text  # as the address says, before any explanation
    button(browser, "Keep them as a list").click()
    wait(browser, lambda: "/list/" in browser.current_url and settled(browser))
    assert count(browser, "ul.list li") == 2 and browser.title != "owned"
    for wrong, words in (("{", "must be a JSON array"), ([5], "must be a JSON array"), ([], "names no features"), (rows[3:], "None of these features is here")):
        open_page(browser, quick(bare, wrong))
        has(browser, words)
