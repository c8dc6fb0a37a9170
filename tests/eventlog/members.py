"""Members of a group in virtual time, over one SQLite file: any order of what they await, by seed::

    python -m tests.eventlog.members --seeds 1000

Each member is the real `Group` on a store of its own. They are killed, stopped for longer than their lease, leave and
come back, what they await is cancelled, and their database fails for a while, before or after it has done what it was
told. Each event has to be applied once, in the order of its stream, no checkpoint may ever go back, and no partition
may be held by two. Faults are lines; the same seed gives the same ones again.
"""

import argparse
import asyncio
import contextlib
import functools
import logging
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

from headgate import EventLogError, FencedError, OptionError
from headgate.eventlog import Event, EventLog, Recorded
from headgate.eventlog.sqlite import SqliteStore
from headgate.eventlog.store import Statement, passing
from headgate.testing.clock import VirtualLoop, run_on

LEASE = 1.0
STREAMS = 10
PATIENCE = 60 * LEASE


class KilledError(Exception):
    """What a dead process would have gone on with."""


class Process(SqliteStore):
    """The store of a process that may be stopped or killed: what it has begun is then done late, or not at all.

    Or it cannot be reached: what is to be done is not done, or it is done, and nobody is told.
    """

    killed = False
    stopped_until = failing_until = 0.0
    chance = random.Random(0)
    after_each = staticmethod(lambda db: None)

    async def _write_there(self, work):
        return await self._job(self._writer, work)

    async def _read_there(self, work):
        return await self._job(self._readers, work)

    async def _job(self, executor, work):
        await self._running()
        loop = asyncio.get_running_loop()
        failing = self._opened and loop.time() < self.failing_until
        if failing and self.chance.random() < 0.7:
            self._fail()
        result = await loop.run_in_executor(executor, functools.partial(self._do, work))
        await self._running()
        if failing:
            self._fail()
        return result

    def _fail(self):
        raise EventLogError(self.name, "it cannot be reached") from OSError("it cannot be reached")

    async def _running(self):
        loop = asyncio.get_running_loop()
        while loop.time() < self.stopped_until:
            await asyncio.sleep(self.stopped_until - loop.time())

    def _do(self, work):
        if self.killed:
            raise KilledError
        result = work()
        if self._opened:
            self.after_each(self._db)
        return result

    def kill(self):
        self.killed = True

    def bury(self):
        """Close the file."""
        if self._opened:
            self._opened = False
            self._close()
            self._end_threads()


