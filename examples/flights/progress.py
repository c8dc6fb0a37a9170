"""What is on the screen while it runs: how far the file is read, and the demand at every stage."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from .summary import number

if TYPE_CHECKING:
    from rich.console import Group

    from headgate import StageStatistics, System

    from .source import FlightFile

_LINE_EVERY: Final = 1.0  # seconds
_SCREEN_EVERY: Final = 0.1
_BAR: Final = 40  # characters


class StageLine(NamedTuple):
    """One stage at one moment; numbers of rows.

    Attributes:
        name: Of the stage.
        asks: What it has asked the stages before it for, and not got yet; None for the first stage.
        owes: What the stages after it have asked it for, and not got yet; None for a last stage.
        buffered: In it now: not handled yet, or handled and not asked for.
        in_flight: Handed on to the stages after it, and not confirmed by them yet; None for a last stage.
        handled: Done with for good.
    """

    name: str
    asks: int | None
    owes: int | None
    buffered: int
    in_flight: int | None
    handled: int


class Snapshot(NamedTuple):
    """The run at one moment.

    Attributes:
        fraction: How much of the file is read, 0 to 1.
        rows: Rows read.
        seconds: Since the start.
        stages: Every stage, first to last.
    """

    fraction: float
    rows: int
    seconds: float
    stages: tuple[StageLine, ...]

    @property
    def rate(self) -> float:
        """Rows read per second, on average."""
        return self.rows / self.seconds if self.seconds else 0.0


Show: TypeAlias = Callable[[Snapshot], None]


@asynccontextmanager
async def follow(system: System, file: FlightFile) -> AsyncIterator[None]:
    """Show the run while it goes on: a live table on a terminal, else a line every second.

    Args:
        system: Where the stages are.
        file: What they read.

    Yields:
        Nothing, once the display stands.
    """
    begun = time.perf_counter()
    refs = system.stages()  # also for the last look, when all of them have ended
    live = sys.stdout.isatty() and importlib.util.find_spec("rich") is not None
    every = _SCREEN_EVERY if live else _LINE_EVERY

    def look() -> Snapshot:
        stages = tuple(stage_line(ref.statistics()) for ref in refs)
        return Snapshot(file.fraction, file.rows_read, time.perf_counter() - begun, stages)

    with _screen() if live else _lines() as show:
        task = asyncio.create_task(_repeat(lambda: show(look()), every))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        show(look())


async def _repeat(action: Callable[[], None], every: float) -> None:
    while True:
        await asyncio.sleep(every)
        action()


def stage_line(stage: StageStatistics) -> StageLine:
    """Pick the numbers that the display shows.

    Args:
        stage: The counters of one stage.

    Returns:
        Its line.
    """
    first, last = stage.role == "producer", stage.role == "consumer"
    return StageLine(
        name=stage.name,
        asks=None if first else sum(each.pending for each in stage.producers),
        owes=None if last else 0 if stage.state == "ended" else stage.demand,
        buffered=stage.waiting + stage.buffered + sum(stage.queued.values()),
        in_flight=None if last else stage.in_flight,
        handled=stage.handled,
    )


def text_line(now: Snapshot) -> str:
    """The run in one line, for a display that cannot be redrawn."""
    wanted = [(stage.name, stage.owes if stage.asks is None else stage.asks) for stage in now.stages]
    demand = ", ".join(f"{name} {number(rows)}" for name, rows in wanted)
    return f"{now.fraction:4.0%}  {number(now.rows)} rows  {number(now.rate)} rows/s  demand: {demand}"


@contextmanager
def _lines() -> Iterator[Show]:
    def show(now: Snapshot) -> None:
        sys.stdout.write(text_line(now) + "\n")
        sys.stdout.flush()

    yield show


@contextmanager
def _screen() -> Iterator[Show]:
    from rich.live import Live  # noqa: PLC0415 - not needed without a terminal, and not installed everywhere

    with Live(auto_refresh=False) as live:
        yield lambda now: live.update(_picture(now), refresh=True)


def _picture(now: Snapshot) -> Group:
    from rich.console import Group  # noqa: PLC0415
    from rich.progress_bar import ProgressBar  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    head = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=1.0, completed=now.fraction, width=_BAR)
    head.add_row(Text(f"{now.fraction:4.0%}"), bar, f"{number(now.rows)} rows", f"{number(now.rate)} rows/s")
    stages = Table(box=None, padding=(0, 1), header_style="bold")
    stages.add_column("stage", min_width=10)
    for heading in ("asks for", "owes", "buffered", "in flight", "handled"):
        stages.add_column(heading, justify="right", min_width=10)
    for stage in now.stages:
        stages.add_row(stage.name, *(number(value) for value in stage[1:]))
    return Group(head, Text(), stages, Text(), Text(_LEGEND, style="dim"))


_LEGEND: Final = (
    " asks for: wanted from the stage before.  owes: wanted by the stages after it.\n"
    " buffered: lying in the stage.  in flight: handed on, not confirmed yet."
)
