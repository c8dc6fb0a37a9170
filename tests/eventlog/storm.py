"""kill -9 of writers, projectors and members of a group, while others tail the log::

    python -m tests.eventlog.storm --kills 200
    python -m tests.eventlog.storm --kills 200 --store postgres

Each writer keeps a journal: what it is about to append, then what was acknowledged. The one that comes after a killed
one appends what was not acknowledged again, with the same ids. In the end the log is compared with the journals, with
what the tailing readers have seen, with the states of a projection, and with a table that the members of a group fill
in the transaction that moves their checkpoints. What may be found is in `Result.faults`.
"""

import argparse
import asyncio
import contextlib
import functools
import itertools
import json
import os
import random
import signal
import struct
import sys
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headgate import FencedError, stable_hash
from headgate.eventlog import Append, Event, EventLog, Projection, verify
from headgate.eventlog.store import Statement
from tests.eventlog.server import server

LEASE = 1.0
PARTITIONS = 4
SEEN = struct.Struct("<q16s")
PATIENCE = 120.0
NUMBERS = {"reader": 2, "writer": 3, "projector": 1, "member": 2}


def count(state, event):
    state["events"] = state.get("events", 0) + 1
    state["sum"] = state.get("sum", 0) + event.plain["n"]
    return state


counts = Projection("counts", count)


class Journal:
    """Lines that a kill cannot tear: each is one write to a file that was opened for appending."""

    def __init__(self, path):
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, **entry):
        os.write(self.file, json.dumps(entry).encode() + b"\n")


