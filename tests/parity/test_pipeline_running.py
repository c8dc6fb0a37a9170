# mypy: disable-error-code="call-arg"
"""Shutdown, rate limits, and what a running pipeline says about itself."""

import asyncio
import math

import pytest

from headgate import Batcher, Message, OptionError, Processors, RateLimiter, Source, Supervisor
from headgate.testing import StubSource
from tests.parity.registry import different
from tests.pipeline.helpers import AsyncNoting, Noting, batcher, now, running, until, virtually

# -- shutdown ---------------------------------------------------------------------------------------------------------


class Slow(AsyncNoting):
    """Takes a second for each message."""

    async def handle_message(self, message):
        self.handled.append(message.data)
        await asyncio.sleep(1)


@virtually
async def test_a_stop_returns_when_everything_has_ended():
    """B087: stages, sources and the pipeline itself."""
    source = StubSource(1)
    pipeline = Slow(source=source, processors=Processors(concurrency=2))
    async with running(pipeline) as started:
        await until(lambda: pipeline.handled)
        refs = started.system.stages()
        await started.stop()
        assert now() >= 1
        assert not any(ref.alive for ref in refs)
        assert not started.alive
        assert source.life[-1] == "close"


@different("B088", "what nobody has begun goes back to its source at once, instead of keeping the stop waiting")
@virtually
async def test_messages_that_wait_when_it_is_stopped():
    """B088: what was begun is acknowledged, what waits goes back."""
    source = StubSource(*range(10))
    pipeline = Slow(source=source, processors=Processors(concurrency=2, max_demand=2))
    async with running(pipeline) as started:
        await until(lambda: len(pipeline.handled) == 2)
        await started.stop()
        assert now() < 1.1
    assert sorted(source.acked) == sorted(pipeline.handled)
    back = [data for data, _, counted in source.nacked if not counted]
    assert back == sorted(back)
    assert sorted(back + source.acked) == [0, 1, 2, 3]


@virtually
async def test_open_batches_when_it_is_stopped():
    """B089: are flushed."""
    source = StubSource(1, 2, 3)
    pipeline = Noting(source=source, batchers=batcher(size=10, timeout=1000))
    async with running(pipeline) as started:
        await until(lambda: started.statistics().batchers["default"].open == 3)
        await started.stop()
    assert (pipeline.payloads, pipeline.triggers) == ([[1, 2, 3]], ["flush"])
    assert source.acked == [1, 2, 3]


@different(
    "B090", "a source hands out nothing while it is drained; what a fetch that is under way brings goes back to it"
)
@virtually
async def test_what_comes_while_it_is_drained():
    """B090: goes back, also what comes after that."""

    class Late(Source):
        redelivers = True

        def __init__(self):
            self.released = asyncio.Event()
            self.fetches = 0
            self.back = []

        async def fetch(self, count):
            self.fetches += 1
            await self.released.wait()
            return [Message("late")]

        def drain(self):
            self.released.set()
            self.wake()

        def nack(self, messages, delay=0.0, *, counted=True):
            self.back += [(message.data, delay, counted) for message in messages]

    source = Late()
    pipeline = Noting(source=source)
    async with running(pipeline):
        await until(lambda: source.fetches)
    assert pipeline.handled == []
    assert source.back == [("late", 0.0, False)]
    assert source.fetches == 1


# -- rate limits ------------------------------------------------------------------------------------------------------


class Timing(Noting):
    """Notes when each message is handled."""

    def __init__(self, **options):
        super().__init__(**options)
        self.times = []

    def handle_message(self, message):
        super().handle_message(message)
        self.times.append(now())


def about(*times):
    return [pytest.approx(time, abs=0.02) for time in times]


@different(
    "B092", "a token bucket: what may come in an interval comes evenly after the first ones, not all at its start"
)
@virtually
async def test_as_many_as_may():
    """B092: pass at once, the next ones as time goes on."""
    limiter = RateLimiter(2, per=10.0)
    pipeline = Timing(source=StubSource(1, 2, 3, 4), rate_limit=limiter)
    async with running(pipeline):
        await until(lambda: len(pipeline.times) == 4)
    assert pipeline.times == about(0, 0, 5, 10)