class Member:
    """One process: it takes, handles in the transaction of its checkpoints, and is let down by turns."""

    def __init__(self, world, number):
        self.world, self.number, self.chance = world, number, world.chance
        self.tasks = []
        self.log = world.log(Process(world.path, clock=world.clock))
        pick = self.chance.choice
        self.group = self.log.group("g", partitions=world.partitions, lease=LEASE, batch=pick([3, 50]))
        self.count = pick([2, 100])
        self.queued = pick([False, True])  # one task takes and another handles, as in stages; or one does both

    def note(self, what):
        self.world.happened[what] += 1

    async def open(self):
        await self.log.store.open()
        self.log.store.after_each = self.world.look
        self.log.store.chance = self.chance
        await self.begin()

    async def begin(self):
        while True:
            try:
                await asyncio.gather(self.group.join(), self.group.join())  # it is one member all the same
                break
            except EventLogError as error:
                self.failed(error)
                await asyncio.sleep(0.05)
        queue: asyncio.Queue[list[Recorded]] = asyncio.Queue(2)
        parts = [self.take, self.handle] if self.queued else [self.take_and_handle]
        self.tasks = [asyncio.create_task(self.part(each, queue), name=f"member {self.number}") for each in parts]

    def failed(self, error):
        """Go on after what passes."""
        if not passing(error):
            raise error
        self.note("failed")

    async def leave(self):
        try:
            await self.group.leave()
        except EventLogError as error:
            self.failed(error)

    async def part(self, work, queue):
        try:
            await work(queue)
        except OptionError:
            # Events of a partition that was lost and taken up again meanwhile: a supervisor begins anew.
            self.note("began anew")
            self.world.restarting.append(self)
        except KilledError:
            pass
        except Exception as error:
            self.world.faults.append(f"member {self.number} crashed: {error!r}")

    async def take(self, queue):
        while True:
            events = await self.taken()
            if events:
                await queue.put(events)

    async def handle(self, queue):
        while True:
            await self.apply(await queue.get())

    async def take_and_handle(self, queue):
        while True:
            await self.apply(await self.taken())

    async def taken(self):
        seconds = self.chance.choice([0.001, 0.01, 0.1, 1]) if self.world.storming else 5
        try:
            async with asyncio.timeout(seconds):  # not wait_for, which loses a cancellation that comes with a failure
                return await self.group.take(self.count)
        except TimeoutError:
            return []
        except EventLogError as error:
            self.failed(error)
            await asyncio.sleep(0.05)
            return []

    async def apply(self, events):
        chance = self.chance
        while events:
            storming = self.world.storming
            if storming and chance.random() < 0.3:
                await asyncio.sleep(chance.choice([0.01, 0.2, 1.5]))
            work = self.in_one(events) if self.world.exact else self.in_two(events)
            try:
                if storming and chance.random() < 0.1:
                    async with asyncio.timeout(chance.uniform(0, 2 * self.world.latency)):
                        await work
                else:
                    await work
                return
            except (EventLogError, TimeoutError) as error:
                if isinstance(error, EventLogError) and not isinstance(error, FencedError):
                    self.failed(error)
                else:
                    self.note("fenced" if isinstance(error, FencedError) else "cancelled")
                left = self.group.mine(events)
                if len(left) == len(events):
                    self.note("tried again")
                    await asyncio.sleep(0.01)
                events = left

    async def in_one(self, events):
        await self.group.done_in(events, functools.partial(self.write, events))

    async def in_two(self, events):
        """Write, and acknowledge in any order: at least once is what is promised then."""
        await self.log.store.run(functools.partial(self.write, events))
        some = self.chance.sample(events, len(events))
        middle = self.chance.randrange(len(some) + 1)
        await asyncio.gather(self.group.done(some[:middle]), self.group.done(some[middle:]))

    def write(self, events, db):
        rows = [(each.position, each.stream, self.number) for each in events]
        return db.executemany("INSERT INTO applied VALUES (?, ?, ?)", rows)

    async def end(self):
        tasks, self.tasks = self.tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def kill(self):
        store = self.log.store
        store.kill()
        await self.end()
        with contextlib.suppress(KilledError):
            await self.leave()  # its tasks end; the database learns nothing of it
        if store._watch is not None:
            store._watch.cancel()
        await asyncio.sleep(0)
        store.bury()

    async def begin_anew(self):
        await self.end()
        await self.leave()
        await self.begin()


