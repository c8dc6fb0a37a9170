# mypy: disable-error-code="var-annotated"
"""Several steps, several sources, pipelines behind pipelines; and stages that are killed anywhere at any moment."""

import asyncio
import random

import pytest

from headgate import Backoff, Batcher, OptionError, Pipeline, Processors, Supervisor, System
from headgate.testing import StubSource, run
from tests.pipeline.helpers import ONE, AsyncNoting, Noting, balanced, batcher, ended, now, running, until, virtually

# -- steps ------------------------------------------------------------------------------------------------------------


class Steps(Noting):
    """Three steps of all kinds."""

    def parse(self, message):
        message.data = int(message.data)

    async def look_up(self, message):
        await asyncio.sleep(0.01)
        message.metadata["name"] = f"user {message.data}"

    def check(self, message):
        message.metadata["checked"] = True


@pytest.mark.parametrize("keyed", [False, True])
def test_steps(keyed):
    @virtually
    async def scenario():
        source = StubSource(*map(str, range(50)))
        source.finish()
        options = {"partition_by": lambda message: int(message.data) % 3} if keyed else {}
        pipeline = Steps(
            source=source,
            processors={
                "parse": Processors("parse", concurrency=2),
                "look_up": Processors("look_up", concurrency=5),
                "check": Processors("check", concurrency=2, place="thread"),
            },
            batchers=batcher(size=10),
            **options,
        )
        statistics = await ended(pipeline)
        assert statistics.outcomes["acknowledged"] == 50
        data = [each for payload in pipeline.payloads for each in payload]
        assert sorted(data) == list(range(50))
        if keyed:
            for key in range(3):
                assert [each for each in data if each % 3 == key] == list(range(key, 50, 3))

    scenario()


@virtually
async def test_a_named_step_has_a_method_of_its_name():
    class Named(Pipeline):
        processors = {"first": ONE, "second": ONE}  # noqa: RUF012 (a declaration)

        def __init__(self, **options):
            super().__init__(**options)
            self.seen = []

        def handle_first(self, message):
            self.seen.append("first")

        def handle_second(self, message):
            self.seen.append("second")

    pipeline = Named()
    async with running(pipeline) as started:
        await started.test_message(1)
    assert pipeline.seen == ["first", "second"]
    with pytest.raises(OptionError, match="there is no 'handle_third'"):
        Named(processors={"third": ONE})


@virtually
async def test_a_step_that_is_slow_bounds_those_before_it():
    async def slow(_):
        await asyncio.sleep(10)

    source = StubSource(*range(1000))
    steps = {"fast": Processors(lambda _: None, concurrency=1), "slow": Processors(slow, concurrency=2)}
    async with running(Noting(source=source, processors=steps)) as started:
        await asyncio.sleep(25)
        assert started.statistics().in_flight <= 30
        assert len(source.acked) == 4


# -- pipelines behind pipelines ---------------------------------------------------------------------------------------


class Upper(Noting):
    """Sends odd numbers on, and acknowledges the others."""

    def handle_message(self, message):
        super().handle_message(message)
        if isinstance(message.data, int) and message.data % 2 == 0:
            message.put_batcher("here")


class Lower(Noting):
    """Fails as often as the message's payload is found in ``bad``."""

    bad: tuple[int, ...] = ()

    def handle_message(self, message):
        super().handle_message(message)
        if message.data in self.bad:
            raise ValueError("bad")


def chain(source, lower=Lower, upper_options=None, **options):
    upper = Upper(source=source, batchers={"here": Batcher(size=1)}, **(upper_options or {}))
    return upper, lower(source=upper, **options)


@virtually
async def test_messages_go_on_in_another_pipeline():
    source = StubSource(*range(10))
    source.finish()
    upper, lower = chain(source, batchers=batcher(size=3))
    async with running(Supervisor([upper, lower], name="app")) as app:
        await app.wait()
    assert sorted(source.acked) == list(range(10))
    assert sorted(lower.handled) == [1, 3, 5, 7, 9]
    assert sorted(data for (data,) in upper.payloads) == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("kind", ["retry", "dead_letter", "discard", "requeue"])
