"""Visits in a stream of clicks: next to a slow and obvious model, and as a program that Ctrl-C ends."""

import ast
import asyncio
import itertools
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from examples import sessions
from examples.sessions import BOUND, GAP, arrivals, paced
from headgate.testing import run

ROOT = Path(__file__).parents[2]


def modelled(clicks):
    """Return the visits, as (user, clicks in order of time), and the late clicks."""
    opened: dict[str, list[list[Any]]] = {}
    closed, late, mark = [], [], None
    for click in clicks:
        for user, visits in opened.items():
            over = [visit for visit in visits if mark is not None and max(visit).at + GAP <= mark]
            closed += [(user, sorted(visit)) for visit in over]
            opened[user] = [visit for visit in visits if visit not in over]
        mine = opened.setdefault(click.user, [])
        near = [visit for visit in mine if min(visit).at < click.at + GAP and click.at < max(visit).at + GAP]
        if mark is not None and click.at + GAP <= mark:  # a visit of its own would be over
            late.append(click)
        else:
            opened[click.user] = [visit for visit in mine if visit not in near] + [[click, *itertools.chain(*near)]]
        mark = click.at - BOUND if mark is None else max(mark, click.at - BOUND)
    return closed + [(user, sorted(visit)) for user, visits in opened.items() for visit in visits], late


@pytest.mark.slow
def test_visits_are_those_of_a_model():
    clicks = [click for _, click in itertools.islice(arrivals(7), 2500)]
    visits, late = modelled(clicks)
    assert len(late) > 10
    assert len(visits) > 200
    found: list[Any] = []
    numbers = sessions.sessions(iter(clicks)).into(found.extend).run()
    assert numbers.late == len(late)
    expected = Counter(
        (user, visit[0].at, visit[-1].at + GAP, len(visit), visit[-1], any(click.page == "/order" for click in visit))
        for user, visit in visits
    )
    assert Counter((user, window.start, window.end, *visit) for window, user, visit in found) == expected


def test_clicks_come_at_their_time():
    async def main():
        began = asyncio.get_running_loop().time()
        expected = [(arrival, click) for arrival, click in itertools.islice(arrivals(3), 50)]
        now = asyncio.get_running_loop().time
        seen = [(now() - began, click) async for click in paced(iter(expected), 60, None)]
        assert [click for _, click in seen] == [click for _, click in expected]
        for (seconds, _), (arrival, _) in zip(seen, expected, strict=True):
            assert seconds == pytest.approx((arrival - sessions.BEGIN).total_seconds() / 60, abs=0.01)
        some = [click async for click in paced(arrivals(3), 60, seen[20][0] + 0.01)]
        assert some == [click for _, click in seen[: len(some)]]
        assert len(some) >= 21

    run(main())


def started(*arguments):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "examples.sessions", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_it_prints_what_the_docstring_shows():
    with started("--clicks", "3000", "--pace", "0") as program:
        text, errors = program.communicate(timeout=60)
    assert (program.returncode, errors) == (0, "")
    shown = ast.get_docstring(ast.parse(Path(sessions.__file__).read_text(encoding="utf-8"))) or ""
    lines = [line.removeprefix("    ") for line in shown.rpartition("::\n\n")[2].splitlines()]
    cut = lines.index("...")
    assert text.splitlines()[:cut] == lines[:cut]
    assert text.splitlines()[cut + 1 - len(lines) :] == lines[cut + 1 :]


@pytest.mark.slow
def test_ctrl_c_ends_it_and_shows_what_was_open():
    with started("--pace", "20000") as program:
        assert program.stdout is not None
        assert program.stderr is not None
        assert program.stdout.readline().startswith("visit ")
        assert program.stdout.readline()
        program.send_signal(signal.SIGINT)
        text, errors = program.stdout.read(), program.stderr.read()  # `communicate` would not know what was read ahead
    assert program.returncode == 0
    assert re.fullmatch(r".*SIGINT: finishing what was begun, .*\n", errors)
    *visits, last = text.splitlines()
    assert len(visits) > 5, "there are always some who are looking"
    clicks = sum(int(line.split()[4]) for line in visits)
    numbers = re.fullmatch(r"([\d,]+) clicks, ([\d,]+) visits, (\d+) with an order, (\d+) late", last)
    assert numbers is not None
    assert int(numbers[2]) == len(visits) + 1
    assert clicks < int(numbers[1].replace(",", "")), "the first visit was read before"


class Run:
    """As much of a run as the screen looks at."""

    def flow_statistics(self):
        numbers = sessions.headgate.flow.FlowStatistics(read=1234, late=5)  # type: ignore[attr-defined]
        numbers.gauges["work-1[0]"] = {"windows of 0": 7, "watermark of 0": sessions.BEGIN}
        return numbers


def test_the_line_of_a_terminal_is_written_over(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    screen = sessions.Screen()
    screen.state(Run())  # type: ignore[arg-type]
    line = "1,234 clicks, 0 visits, 0 with an order, 5 late; open: 7; watermark Mon 09:00"
    assert capsys.readouterr().out == f"\r{line}\x1b[K"
    screen.visits([])
    screen.begin()
    assert capsys.readouterr().out == f"\r\x1b[K{'visit':<28}{'minutes':>8}{'clicks':>8}  left at\n{line}"
