"""A blocked event loop, noticed and named.

A plain handler that takes long keeps everything else from running, and nothing says so. A `Watchdog` is a thread that
looks whether the loop still runs its timers. When it has not for a while, the stack of the loop's thread tells whose
handler it is in at that moment; it is logged once for each place in the code, and counted.

It costs the loop a timer a few times a second. It raises no alarm when the loop is idle, or when the whole process was
suspended: then its own sleep has been too long as well, and no processor time was used.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

from headgate.stage import Stage

logger = logging.getLogger("headgate")

PACKAGE: Final = str(Path(__file__).parents[1])
LOOKS: Final = 4
"""Looks within the time after which an alarm is raised."""


class Where(NamedTuple):
    """A place in somebody's code.

    Attributes:
        stage: The name of the stage whose code it is; None when it is nobody's.
        function: The function's name.
        file: Its file.
        line: The line that runs.
        stack: The stack from there inwards, as text.
    """

    stage: str | None
    function: str
    file: str
    line: int
    stack: str

    def __str__(self) -> str:
        """Say it in a few words."""
        owner = "" if self.stage is None else f" of stage {self.stage!r}"
        return f"{self.function}{owner} ({short(self.file)}:{self.line})"


@dataclass(slots=True)
class Block:
    """A place that has blocked the loop.

    Attributes:
        where: The place, with the stack of the first time.
        count: How often.
        seconds: How long in all.
        longest: How long at most, in seconds.
        logged: How often, when it was logged last.
    """

    where: Where
    count: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    logged: int = 0


class Watchdog:
    """Watches one event loop from a thread of its own.

    Args:
        loop: Which loop; it runs in the thread that calls `start`.
        seconds: An alarm is raised when it has not run for so long.

    Attributes:
        blocks: What has blocked it, in the order of the first time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float = 0.25) -> None:
        """Prepare it."""
        self._loop = loop
        self._seconds = seconds
        self._pause = seconds / LOOKS
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="headgate: watchdog", daemon=True)
        self._timer: asyncio.TimerHandle | None = None
        self._watched = 0
        self._beaten = 0.0  # when the loop has run last
        self._from = 0.0  # what was before does not count
        self._now: Block | None = None  # what blocks it
        self._begun = 0.0  # since when
        self._blocks: dict[tuple[str, int], Block] = {}

    @property
    def blocks(self) -> list[Block]:
        """What has blocked the loop so far."""
        return list(self._blocks.values())

    def start(self) -> None:
        """Begin to watch; called in the loop's thread."""
        self._watched = threading.get_ident()
        self._beat()
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer, and log what was only counted; called in the loop's thread."""
        if self._timer is not None:
            self._timer.cancel()
        self._over.set()
        self._thread.join(1.0)
        if self._now is not None:
            self._ended(time.monotonic())
        for block in self.blocks:
            if block.count > block.logged:
                self._log_again(block)

    def _beat(self) -> None:
        self._beaten = time.monotonic()
        self._timer = self._loop.call_later(self._pause, self._beat)

    def _watch(self) -> None:
        before, used = time.monotonic(), time.process_time()
        while not self._over.wait(self._pause):
            now, using = time.monotonic(), time.process_time()
            late = now - before - self._pause
            if late > self._seconds / 2 and using - used < late / 2:  # suspended, or the machine had no time for us
                self._from = now
            before, used = now, using
            self._look(now)

    def _look(self, now: float) -> None:
        last = max(self._beaten, self._from)
        if self._now is not None and self._beaten > self._begun:
            self._ended(self._beaten)
        if now - last < self._seconds:
            return
        where = locate(frame_of(self._watched))
        if self._now is not None:  # still; but is it the same one?
            if where is not None and where.stage != self._now.where.stage:
                self._ended(now)
                self._from = now
            return
        if where is None:  # it waits for something to happen: it is not blocked, only late
            self._from = now
            return
        block = self._blocks.setdefault((where.file, where.line), Block(where))
        self._now, self._begun = block, last
        block.count += 1
        if block.count == 1:
            block.logged = 1
            logger.warning(
                "the event loop is blocked, for %.2f s so far, by %s; nothing else runs meanwhile "
                "(place='thread' would help)\n%s",
                now - last,
                where,
                where.stack.rstrip(),
            )

    def _ended(self, now: float) -> None:
        block, self._now = self._now, None
        assert block is not None  # noqa: S101 (so the callers say)
        seconds = now - self._begun
        block.seconds += seconds
        block.longest = max(block.longest, seconds)
        if block.count >= 10 * block.logged:
            self._log_again(block)

    @staticmethod
    def _log_again(block: Block) -> None:
        block.logged = block.count
        logger.warning(
            "the event loop was blocked %d times by %s: %.2f s in all, %.2f s at most",
            block.count,
            block.where,
            block.seconds,
            block.longest,
        )


def locate(frame: FrameType | None) -> Where | None:
    """Say whose code the loop's thread is in.

    Args:
        frame: Its innermost frame.

    Returns:
        The place, or None when the loop runs nothing.
    """
    frames: list[FrameType] = []  # the innermost first
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    inside = _inside(frames)
    if not inside:
        return None
    stage, found = None, None
    for index, each in enumerate(inside):
        owner = _owner(each)
        if owner is not None:
            stage = owner
            theirs = [inner for inner in reversed(range(index)) if not _is_ours(inside[inner])]
            # Code of ours that calls theirs (an iterable's, a child's): theirs is the place.
            found = theirs[0] if theirs and _is_ours(each) else index
            break
    if found is None:  # no stage's: a dispatcher's, a task of the user's
        found = next((index for index in reversed(range(len(inside))) if not _is_ours(inside[index])), 0)
    place = inside[found]
    return Where(
        stage, place.f_code.co_name, place.f_code.co_filename, place.f_lineno, format_frames(inside[found::-1])
    )


def frame_of(thread: int | None) -> FrameType | None:
    """Return the innermost frame of a thread; None when it is not there."""
    frames = sys._current_frames()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # documented for this
    return None if thread is None else frames.get(thread)


def format_frames(frames: list[FrameType]) -> str:
    """Return frames as a traceback shows them, the outermost first."""
    lines = [(each, each.f_lineno) for each in frames]
    return "".join(traceback.StackSummary.extract(iter(lines), lookup_lines=True).format())


def short(file: str) -> str:
    """Return a path as it reads best: relative to the current directory when it is below it."""
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return file


def _inside(frames: list[FrameType]) -> list[FrameType]:
    """Return the frames of what the loop runs right now, the innermost first."""
    for index, each in enumerate(frames):
        name, file = each.f_code.co_name, each.f_code.co_filename
        if name == "_run" and file.endswith("events.py"):  # asyncio's Handle
            return frames[:index]
        if name == "_run_once":
            return []
    for index, each in enumerate(frames):  # a loop without frames of its own: uvloop
        if each.f_code.co_filename.endswith("runner.py") and _is_ours(each):
            return frames[:index]
    return []


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(PACKAGE)


def _owner(frame: FrameType) -> str | None:
    """Return the name of the stage whose method this is."""
    code = frame.f_code
    if not code.co_argcount:
        return None
    first: Any = frame.f_locals.get(code.co_varnames[0])
    if _is_ours(frame) and not isinstance(first, Stage):  # a worker that runs the children of a ConsumerSupervisor
        first = getattr(first, "spawner", None)
    if not isinstance(first, Stage):
        return None
    context = getattr(first, "stage", None)
    return None if context is None else context.name
