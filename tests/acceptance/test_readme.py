"""What the front page promises: a short program, commands that exist, links that lead somewhere."""

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
LINKS = sorted(set(re.findall(r"\]\((?!https?:)([^)\s]+)\)", TEXT)))


def test_the_first_pipelines_have_at_most_20_lines_of_code():
    programs = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(programs) == 3, "of stages, of messages, of a flow"
    for program in programs:
        assert len([line for line in program.splitlines() if line.strip()]) <= 20


def test_every_make_command_exists():
    commands = set(re.findall(r"\bmake ([a-z]+)", TEXT))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    targets |= {"mypy", "pyright"}
    assert {"demo", "test"} <= commands <= targets


@pytest.mark.parametrize("link", LINKS)
def test_a_link_leads_to_a_page_and_a_heading_of_it(link):
    path, _, anchor = link.partition("#")
    assert (ROOT / path).exists(), link
    if anchor:
        headings = re.findall(r"^#+ (.*)$", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def test_every_module_that_it_tells_to_run_exists():
    for name in re.findall(r"python -m (examples\.\w+)", TEXT):
        place = ROOT / name.replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists()


def test_every_guide_is_linked():
    guides = {f"docs/guides/{page.name}" for page in (ROOT / "docs/guides").glob("*.md")} - {
        "docs/guides/contributing.md"
    }
    assert guides <= {link.partition("#")[0] for link in LINKS}


def test_the_picture_is_an_image_with_a_text_and_a_ground_of_its_own():
    picture = ET.fromstring((ROOT / "docs/demand.svg").read_text(encoding="utf-8"))
    names = {"svg": "http://www.w3.org/2000/svg"}
    assert picture.find("svg:title", names) is not None
    first = picture.find("svg:rect", names)
    assert first is not None
    assert first.get("fill") == "#f6f8fa", "it does not depend on the page's colour"


def test_speed_is_claimed_nowhere_but_by_pointing_at_the_benchmarks():
    assert not re.search(r"\b(fast|faster|fastest|blazing|million|M events)\b", TEXT, re.IGNORECASE)
    assert "make bench" in TEXT
