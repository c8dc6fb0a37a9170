"""Flows that run: iterated, as apps, through and into stages; their errors and their ends."""

import asyncio
import contextlib
import itertools

import pytest

import headgate
from headgate import Child, Consumer, Flow, FlowError, NoStageError, OperatorError, StageCrashed, Stop, System, To
from headgate.errors import SubscriptionError
from tests.parity.flows import HUNDRED, Batches, Twice, even, four, parted, states, total, two
from tests.parity.registry import different
from tests.parity.stages import Counter, Log, refused, settle, until

SHAPES = pytest.mark.parametrize(
    ("make", "numbers"), [(two, range(1, 7)), (four, range(1, 7)), (parted, range(1, 11))], ids=["2", "4", "by key"]
)
EVENS = [2, 4, 6]


def endless():
    return Flow.from_iterable(itertools.count(), max_demand=10)


def fails():
    yield 1
    raise ValueError("oops")


def flat(lists):
    return sorted(each for some in lists for each in some)


# -- errors, and what is left behind ----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_the_source_raises(workers):
    """F008: what a source raises comes to the one who runs the flow, or iterates it."""
    for run in (Flow.run, Flow.to_list, list):
        flow = Flow.from_iterable(fails(), max_demand=1).options(workers=workers)
        with refused(StageCrashed, "ValueError: oops"):
            run(flow)


async def test_the_source_raises_in_an_async_program():
    """F009: the caller has the error, and goes on."""
    with refused(StageCrashed, "oops"):
        [event async for event in Flow.from_iterable(fails(), max_demand=1)]
    async with System(on_error=lambda error: None) as system:
        run = await system.start(Flow.from_iterable(fails(), max_demand=1).app())
        with refused(StageCrashed, "oops"):
            await run.wait()
        assert (await system.start(Child(Counter))).alive


async def test_iterating_leaves_nothing_behind():
    """F011: neither tasks, nor what is still to be heard."""
    tasks = asyncio.all_tasks()
    flow = states(total(Flow.from_iterable(HUNDRED).options(workers=4)))
    assert [event async for event in flow] == [5050]
    await settle()
    assert asyncio.all_tasks() == tasks


async def test_the_one_who_iterates_is_cancelled():
    """F012: the flow's stages are gone with it, and its source is closed."""
    log = Log()

    async def source():
        try:
            for number in itertools.count():
                yield number
                await asyncio.sleep(0)
        finally:
            log.append("closed")

    async def iterate():
        async for event in Flow.from_iterable(source(), max_demand=2).map(lambda n: n):
            log.append(event)

    before = asyncio.all_tasks()
    task = asyncio.ensure_future(iterate())
    await until(lambda: len(log) > 5)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert log[-1] == "closed"
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("flow", [endless(), endless().map(lambda n: n * 2)])
async def test_an_endless_flow_is_halted(flow):
    """F036, F037: when nobody wants more, all of it stops; without operators, and with some."""
    tasks = asyncio.all_tasks()
    async with contextlib.aclosing(aiter(flow)) as events:
        assert await anext(events) == 0
    await settle()
    assert asyncio.all_tasks() == tasks


def test_an_endless_flow_is_halted_in_a_plain_program():
    """F036: also where there is no loop."""
    assert list(itertools.islice(Flow.from_iterable(itertools.count()), 5)) == [0, 1, 2, 3, 4]


# -- as an app --------------------------------------------------------------------------------------------------------


@SHAPES
async def test_a_flow_runs_and_ends(make, numbers):
    """F025, F050, F071: it does what its functions do, and ends."""
    seen = Log()
    async with System() as system:
        run = await system.start(make().filter(even).tap(seen.append).app())
        assert await run.wait() == "normal"
        assert not run.alive
        assert run.reason == "normal"
    assert sorted(seen) == [n for n in numbers if n % 2 == 0]