@different("B093", "a token bucket: never more than the burst at once, whatever the interval begins with")
@virtually
async def test_two_sources_share_a_limit():
    """B093: of 2 in 50 ms, five messages come at three times, and no window has more than its share."""
    limiter = RateLimiter(2, per=0.05)
    pipeline = Timing(source=[StubSource(1, 2, 3), StubSource(4, 5)], rate_limit=limiter)
    async with running(pipeline):
        await until(lambda: len(pipeline.times) == 5)
    assert [time // 0.01 for time in pipeline.times[:2]] == [0, 0]
    assert all(later - earlier > 0.01 for earlier, later in zip(pipeline.times[1:], pipeline.times[2:], strict=False))
    assert pipeline.times[-1] == pytest.approx(0.075, abs=0.02)


@virtually
async def test_demand_that_comes_while_nothing_may_pass():
    """B094: is not forgotten."""
    limiter = RateLimiter(2, per=10.0)
    source = StubSource(1, 2)
    pipeline = Timing(source=source, rate_limit=limiter, processors=Processors(concurrency=5, max_demand=1))
    async with running(pipeline):
        await until(lambda: len(pipeline.times) == 2)
        source.push(3, 4, 5)
        await asyncio.sleep(1)
        assert len(pipeline.times) == 2
        await until(lambda: len(pipeline.times) == 5)
    assert pipeline.handled == [1, 2, 3, 4, 5]
    assert pipeline.times[2:] == about(5, 10, 15)


@different("B095", "a limit is on fetching, so that a stop has nothing to wait for: what waits goes back to its source")
@virtually
async def test_a_limit_and_a_stop():
    """B095: nothing has to wait for its turn."""
    source = StubSource(*range(10))
    pipeline = Timing(source=source, rate_limit=RateLimiter(2, per=1000.0))
    async with running(pipeline) as started:
        await until(lambda: len(pipeline.times) == 2)
        started.push([Message("by hand")])
        await asyncio.sleep(1)
        await started.stop()
        assert now() < 2
    assert (source.acked, source.nacked) == ([0, 1], [])
    assert pipeline.handled == [0, 1]


@different("B096", "a change of a limit holds at once: there are no intervals whose end it could wait for")
@virtually
async def test_a_limit_that_is_changed():
    """B096: and read, while the pipeline runs."""
    limiter = RateLimiter(1, per=1000.0)
    pipeline = Timing(source=StubSource(*range(6)), rate_limit=limiter)
    async with running(pipeline):
        await asyncio.sleep(1)
        assert pipeline.handled == [0]
        assert (limiter.rate, limiter.per, limiter.burst) == (1, 1000.0, 1)
        limiter.update(rate=2, per=1.0)
        assert (limiter.rate, limiter.per) == (2, 1.0)
        await until(lambda: len(pipeline.handled) == 3)
        assert now() < 3
        limiter.update(rate=math.inf)
        await until(lambda: len(pipeline.handled) == 6)
        assert now() < 3


def test_an_option_that_a_limit_does_not_have():
    """B097: is refused, by the names of those that it has."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'allowed'"):
        RateLimiter(1, allowed=5)
    with pytest.raises(TypeError, match="unexpected keyword argument 'allowed'"):
        RateLimiter(1).update(allowed=5)
    expected = "a RateLimiter(...), or a list of one without and one with key="
    with pytest.raises(OptionError, match="'rate_limit'") as caught:
        Noting(rate_limit={"allowed": 5})
    assert caught.value.expected == expected


# -- what it says about itself ----------------------------------------------------------------------------------------


@virtually
async def test_the_topology():
    """B098: names, steps, and how many there are of each."""
    async with running(
        Noting(source=StubSource(), batchers=batcher(), processors=Processors(concurrency=4))
    ) as started:
        assert started.topology() == {
            "sources": [{"name": "Noting.source-1", "source": "StubSource-1"}],
            "processors": [{"name": "Noting.default", "step": "default", "concurrency": 4}],
            "batchers": [
                {
                    "name": "Noting.batcher.default",
                    "batcher": "default",
                    "handlers": "Noting.batch.default",
                    "concurrency": 1,
                }
            ],
        }


@virtually
async def test_the_topology_without_batchers():
    """B099: says so."""
    async with running(Noting()) as started:
        assert started.topology() == {
            "sources": [{"name": "Noting.source-1", "source": "by hand"}],
            "processors": [{"name": "Noting.default", "step": "default", "concurrency": 1}],
            "batchers": [],
        }


@virtually
async def test_the_topology_with_several_batchers():
    """B100: has one entry for each."""
    batchers = {"default": Batcher(concurrency=2), "other": Batcher()}
    async with running(Noting(batchers=batchers)) as started:
        found = [(each["batcher"], each["handlers"], each["concurrency"]) for each in started.topology()["batchers"]]
    assert found == [("default", "Noting.batch.default", 2), ("other", "Noting.batch.other", 1)]


@virtually
async def test_a_stop_by_what_was_returned_at_the_start():
    """B102: with a reason."""
    async with running(Noting()) as started:
        assert await started.stop("shutdown") in ("shutdown", "normal")
        assert not started.alive


@virtually
async def test_a_stop_by_id():
    """B103: by the supervisor above it."""
    app = Supervisor([Noting(), Noting(name="other")], name="app")
    async with running(app) as supervision:
        pipeline = supervision.child("other")
        await supervision.stop_child("other")
        assert not pipeline.alive
        assert supervision.child("Noting").alive


NAME = "registry/eu/orders-1"


@virtually
async def test_any_text_is_a_name():
    """B104: stages are named after it."""
    async with running(Noting(name=NAME, source=StubSource(), batchers=batcher())) as started:
        names = [ref.name for ref in started.system.stages()]
    assert names == [f"{NAME}.{each}" for each in ("source-1", "default-1", "batcher.default", "batch.default-1")]


@virtually
async def test_the_limit_of_a_pipeline_with_such_a_name():
    """B105: is read from the limiter that it was given."""
    limiter = RateLimiter(2, per=10.0)
    async with running(Noting(name=NAME, rate_limit=limiter)) as started:
        assert started.pipeline.shared_limit is limiter
        assert (limiter.rate, limiter.per) == (2, 10.0)


@virtually
async def test_pipelines_that_run():
    """B106: are known to their supervisor by their names."""
    async with running(Supervisor([Noting(name=NAME), Noting()], name="app")) as supervision:
        assert [each.id for each in supervision.children() if each.state == "running"] == [NAME, "Noting"]


@virtually
async def test_the_names_of_source_stages():
    """B107: begin with it."""
    async with running(Noting(name=NAME, source=[StubSource(), StubSource()])) as started:
        names = [each["name"] for each in started.topology()["sources"]]
        assert names == [f"{NAME}.source-1", f"{NAME}.source-2"]
        assert all(started.system.ref(name).alive for name in names)


@virtually
async def test_the_topology_of_a_pipeline_with_such_a_name():
    """B108: has it everywhere."""
    async with running(Noting(name=NAME, batchers=batcher())) as started:
        topology = started.topology()
    assert all(each["name"].startswith(f"{NAME}.") for group in topology.values() for each in group)


@virtually
async def test_a_test_message_to_a_pipeline_with_such_a_name():
    """B109: as to any other."""
    async with running(Noting(name=NAME)) as started:
        assert (await started.test_message(1)).outcome == "acknowledged"


@different("B110", "names need no hook, but have to be text")
def test_a_name_that_is_no_text():
    """B110: is refused with what it should be."""
    with pytest.raises(OptionError, match="expected option 'name' to be a string that is not empty, or None, got: "):
        Noting(name=("registry", "orders"))


@virtually
async def test_the_reason_of_a_failure_as_text():
    """B111: of an exception its traceback."""

    def broken(_):
        raise ValueError("bad")

    async with running(Noting()) as started:
        message = await started.test_message(broken)
    assert message.traceback.startswith("Traceback")
    assert message.traceback.endswith("ValueError: bad\n")
    assert "in broken" in message.traceback


@virtually
async def test_the_names_of_all_stages():
    """B130, B132, B134, B135: say the pipeline, the part, and the number."""
    names = {"source-1", "source-2", "default-1", "default-2", "batcher.a", "batch.a-1", "batch.a-2"}
    pipeline = Noting(
        source=[StubSource(), StubSource()],
        processors=Processors(concurrency=2),
        batchers={"a": Batcher(concurrency=2)},
    )
    async with running(pipeline) as started:
        assert {ref.name for ref in started.system.stages()} == {f"Noting.{each}" for each in names}
        assert [each.id for each in started.children()] == [
            "source-1",
            "source-2",
            "processors.default-1",
            "processors.default-2",
            "batcher.a",
            "batch.a-1",
            "batch.a-2",
        ]


@virtually
async def test_the_demand_of_a_processor():
    """B131: is what was asked for."""
    processors = Processors(concurrency=1, max_demand=7, min_demand=2)
    async with running(Noting(source=StubSource(), processors=processors)) as started:
        stage = started.system.ref("Noting.default-1").driver.core
        [subscription] = stage.into.windows
        assert (subscription.terms.max_demand, subscription.terms.min_demand) == (7, 2)


@different("B133", "a batcher asks for nothing by itself; what it may hold is bounded by max_open and max_waiting")
def test_the_bounds_of_a_batcher():
    """B133: the open batches, and the complete ones that wait."""
    assert (Batcher(size=5).max_open, Batcher(size=5).max_waiting) == (100, 2)
    assert Batcher(concurrency=7).max_waiting == 7
