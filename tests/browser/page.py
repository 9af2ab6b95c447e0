"""What tests of a page do again and again: wait, find, read, press."""
import pytest

pytest.importorskip("selenium", reason="skip: the dashboard in a browser (install python3-selenium)")
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

MODEL, SOURCE = "tiny-gpt2", "1-res-relu"
SECONDS = 20  # for anything to appear; a busy machine is slow


def wait(driver, what, seconds=SECONDS):
    return WebDriverWait(driver, seconds, poll_frequency=0.05).until(lambda _: what())


def find(driver, selector):
    return driver.find_element(By.CSS_SELECTOR, selector)


def count(driver, selector):
    return len(driver.find_elements(By.CSS_SELECTOR, selector))


def text_of(driver, selector="main"):
    return driver.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", selector)


def button(driver, name):
    return next(b for b in driver.find_elements(By.CSS_SELECTOR, "button, a.button") if b.text.strip() == name and b.is_displayed())


def settled(driver):
    """The page is drawn and nothing in it is loading."""
    return driver.execute_script("return document.readyState === 'complete' && !!document.querySelector('main h1, main .notice') "
                                 "&& !document.querySelector('.state.wait')")


def open_page(driver, url):
    driver.get(url)
    wait(driver, lambda: settled(driver))


def has(driver, words, selector="main"):
    wait(driver, lambda: words in text_of(driver, selector))
