"""Memory of an endless fast producer before a slow consumer, each contender in a process of its own.

``python -m benchmarks.memory CONTENDER SECONDS`` is that process: it prints one JSON object. A bounded
pipeline shows a number of waiting events that does not depend on the duration, and hardly any growth.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.model import Metric, Sample, WrongResultError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_DEMAND = 1_000
BATCH = 500
CONSUMER_SECONDS = 0.001
"""What the slow consumer takes for one batch."""

WARM_UP_SHARE = 1 / 3
"""Part of the time after which the memory is taken as the base line."""

SAMPLING_SECONDS = 0.05

METRICS = (
    Metric("growth", "KiB", "lower"),
    Metric("waiting", "events", "lower"),
    Metric("handled", "events/s", "higher"),
)


class Gauge:
    """Counts what the source made and the sink handled, and samples the memory.

    Counting at both ends sees every queue in between, whichever library owns it.
    """

    def __init__(self) -> None:
        """Start at zero."""
        self.made = 0
        self.handled = 0
        self.waiting = 0
        self.growth = 0
        self.wrong: str | None = None

    def make(self, events: int) -> None:
        """Count events that the source hands over."""
        self.made += events
        self.waiting = max(self.waiting, self.made - self.handled)

    def handle(self, first: int, events: int) -> None:
        """Count events that the sink has handled, and note when one is missing before them.

        An error raised here would end in whatever the library does with errors of a handler; `sample` raises
        it.
        """
        if first != self.handled and self.wrong is None:
            self.wrong = f"event {first} arrived, expected {self.handled}"
        self.handled += events

    async def watch(self, seconds: float) -> None:
        """Sample the memory for that time; growth is counted from the end of the warm-up."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        base: int | None = None
        while (elapsed := loop.time() - started) < seconds:
            await asyncio.sleep(SAMPLING_SECONDS)
            if elapsed >= seconds * WARM_UP_SHARE:
                now = resident_kib()
                base = now if base is None else base
                self.growth = max(self.growth, now - base)

    def sample(self, seconds: float) -> Sample:
        """Return the metrics.

        Raises:
            WrongResultError: Nothing was handled, or not every event in order.
        """
        wrong = self.wrong if self.handled else "no event was handled"
        if wrong:
            raise WrongResultError(wrong)
        return {"growth": self.growth, "waiting": self.waiting, "handled": self.handled / seconds}


def resident_kib() -> int:
    """Return this process's resident memory in KiB, from /proc."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    message = "/proc/self/status has no VmRSS"
    raise OSError(message)


def asyncio_queue(seconds: float) -> Sample:
    """Put single events into a bounded queue; the consumer takes what is there, up to a batch."""

    async def produce(gauge: Gauge, out: asyncio.Queue[int]) -> None:
        while True:
            event = gauge.made
            await out.put(event)
            gauge.make(1)

    async def consume(gauge: Gauge, into: asyncio.Queue[int]) -> None:
        while True:
            batch = [await into.get()]
            while len(batch) < BATCH and not into.empty():
                batch.append(into.get_nowait())
            await asyncio.sleep(CONSUMER_SECONDS)
            gauge.handle(batch[0], len(batch))

    async def run() -> Sample:
        gauge = Gauge()
        queue: asyncio.Queue[int] = asyncio.Queue(MAX_DEMAND)
        tasks = [asyncio.create_task(produce(gauge, queue)), asyncio.create_task(consume(gauge, queue))]
        await gauge.watch(seconds)
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        return gauge.sample(seconds)

    return asyncio.run(run())


def headgate(seconds: float) -> Sample:
    """Let headgate's demand hold an endless producer back."""
    # The peers' processes must not pay for importing what they do not use.
    from benchmarks.stages_headgate_timed import memory  # noqa: PLC0415

    return memory(seconds)


CONTENDERS: dict[str, Callable[[float], Sample]] = {"asyncio_queue": asyncio_queue, "headgate": headgate}


def in_subprocess(seconds: float, contender: str) -> Sample:
    """Run a contender in a fresh interpreter.

    Args:
        seconds: Duration of its run.
        contender: Key of `CONTENDERS`.

    Returns:
        Its metrics.

    Raises:
        WrongResultError: The process failed; the message is the last line of its error output.
    """
    done = subprocess.run(  # noqa: S603 - our own module in our own interpreter
        [sys.executable, "-m", "benchmarks.memory", contender, str(seconds)],
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True,
        text=True,
        timeout=seconds + 30,
        check=False,
    )
    if done.returncode:
        # The last line is the error; the table has one line for it.
        raise WrongResultError(done.stderr.strip().rpartition("\n")[2])
    sample: dict[str, float] = json.loads(done.stdout)
    return sample


if __name__ == "__main__":
    print(json.dumps(CONTENDERS[sys.argv[1]](float(sys.argv[2]))))