def entries(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


# -- those who are killed ----------------------------------------------------------------------------------------------


def identity(slot, number):
    return uuid.UUID(int=(slot + 1) << 64 | number)


def appends_of(slot, intent):
    """The appends of an intent: the same events each time, with the same ids."""
    return [
        Append(stream, [Event("counted", {"n": number}, event_id=identity(slot, number)) for number in range(*numbers)])
        for stream, numbers in intent["streams"]
    ]


async def write(url, folder, slot, chance):
    """Append until killed."""
    path = folder / f"writer-{slot}"
    before = entries(path)
    journal = Journal(path)
    journal.note(begin=os.getpid())
    acked = {entry["ack"] for entry in before if "ack" in entry}
    intents = [entry for entry in before if "intent" in entry]
    number = max((numbers[1] for entry in intents for _, numbers in entry["streams"]), default=1)
    turn = max((entry["intent"] for entry in intents), default=0)
    async with EventLog(url) as log:

        async def append(intent):
            done = await log.append_all(appends_of(slot, intent))
            places = [[each.first, each.last, each.duplicates] for each in done]
            journal.note(ack=intent["intent"], places=places)

        for entry in intents:
            if entry["intent"] not in acked:
                await append(entry)
        while not (folder / "stop").exists():
            group = []
            for _ in range(chance.choice([1, 1, 3])):
                turn += 1
                streams = []
                for name in chance.sample([f"own-{slot}", "shared-1", "shared-2"], chance.choice([1, 1, 2])):
                    size = chance.choice([1, 5, 40])
                    streams.append([name, [number, number + size]])
                    number += size
                group.append({"intent": turn, "streams": streams})
            for intent in group:
                journal.note(**intent)
            await asyncio.gather(*map(append, group))


async def project(url, folder, slot, chance):
    """Keep a projection up to date until killed."""
    async with EventLog(url) as log:
        projector = log.projector(counts, batch=chance.choice([7, 100]))
        while True:
            try:
                await projector.catch_up()
                at = await projector.position()
                if (folder / "done").exists() and at >= int((folder / "done").read_text()):
                    return
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(log.store.wait(at), 0.2)
            except FencedError:
                projector = log.projector(counts)


async def join(url, folder, slot, chance):
    """Take part in a group until killed."""
    async with EventLog(url) as log:
        group = log.group("members", partitions=PARTITIONS, lease=LEASE, batch=chance.choice([10, 200]))
        postgres = url.startswith("postgresql")
        me = os.getpid()

        def handle(events, db):
            rows = [(event.position, me) for event in events]
            if postgres:
                return db.executemany("INSERT INTO applied VALUES ($1, $2)", rows)
            return db.executemany("INSERT INTO applied VALUES (?, ?)", rows)

        journal = Journal(folder / f"member-{slot}")
        block = time.monotonic() + chance.uniform(0, 10)
        await group.join()
        while not (folder / "finished").exists():
            try:
                events = await asyncio.wait_for(group.take(100), 0.2)
                if time.monotonic() > block and not (folder / "done").exists():
                    time.sleep(1.5 * LEASE)  # noqa: ASYNC251 (its loop is blocked: somebody else takes over)
                    block += 10
            except TimeoutError:
                continue
            while events:
                try:
                    await group.done_in(events, functools.partial(handle, events))
                    break
                except FencedError:
                    journal.note(fenced=me)
                    events = group.mine(events)
        await group.leave()


# -- those who are not -------------------------------------------------------------------------------------------------


async def tail(url, folder, slot, chance):
    """Read what comes, and note each event."""
    file = os.open(folder / f"reader-{slot}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    at = 0
    async with EventLog(url) as log:
        while True:
            async for page in log.read(start=at + 1, batch=chance.choice([10, 1000])).pages():
                os.write(file, b"".join(SEEN.pack(row[0], row[5]) for row in page.rows))
                at = page.rows[-1][0]
            if (folder / "done").exists() and at >= int((folder / "done").read_text()):
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(log.store.wait(at), 0.2)


# -- the parent --------------------------------------------------------------------------------------------------------


@dataclass
class Result:
    store: str = ""
    kills: Counter[str] = field(default_factory=Counter)
    stops: int = 0  # members that were stopped for longer than their lease
    fenced: int = 0
    events: int = 0
    acked: int = 0
    unsure: int = 0  # appends whose writer was killed before they were acknowledged
    there: int = 0  # of them, were in the log already
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    def __str__(self):
        kills = ", ".join(f"{number} {kind}s" for kind, number in sorted(self.kills.items()))
        lines = [
            f"{self.store}: killed {kills}; {self.stops} members stopped for longer than a lease; {self.seconds:.1f} s",
            f"{self.events} events, {self.acked} of them acknowledged",
            f"{self.unsure} appends were killed before they were acknowledged; {self.there} were in the log already",
            f"{self.fenced} times a member was fenced off",
            *(f"FAULT {each}" for each in self.faults),
            f"{len(self.faults)} faults",
        ]
        return "\n".join(lines)


class Child:
    """A process that was forked from this one: nothing has to be imported again."""

    def __init__(self, kind, slot, work, seed):
        self.kind, self.slot = kind, slot
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            try:
                asyncio.run(work(slot, random.Random(seed)))
            except BaseException as error:
                print(f"{kind} {slot}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        self.status = None

    def ended(self):
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None

    def send(self, what):
        if not self.ended():
            os.kill(self.pid, what)

    def kill(self):
        self.send(signal.SIGKILL)
        while not self.ended():
            time.sleep(0.001)

    def wait(self, seconds):
        deadline = time.monotonic() + seconds
        while not self.ended():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True


class Storm:
    """One log, those who use it, and what they wrote down."""

    def __init__(self, url, folder, seed):
        self.random = random.Random(seed)
        self.url = url
        self.folder = Path(folder)
        self.result = Result("postgres" if url.startswith("postgresql") else "sqlite")
        self.stopped = None
        self.sizes = {}  # of journals, when a writer was killed or looked at last
        asyncio.run(self.prepare())
        self.children = {kind: [self.start(kind, slot) for slot in range(number)] for kind, number in NUMBERS.items()}

    async def prepare(self):
        async with EventLog(self.url) as log:
            create = "CREATE TABLE applied (position bigint, member bigint)"
            await log.store.run(lambda db: db.execute(create))

    def start(self, kind, slot):
        work = {"writer": write, "projector": project, "member": join, "reader": tail}[kind]
        return Child(kind, slot, functools.partial(work, self.url, self.folder), self.random.random())

    def run(self, kills, tell):
        begun = time.monotonic()
        while self.result.kills["writer"] < kills:
            kind = self.random.choices(["writer", "projector", "member"], [8, 1, 1])[0]
            slot = self.random.randrange(len(self.children[kind]))
            time.sleep(self.random.uniform(0, 0.08))
            child = self.children[kind][slot]
            if child.ended():
                self.result.faults.append(f"{kind} {slot} has ended by itself, with status {child.status}")
                break
            if kind == "writer" and self.random.random() < 0.7 and not self.at_work(slot):
                continue
            if kind == "member" and self.hold_up(child):
                continue
            child.kill()
            self.result.kills[kind] += 1
            self.children[kind][slot] = self.start(kind, slot)
            if kind == "writer":
                tell(self.result.kills[kind])
        self.finish()
        asyncio.run(self.look())
        self.result.seconds = time.monotonic() - begun

    def at_work(self, slot):
        """Whether a writer has noted something since the last time that one was killed in this place."""
        path = self.folder / f"writer-{slot}"
        size = path.stat().st_size if path.exists() else 0
        known = self.sizes.get(slot, 0)
        self.sizes[slot] = size
        return size > known

    def hold_up(self, child):
        """Stop a member now and then, until its lease is over; tell whether this one is stopped."""
        now = time.monotonic()
        if self.stopped is None:
            if self.random.random() < 0.5:
                child.send(signal.SIGSTOP)
                self.stopped = child, now + 2 * LEASE
                self.result.stops += 1
        elif now > self.stopped[1]:
            self.stopped[0].send(signal.SIGCONT)
            self.stopped = None
        return self.stopped is not None and self.stopped[0] is child

    def finish(self):
        if self.stopped is not None:
            self.stopped[0].send(signal.SIGCONT)
        (self.folder / "stop").touch()
        self.await_all("writer")
        head = asyncio.run(self.head())
        (self.folder / "head").write_text(str(head))
        (self.folder / "head").rename(self.folder / "done")
        self.await_all("reader")
        self.await_all("projector")
        deadline = time.monotonic() + PATIENCE
        while not asyncio.run(self.group_is_through()):
            if time.monotonic() > deadline:
                self.result.faults.append("the group did not come to the end")
                break
            time.sleep(0.1)
        (self.folder / "finished").touch()
        self.await_all("member")

    def await_all(self, kind):
        for child in self.children[kind]:
            if not child.wait(PATIENCE):
                self.result.faults.append(f"{kind} {child.slot} did not end")
                child.kill()
            elif child.status:
                self.result.faults.append(f"{kind} {child.slot} ended with status {child.status}")

    async def head(self):
        async with EventLog(self.url) as log:
            return await log.head()

    async def group_is_through(self):
        """Whether the last event of each stream was handled: the order within a stream is kept."""
        async with EventLog(self.url) as log:
            lasts = {info.last for info in await log.streams()}
            (rows,) = await log.store.transact([Statement("SELECT DISTINCT position FROM applied")])
            return lasts <= {row[0] for row in rows}

    # -- the books -----------------------------------------------------------------------------------------------------

    async def look(self):
        fault = self.result.faults.append
        async with EventLog(self.url) as log:
            rows = [row async for page in log.read(batch=5000).pages() for row in page.rows]
            found = await verify(log)
            if not found.ok:
                fault(f"verify: {found.damages[:3]}")
            states = await log.projector(counts).all()
            (applied,) = await log.store.transact([Statement("SELECT position, member FROM applied")])
        self.result.events = len(rows)
        if [row[0] for row in rows] != sorted(row[0] for row in rows):
            fault("the log is not in order")
        if any(one[6] > two[6] for one, two in itertools.pairwise(rows)):
            fault("a time goes back")
        for slot in range(NUMBERS["writer"]):
            self.look_at_writer(slot, rows)
        self.look_at_readers(rows)
        expected: dict[str, dict[str, int]] = {}
        for row in rows:
            state = expected.setdefault(row[1], {"events": 0, "sum": 0})
            state["events"] += 1
            state["sum"] += json.loads(row[13])["n"]
        if states != expected:
            fault(f"the projection is {states}, and should be {expected}")
        by: dict[int, list[int]] = {}
        for position, member in applied:
            by.setdefault(position, []).append(member)
        for position, stream in ((row[0], row[1]) for row in rows):
            if len(by.get(position, ())) > 1:
                partition = stable_hash(stream) % PARTITIONS
                fault(f"event {position} of {stream}, partition {partition}, was applied by processes {by[position]}")
        never = [row[0] for row in rows if row[0] not in by]
        if never:
            fault(f"{len(never)} of the group's events were never applied: {never[:3]}")
        self.result.fenced = sum(len(entries(self.folder / f"member-{slot}")) for slot in range(NUMBERS["member"]))

    def look_at_writer(self, slot, rows):
        fault = self.result.faults.append
        mine: dict[int, Any] = {}
        for row in rows:
            whose = uuid.UUID(bytes=row[5]).int
            if whose >> 64 == slot + 1:
                number = whose & (1 << 64) - 1
                if number in mine:
                    fault(f"event {number} of writer {slot} is there twice")
                mine[number] = row
        pending: dict[int, Any] = {}
        wanted: set[int] = set()
        after = high = 0
        for entry in entries(self.folder / f"writer-{slot}"):
            if "begin" in entry:
                self.result.unsure += len(pending)
                continue
            if "intent" in entry:
                if not pending:
                    after = high
                pending[entry["intent"]] = entry
                continue
            intent = pending.pop(entry["ack"])
            self.result.there += any(place[2] for place in entry["places"])
            for (stream, numbers), (first, last, _) in zip(intent["streams"], entry["places"], strict=True):
                those: list[Any] = [mine.get(number) for number in range(*numbers)]
                if None in those:
                    fault(f"acknowledged events of writer {slot} are lost: {stream} {numbers}")
                    continue
                wanted.update(range(*numbers))
                self.result.acked += len(those)
                places = [row[0] for row in those]
                high = max(high, *places)
                if places != list(range(first, last + 1)) or {row[1] for row in those} != {stream}:
                    fault(f"writer {slot} was told {stream} {first} to {last}, and it is {places}")
                if min(places) <= after:
                    fault(f"writer {slot}: {stream} {numbers} stands before what was acknowledged before it")
        if pending:
            fault(f"writer {slot} ended with appends that were not acknowledged: {list(pending)}")
        if set(mine) != wanted:
            fault(f"writer {slot}: {len(set(mine) - wanted)} events are in the log that nobody appended")

    def look_at_readers(self, rows):
        expected = [(row[0], row[5]) for row in rows]
        for slot in range(NUMBERS["reader"]):
            seen = list(SEEN.iter_unpack((self.folder / f"reader-{slot}").read_bytes()))
            if seen != expected:
                missed = len(set(expected) - set(seen))
                self.result.faults.append(
                    f"reader {slot} has seen {len(seen)} events, missed {missed}, or not in order"
                )

    def end(self):
        for child in (each for several in self.children.values() for each in several):
            child.send(signal.SIGCONT)
            child.kill()


def storm(kills, *, url=None, seed=0, tell=lambda done: None):
    """Run one, and return what has come of it."""
    with tempfile.TemporaryDirectory() as folder:
        it = Storm(url or str(Path(folder, "log.db")), folder, seed)
        try:
            it.run(kills, tell)
        finally:
            it.end()
        return it.result


def tell(done):
    if done % 20 == 0:
        print(f"{done} writers killed", file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.eventlog.storm", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--store", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    url = server().database() if options.store == "postgres" else None
    result = storm(options.kills, url=url, seed=options.seed, tell=tell)
    print(result)
    return 1 if result.faults else 0


if __name__ == "__main__":
    sys.exit(main())
