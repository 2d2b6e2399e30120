"""`/docs` and `/redoc` as a person sees them: in headless Chromium that reaches nothing but loopback."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support import expected_conditions as condition
from selenium.webdriver.support.wait import WebDriverWait

from gateway import missing
from samples import Sample, newest

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--window-size=1400,2000",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]

# A bound on waiting, not a promise of speed.
PATIENCE_SECONDS = 60

FRAUD = newest("fraud")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        missing("Chromium is not installed: apt-get install chromium chromium-driver")
    profile: Path = tmp_path_factory.mktemp("chromium")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in [*FLAGS, f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as browser:
        yield browser


def shown(browser: webdriver.Chrome, selector: str) -> WebElement:
    found = condition.visibility_of_element_located((By.CSS_SELECTOR, selector))
    return WebDriverWait(browser, PATIENCE_SECONDS).until(found, f"no {selector}")


def click(browser: webdriver.Chrome, selector: str) -> None:
    element = shown(browser, selector)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


def assert_loaded_from(browser: webdriver.Chrome, url: str) -> None:
    """Nothing comes from another host; what a page's libraries ask of one is stopped by its own policy."""
    asked = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    errors = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert all("Content Security Policy" in error for error in errors)
    for foreign in (name for name in asked if not name.startswith((url, "data:", "blob:"))):
        assert any(foreign in error for error in errors), f"{foreign} was asked for"


@pytest.mark.parametrize(
    ("operation", "version"),
    [("predict_models_fraud_predict_post", FRAUD.version), ("predict_version_models_fraud_1_predict_post", 1)],
)
def test_try_it_out_answers_200(browser, gateways, operation, version):
    gateway = gateways("onnxruntime", "samples")
    browser.get(f"{gateway.url}/docs")
    block = f"#operations-fraud-{operation}"
    click(browser, f"{block} .opblock-summary-control")
    click(browser, f"{block} .try-out__btn")
    record = json.loads(shown(browser, f"{block} textarea.body-param__text").get_attribute("value"))
    assert record == Sample("fraud", version).signature["example"]
    click(browser, f"{block} .execute")
    assert shown(browser, f"{block} .live-responses-table .response .response-col_status").text.split()[0] == "200"
    answer = shown(browser, f"{block} .live-responses-table .response .response-col_description").text
    assert "probabilities" in answer and "legitimate" in answer
    assert f"x-model-version: {version}" in answer
    assert_loaded_from(browser, gateway.url)


def test_every_field_of_the_record_is_told(browser, gateways):
    gateway = gateways("onnxruntime", "samples")
    browser.get(f"{gateway.url}/docs?model=fraud")
    block = "#operations-fraud-predict_models_fraud_predict_post"
    click(browser, f"{block} .opblock-summary-control")
    text = shown(browser, f"{block} .opblock-section-request-body").text
    for feature in FRAUD.input("X")["features"]:
        assert feature["name"] in text


def test_redoc_shows_the_same_operations(browser, gateways):
    gateway = gateways("onnxruntime", "samples")
    browser.get(f"{gateway.url}/redoc")
    shown(browser, "#redoc h1")
    text = WebDriverWait(browser, PATIENCE_SECONDS).until(
        lambda browser: "Predict with fraud" in (text := browser.find_element(By.TAG_NAME, "body").text) and text
    )
    for name in ("breast-cancer", "digits", "penguins"):
        assert f"Predict with {name}" in text
    assert_loaded_from(browser, gateway.url)
