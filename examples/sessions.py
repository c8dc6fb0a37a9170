"""Sessions: which visits to a web site are there in an endless stream of clicks, and which of them ended with an order?

Run it until Ctrl-C, which ends it in order, or for some seconds, or for some clicks::

    python -m examples.sessions
    python -m examples.sessions --seconds 20
    python -m examples.sessions --clicks 3000 --pace 0

Clicks come as they do from browsers and telephones: out of order, most of them after a second or two, some much later,
when a telephone is back from a tunnel. A visit is the clicks of a user with less than 30 minutes between each and the
next. It is over when the watermark says so, which is 5 minutes behind the newest click. A click is late if a visit of
itself alone would be over, that is, if it is 35 minutes older than the newest; it is left out and counted. The flow
holds what is open and nothing else, however long it runs: the last line on a terminal says how much that is. Ctrl-C
ends the stream, so that what is open is shown, too.

The clock of the clicks goes 1,200 times as fast as that on the wall, so that visits end while one watches. With
``--pace 0`` it goes as fast as it can. ``--clicks 3000 --pace 0`` prints, as the same clicks come each time::

    visit                        minutes  clicks  left at
    Mon 09:04  user-0000               0       1  /
    Mon 09:00  user-0056               4       4  /item
    Mon 09:04  user-1566               1       3  /help
    Mon 09:05  user-0196               0       2  /item
    Mon 09:05  user-0259               0       2  /item
    Mon 09:01  user-0992               6       5  /search
    Mon 09:08  user-0529               0       1  /
    Mon 09:08  user-1596               3       5  /item
    Mon 09:13  user-1077               0       1  /
    Mon 09:10  user-0044               6       7  /order, with an order
    Mon 09:11  user-0838               6       5  /order, with an order
    ...
    Mon 20:45  user-1143               0       1  /
    Mon 20:41  user-0055               4       6  /item
    3,000 clicks, 441 visits, 56 with an order, 23 late

"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import itertools
import random
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, NamedTuple

import headgate
from headgate import Flow
from headgate.flow import FlowApp, FlowRun, Windowed, watermarks, windows

BEGIN: Final = datetime(2026, 3, 2, 9, tzinfo=UTC)
GAP: Final = timedelta(minutes=30)
BOUND: Final = timedelta(minutes=5)
EVERY: Final = 0.5
"""Seconds between two looks at what is open."""
PAGES: Final = ("/", "/search", "/item", "/item", "/item", "/cart", "/help")


class Click(NamedTuple):
    """One event.

    Attributes:
        at: When it was made.
        user: By whom.
        page: On which page.
    """

    at: datetime
    user: str
    page: str


class Visit(NamedTuple):
    """What is known of a visit; two parts of one make one.

    Attributes:
        clicks: How many.
        last: The last of them.
        ordered: One of them was an order.
    """

    clicks: int = 0
    last: Click | None = None
    ordered: bool = False


def with_click(visit: Visit, click: Click) -> Visit:
    """Add a click, which need not be the newest."""
    last = click if visit.last is None else max(visit.last, click)
    return Visit(visit.clicks + 1, last, visit.ordered or click.page == "/order")


def both(one: Visit, other: Visit) -> Visit:
    """Put two parts together, which a click between them has shown to be one visit."""
    last = max((each.last for each in (one, other) if each.last is not None), default=None)
    return Visit(one.clicks + other.clicks, last, one.ordered or other.ordered)


# -- where clicks come from -------------------------------------------------------------------------------------------


def visits(draw: random.Random) -> Iterator[list[Click]]:
    """Yield the clicks of one visit after the other, endlessly; the visits begin in order."""
    begin = BEGIN
    while True:
        begin += timedelta(seconds=draw.expovariate(1 / 100))
        user = f"user-{int(2000 * draw.random() ** 2):04}"  # some come more often than others
        at, clicks = begin, [Click(begin, user, "/")]
        while draw.random() < 0.85:
            at += timedelta(seconds=draw.lognormvariate(4, 1))
            clicks.append(Click(at, user, draw.choice(PAGES)))
        if clicks[-1].page == "/cart":
            clicks.append(Click(at + timedelta(seconds=45), user, "/order"))
        yield clicks


def delay(draw: random.Random) -> timedelta:
    """Return how long a click is on its way: a second or two, or until a telephone is back."""
    if draw.random() < 0.01:
        return timedelta(minutes=draw.uniform(1, 120))
    return timedelta(seconds=draw.expovariate(1 / 2))


def arrivals(seed: int) -> Iterator[tuple[datetime, Click]]:
    """Yield (time of arrival, click), endlessly, in the order of arrival."""
    draw = random.Random(seed)
    waiting: list[tuple[datetime, Click]] = []
    for clicks in visits(draw):
        while waiting and waiting[0][0] < clicks[0].at:
            yield heapq.heappop(waiting)
        for click in clicks:
            heapq.heappush(waiting, (click.at + delay(draw), click))


async def paced(clicks: Iterator[tuple[datetime, Click]], pace: float, seconds: float | None) -> AsyncIterator[Click]:
    """Yield clicks when they arrive, on a clock that goes so many times as fast as that on the wall.

    Args:
        clicks: With their arrival.
        pace: How fast.
        seconds: How long, on the wall; None: for ever.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    for arrival, click in clicks:
        due = (arrival - BEGIN).total_seconds() / pace
        if seconds is not None and due > seconds:
            await asyncio.sleep(began + seconds - loop.time())
            return
        if began + due > loop.time():
            await asyncio.sleep(began + due - loop.time())
        yield click


