"""The form that starts a training, in a real browser: what belongs to the architecture is asked, refusals stand beside the field they name, the job
can be followed to its figures."""
import pytest
import requests

from chromium import resize, steerd_http
from page import MODEL, SECONDS, button, find, has, open_page, text_of, wait
from selenium.webdriver.common.by import By

CORPUS = str(steerd_http.VECTORS / MODEL / "corpus.txt")


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    """A daemon that may write dictionaries; its folder."""
    folder = tmp_path_factory.mktemp("trained")
    one = steerd_http.Daemon(steerd_http.model_options(), source_folders=str(folder))
    yield one.url, folder
    one.finish()


def form(driver):
    return next(card for card in driver.find_elements(By.CSS_SELECTOR, ".card") if card.text.startswith("Train a dictionary"))


def control(driver, name):
    return form(driver).find_element(By.CSS_SELECTOR, f"[name={name}]")


def fill(driver, **values):
    for name, value in values.items():
        one = control(driver, name)
        if one.tag_name == "select":
            one.find_element(By.CSS_SELECTOR, f"option[value='{value}']").click()
        else:
            one.clear()
            one.send_keys(str(value))


def refusal(driver, name):
    """What is said to be wrong with a field, as its own description: '' where nothing is."""
    one = control(driver, name)
    told = [driver.find_element(By.ID, word) for word in (one.get_attribute("aria-describedby") or "").split()]
    said = " ".join(part.text for part in told if "refusal" in part.get_attribute("class"))
    assert (one.get_attribute("aria-invalid") == "true") == (said != ""), (name, said)
    return said


def has_link(driver, text):
    return wait(driver, lambda: next((link for link in driver.find_elements(By.LINK_TEXT, text)), None))


def test_every_field_has_a_label_and_only_those_of_the_architecture_are_there(browser, trainer):
    open_page(browser, trainer[0] + "/jobs")
    form(browser).find_element(By.CSS_SELECTOR, "summary").click()
    for one in form(browser).find_elements(By.CSS_SELECTOR, "input:not([type=checkbox]), select"):
        label = form(browser).find_element(By.CSS_SELECTOR, f"label[for='{one.get_attribute('id')}']")
        assert label.text or not one.is_displayed()
    assert control(browser, "k").is_displayed() and not control(browser, "l1").is_displayed()
    fill(browser, architecture="relu")
    assert control(browser, "l1").is_displayed() and not control(browser, "k").is_displayed()
    fill(browser, architecture="batchtopk")
    assert control(browser, "k").is_displayed() and "on average" in form(browser).text


@pytest.mark.allow_errors("400", "404", "409")
def test_refusals_stand_beside_their_fields(browser, trainer):
    url, folder = trainer
    (folder / "taken").mkdir()
    (folder / "taken" / "letter.txt").write_text("mine")
    open_page(browser, url + "/jobs")
    good = {"features": 96, "k": 8, "corpus": CORPUS, "tokens": 2048, "out": "fine"}
    for name, value, words in (("k", 97, "K is 97, but there are only 96 features."), ("out", "../up", "is not a name of 1 to 100"),
                               ("out", "taken", "has other files in it"), ("corpus", "/there/is/none", "is not a file that can be read")):
        fill(browser, **{**good, name: value})
        button(browser, "Start training").click()
        wait(browser, lambda: words in refusal(browser, name))
        assert browser.switch_to.active_element == control(browser, name)
        assert not [other for other in (*good, "modelId", "point") if other != name and refusal(browser, other)]
        control(browser, name).send_keys("1")
        assert refusal(browser, name) == ""  # whoever mends it is not told any more
    assert "no job" in text_of(browser).lower()  # nothing began


