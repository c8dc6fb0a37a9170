"""The page of the web example, in a browser."""

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.running.helpers import poll

pytestmark = pytest.mark.slow
STATES = """
    return [...document.querySelectorAll("#sites li")].map((row) =>
        [row.querySelector(".name").textContent, [row.dataset.state, row.querySelector(".text").textContent,
         row.querySelector(".why").textContent]])
"""
SITES = [
    "Open Wiki",
    "Evening Gazette",
    "City Library",
    "Old Maps",
    "Radio Archive",
    "Boaters' Forum",
    "Museum of Water",
    "Second-hand Books",
]


def search(page, question):
    field = page.find_element(By.ID, "question")
    field.clear()
    field.send_keys(question + Keys.ENTER)


def states(page):
    return dict(page.execute_script(STATES))


def status(page):
    return page.find_element(By.ID, "status").text


def until_over(page):
    poll(lambda: "have answered" in status(page), what="the end of the search")


def texts(page, selector):
    return page.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", selector
    )


def complaints(page):
    """What the browser has to say, about the page's policy among other things."""
    return [entry["message"] for entry in page.get_log("browser")]


def test_results_come_in_the_order_of_the_sites_answers_and_each_site_has_its_state(page):
    search(page, "canal")
    until_over(page)
    found = states(page)
    assert list(found) == SITES
    assert found["Open Wiki"][:2] == ["found", "5 results"]
    assert found["Radio Archive"][:2] == ["found", "1 result"]
    assert found["Museum of Water"] == ["timed out", "timed out", "no answer within 2 seconds"]
    assert found["Boaters' Forum"] == ["failed", "failed", "503 Service Unavailable"]
    groups = texts(page, "#results h2")
    assert groups.index("Open Wiki") < groups.index("Second-hand Books") < groups.index("City Library")
    assert len(groups) == len(set(groups)) == 6
    assert status(page) == "17 results for “canal”; 6 of 8 sites have answered."
    assert page.title == "canal · Live search"
    assert page.current_url.endswith("/?q=canal")
    assert not complaints(page)


def test_what_a_site_or_a_user_has_written_is_text(page):
    question = "<img src=x onerror=\"document.title='owned'\"><b>&amp;"
    search(page, question)
    until_over(page)
    assert question in status(page)
    (hostile,) = [title for title in texts(page, ".title") if "<script>" in title]
    assert hostile.startswith(question)
    assert page.title == f"{question} · Live search"
    assert page.execute_script("return document.querySelectorAll('main img, main script, main b').length") == 0
    schemes = page.execute_script("return [...document.querySelectorAll('main a[href]')].map((a) => a.protocol)")
    assert set(schemes) <= {"https:", "http:"}
    assert not complaints(page), "nothing has even tried"


def test_a_script_in_the_page_would_not_run(page):
    """The last line of defence: should anything ever be taken for HTML, the policy stops it."""
    page.execute_script("""
        document.querySelector("main").insertAdjacentHTML("beforeend", "<img src=x onerror=\\"window.owned = 1\\">");
        const script = document.createElement("script");
        script.textContent = "window.owned = 2";
        document.body.append(script);
    """)
    told: list[str] = []

    def refused_twice():
        told.extend(complaints(page))
        return sum("Content Security Policy" in each for each in told) >= 2

    poll(refused_twice, what="the browser's refusals")
    assert page.execute_script("return window.owned === undefined")


def test_a_new_question_ends_the_one_before(page):
    search(page, "first")
    poll(lambda: "Open Wiki" in texts(page, "#results h2"), what="the first result")
    search(page, "second")
    until_over(page)
    titles = texts(page, ".title")
    assert titles
    assert not [title for title in titles if "first" in title]
    assert len(texts(page, "#results h2")) == len(set(texts(page, "#results h2")))
    page.back()
    poll(lambda: "“first”" in status(page), what="the question before")
    until_over(page)


@pytest.mark.parametrize("by", ["button", "key"])
def test_a_search_can_be_stopped(page, by):
    search(page, f"stop by {by}")
    poll(lambda: states(page), what="the sites")
    if by == "button":
        page.find_element(By.ID, "stop").click()
    else:
        page.find_element(By.TAG_NAME, "body").send_keys(Keys.ESCAPE)
    assert status(page).startswith("Stopped. ")
    ended = {state for state, _, _ in states(page).values()}
    assert "stopped" in ended
    assert not ended & {"waiting", "asking"}
    assert not page.find_element(By.ID, "stop").is_displayed()


def test_an_address_with_a_question_is_a_search(page):
    page.find_element(By.LINK_TEXT, "steam tug").click()
    until_over(page)
    assert "“steam tug”" in status(page)
    assert page.find_element(By.ID, "question").get_attribute("value") == "steam tug"


def test_it_can_be_used_by_keyboard_and_by_ear(page):
    """Every control has a name, the order of focus is that of the page, what happens is announced."""
    named = page.execute_script("""
        return [...document.querySelectorAll("input, button, a")].map((e) =>
            (e.labels?.[0]?.textContent ?? e.textContent).trim())
    """)
    assert all(named)
    page.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB, Keys.TAB)
    assert page.switch_to.active_element.get_attribute("id") == "question"
    outline = page.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "one sees where one is"
    page.switch_to.active_element.send_keys("lock", Keys.TAB, Keys.SPACE)  # to the button
    until_over(page)
    assert page.find_element(By.ID, "status").get_attribute("role") == "status"
    assert page.find_element(By.TAG_NAME, "html").get_attribute("lang") == "en"
    headings = page.execute_script("return [...document.querySelectorAll('h1, h2')].map((e) => e.tagName)")
    assert headings[0] == "H1"
    assert headings.count("H1") == 1
    unnamed = page.execute_script("""
        return [...document.querySelectorAll("section")].filter((e) =>
            !document.getElementById(e.getAttribute("aria-labelledby"))?.textContent).length
    """)
    assert unnamed == 0
    hidden = page.execute_script("return [...document.querySelectorAll('.icon')].every((e) => e.ariaHidden === 'true')")
    assert hidden, "an icon never says what the text beside it does not say"


def test_a_narrow_screen_needs_no_scrolling_sideways(page):
    size = {"width": 320, "height": 700, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        search(page, "a_word_that_is_very_long_and_has_no_place_to_be_broken_at_whatsoever")
        until_over(page)
        too_wide = page.execute_script("""
            return [...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > 320)
                .map((e) => `${e.tagName} ${e.className}`)
        """)
        assert not too_wide
        assert page.execute_script("return document.documentElement.scrollWidth <= 320")
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_everything_comes_from_the_page_s_own_server(page, address):
    search(page, "canal")
    until_over(page)
    names = page.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert names
    assert all(name.startswith(address) for name in names)
