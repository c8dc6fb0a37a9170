"""Whatever happens at the same time, in an order that a seed draws: states are the fold of the log, and it is sound."""

import asyncio
import contextlib
import itertools
import random
from collections import Counter

import pytest

from headgate import FencedError, RebuildingError
from headgate.eventlog import Event, Projection, archive, verify
from tests.eventlog.conftest import run

ALLOWED = (FencedError, RebuildingError, asyncio.CancelledError)


def apply(state, event, entity):
    """What it gives depends on the order, and on how often it is run."""
    if event.plain["n"] == 7:
        return None
    return {"sum": state.get("sum", 0) * 3 % 1009 + event.plain["n"], "of": entity}


projection = Projection("p", apply, entity=lambda event: [event.stream, event.plain["to"]], types=["moved"])


class Cancelled:
    """Cancels tasks when they have begun so many transactions of a log."""

    def __init__(self, log):
        self.transact, log.store.transact = log.store.transact, self
        self.left = {}

    async def __call__(self, statements):
        task = asyncio.current_task()
        if task is not None and task in self.left:
            self.left[task] -= 1
            if not self.left[task]:
                task.cancel()
        return await self.transact(statements)


class Schedule:
    """Two who keep one projection, and one who appends."""

    def __init__(self, chance, *logs):
        self.chance = chance
        self.log = logs[0]
        self.cancelled = {log: Cancelled(log) for log in logs}
        self.projectors = [each.projector(projection, batch=chance.randint(1, 9)) for each in logs]

    async def append(self, count):
        draw = self.chance.choice
        for _ in range(count):
            events = [Event(draw(["moved", "other"]), {"n": self.chance.randrange(9), "to": draw("abc")}) for _ in "ab"]
            await self.log.append(draw("abc"), events)

    def act(self, projector):
        """Something that one may do with a projector, at any time."""
        until = self.chance.choice([None, None, self.chance.randint(0, 40)])
        return self.chance.choice(
            [
                lambda: projector.catch_up(until),
                lambda: projector.catch_up(until),
                lambda: projector.rebuild(until=until),
                projector.take_up,
                lambda: self.handle(projector, self.chance.randint(1, 40), self.chance.randint(0, 20)),
                lambda: self.nothing_up_to(projector, self.chance.random()),
            ]
        )

    async def handle(self, projector, start, limit):
        return await projector.handle(await self.log.read(start=start, limit=limit).all())

    async def nothing_up_to(self, projector, part):
        return await projector.handle([], upto=int(part * await self.log.head()))

    async def round(self):
        tasks = [asyncio.create_task(self.append(self.chance.randint(0, 3)))]
        for _ in range(self.chance.randint(1, 4)):
            projector = self.chance.choice(self.projectors)
            tasks.append(asyncio.create_task(self.act(projector)()))
            if self.chance.random() < 0.5:
                self.cancelled[projector.log].left[tasks[-1]] = self.chance.randint(1, 8)
        for found in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(found, BaseException) and not isinstance(found, ALLOWED):
                raise found
        await self.compare()

    async def compare(self):
        position, states = await self.projectors[0].stored()
        assert states == await self.expected(position)

    async def expected(self, until):
        states: dict[str, object] = {}
        async for event in self.log.read(until=until, types=["moved"]):
            projection.step(states, event)
        return {entity: state for entity, state in states.items() if state is not None}

    async def run(self):
        for _ in range(12):
            await self.round()
        for projector in self.projectors:
            with contextlib.suppress(FencedError):  # the other one has taken it over meanwhile, and learns it here
                await projector.catch_up()
            await projector.catch_up()
            assert await projector.stored() == (await self.log.head(), await self.expected(None))


@pytest.mark.parametrize("seed", range(6))
def test_states_are_the_fold_of_the_log_after_any_schedule(place, seed):
    @run
    async def _():
        for number in range(4):
            url = place.fresh() if number else place.url
            chance = random.Random(f"{seed} {number}")
            async with place.log(url) as log:
                if place.kind == "memory":
                    await Schedule(chance, log).run()
                    continue
                async with place.log(url) as other:
                    await Schedule(chance, log, other).run()


@pytest.mark.parametrize("seed", range(3))
def test_a_log_is_sound_whatever_is_done_meanwhile(place, tmp_path, seed):
    """Appends, archives, the members of a group and a projector; and each anchor holds."""

    @run
    async def _():
        chance = random.Random(seed)
        async with place.log() as log:
            folders = itertools.count()
            projector = log.projector(projection)
            rounds: Counter[str] = Counter()

            async def again(make):
                while True:
                    await make()
                    rounds[make.__name__] += 1
                    for _ in range(chance.randint(0, 9)):
                        await asyncio.sleep(0)

            async def append():
                count = chance.choice([1, 1, 5, 700])
                if await log.head() + count > 6000:  # what it holds is looked at again and again
                    return
                await log.append(chance.choice("abc"), [Event("moved", {"n": 1, "to": "a"}) for _ in range(count)])

            async def move():
                await archive(log, tmp_path / str(next(folders)), chance.randint(0, await log.head()))

            async def work():
                group = log.group("g", partitions=3)
                await group.join()
                for _ in range(3):
                    await group.done(await group.take(chance.randint(1, 500)))
                await group.leave()

            async def look():
                anchor = None
                while rounds["look"] < 10 or (len(rounds) < 5 and rounds["look"] < 300):
                    found = await verify(log, anchor=anchor)
                    assert found.damages == []
                    anchor = (found.position, found.digest)
                    rounds["look"] += 1
                assert sorted(rounds) == ["append", "catch_up", "look", "move", "work"]

            await append()
            others = [asyncio.create_task(again(each)) for each in (append, move, work, projector.catch_up)]
            looking = asyncio.create_task(look())
            await asyncio.wait([looking, *others], return_when=asyncio.FIRST_COMPLETED)
            for task in others:
                task.cancel()
            for found in await asyncio.gather(looking, *others, return_exceptions=True):
                if found is not None and not isinstance(found, asyncio.CancelledError):
                    raise found
