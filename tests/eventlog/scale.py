"""Several processes append as fast as they can, while others tail the log: none may miss an event, or see two swapped.

::

    python -m tests.eventlog.scale --events 1000000 --writers 4 --readers 2
    python -m tests.eventlog.scale --events 1000000 --store postgres

Readers note the position and the id of each event that they see; in the end that is compared with the log. Each writer
numbers its events: a reader that has seen number N of a writer has to see N + 1 of it next.
"""

import argparse
import asyncio
import os
import struct
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from headgate.eventlog import Event, EventLog, verify
from tests.eventlog.server import server

SEEN = struct.Struct("<q16s")
TEXT = "x" * 120


@dataclass
class Result:
    store: str
    batch: int
    events: int = 0
    writing: float = 0.0
    reading: float = 0.0
    missed: int = 0
    disorder: int = 0
    damages: int = 0
    load: tuple[float, ...] = ()
    faults: list[str] = field(default_factory=list)

    def __str__(self):
        lines = [
            f"{self.store}: {self.events} events by {self.batch}, {self.events / self.writing:,.0f}/s written",
            f"readers had everything {self.reading - self.writing:.2f} s after the last was written",
            f"{self.missed} missed, {self.disorder} out of order, {self.damages} damages",
            f"load average {self.load[0]:.1f}",
            *(f"FAULT {each}" for each in self.faults),
        ]
        return "\n".join(lines)


async def write(url, slot, count, batch):
    stream, number = f"writer-{slot}", 0
    async with EventLog(url, busy_timeout=300) as log:
        while number < count:
            size = min(batch, count - number)
            events = [Event("made", {"w": slot, "n": number + each, "text": TEXT}) for each in range(size)]
            # Every second batch of all writers goes to the same stream: versions are contended for too.
            await log.append(stream if number // batch % 2 else "shared", events)
            number += size


async def tail(url, path, total):
    """Stay with the log until so many events came, in whatever order; note them all."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    at = seen = 0
    async with EventLog(url, busy_timeout=300) as log:
        while seen < total:
            async for page in log.read(start=at + 1).pages():
                os.write(file, b"".join(SEEN.pack(row[0], row[5]) for row in page.rows))
                at, seen = page.rows[-1][0], seen + len(page)
            head = await log.head()
            if seen < total and at >= head:
                await log.store.wait(at)


def fork(work, *args):
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    try:
        asyncio.run(work(*args))
    except BaseException as error:
        print(f"{work.__name__}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


async def look(url, files, result, writers):
    async with EventLog(url) as log:
        rows = []
        numbers = dict.fromkeys(range(writers), -1)
        async for page in log.read(batch=10_000).pages():
            for row in page.rows:
                fields = log.types.parse(row[13])
                if fields["n"] != numbers[fields["w"]] + 1:
                    result.faults.append(f"position {row[0]}: {fields['n']} of writer {fields['w']} comes too early")
                numbers[fields["w"]] = fields["n"]
                rows.append((row[0], row[5]))
        result.events = len(rows)
        result.damages = len((await verify(log)).damages)
    there = set(rows)
    for path in files:
        seen = list(SEEN.iter_unpack(path.read_bytes()))
        result.missed += len(there.difference(seen))
        result.disorder += sum(one[0] >= two[0] for one, two in zip(seen, seen[1:], strict=False))  # noqa: RUF007
        if seen != rows:
            result.faults.append(f"{path.name} has seen {len(seen)} events, and they are not those of the log")


async def prepare(url):
    async with EventLog(url):
        pass


def scale(events, *, writers=4, readers=2, batch=100, url=None):
    """Do it, and return what has come of it."""
    with tempfile.TemporaryDirectory() as folder:
        place = url or str(Path(folder, "log.db"))
        result = Result("postgres" if url else "sqlite", batch)
        asyncio.run(prepare(place))
        counts = [events // writers + (each < events % writers) for each in range(writers)]
        files = [Path(folder, f"reader-{each}") for each in range(readers)]
        begun = time.monotonic()
        tailing = [fork(tail, place, path, events) for path in files]
        writing = [fork(write, place, each, count, batch) for each, count in enumerate(counts)]
        if any([ended(pid) for pid in writing]):  # noqa: C419 (all are waited for)
            result.faults.append("a writer failed")
        result.writing = time.monotonic() - begun
        deadline = time.monotonic() + 60 + events / 10_000
        while tailing and time.monotonic() < deadline:
            for pid in list(tailing):
                gone, status = os.waitpid(pid, os.WNOHANG)
                if gone:
                    tailing.remove(pid)
                    if status:
                        result.faults.append("a reader failed")
            time.sleep(0.01)
        for pid in tailing:
            result.faults.append("a reader did not come to the end: it has missed something")
            os.kill(pid, 9)
            ended(pid)
        result.reading = time.monotonic() - begun
        result.load = os.getloadavg()
        asyncio.run(look(place, files, result, writers))
        if result.events != events:
            result.faults.append(f"{result.events} events are in the log")
        return result


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.eventlog.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--store", choices=("sqlite", "postgres"), default="sqlite")
    options = parser.parse_args()
    url = server().database() if options.store == "postgres" else None
    result = scale(options.events, writers=options.writers, readers=options.readers, batch=options.batch, url=url)
    print(result)
    return 1 if result.faults or result.missed or result.disorder or result.damages else 0


if __name__ == "__main__":
    sys.exit(main())
