"""The page that puts the event log beside others: what it says about ours has to exist, by name."""

import ast
import functools
import inspect
import re
from pathlib import Path

import pytest

import headgate
from headgate import eventlog
from headgate.cli.log_commands import log_group

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guides" / "event-log-compared.md").read_text(encoding="utf-8")
NAME = re.compile(r"([A-Za-z_]+)(?:\.([a-z_]+))?(?:\(([a-z_]+=(?:, [a-z_]+=)*)\))?")


def rows(heading):
    """The cells of each row of the table below a heading."""
    lines = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")][2:]


def spans(cell):
    return re.findall(r"`([^`]+)`", cell)


OURS = rows("Ours, by name")


@pytest.mark.parametrize("row", OURS, ids=lambda row: row[0])
def test_each_name_and_each_command_exists(row):
    found = spans(row[2])
    assert found
    for span in found:
        if span.startswith("headgate "):
            check_command(*span.split())
        else:
            check_name(span)


def check_name(span):
    """``Name``, ``Name.attribute``, with ``(option=)`` for what it takes."""
    match = NAME.fullmatch(span)
    assert match, span
    name, attribute, options = match.groups()
    found = getattr(eventlog, name) if name in eventlog.__all__ else getattr(headgate, name)
    if attribute is not None:
        found = inspect.getattr_static(found, attribute)
        found = found.__func__ if isinstance(found, classmethod) else found
    if options is not None:
        taken = inspect.signature(found).parameters
        assert [each for each in options.replace("=", "").split(", ") if each not in taken] == [], span


def check_command(program, group, name, *options):
    assert (program, group) == ("headgate", "log")
    taken = [option for each in log_group.commands[name].params for option in each.opts]
    assert [each for each in options if each not in taken] == [], name


@functools.cache
def functions(file):
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {each.name for each in tree.body if isinstance(each, ast.FunctionDef)}


@pytest.mark.parametrize("row", OURS, ids=lambda row: row[0])
def test_each_test_exists(row):
    found = spans(row[3])
    assert found
    for span in found:
        file, colons, name = span.partition("::")
        assert colons
        assert name.startswith("test_")
        assert name in functions(file), span


def test_both_tables_say_the_same_about_ours():
    beside = [(row[0], re.match(r"\*\*(yes|partly|no)\*\*", row[1])) for row in rows("Side by side")]
    assert [(name, verdict and verdict[1]) for name, verdict in beside] == [(row[0], row[1]) for row in OURS]
    assert {len(row) for row in rows("Side by side")} == {8}
    assert {len(row) for row in OURS} == {4}
    assert len(OURS) > 20


@pytest.mark.parametrize(
    "wrong",
    [
        "EventLogs",
        "EventLog.appends",
        "EventLog.append(expected=)",
        "headgate log whyy",
        "headgate log why --fields",
        "x y",
    ],
)
def test_what_does_not_exist_is_found(wrong):
    with pytest.raises((AssertionError, AttributeError, KeyError)):
        test_each_name_and_each_command_exists(["", "", f"`{wrong}`"])


@pytest.mark.parametrize(
    "wrong", ["tests/eventlog/test_cli.py::test_nothing", "tests/nothing.py::test_states", "test_cli"]
)
def test_a_test_that_does_not_exist_is_found(wrong):
    with pytest.raises((AssertionError, FileNotFoundError, IsADirectoryError)):
        test_each_test_exists(["", "", "", f"`{wrong}`"])
