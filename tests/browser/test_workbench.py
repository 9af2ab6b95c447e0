"""Looking into a text in a real browser: the pages for inspecting, for the laboratory and for jobs."""
import urllib.parse

import pytest

from chromium import steerd_http
from page import MODEL, SOURCE, button, count, find, has, open_page, text_of, wait
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys


# ---- inspect and jobs -----------------------------------------------------------------------------------


def test_inspect(browser, site):
    open_page(browser, f"{site}/inspect#{urllib.parse.urlencode({'model': MODEL, 'source': SOURCE, 'prompt': 'Hello there you'})}")
    wait(browser, lambda: count(browser, ".pick button") > 2)
    find(browser, ".pick button").click()
    assert find(browser, ".pick button").get_attribute("aria-pressed") == "true"
    has(browser, "Strongest at")
    button(browser, "Over the text").click()
    wait(browser, lambda: count(browser, "svg.chart") == 1 and count(browser, "section .tokens .tok[data-v]") > 2)
    browser.find_elements(By.TAG_NAME, "textarea")[1].send_keys("Goodbye")
    button(browser, "Compare").click()
    wait(browser, lambda: count(browser, "tbody tr") > 3)


def test_what_features_mean_comes_with_the_search(browser, bare):
    """Inspect names every feature that it shows, and asks for none of the names."""
    rows = bare.post("/api/search-topk-by-token", {"modelId": MODEL, "source": SOURCE, "text": "Hello there you"}).json()["results"]
    top = rows[-1]["topFeatures"][0]["featureIndex"]
    made = bare.post("/api/explanation/new", {"modelId": MODEL, "layer": SOURCE, "index": top, "description": "the last word"}).json()
    try:
        open_page(browser, f"{bare.url}/inspect#{urllib.parse.urlencode({'model': MODEL, 'source': SOURCE, 'prompt': 'Hello there you'})}")
        has(browser, "the last word")
        button(browser, "Over the text").click()
        wait(browser, lambda: count(browser, "svg.chart") == 1)
        asked = browser.execute_script("return performance.getEntriesByType('resource').map((one) => new URL(one.name).pathname)")
        assert "/api/search-topk-by-token" in asked and "/api/features" not in asked
    finally:
        bare.post(f"/api/explanation/{made['id']}/delete", {})


def test_a_feature_of_another_dictionary_is_its_own(browser, site):
    """The dictionary of the feature over the text is chosen beside it, and is not that of the page."""
    open_page(browser, f"{site}/inspect#{urllib.parse.urlencode({'model': MODEL, 'source': SOURCE, 'prompt': 'Hello there you'})}")
    wait(browser, lambda: count(browser, ".pick button") > 2)
    other = browser.execute_script("const s = document.querySelector('select[aria-label=Source]'); s.value = [...s.options].find((o) => o.value !== s.value).value; "
                                   "s.dispatchEvent(new Event('change')); return s.value")
    find(browser, "input[aria-label^='Feature number']").send_keys("5" + Keys.ENTER)
    wait(browser, lambda: count(browser, f"h3 a[href='/{MODEL}/{other}/5']") == 1)
    button(browser, "Look inside").click()
    wait(browser, lambda: count(browser, ".pick button") > 2)
    assert urllib.parse.parse_qs(urllib.parse.urlparse(browser.current_url).fragment)["source"] == [SOURCE]


# ---- the laboratory -------------------------------------------------------------------------------------


def card_of(driver, title):
    return next(card for card in driver.find_elements(By.CSS_SELECTOR, "section.card") if title in card.text)


def test_lab_runs_a_text_with_changes(browser, demo):
    """Next tokens, lens and attention of a text; a change is run at once, shown beside what it changes, and taken back."""
    open_page(browser, f"{demo.url}/lab#{urllib.parse.urlencode({'model': 'demo', 'prompt': 'Once upon a time, there was a little girl named'})}")
    wait(browser, lambda: count(browser, ".grid") == 2 and "Lily" in card_of(browser, "What comes next").text)
    assert "With the changes" not in text_of(browser)
    lens, attention = browser.find_elements(By.CSS_SELECTOR, ".grid")
    assert len(lens.find_elements(By.CSS_SELECTOR, "tbody tr")) == 5  # the embedding and four layers
    rows = attention.find_elements(By.CSS_SELECTOR, "tbody tr")
    for i, row in enumerate(rows):  # a row adds up to 1, to half a unit of the fourth digit a cell
        cells = row.find_elements(By.CSS_SELECTOR, "td:not(.none)")
        assert len(cells) == i + 1
        assert abs(sum(float(cell.get_attribute("data-v").splitlines()[1]) for cell in cells) - 1) < 5e-4 * len(cells)
    changes = card_of(browser, "Changes")
    changes.find_element(By.CSS_SELECTOR, "option[value=head]").click()
    button(browser, "Add this change").click()
    has(browser, "silence head 0 at blocks.0.attn.hook_z")
    has(browser, "With the changes")
    find(browser, "button[aria-label^='Take back']").click()
    wait(browser, lambda: "With the changes" not in text_of(browser) and count(browser, ".grid") == 2)


def test_a_link_to_the_laboratory_holds_its_changes(browser, demo):
    open_page(browser, f"{demo.url}/lab")
    button(browser, "Add this change").click()
    wait(browser, lambda: "edits=" in browser.current_url)
    link = browser.current_url
    browser.get("about:blank")
    open_page(browser, link)
    has(browser, "With the changes")
    has(browser, "push 2-res-demo/0 by 10")
    for wrong in ("%7B", "%5B3%2Cnull%2C%7B%22op%22%3A%22zero%22%7D%5D", "%22add%22"):
        browser.get("about:blank")
        open_page(browser, f"{demo.url}/lab#edits={wrong}")
        has(browser, "As it is")
        assert "With the changes" not in text_of(browser) and not count(browser, "[role=alert]")


def test_lab_patches_and_is_read_by_keys(browser, demo):
    open_page(browser, demo.url + "/lab")
    wait(browser, lambda: count(browser, ".grid") == 2)
    button(browser, "Patch").click()
    wait(browser, lambda: count(browser, ".grid") == 3)
    grid = browser.find_elements(By.CSS_SELECTOR, ".grid")[2]
    values = [[float(cell.get_attribute("data-v").splitlines()[1].split()[0]) for cell in row.find_elements(By.TAG_NAME, "td")]
              for row in grid.find_elements(By.CSS_SELECTOR, "tbody tr")]
    assert len(values) == 4
    assert values[-1][3] == 1 and max(map(abs, values[-1][:3] + values[-1][4:])) == 0, values  # only "boy" differs in the embedding
    assert all(max(map(abs, row[:3])) == 0 for row in values), values  # and nothing can differ before it
    scroll = grid.find_element(By.XPATH, "..")
    scroll.send_keys(Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
    assert count(browser, ".grid .cell.here") == 1 and "of the way" in text_of(browser, "#tip")
    assert "of the way" in text_of(browser, "#said")


def test_lab_estimates_by_one_gradient(browser, demo):
    open_page(browser, demo.url + "/lab")
    wait(browser, lambda: count(browser, ".grid") == 2)
    button(browser, "Estimate by one gradient").click()
    wait(browser, lambda: count(browser, ".grid") == 3)
    grid = browser.find_elements(By.CSS_SELECTOR, ".grid")[2]
    values = [[float(cell.get_attribute("data-v").splitlines()[1].split()[0]) for cell in row.find_elements(By.TAG_NAME, "td")]
              for row in grid.find_elements(By.CSS_SELECTOR, "tbody tr")]
    assert len(values) == 4 and all(max(map(abs, row[:3])) == 0 for row in values)  # nothing can differ in front of "boy"
    assert values[-1][3] > 0.8 and max(map(abs, values[-1][4:])) == 0  # and nothing else differs in the embedding
    card_of(browser, "Which place carries").find_element(By.CSS_SELECTOR, "option[value=z]").click()
    button(browser, "Estimate by one gradient").click()
    wait(browser, lambda: "head 7" in text_of(browser))


@pytest.mark.allow_errors("400")
def test_lab_says_what_does_not_fit(browser, demo):
    open_page(browser, demo.url + "/lab")
    field = next(one for one in browser.find_elements(By.TAG_NAME, "input") if one.get_attribute("value") == "The little boy was very happy because")
    field.send_keys(" of it")
    button(browser, "Patch").click()
    has(browser, "That did not work")


def test_direction_is_found_steered_with_and_kept(browser, demo):
    open_page(browser, demo.url + "/lab")
    browser.find_element(By.LINK_TEXT, "A direction from texts of your own").click()
    wait(browser, lambda: count(browser, "table tbody tr") == 4)
    chosen = [box.is_selected() for box in browser.find_elements(By.CSS_SELECTOR, "td input[type=checkbox]")]
    assert chosen == [False, True, True, False]  # the middle half
    strength = find(browser, "input[type=number]")
    texts = {}
    for value in ("-2", "2"):
        strength.clear()
        strength.send_keys(value)
        button(browser, "Write").click()
        has(browser, f"With the direction, {value} times")
        plain, steered = [p.text for p in browser.find_elements(By.CSS_SELECTOR, ".output .text")]
        assert plain.startswith("One day, the little girl") and steered.startswith("One day, the little girl") and plain != steered
        texts[value] = steered
    assert find(browser, "input[type=range]").get_attribute("value") == "2" and texts["-2"] != texts["2"]
    keep = card_of(browser, "Keep it")
    keep.find_element(By.CSS_SELECTOR, "input").send_keys("of the page")
    button(browser, "Keep").click()
    has(browser, "Kept: 2 vectors under “of the page”.")
    file = browser.find_element(By.LINK_TEXT, "The same as a file").get_attribute("href")
    assert demo.client.get(file).content[:4] == b"GGUF"
    # What was kept steers as the page did.
    body = {"model": "demo", "prompt": "One day, the little girl", "max_tokens": 40, "temperature": 0, "steering": {"vectors": [{"label": "of the page", "strength": 2}]}}
    reply = demo.post("/v1/completions", body).json()
    assert " ".join(("One day, the little girl" + reply["choices"][0]["text"]).split()) == " ".join(texts["2"].split())


@pytest.mark.allow_errors("400", "409")
def test_direction_says_what_does_not_fit(browser, demo):
    open_page(browser, demo.url + "/direction?model=demo")
    wait(browser, lambda: count(browser, "table tbody tr") == 4)
    for box in browser.find_elements(By.CSS_SELECTOR, "td input[type=checkbox]"):
        if box.is_selected():
            box.click()
    button(browser, "Write").click()
    has(browser, "No layer is chosen.")
    negative = browser.find_elements(By.TAG_NAME, "textarea")[1]
    negative.clear()
    negative.send_keys("one text alone")
    browser.find_element(By.CSS_SELECTOR, "option[value=pca]").click()
    button(browser, "Find the direction").click()
    has(browser, "That did not work")
    has(browser, "as many of both")


def test_jobs_progress_and_cancel(browser, site):
    open_page(browser, site + "/jobs")
    has(browser, "running")
    bar, cancel = find(browser, "progress"), button(browser, "Cancel")
    first = float(bar.get_attribute("value"))
    wait(browser, lambda: float(bar.get_attribute("value")) > first)  # the same bar: news redraws nothing else
    has(browser, "is not there")
    cancel.click()
    has(browser, "cancelled")


def test_job_is_started(browser, site):
    open_page(browser, site + "/jobs")
    find(browser, "input[placeholder]").send_keys("/data/stories.txt" + Keys.ENTER)
    has(browser, "queued")


def test_evaluation_from_the_form_to_the_page_of_the_dictionary(browser, bare):
    open_page(browser, bare.url + "/jobs")
    ends = next(label for label in browser.find_elements(By.CSS_SELECTOR, "label.row") if "end of each document" in label.text or not label.is_displayed())
    assert not ends.is_displayed()
    find(browser, "option[value=eval]").click()
    assert ends.is_displayed()
    find(browser, f"option[value='{MODEL} {SOURCE}']").click()
    find(browser, "input[type=number]").send_keys("1500")
    find(browser, "input[placeholder^='/data']").send_keys(str(steerd_http.VECTORS / MODEL / "corpus.txt") + Keys.ENTER)
    has(browser, "Share kept")
    has(browser, "done")
    assert "documents" in text_of(browser) and float(find(browser, "progress").get_attribute("value")) == 1
    browser.find_element(By.LINK_TEXT, f"{MODEL}/{SOURCE}").click()
    has(browser, "How well it explains")
    has(browser, "Through the dictionary")


def test_resume_is_offered_where_it_can_help(browser, bare, tmp_path):
    text = tmp_path / "empty.txt"
    text.write_text("")
    open_page(browser, bare.url + "/jobs")
    find(browser, "input[placeholder^='/data']").send_keys(str(text) + Keys.ENTER)
    has(browser, "has no tokens")
    has(browser, "It cannot be resumed: its text and its dictionary are those that it failed on")
    assert not [one for one in browser.find_elements(By.CSS_SELECTOR, "ul.list button") if one.text == "Resume"]
    text.write_text("It says something now.")
    has(browser, "Resume")  # the page has looked again
    assert "cannot be resumed" not in text_of(browser)
    button(browser, "Resume").click()
    wait(browser, lambda: "has no tokens" not in text_of(browser))


SHARES = [(1.066, "107 %"), (0.957, "95.7 %"), (1, "100 %"), (0.9996, "100 %"), (0, "0 %"), (12.344, "1,234 %"), (-0.1066, "-10.7 %"), (0.00001234, "0.00123 %"), (1e-9, "1e-7 %"),
          (None, "–")]


@pytest.mark.parametrize("share, shown", SHARES)
def test_shares_show_three_digits(browser, site, share, shown):
    open_page(browser, site + "/jobs")
    assert browser.execute_async_script("const done = arguments[1]; import('/static/dom.js').then((m) => done(m.percent(arguments[0])))", share) == shown