def test_a_message_ends_as_it_does_below(kind):
    @virtually
    async def scenario():
        class Bad(Lower):
            bad = (3,)

            def handle_message(self, message):
                if message.deliveries > 2:
                    return
                super().handle_message(message)

        source = StubSource(1, 3, 5)
        upper, lower = chain(source, Bad, on_failure=kind, redelivery=Backoff(first=5.0, jitter=0))
        async with running(Supervisor([upper, lower], name="app")) as app:
            await until(lambda: len(source.acked) + len(source.lettered) + len(source.discarded) == 3)
            for child in ("Upper", "Bad"):
                assert app.child(child).statistics().unbalanced == 0
        if kind in ("retry", "requeue"):
            assert sorted(source.acked) == [1, 3, 5]
            assert [data for data, _, _ in source.nacked] == [3, 3]
            assert source.nacked[0][1] == 5.0, "both wait: a message must not come round and round"
        elif kind == "dead_letter":
            [(data, reason)] = source.lettered
            assert (data, str(reason)) == (3, "bad")
        else:
            assert source.discarded == [3]

    scenario()


@virtually
async def test_a_finite_source_above_ends_both_although_something_is_tried_again_below():
    class Bad(Lower):
        def handle_message(self, message):
            super().handle_message(message)
            if message.data == 3 and message.deliveries < 4:
                raise ValueError("bad")

    source = StubSource(1, 3, 5)
    source.finish()
    upper, lower = chain(source, Bad, redelivery=Backoff(first=5.0, jitter=0))
    async with running(Supervisor([upper, lower], name="app")) as app:
        await app.wait()
    assert sorted(source.acked) == [1, 3, 5]


@virtually
async def test_a_lower_pipeline_that_stops_gives_back_what_it_has():
    class Slow(AsyncNoting):
        async def handle_message(self, message):
            self.handled.append(message.data)
            await asyncio.sleep(1)

    source = StubSource(*range(1, 41, 2))
    upper, lower = chain(source, Slow)
    async with running(Supervisor([upper, lower], name="app")) as app:
        await until(lambda: len(lower.handled) == 3)
        await app.stop_child("Slow")
        await until(lambda: len(source.acked) == 3)
        upper_run = app.child("Upper")
        assert upper_run.statistics().outcomes["acknowledged"] == 3
        await app.restart_child("Slow")
        await until(lambda: len(source.acked) == 20)
    assert sorted(source.acked) == list(range(1, 41, 2))


@virtually
async def test_a_lower_pipeline_that_is_slow_bounds_the_upper_one():
    class Stuck(AsyncNoting):
        async def handle_message(self, message):
            await asyncio.sleep(1000)

    source = StubSource(*range(1, 10_001, 2))
    upper, lower = chain(source, Stuck)
    async with running(Supervisor([upper, lower], name="app")) as app:
        await asyncio.sleep(10)
        assert app.child("Upper").statistics().in_flight <= 1100
    assert source.acked == []


@virtually
async def test_routes_by_name():
    source = StubSource(*range(9))
    source.finish()

    class Sorting(Noting):
        def handle_message(self, message):
            message.put_batcher(("zero", "one", "two")[message.data % 3])

    upper = Sorting(source=source, batchers={"zero": Batcher(size=1)})
    first = Noting(name="first", source=upper.route("one"))
    second = Noting(name="second", source=upper.route("two"))
    async with running(Supervisor([upper, first, second], name="app")) as app:
        await app.wait()
    assert (sorted(first.handled), sorted(second.handled)) == ([1, 4, 7], [2, 5, 8])
    assert len(source.acked) == 9
    with pytest.raises(OptionError, match="a name that no batcher has"):
        upper.route("zero")
    assert upper.route("one") is upper.route("one")


@virtually
async def test_three_pipelines_and_parts():
    """A message is acknowledged when all that was made of it, anywhere below, has ended."""

    class Splitting(Noting):
        def handle_message(self, message):
            return message.split([message.data * 10 + digit for digit in range(3)])

    source = StubSource(*range(1, 5))
    source.finish()
    first = Splitting(name="first", source=source)
    second = Splitting(name="second", source=first)
    third = Noting(name="third", source=second, batchers=batcher(size=5, timeout=3.0))
    async with running(Supervisor([first, second, third], name="app")) as app:
        await app.wait()
    assert len(third.handled) == 36
    assert sorted(source.acked) == [1, 2, 3, 4]