# -- the flow ---------------------------------------------------------------------------------------------------------


def sessions(clicks: Any) -> Flow:
    """Describe the flow.

    Args:
        clicks: An iterable or an async iterable of clicks; it need not end.
    """
    spec = windows.session(GAP, by="at", watermark=watermarks.out_of_order(BOUND))
    return Flow.from_iterable(clicks).window(spec).reduce_by("user", Visit, with_click, combine=both)


class Sessions:
    """The app: the flow, and beside it a line that says how much is open.

    Args:
        flow: As made by `sessions`.
        screen: Where to write.
    """

    def __init__(self, flow: Flow, screen: Screen) -> None:
        """Say where the results go, and that one wants to watch."""
        self._app: FlowApp = flow.app(consume=screen.visits, watch=EVERY)
        self._screen = screen

    async def __aenter__(self) -> FlowRun:
        """Start."""
        self._run: FlowRun = await self._app.__aenter__()  # type: ignore[assignment]  # a flow's is one
        self._look = asyncio.create_task(self._looking())
        return self._run

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Wait until all of it has ended, and show what it was."""
        try:
            await self._app.__aexit__(kind, error, at)
        finally:
            self._look.cancel()
            self._screen.state(self._run, last=True)

    async def _looking(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            self._screen.state(self._run)


class Screen:
    """Shows visits, one a line, and below them a line of state, which is written over on a terminal.

    Attributes:
        found: How many visits there were.
        orders: How many of them ended with an order.
    """

    def __init__(self) -> None:
        self.found = 0
        self.orders = 0
        self._terminal = sys.stdout.isatty()
        self._state = ""

    def begin(self) -> None:
        """Write the headings."""
        self._write(f"{'visit':<28}{'minutes':>8}{'clicks':>8}  left at")

    def visits(self, found: Sequence[Windowed]) -> None:
        """Show visits that are over."""
        for window, user, visit in found:
            self.found += 1
            self.orders += visit.ordered
            minutes = (visit.last.at - window.start).total_seconds() / 60
            when = f"{window.start:%a %H:%M}"
            page = f"{visit.last.page}, with an order" if visit.ordered else visit.last.page
            self._write(f"{when}  {user:<17}{minutes:>8.0f}{visit.clicks:>8}  {page}")

    def state(self, run: FlowRun, *, last: bool = False) -> None:
        """Show what is open."""
        numbers = run.flow_statistics()
        gauges = next(iter(numbers.gauges.values()), {})
        mark = gauges.get("watermark of 0")
        line = f"{numbers.read:,} clicks, {self.found:,} visits, {self.orders:,} with an order, {numbers.late:,} late"
        if not last:
            line += f"; open: {gauges.get('windows of 0', 0):,}; watermark {mark:%a %H:%M}" if mark else ""
            if not self._terminal:
                return
        self._state = "" if last else line
        sys.stdout.write(f"\r{line}\x1b[K" if self._terminal and not last else f"{self._before()}{line}\n")
        sys.stdout.flush()

    def _write(self, line: str) -> None:
        sys.stdout.write(f"{self._before()}{line}\n{self._state}")

    def _before(self) -> str:
        return "\r\x1b[K" if self._terminal else ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program."""
    options = _parser().parse_args(arguments)
    clicks: Any = itertools.islice(arrivals(options.seed), options.clicks)
    clicks = paced(clicks, options.pace, options.seconds) if options.pace else (click for _, click in clicks)
    screen = Screen()
    screen.begin()
    headgate.run(Sessions(sessions(clicks), screen))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m examples.sessions", description="Visits in a stream of clicks.")
    parser.add_argument("--seconds", type=float, metavar="N", help="how long (until Ctrl-C)")
    parser.add_argument("--clicks", type=int, metavar="N", help="how many (until Ctrl-C)")
    parser.add_argument(
        "--pace", type=float, metavar="N", default=1200.0, help="seconds of clicks in one (%(default)g)"
    )
    parser.add_argument("--seed", type=int, metavar="N", default=1, help="other clicks (%(default)s)")
    return parser


if __name__ == "__main__":
    main()