class World:
    """One log, its members, and what is asked of them."""

    def __init__(self, path, seed):
        self.path, self.seed = path, seed
        self.chance = random.Random(seed)
        self.latency = self.chance.choice([0.001, 0.02, 0.2])
        self.loop = VirtualLoop(seed, policy=self.chance.choice(["tasks", "shuffle"]), latency=self.latency)
        self.exact = self.chance.random() < 0.7
        self.partitions = self.chance.choice([2, 4, 7])
        self.faults: list[str] = []
        self.happened: Counter[str] = Counter()
        self.storming = True
        self.restarting: list[Member] = []
        self.numbers = 0
        self.members: list[Member] = []
        self.positions: dict[int, int] = {}

    def clock(self):
        return 1e9 + self.loop.time()

    def log(self, store):
        log = EventLog(self.path, clock=self.clock)
        log.store = store
        return log

    def look(self, db):
        """See that no checkpoint goes back, and that nothing is held by two."""
        held = Counter(partition for member in self.members for partition in member.group.held)
        twice = [partition for partition, count in held.items() if count > 1]
        if twice:
            self.faults.append(f"partitions {twice} are held by two members")
        for partition, position in db.execute(
            "SELECT partition, position FROM headgate_checkpoints WHERE name = 'group g'"
        ):
            before = self.positions.get(partition, 0)
            if position < before:
                self.faults.append(f"the checkpoint of partition {partition} goes back from {before} to {position}")
            self.positions[partition] = position

    async def main(self):
        own = Process(self.path, clock=self.clock)
        log = self.log(own)
        async with log:
            await own.run(lambda db: db.execute("CREATE TABLE applied (position int, stream text, member int)"))
            for _ in range(self.chance.choice([1, 3])):
                await self.add()
            for _ in range(self.chance.choice([10, 30])):
                await self.append(log)
                await self.disturb()
                await asyncio.sleep(self.chance.choice([0, 0.01, 0.3]))
            self.storming = False
            await self.settle(log)
            for member in self.members:
                await member.end()
                await member.leave()
                await member.log.close()
            await self.books(log)

    async def add(self):
        self.numbers += 1
        member = Member(self, self.numbers)
        self.members.append(member)
        await member.open()

    async def append(self, log):
        chance = self.chance
        for _ in range(chance.choice([0, 1, 5])):
            size = chance.choice([1, 3, 20])
            await log.append(f"s{chance.randrange(STREAMS)}", [Event("counted", {"n": n}) for n in range(size)])

    async def disturb(self):
        chance, member = self.chance, self.chance.choice(self.members)
        match chance.choice(["nothing", "nothing", "kill", "stop", "fail", "leave", "add"]):
            case "kill":
                self.happened["killed"] += 1
                self.members.remove(member)
                await member.kill()
                await self.add()
            case "stop":
                self.happened["stopped"] += 1
                member.log.store.stopped_until = self.loop.time() + chance.choice([0.3, 2]) * LEASE
            case "fail":
                member.log.store.failing_until = self.loop.time() + chance.choice([0.1, 0.6, 3]) * LEASE
            case "leave":
                self.happened["left"] += 1
                await member.leave()
                await asyncio.sleep(chance.choice([0, 0.01, 1.5]))
                try:
                    await member.group.join()
                except EventLogError as error:
                    member.failed(error)
                    self.restarting.append(member)
            case "add" if len(self.members) < 4:
                await self.add()
            case _:
                pass
        await self.supervise()

    async def supervise(self):
        while self.restarting:
            member = self.restarting.pop()
            if member in self.members:
                await member.begin_anew()

    async def settle(self, log):
        """Let the members come to the end by themselves."""
        self.loop._latency = 0.001
        deadline = self.loop.time() + PATIENCE
        head = await log.head()
        while self.loop.time() < deadline:
            (rows,) = await log.store.transact([Statement("SELECT count(DISTINCT position) FROM applied")])
            if rows[0][0] == head:
                return
            await self.supervise()
            await asyncio.sleep(LEASE / 5)

    async def books(self, log):
        (applied,) = await log.store.transact(
            [Statement("SELECT position, stream, member FROM applied ORDER BY rowid")]
        )
        whose: dict[int, list[int]] = {}
        last: dict[str, int] = {}
        for position, stream, member in applied:
            whose.setdefault(position, []).append(member)
            if self.exact and len(whose[position]) > 1:
                self.faults.append(f"event {position} of {stream} was applied by {whose[position]}")
            if self.exact and position < last.get(stream, 0):
                self.faults.append(f"event {position} of {stream} was applied after {last[stream]}")
            last[stream] = position
        never = [position for position in range(1, await log.head() + 1) if position not in whose]
        if never:
            self.faults.append(f"{len(never)} events were never applied: {never[:3]}")


def play(seed, folder):
    """Run a seed in a folder; return the world with its faults."""
    world = World(str(Path(folder) / f"{seed}.db"), seed)
    run_on(world.loop, world.main())
    return world


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.eventlog.members", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    logging.disable()
    happened: Counter[str] = Counter()
    failed = 0
    for seed in range(options.first, options.first + options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            try:
                world = play(seed, folder)
            except Exception as error:
                failed += 1
                print(f"seed {seed}: {error!r}"[:2000])
                continue
        happened.update(world.happened)
        failed += bool(world.faults)
        for fault in world.faults[:3]:
            print(f"seed {seed}: {fault}")
    print(f"{options.seeds} seeds, {failed} of them with faults; {dict(happened)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