@SHAPES
async def test_a_flow_with_a_name(make, numbers):
    """F026, F051, F072: it is found by its name while it runs, and its results can be had by it."""
    async with System() as system:
        run = await system.start(make().app(name="flow"))
        assert run.name == "flow"
        assert system.ref("flow").alive
        assert sorted([event async for event in headgate.stream(["flow"], system=system)]) == list(numbers)
        await run.wait()
        with pytest.raises(NoStageError):
            system.ref("flow")


async def test_a_merged_flow_runs():
    """F027: so does a flow of several."""
    seen = Log()
    await Flow.merge(two(), Flow.from_iterable([7])).shuffle(workers=3).tap(seen.append)
    assert sorted(seen) == list(range(1, 8))


@pytest.mark.parametrize("make", [two, four], ids=["2", "4"])
async def test_into_a_running_consumer(make):
    """F028, F052: it gets the batches of each list; the flow ends, and the consumer, which is not its own, lives on."""
    log = Log()
    async with System() as system:
        consumer = await system.start(Child(Batches, log))
        run = await system.start(make().filter(even).into(consumer).app())
        assert await run.wait() == "normal"
        assert sorted(log) == [[2], [4, 6]]
        assert consumer.alive


@SHAPES
async def test_into_stages_under_a_name(make, numbers):
    """F033, F043, F053, F057, F074, F078: a flow whose results go somewhere has a name all the same."""
    del numbers
    async with System() as system:
        for target in (await system.start(Child(Batches, Log())), Child(Batches, Log())):
            run = await system.start(make().into(target).app(name="flow", demand="accumulate"))
            assert run.name == "flow"
            assert run.alive
            assert system.ref("flow") == run.outlet
            await run.stop()


async def test_into_a_running_consumer_by_partitions():
    """F073: what it gets of each partition are batches of that partition alone."""
    log = Log()
    async with System() as system:
        consumer = await system.start(Child(Batches, log))
        run = await system.start(parted().filter(even).into(consumer).app())
        await run.wait()
    assert flat(log) == [2, 4, 6, 8, 10]
    assert all(len({n % 4 for n in some}) == 1 for some in log)


@SHAPES
@pytest.mark.parametrize("into", [False, True])
async def test_through_running_stages(make, numbers, into):
    """F030, F031, F054, F055, F075, F076: each does its part, as if it was written down in the flow."""
    evens = sorted([n for n in numbers if n % 2 == 0] * 4)
    log = Log()
    async with System() as system:
        one, other = [await system.start(Child(Twice, Log())) for _ in range(2)]
        end = await system.start(Child(Batches, log))
        flow = make().filter(even).through(one).through(other)
        seen = Log()
        flow = flow.into(end) if into else flow.tap(seen.append)
        run = await system.start(flow.app())
        await until(lambda: len(flat(log)) == len(evens) or len(seen) == len(evens))
        assert (flat(log) if into else sorted(seen)) == evens
        for stage in (one, other):  # they are not the flow's: somebody has to end them
            assert stage.alive
            await stage.stop()
        assert await run.wait() == "normal"
        assert end.alive


@SHAPES
async def test_into_recipes(make, numbers):
    """F032, F056, F077: the flow starts the consumers, and they end with it."""
    log = Log()
    async with System() as system:
        run = await system.start(make().filter(even).into(Child(Batches, log)).app())
        assert await run.wait() == "normal"
        assert system.stages() == []
    assert flat(log) == [n for n in numbers if n % 2 == 0]
    if make is not parted:
        assert sorted(log) == [[2], [4, 6]]


@SHAPES
async def test_through_recipes(make, numbers):
    """F034, F058, F079: the flow starts the stages in between, and ends by itself."""
    seen, log = Log(), Log()
    flow = make().filter(even).through(Child(Twice, log)).through(Child(Twice)).tap(seen.append)
    await flow.run_async()
    assert sorted(seen) == sorted([n for n in numbers if n % 2 == 0] * 4)
    assert flat(log) == [n for n in numbers if n % 2 == 0]


@SHAPES
async def test_through_and_into_recipes(make, numbers):
    """F035, F059, F080: and both."""
    log = Log()
    terms = [To("flow", max_demand=2)]
    flow = make().filter(even).through(Child(Twice, subscribe_to=terms)).through(Child(Twice))
    await flow.into(Child(Batches, log, subscribe_to=[To("flow", max_demand=4)])).run_async()
    assert flat(log) == sorted([n for n in numbers if n % 2 == 0] * 4)
    assert max(map(len, log)) <= 2