@virtually
async def test_several_sources():
    """Their messages are told to the one that they come from; it ends when all of them have."""
    sources = [StubSource(*range(start, start + 20)) for start in (0, 100, 200)]
    pipeline = Noting(source=sources, processors=Processors(concurrency=2), batchers=batcher(size=7))
    for source in sources[:2]:
        source.finish()
    async with running(pipeline) as started:
        await until(lambda: sum(len(source.acked) for source in sources) == 60)
        await asyncio.sleep(10)
        assert started.alive
        sources[2].push(220)
        await until(lambda: 220 in sources[2].acked)
        sources[2].finish()
        await started.wait()
    for source, start in zip(sources, (0, 100, 200), strict=True):
        assert sorted(source.acked) == list(range(start, start + 20 + (start == 200)))


def test_a_source_is_given_once():
    source = StubSource()
    with pytest.raises(OptionError, match="'source' to be different sources"):
        Noting(source=[source, source])
    with pytest.raises(OptionError, match="'source' to be at least one Source"):
        Noting(source=[])


# -- kills ------------------------------------------------------------------------------------------------------------

SHAPES = {
    "plain": {},
    "batches": {"batchers": batcher(size=3, timeout=0.5)},
    "serial": {
        "batchers": batcher(size=3, timeout=0.5, serial=True, concurrency=2, key=lambda message: message.data % 3),
        "partition_by": lambda message: message.data % 3,
    },
    "steps": {"processors": {"one": Processors("one", concurrency=2), "two": Processors("two", concurrency=2)}},
    "steps and order": {
        "processors": {"two": Processors("two", concurrency=2), "one": Processors("one", concurrency=2)},
        "partition_by": lambda message: message.data % 3,
        "batchers": batcher(size=3, timeout=0.5),
    },
    "parts": {
        "processors": {"three": Processors("three", concurrency=2), "two": Processors("two", concurrency=2)},
        "batchers": batcher(size=3, timeout=0.5),
    },
}


class Killed(AsyncNoting):
    """Is slow enough to be killed in the middle of everything."""

    processors = Processors(concurrency=2, max_demand=4)

    def __init__(self, **options):
        super().__init__(max_restarts=None, **options)

    async def handle_message(self, message):
        await asyncio.sleep(0.05)

    async def one(self, message):
        await asyncio.sleep(0.05)

    def two(self, message):
        pass

    async def three(self, message):
        await asyncio.sleep(0.02)
        return message.split([message.data] * 3)

    async def handle_batch(self, messages, batch):
        await asyncio.sleep(0.1)
        await super().handle_batch(messages, batch)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("shape", SHAPES)
def test_stages_that_are_killed_lose_nothing(shape, seed):
    """Every message is acknowledged once, whoever dies when; the pipeline comes to its end."""
    chance = random.Random(seed)

    async def scenario():
        source, errors, letters = StubSource(*range(60)), [], []
        source.finish()
        pipeline = Killed(source=source, **SHAPES[shape])
        async with System(seed=seed, on_error=errors.append, on_dead_letter=letters.append) as system:
            started = await system.start(pipeline)
            for _ in range(12):
                await asyncio.sleep(chance.random() * 0.2)
                refs = system.stages()
                if refs:
                    chance.choice(refs).kill()
            async with asyncio.timeout(120):
                await started.wait()
            balanced(started)
        assert sorted(source.acked) == list(range(60))
        assert (errors, letters) == ([], [])

    run(scenario(), seed=seed)


@virtually
async def test_a_message_that_is_killed_with_its_stage_again_and_again_is_not_given_up():
    """It is for the restart limit to end that."""
    source = StubSource("slow")

    class Slow(AsyncNoting):
        async def handle_message(self, message):
            self.handled.append(message.data)
            await asyncio.sleep(10)

    pipeline = Slow(source=source, max_restarts=None)
    async with running(pipeline) as started:
        for count in range(1, 8):
            await until(lambda count=count: len(pipeline.handled) == count)
            started.system.ref("Slow.default-1").kill()
            await asyncio.sleep(0.01)
        await until(lambda: source.acked == ["slow"], 300)
        assert now() > 10
