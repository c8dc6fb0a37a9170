"""The example on real files: as a program, and at every place the same as a plain loop finds."""

import asyncio
import re
import textwrap
from pathlib import Path

import pytest

from examples.code_metrics.metrics import File, be_quiet, measure
from examples.code_metrics.report import most_used, totals
from examples.code_metrics.stages import PLACES, app, python_files, standard_library
from tests.acceptance.programs import example

ROOT = Path(__file__).parents[2]
PART = 40
"""Files of the standard library that are measured here; the example takes all of them."""

SOURCE = '''
    class Shop:
        """It has one method."""

        def buy(self, things, money):
            for thing in things:
                if thing.price > money and thing.needed or thing.free:
                    return thing
                elif thing.cheap:
                    with self.lock:
                        money -= thing.price
                else:
                    try:
                        self.pay(thing)
                    except (ValueError, KeyError):
                        pass
                    except OSError:
                        while self.broken():
                            self.wait()
            return [each for each in things if each] if things else None

        async def wait(self):
            def later(number):
                return number and 1

            match later(1):
                case 1:
                    return 1
                case _:
                    return 2


    def plain():
        return lambda x: x if x else plain
'''


def test_a_file_by_hand(tmp_path):
    path = tmp_path / "shop.py"
    path.write_text(textwrap.dedent(SOURCE), encoding="utf-8")
    found = measure(str(path))
    assert {each.name: each[2:] for each in found.functions} == {
        # for, if, and, or, elif, two excepts, while, comprehension, if-else; for > if > try > while
        "Shop.buy": (16, 11, 4),
        "Shop.wait": (9, 3, 1),
        "Shop.wait.later": (2, 2, 0),
        "plain": (2, 2, 0),
    }
    assert (found.path, found.classes, found.lines, found.error) == (str(path), 1, 34, "")
    assert (found.names["thing"], found.names["self"], found.names["x"], found.names["price"]) == (8, 4, 2, 2)


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"print 1\n", "SyntaxError: Missing parentheses"), (b"x = '\xff'\n", "SyntaxError"), (None, "FileNotFoundError")],
)
def test_what_is_no_file_of_python_says_why(tmp_path, content, error):
    path = tmp_path / "bad.py"
    if content is not None:
        path.write_bytes(content)
    found = measure(str(path))
    assert found.error.startswith(error)
    assert found == File(str(path), error=found.error)


def test_what_is_old_fashioned_is_no_error(tmp_path):
    path = tmp_path / "old.py"
    path.write_text("x = '\\d'\n", encoding="utf-8")
    be_quiet()  # else a warning is an error here
    assert measure(str(path)).error == ""


def test_sums():
    first = File("a", 10, 1, (), {"x": 2, "y": 1})
    second = File("b", 5, 2, (), {"x": 1, "z": 3})
    assert totals([first, second, File("c", error="no")])["lines"] == 15
    assert totals([File("c", error="no")])["unreadable"] == 1
    assert most_used([first, second], 2) == [("x", 3), ("z", 3)]


async def measured(paths, place):
    found: list[File] = []
    async with asyncio.timeout(60), app(paths, found, place=place, workers=2) as running:
        await running.wait()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_every_place_finds_what_a_plain_loop_does(place):
    paths = python_files(standard_library())
    assert len(paths) > 500, "the standard library is there"
    some = paths[:: len(paths) // PART]
    be_quiet()
    expected = sorted(map(measure, some), key=lambda each: each.path)
    assert sum(len(each.functions) for each in expected) > 100
    found = asyncio.run(measured(some, place))
    assert sorted(found, key=lambda each: each.path) == expected


@pytest.mark.slow
def test_as_a_program_the_place_changes_nothing_but_the_last_line(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "shop.py").write_text(textwrap.dedent(SOURCE), encoding="utf-8")
    (tmp_path / "bad.py").write_text("print 1\n", encoding="utf-8")
    texts = set()
    for place in PLACES:
        done = example("code_metrics", tmp_path, "--place", place, "--workers", 2)
        assert (done.returncode, done.stderr) == (0, "")
        text, _, last = done.stdout.rstrip().rpartition("\n")
        assert re.fullmatch(rf"place {place}, 2 at a time: \d+\.\d s, [\d,]+ files/s", last)
        texts.add(text)
    [text] = texts
    assert text.startswith("2 files, 34 lines, 1 classes, 4 functions; 4.5 branches in a function, on average\n")
    assert re.search(r"inner/shop.py +Shop.buy +16 +11 +4\n", text)
    assert "no files of this Python, 1:\n  bad.py: SyntaxError: Missing parentheses" in text


@pytest.mark.slow
def test_the_standard_library_is_what_it_takes_by_itself():
    done = example("code_metrics", "--limit", PART)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{PART} files, ")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--place", "moon"], "invalid choice: 'moon'"),
        (["--workers", "0"], "'0' is not a whole number"),
        ([ROOT / "docs" / "guides"], "there are no files of Python"),
    ],
)
def test_a_wrong_option_is_exit_code_2(arguments, text):
    done = example("code_metrics", *arguments)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr
