"""The small examples run as programs, and print what their docstrings say. (`test_flights.py` has the large one.)"""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.programs import example

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))
DEADLINE = 60
"""Seconds for one program; none comes near it."""


def program(name):
    done = example(name, timeout=DEADLINE)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def docstring(name):
    return ast.get_docstring(ast.parse((EXAMPLES / f"{name}.py").read_text(encoding="utf-8"))) or ""


def expected(name):
    """The lines that the docstring shows after its last ``::``."""
    shown = docstring(name).rpartition("::\n")[2]
    return [line.removeprefix("    ") for line in shown.splitlines() if line.startswith("    ")]


def test_these_are_the_small_examples():
    assert {"conversation", "fair", "quickstart"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_says_how_to_run_it_and_what_it_prints(name):
    assert f"python -m examples.{name}\n" in docstring(name)
    assert expected(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conversation", "fair"])
def test_it_prints_exactly_what_the_docstring_shows(name):
    assert program(name) == expected(name)


@pytest.mark.slow
def test_quickstart_prints_every_number_once_and_shares_the_work():
    lines = program("quickstart")
    assert "counter gave 100 numbers, of which 100 are handled" in lines
    assert "counter gave 100 numbers, of which 100 are handled" in expected("quickstart")
    numbers: dict[str, list[int]] = {"print-1": [], "print-2": []}
    shares = {}
    for line in lines:
        if share := re.fullmatch(r"(print-\d) handled (\d+) numbers", line):
            shares[share[1]] = int(share[2])
        elif not line.startswith("counter"):
            name, _, events = line.partition(": ")
            assert len(events.split()) <= 5
            numbers[name] += map(int, events.split())
    assert sorted(numbers["print-1"] + numbers["print-2"]) == list(range(0, 200, 2))
    assert {name: len(mine) for name, mine in numbers.items()} == shares
    for mine in numbers.values():
        assert mine, "who gets how much is the scheduler's business, but nobody gets nothing"
        assert mine == sorted(mine), "in the order in which they were given"


@pytest.mark.slow
def test_an_example_starts_nothing_when_it_is_imported():
    code = "; ".join(f"import examples.{name}" for name in NAMES)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
