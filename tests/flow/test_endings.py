"""What a flow does when a stage that is not its own, or its last consumer, ends: it never waits for ever."""

import contextlib
import itertools
from typing import Any

import pytest

from headgate import (
    Child,
    Consumer,
    Flow,
    FlowError,
    Producer,
    ProducerConsumer,
    StageCrashed,
    Stop,
    SubscriptionError,
    System,
    To,
)


class Count(Producer):
    """Counts."""

    def __init__(self):
        self.numbers = itertools.count()

    def handle_demand(self, demand):
        return list(itertools.islice(self.numbers, demand))


class Finish(ProducerConsumer):
    """Passes on so many batches."""

    def __init__(self, batches):
        self.left = batches

    def handle_events(self, events, source):
        self.left -= 1
        if not self.left:
            self.stage.finish()
        return events


class Take(Consumer):
    """Takes one batch."""

    def __init__(self, got, reason):
        self.got = got
        self.reason = reason

    def handle_events(self, events, source):
        self.got.extend(events)
        raise Stop(self.reason)


def endless():
    return Flow.from_iterable(itertools.count(), max_demand=4)


async def started(flow, system):
    return await system.start(flow.app())


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_producer_of_somebody_elses_that_fails_fails_the_flow(workers):
    async with System(on_error=lambda error: None) as system:
        stage = await system.start(Child(Count, name="numbers"))
        run = await started(Flow.from_stages(["numbers"]).options(workers=workers).map(str), system)
        stage.kill("oops")
        with pytest.raises(FlowError, match="'numbers', which the flow takes events of, has ended: 'oops'"):
            await run.wait()


@pytest.mark.parametrize("reason", ["normal", "shutdown"])
async def test_a_producer_that_ends_normally_ends_the_flow(reason):
    async with System() as system:
        stage = await system.start(Child(Count))
        run = await started(Flow.from_stages([stage]).count(), system)
        await stage.stop(reason)
        assert await run.wait() == "normal"


async def test_one_of_two_producers_fails():
    async with System(on_error=lambda error: None) as system:
        stages = [await system.start(Child(Count)) for _ in range(2)]
        run = await started(Flow.from_stages(stages).map(str), system)
        stages[0].kill("oops")
        with pytest.raises(FlowError, match="oops"):
            await run.wait()


@pytest.mark.parametrize(
    "flow", [Flow.from_stages(["nobody"]), endless().through("nobody"), endless().into("nobody")], ids=str
)
async def test_a_stage_that_is_not_there_fails_the_start(flow):
    async with System() as system:
        with pytest.raises(Exception, match="no stage named 'nobody'"):
            await started(flow, system)
        assert system.stages() == []


async def test_terms_of_ones_own():
    async with System() as system:
        stage = await system.start(Child(Count))
        flow = Flow.from_stages([To(stage, max_demand=7, min_demand=3)]).map_batches(lambda batch: [len(batch)])
        sizes = []
        async with contextlib.aclosing(aiter(flow)) as results:
            async for size in results:
                sizes.append(size)
                if len(sizes) == 4:
                    break
        assert sizes == [4, 3, 4, 4]


@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
@pytest.mark.parametrize("reason", ["normal", "shutdown"])
async def test_the_flow_ends_when_its_only_consumer_has_had_enough(restart, reason):
    got: list[Any] = []
    async with System() as system:
        run = await started(endless().into(Child(Take, got, reason, restart=restart)), system)
        assert await run.wait() == "normal"
    assert got


async def test_the_flow_goes_on_while_one_consumer_is_left():
    got: list[Any] = []
    more: list[Any] = []
    flow = Flow.from_iterable(range(100), max_demand=4).into(Child(Take, got, "normal", id="one"), more.extend)
    await flow.run_async()
    assert sorted(got + more) == list(range(100))
    assert len(got) < len(more)


@pytest.mark.parametrize("restart", ["permanent", "temporary"])
async def test_a_consumer_that_fails_fails_the_flow(restart):
    async with System(on_error=lambda error: None) as system:
        run = await started(endless().into(Child(Take, [], "oops", restart=restart)), system)
        with pytest.raises(FlowError, match="oops"):
            await run.wait()


async def test_a_consumer_of_somebody_elses_ends():
    async with System(on_error=lambda error: None) as system:
        for reason in ("normal", "oops"):
            stage = await system.start(Child(Take, [], reason))
            run = await started(endless().into(stage), system)
            if reason == "normal":
                assert await run.wait() == "normal"
            else:
                with pytest.raises(FlowError, match="the last stage that took its events has ended: 'oops'"):
                    await run.wait()
                with pytest.raises(StageCrashed):
                    await stage.wait()


async def test_who_takes_the_results_of_a_branch_has_had_enough():
    async with System() as system:
        run = await started(endless().tee(Child(Take, [], "normal")), system)
        with pytest.raises(FlowError, match="one of its branches"):
            await run.wait()


async def test_a_stage_in_between_has_had_enough():
    flow = endless().through(Child(Finish, 3, subscribe_to=[To("flow", max_demand=2)])).count()
    (count,) = await flow.collect()
    assert 3 <= count <= 6


async def test_a_stage_in_between_fails():
    async with System(on_error=lambda error: None) as system:
        stage = await system.start(Child(Finish, 1000))
        run = await started(endless().through(stage).count(), system)
        stage.kill("oops")
        with pytest.raises(FlowError, match="oops"):
            await run.wait()


async def test_what_is_not_there_is_said_with_its_type():
    async with System() as system:
        with pytest.raises(SubscriptionError):
            await started(Flow.from_stages(["nobody"]), system)
