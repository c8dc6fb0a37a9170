"""The power fails under a log in a SQLite file::

    python -m tests.eventlog.power --cuts 10000 --seed 1
    python -m tests.eventlog.power --seed 7 --durability power --cut 1234

kill -9 loses nothing that was written, synced or not. Here all that SQLite asks of its files is recorded while a log is
used (`tests.eventlog.disk`), and every cut is a moment of that record: of what was not synced by then, some is on the
disk, and some is not, or by half. The log is opened on what is left. It has to be sound, and to hold a beginning of
what was appended, no append by half; what was acknowledged is there with ``durability="power"``, and what was read in
it when it was opened; the states of a projection are those at its checkpoint; and it goes on from there.

Those who use the log are killed now and then. That takes nothing from the disk, but what they had not synced then is
what the next one opens, and appends again.

A recording is made anew from its seed, the same each time: the number of a cut is enough to see it again.
"""

import argparse
import asyncio
import functools
import json
import random
import sqlite3
import sys
import tempfile
import threading
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from headgate.eventlog import Append, Event, EventLog, Projection, verify
from tests.eventlog.disk import EVERYTHING, Disk, Op, Recorder, UnreachableError

DURABILITIES = ("power", "normal")
NAME = "log.db"
LIVES = (350, 20, 20, 20, 100, 20)  # steps of each process that uses the log
STREAMS = tuple(f"s{number}" for number in range(5))
CUTS = 500  # of one recording
NEAR = 3  # operations: a cut near something is this far behind it at the most


def count(state, event):
    return {"events": state.get("events", 0) + 1, "sum": state.get("sum", 0) + event.plain["n"]}


counts = Projection("counts", count)


@dataclass(frozen=True)
class Ack:
    """Something that a user of the log was told.

    Attributes:
        at: After how many operations of the disk.
        events: What he has appended is there: id, stream, version and data, by position.
        read: He has read up to this position.
        projected: The projection has come to this position.
    """

    at: int
    events: dict[int, tuple[bytes, str, int, dict[str, object]]] = field(default_factory=dict)
    read: int = 0
    projected: int = 0


@dataclass
class Recording:
    """What was asked of the disk while a log was used, and what its users were told."""

    durability: str
    seed: int
    ops: list[Op] = field(default_factory=list)
    acks: list[Ack] = field(default_factory=list)
    kills: list[int] = field(default_factory=list)  # after how many operations

    @functools.cached_property
    def events(self):
        """What was appended, by position."""
        return {position: event for ack in self.acks for position, event in ack.events.items()}

    @functools.cached_property
    def ends(self):
        """The positions behind which an append ended."""
        return {0, *(max(ack.events) for ack in self.acks if ack.events)}

    def cuts(self, number):
        """Draw cuts: half of them anywhere, the others just behind kills and other things that happen seldom."""
        chance = random.Random(f"cuts {self.seed}")
        last = len(self.ops)
        usual = ("write", f"{NAME}-wal"), ("sync", f"{NAME}-wal")
        edges = [at + 1 for at, op in enumerate(self.ops) if op[:2] not in usual]
        drawn = {last}
        while len(drawn) < min(number, last + 1):
            near = chance.choice(chance.choice((edges, self.kills or edges))) + chance.randrange(NEAR + 1)
            drawn.add(chance.choice((min(near, last), chance.randrange(last + 1))))
        return sorted(drawn)

    def known(self, cut):
        """Return up to where events were acknowledged by then, read, and projected."""
        due = [(max(ack.events, default=0), ack.read, ack.projected) for ack in self.acks if ack.at <= cut]
        return tuple(map(max, zip((0, 0, 0), *due, strict=True)))


