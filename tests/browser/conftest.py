"""Debian's Chromium, without a window, driven by its own driver; and the web example as a process of its own."""

import os
import re
import shutil

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from tests.running.helpers import Program, poll

FLAGS = (
    "--headless",
    "--no-sandbox",  # as root
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    # It is to talk to nobody but the page.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--window-size=1280,1000",
)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        if os.environ.get("CI"):
            pytest.fail("there is no chromium or no chromedriver here: make browser")
        pytest.skip("there is no chromium or no chromedriver here: make browser")
    options = Options()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    yield browser
    browser.quit()


@pytest.fixture(scope="session")
def _served():
    with Program("-m", "examples.live_search", "--port", "0") as program:
        program.wait_for("(Ctrl-C ends it)")
        yield program
        program.send(15)
        assert program.end() == 0
        assert program.err == ""


@pytest.fixture(scope="session")
def address(_served):
    found = re.search(r"http://\S+/", _served.out)
    assert found is not None
    return found[0]


@pytest.fixture
def page(browser, address):
    """The empty page."""
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get(address)
    poll(lambda: browser.execute_script("return document.readyState") == "complete", what="the page")
    return browser