def test_a_training_is_started_followed_loaded_and_opened(browser, trainer):
    url, folder = trainer
    open_page(browser, url + "/jobs")
    fill(browser, point="hook_mlp_out", architecture="topk", features=96, k=8, corpus=CORPUS, tokens=20000, out="mine")
    button(browser, "Start training").click()
    wait(browser, lambda: browser.execute_script("return document.activeElement.id") == "job-1")
    has(browser, f"{MODEL} blocks.1.hook_mlp_out → mine")
    has(browser, "done", "#job-1")
    has(browser, "Explained variance", "#job-1")
    assert float(find(browser, "#job-1 progress").get_attribute("value")) == 1 and "20 of 20 steps" in text_of(browser, "#job-1")
    assert sorted(path.name for path in (folder / "mine").iterdir()) == ["cfg.json", "sae_weights.safetensors"]
    has(browser, "Load it as 1-mine", "#job-1")
    button(browser, "Load it as 1-mine").click()
    link = has_link(browser, f"Open {MODEL}/1-mine")
    assert browser.switch_to.active_element == link
    open_page(browser, url + "/jobs")  # it is known where it is, later too
    has_link(browser, f"Open {MODEL}/1-mine").click()
    has(browser, "1-mine", "h1")
    has(browser, "96")


def test_a_transcoder_is_trained(browser, trainer):
    url, folder = trainer
    open_page(browser, url + "/jobs")
    fill(browser, point="ln2.hook_normalized", architecture="batchtopk", features=96, k=8, corpus=CORPUS, tokens=20000, out="tc")
    button(browser, "Start training").click()
    has(browser, f"{MODEL} blocks.1.ln2.hook_normalized to blocks.1.hook_mlp_out → tc")
    has(browser, "Load it as 1-tc")
    button(browser, "Load it as 1-tc").click()
    has_link(browser, f"Open {MODEL}/1-tc").click()
    has(browser, "1-tc", "h1")
    has(browser, "transcoder")


@pytest.mark.allow_errors("409")
def test_a_folder_that_a_job_has_is_told_of(browser, trainer):
    """While the first still runs; and how it does is told on the way."""
    url, _ = trainer
    open_page(browser, url + "/jobs")
    fill(browser, architecture="relu", features=1000, l1=2, corpus=CORPUS, tokens=100000000, out="long")
    button(browser, "Start training").click()
    has(browser, "explained")
    button(browser, "Start training").click()
    wait(browser, lambda: "is running and trains into 'long' too" in refusal(browser, "out"), SECONDS)
    has(browser, "dead")
    job = find(browser, "li[id^=job-]")  # the newest
    name = job.get_attribute("id")
    button(browser, "Cancel").click()
    has(browser, "cancelled", f"#{name}")
    button(browser, "Resume").click()
    has(browser, "running", f"#{name}")
    button(browser, "Cancel").click()
    has(browser, "cancelled", f"#{name}")


def test_a_server_without_a_folder_says_which_setting_it_lacks(browser, bare):
    open_page(browser, bare.url + "/jobs")
    has(browser, "the setting 'source_folders'")
    assert not form(browser).find_elements(By.CSS_SELECTOR, "input, button")  # nothing to fill in in vain


def test_what_the_server_tells_of_is_there_to_be_set(browser, trainer):
    """Every option of /v1/lab/training has a control, within its range, that is shown for its architectures alone."""
    told = requests.get(trainer[0] + "/v1/lab/training", timeout=SECONDS).json()
    open_page(browser, trainer[0] + "/jobs")
    form(browser).find_element(By.CSS_SELECTOR, "summary").click()
    for architecture in told["architectures"]:
        fill(browser, architecture=architecture)
        for option in told["options"]:
            one = control(browser, option["name"])
            assert one.is_displayed() == (architecture in option["architectures"]), (architecture, option)
            assert float(one.get_attribute("min")) == option["minimum"] and float(one.get_attribute("max")) == option["maximum"]


@pytest.mark.parametrize("width", [360, 700, 1440])
def test_nothing_is_wider_than_the_page(browser, trainer, width):
    resize(browser, width, 900)
    open_page(browser, trainer[0] + "/jobs")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