class Usage:
    """Uses a log in all the ways that matter to a disk, as a seed says, and notes what it is told.

    Args:
        recording: Where to.
    """

    def __init__(self, recording):
        self.recording = recording
        self.chance = random.Random(f"use {recording.seed}")
        self.number = 0
        self.asked: list[tuple[int, list[Append], Ack]] = []  # after how many operations, what, and how it ended
        self.unsure: list[list[Append]] = []  # what one who was killed did not hear of
        self.reader: sqlite3.Connection | None = None
        self.log: EventLog

    def record(self):
        """Live all lives, one after the other, on the same disk."""
        disk, recording = Disk(), self.recording
        for life, steps in enumerate(LIVES):
            begun = len(recording.ops)
            with tempfile.TemporaryDirectory() as folder:
                disk.leave(folder, self.chance, EVERYTHING)  # a kill takes nothing from it
                # SQLite tells the logs of different times apart by their random numbers.
                with Recorder(folder, random.Random(f"{recording.seed} {life}"), recording.ops) as recorder:
                    asyncio.run(self.live(Path(folder, NAME), steps))
            if self.chance.random() < 0.7:
                self.kill(begun)
            for op in recorder.ops[begun:]:
                disk.do(op)
        return recording

    def kill(self, begun):
        """Let it be killed at a moment of its later life: what came after that has never been."""
        recording = self.recording
        begun = (begun + len(recording.ops)) // 2
        anywhere = range(begun, len(recording.ops))
        syncs = [at for at in anywhere if recording.ops[at].kind == "sync"]  # all is written, and nothing is sure
        end = self.chance.choice(self.chance.choice((anywhere, syncs or anywhere)))
        del recording.ops[end:]
        recording.acks[:] = [ack for ack in recording.acks if ack.at <= end]
        recording.kills.append(end)
        self.unsure = [appends for asked, appends, ack in self.asked if asked <= end < ack.at]

    async def live(self, path, steps):
        self.asked.clear()
        self.thread, self.loop = threading.get_ident(), asyncio.get_running_loop()
        async with EventLog(str(path), durability=self.recording.durability, clock=self.clock) as self.log:
            self.note(read=await self.log.head())
            for appends in self.unsure:
                await self.append(*appends, asked=0)  # long ago: should this one be killed, too, it stays unsure
            self.unsure.clear()
            self.projector = self.log.projector(counts, batch=self.chance.choice((7, 100)))
            ways = (self.one, self.batch, self.streams, self.tasks, self.large, self.project, self.look)
            for _ in range(steps):
                await self.chance.choices(ways, (20, 1, 2, 3, 1, 6, 1))[0]()
            if self.chance.random() < 0.5:  # else the last one to close is the reader
                self.let_go()
        self.let_go()

    def clock(self):
        """Stand still, so that the same is written each time; and in the same order.

        The writer asks for the time before it writes. All that it has told before is noted then, so that it is known
        how many operations there were.
        """
        if threading.get_ident() != self.thread:
            come_round = threading.Event()
            self.loop.call_soon_threadsafe(come_round.set)
            come_round.wait()
        return 1.7e9

    def note(self, **what):
        ack = Ack(len(self.recording.ops), **what)
        self.recording.acks.append(ack)
        return ack

    # -- ways to use it ------------------------------------------------------------------------------------------------

    def drawn(self, stream, size, letters=40):
        several = []
        for _ in range(size):
            self.number += 1
            data = {"n": self.number, "text": self.chance.choice("abcdef") * self.chance.randrange(letters)}
            several.append(Event("counted", data, event_id=uuid.UUID(int=self.number)))
        return Append(stream, several)

    async def append(self, *appends, asked=None):
        asked = len(self.recording.ops) if asked is None else asked
        done = await self.log.append_all(appends)
        events = {}
        for (stream, several, *_), each in zip(appends, done, strict=True):
            version = each.version - len(several)
            for number, event in enumerate(several):
                events[each.first + number] = event.event_id, stream, version + number + 1, event.data
        self.asked.append((asked, list(appends), self.note(events=events)))

    async def one(self):
        await self.append(self.drawn(self.chance.choice(STREAMS), 1))

    async def batch(self):
        await self.append(self.drawn(self.chance.choice(STREAMS), self.chance.choice((2, 5, 20, 45))))

    async def large(self):
        """Events on pages of their own."""
        await self.append(self.drawn(self.chance.choice(STREAMS), 2, letters=60_000))

    async def streams(self):
        several = self.chance.sample(STREAMS, 3)
        await self.append(*(self.drawn(stream, self.chance.choice((1, 4))) for stream in several))

    async def tasks(self):
        """Several at the same time: some in one transaction, others while it is under way, in the one after it."""

        async def append(those, *, later):
            if later:
                await asyncio.sleep(0)  # by then, the first of them are being written
            for each in those:
                await self.append(each)

        def those():
            return [self.drawn(self.chance.choice(STREAMS), self.chance.choice((1, 1, 3))) for _ in range(2)]

        await asyncio.gather(*(append(those(), later=task % 2) for task in range(self.chance.choice((2, 4)))))

    async def project(self):
        await self.projector.catch_up()
        self.note(projected=await self.log.head())

    async def look(self):
        """Hold on to how things are now, or let go: until then, what comes later stays in the -wal file."""
        if self.reader is not None:
            self.let_go()
            return
        self.reader = sqlite3.connect(self.log.store.name, isolation_level=None)
        self.reader.execute("BEGIN")
        self.reader.execute("SELECT count(*) FROM headgate_events").fetchone()

    def let_go(self):
        if self.reader is not None:
            self.reader.close()
            self.reader = None


