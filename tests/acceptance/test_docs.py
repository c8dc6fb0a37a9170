"""Every Python block of the documentation runs, and prints what the page says that it prints.

The blocks of one page are one program: they share their names, in order. A block ``output`` shows exactly what the
Python block before it has printed. A program gets warnings as errors, and each block of it a deadline.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEADLINE = 20
"""Seconds for one block; none comes near it."""
PAGES = sorted(page for page in ROOT.glob("docs/**/*.md") if "_build" not in page.parts)

RUNNER = """
import contextlib, faulthandler, io, json, sys

sys.argv = ["page"]
scope = {"__name__": "__main__"}
for line, code, expected in json.load(sys.stdin):
    faulthandler.dump_traceback_later(%d, exit=True)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile("\\n" * line + code, sys.argv[0], "exec"), scope)
    if expected is not None and printed.getvalue().rstrip() != expected.rstrip():
        sys.exit(f"line {line}: the block printed\\n{printed.getvalue()}and the page says\\n{expected}")
faulthandler.cancel_dump_traceback_later()
"""


def fences(text):
    """Give each fenced block as its language, the number of its first line (from 0), and its lines."""
    language, first = None, 0
    block: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if language is None:
            if line.startswith("```"):
                language, first, block = line[3:].strip(), number, []
        elif line.startswith("```"):
            yield language, first, "\n".join(block) + "\n"
            language = None
        else:
            block.append(line)
    assert language is None, f"the block from line {first} on has no end"


def programs(text):
    """Give each Python block as [its line, its code, what it has to print or None]."""
    found = []
    for language, line, block in fences(text):
        if language == "python":
            found.append([line, block, None])
        elif language == "output":
            assert found, f"line {line}: an output, and no Python block before it"
            assert found[-1][2] is None, f"line {line}: a second output of one block"
            found[-1][2] = block
    return found


def run(blocks):
    """Run blocks as one program, in a folder of its own; return its exit status and what went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", RUNNER % DEADLINE],
            input=json.dumps(blocks),
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=DEADLINE * (1 + len(blocks)),
            check=False,
        )
    return done.returncode, done.stderr


WITH_CODE = [page for page in (ROOT / "README.md", *PAGES) if programs(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run_and_print_what_it_says(page):
    status, errors = run(programs(page.read_text(encoding="utf-8")))
    assert status == 0, f"{page.relative_to(ROOT)}: {errors}"


def test_there_are_blocks_in_the_readme_and_in_every_guide_that_teaches():
    names = {page.name for page in WITH_CODE}
    assert {"README.md", "first-pipeline.md", "demand.md", "dispatchers.md", "places.md", "errors.md"} <= names


def test_no_page_names_a_python_block_otherwise():
    """``py`` and ``pycon`` would not be run."""
    for page in (ROOT / "README.md", *PAGES):
        languages = {language for language, _, _ in fences(page.read_text(encoding="utf-8"))}
        assert not languages & {"py", "pycon", "python3", "Python"}, page


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```python\n1 / 0\n```\n", "ZeroDivisionError"),
        ("```python\nprint(1)\n```\n\n```output\n2\n```\n", "line 1: the block printed"),
        ("```python\nimport warnings\nwarnings.warn('old')\n```\n", "UserWarning: old"),
        ("```python\nx = 1\n```\n\n```python\nprint(y)\n```\n", "name 'y' is not defined"),
    ],
)
def test_a_wrong_page_is_found(text, message):
    status, errors = run(programs(text))
    assert status != 0
    assert message in errors