# -- a flow as a producer ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [False, True])
async def test_a_consumer_joins_a_running_flow(own):
    """F127, F128: it gets results from then on, also when the flow has a consumer of its own; it outlives the flow."""
    log, mine = Log(), Log()
    flow = endless().map(lambda n: n * 2)
    if own:
        flow = flow.into(Child(Batches, mine, subscribe_to=[To("flow", max_demand=2)]))
    async with System() as system:
        run = await system.start(flow.app(name="flow"))
        await settle()
        consumer = await system.start(Child(Batches, log, subscribe_to=[To("flow", max_demand=2, cancel="transient")]))
        await until(lambda: len(log) > 5)
        await run.stop()
        assert consumer.alive
    assert bool(mine) == own
    got = flat(log + mine)
    assert got == sorted({*got})
    assert all(n % 2 == 0 for n in got)


async def test_a_running_flow_is_iterated():
    """F132: its results are a stream."""
    async with System() as system:
        run = await system.start(two().app(name="flow"))
        assert sorted([event async for event in headgate.stream([run.outlet])]) == [1, 2, 3, 4, 5, 6]
        assert await run.wait() == "normal"


async def test_a_flow_that_holds_its_demand():
    """F133: nothing flows before it is told to."""
    seen = Log()
    async with System() as system:
        run = await system.start(endless().tap(seen.append).app(demand="accumulate"))
        await settle()
        assert seen == []
        run.forward()
        await until(lambda: len(seen) > 100)
        await run.stop()


# -- how it ends ------------------------------------------------------------------------------------------------------


async def test_a_producer_of_a_flow_is_killed():
    """F129: the whole flow ends, with an error that says who has."""
    async with System(on_error=lambda error: None) as system:
        for make in (lambda stage: Flow.from_stages([stage]), lambda _: Flow.from_children([Child(Counter)])):
            stage = await system.start(Child(Counter, name="numbers"))
            run = await system.start(make(stage).map(str).app())
            await settle()
            victim = stage if make(stage).explain().count("from_stages") else run.child(run.children()[0].id)
            victim.kill("oops")
            with refused(FlowError, "oops"):
                await run.wait()
            assert not any(child.ref is not None for child in run.children())
            stage.kill()


class Leave(Consumer):
    """Stops with its first batch."""

    def __init__(self, reason):
        self.reason = reason

    def handle_events(self, events, source):
        raise Stop(self.reason)


@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
@pytest.mark.parametrize("reason", ["shutdown", "normal", "oops"])
async def test_the_consumer_of_a_flow_ends(restart, reason):
    """F130: abnormally: so does the flow; normally: the flow has come to its end."""
    async with System(on_error=lambda error: None) as system:
        run = await system.start(endless().into(Child(Leave, reason, restart=restart)).app())
        if reason == "oops":
            with refused(FlowError, "oops"):
                await run.wait()
        else:
            assert await run.wait() == "normal"
        assert system.stages() == []


@different(
    "F131", "there is no time for subscribing: who is not there fails the start at once; asyncio.timeout bounds it"
)
async def test_starting_takes_too_long():
    """F131: a start that cannot be finished in time fails, and leaves nothing behind."""
    async with System() as system:
        for flow in (Flow.from_stages(["nobody"]), endless().through("nobody"), endless().into("nobody")):
            with refused((SubscriptionError, NoStageError), "nobody"):
                await system.start(flow.app())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await system.start(endless().app())
        assert system.stages() == []


async def test_a_function_raises_in_a_running_flow():
    """F129: what a function raises ends all of it, too."""
    async with System(on_error=lambda error: None) as system:
        run = await system.start(endless().options(workers=3).map(lambda n: 1 / (n - 50)).app())
        with refused(OperatorError, "ZeroDivisionError"):
            await run.wait()
        assert system.stages() == []