def record(durability, seed):
    """Use a log, and return the recording.

    Raises:
        UnreachableError: It cannot be recorded here.
    """
    return Usage(Recording(durability, seed)).record()


# -- what is left ------------------------------------------------------------------------------------------------------


class Look:
    """Opens a log on what a cut has left, and looks for what is wrong with it."""

    def __init__(self, recording, cut):
        self.recording = recording
        self.cut = cut
        self.acked, self.read, self.projected = recording.known(cut)
        self.there = 0
        self.faults: list[str] = []

    async def run(self, path):
        try:
            async with EventLog(str(path)) as log:
                await self.look(log)
                if not self.faults:
                    await self.go_on(log)
        except Exception as error:
            self.faults.append(f"it cannot be used: {error!r}")

    async def look(self, log):
        fault, wanted = self.faults.append, self.recording.events
        rows = [row async for page in log.read().pages() for row in page.rows]
        self.there = len(rows)
        found = await verify(log)
        if not found.ok:
            fault(f"verify: {found.damages[:3]}")
        for position, row in enumerate(rows, 1):
            here = (row[5], row[1], row[2], json.loads(row[13]))
            if row[0] != position or here != wanted.get(position):
                fault(f"position {row[0]}: it is {here}, and not what was appended there")
                return
        if self.there not in self.recording.ends:
            fault(f"an append is there by half: {self.there} events")
        projector = log.projector(counts)
        at = await projector.position()
        if at > self.there:
            fault(f"the projection has seen {at} events of {self.there}")
        if await projector.all() != states(wanted, at):
            fault(f"the states are not those at their checkpoint, {at}")
        if self.recording.durability == "power":
            if self.there < self.acked:
                fault(f"acknowledged events are lost: {self.there} of {self.acked} are there")
            if self.there < self.read:
                fault(f"events are lost that were read when it was opened: {self.there} of {self.read} are there")
            if at < self.projected:
                fault(f"an acknowledged checkpoint is lost: it was at {self.projected}, and is at {at}")

    async def go_on(self, log):
        fault = self.faults.append
        stream, data = STREAMS[0], {"n": 0}
        wanted, there = self.recording.events, self.there
        version = states(wanted, there).get(stream, {"events": 0})["events"]
        done = await log.append(stream, Event("counted", data), expected_version=version)
        if done.first != there + 1:
            fault(f"the next event is at {done.first}, behind {there}")
        projector = log.projector(counts)
        await projector.catch_up()
        if await projector.all() != states({**wanted, there + 1: (b"", stream, version + 1, data)}, there + 1):
            fault("the projection does not go on as it should")
        found = await verify(log)
        if not found.ok or found.events != there + 1:
            fault(f"verify after another append: {found.events} events, {found.damages[:3]}")


def states(events, until):
    found: dict[str, dict[str, int]] = {}
    for position in range(1, until + 1):
        _, stream, _, data = events[position]
        state = found.setdefault(stream, {"events": 0, "sum": 0})
        state["events"] += 1
        state["sum"] += data["n"]
    return found


def looks(recording, cuts):
    """Cut a recording at some places, which are in order, and look at what is left at each."""
    disk, done = Disk(), 0
    with tempfile.TemporaryDirectory() as folder:
        for cut in cuts:
            for op in recording.ops[done:cut]:
                disk.do(op)
            done = cut
            place = Path(folder, str(cut))
            place.mkdir()
            disk.leave(place, random.Random(f"{recording.seed} {cut}"))
            look = Look(recording, cut)
            asyncio.run(look.run(place / NAME))
            for file in place.iterdir():
                file.unlink()
            yield look


# -- the storm ---------------------------------------------------------------------------------------------------------


@dataclass
class Result:
    recordings: int = 0
    ops: int = 0
    kills: int = 0
    cuts: Counter[str] = field(default_factory=Counter)  # by durability
    acked: Counter[str] = field(default_factory=Counter)  # events that were acknowledged, summed over the cuts
    lost: Counter[str] = field(default_factory=Counter)  # those of them that were not there
    faults: list[str] = field(default_factory=list)

    def cut(self, recording, cuts, tell=lambda done: None):
        """Look at what is left of a recording at some cuts."""
        self.recordings += 1
        self.ops += len(recording.ops)
        self.kills += len(recording.kills)
        each = recording.durability
        for look in looks(recording, cuts):
            self.cuts[each] += 1
            self.acked[each] += look.acked
            self.lost[each] += max(0, look.acked - look.there)
            where = f"--seed {recording.seed} --durability {each} --cut {look.cut}"
            self.faults += [f"{where}: {fault}" for fault in look.faults]
        tell(self)

    def __str__(self):
        lines = [f"FAULT {each}" for each in self.faults]
        parts = [
            f"{number} with {each!r}, {self.lost[each]} of {self.acked[each]} acknowledged events lost"
            for each, number in self.cuts.items()
        ]
        of = f"{self.recordings} recordings ({self.ops} operations, {self.kills} kills)"
        lines.append(f"{self.cuts.total()} cuts of {of}: {'; '.join(parts)}; {len(self.faults)} faults")
        return "\n".join(lines)


def storm(cuts, *, seed=0, durabilities=DURABILITIES, tell=lambda done: None):
    """Make recordings, of each durability in turn, and cut each several times."""
    result = Result()
    most = min(CUTS, -(-cuts // len(durabilities)))
    while (left := cuts - result.cuts.total()) > 0:
        number = result.recordings
        recording = record(durabilities[number % len(durabilities)], seed + number)
        result.cut(recording, recording.cuts(min(left, most)), tell)
    return result


def replay(seed, durability, cut):
    """See one cut again."""
    result = Result()
    result.cut(record(durability, seed), [cut])
    return result


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.eventlog.power", description=__doc__.splitlines()[0])
    parser.add_argument("--cuts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--durability", choices=DURABILITIES, help="only this one")
    parser.add_argument("--cut", type=int, help="see this one again, of the recording with this seed and durability")
    options = parser.parse_args()
    if options.cut is not None and options.durability is None:
        parser.error("--cut: say the --durability, too")
    try:
        if options.cut is not None:
            result = replay(options.seed, options.durability, options.cut)
        else:
            some = (options.durability,) if options.durability else DURABILITIES
            result = storm(options.cuts, seed=options.seed, durabilities=some, tell=tell)
    except UnreachableError as error:
        print(error)
        return 2
    print(result)
    return 1 if result.faults else 0


def tell(result):
    print(str(result).splitlines()[-1], file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
