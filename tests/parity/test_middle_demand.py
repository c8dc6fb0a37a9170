"""Three stages: how demand passes through the one in the middle."""

import asyncio

from headgate import Child, End, ProducerConsumer, System, To
from tests.parity.registry import different
from tests.parity.stages import Counter, Doubler, Forwarder, Log, Sleeper, batches, doubled, numbers, settle, until


class Discarder(Doubler):
    """Gives nothing for its events."""

    def handle_events(self, events, source):
        super().handle_events(events, source)


class Postponer(ProducerConsumer):
    """Gives its events later."""

    def __init__(self, log):
        self.log = log

    def handle_events(self, events, source):
        self.stage.cast(list(events))

    def handle_cast(self, events):
        self.log.append(("postponed", events))
        return events


async def three(system, middle, got, upstream, downstream=None, *, late=False):
    """Start counter, doubler and consumer; late: the consumer subscribes first and the middle stage afterwards."""
    to_counter = {"max_demand": 100, "min_demand": upstream}
    to_middle = downstream or {"max_demand": 100, "min_demand": 50}
    counter = await system.start(Child(Counter))
    if late:
        doubler = await system.start(Child(Doubler, middle))
        consumer = await system.start(Child(Forwarder, got))
        await consumer.subscribe(To(doubler, **to_middle))
        await doubler.subscribe(To(counter, **to_counter))
    else:
        doubler = await system.start(Child(Doubler, middle, subscribe_to=[To(counter, **to_counter)]))
        await system.start(Child(Forwarder, got, subscribe_to=[To(doubler, **to_middle)]))
    await until(lambda: len(batches(middle)) >= 10 and len(batches(got)) >= 10)
    return batches(middle), batches(got)


def check_80(middle, got):
    assert middle[:7] == numbers(*range(0, 160, 20))
    assert got[:2] == [doubled(0, 20), doubled(20, 40)]
    assert all(len(batch) <= 50 for batch in got)
    assert any(len(batch) % 40 for batch in got)  # an output of 40 was cut where the demand ended
    assert [event for batch in got for event in batch][:200] == doubled(0, 100)


def check_20(middle, got):
    assert middle[:2] == numbers(0, 80, 100)
    assert middle[2] == list(range(100, 180))
    assert got[:3] == [doubled(0, 25), doubled(25, 50), doubled(50, 75)]
    assert [event for batch in got for event in batch][:200] == doubled(0, 100)


@different(
    "G009",
    "what is under way is handled before the source gives more, so the demand cuts another output in two",
)
async def test_upstream_100_and_80():
    """G009: 20 in, 40 out; a later output of 40 is split where the consumer's demand ends."""
    async with System() as system:
        check_80(*await three(system, [], [], 80))


async def test_upstream_100_and_20():
    """G010: 80 in, 160 out, which the consumer gets 50 by 50."""
    async with System() as system:
        check_20(*await three(system, [], [], 20))


@different(
    "G011",
    "what is under way is handled before the source gives more, so the demand cuts another output in two",
)
async def test_upstream_100_and_80_with_the_consumer_first():
    """G011: the same as when the middle stage subscribes first."""
    async with System() as system:
        check_80(*await three(system, [], [], 80, late=True))


async def test_upstream_100_and_20_with_the_consumer_first():
    """G012: the same as when the middle stage subscribes first."""
    async with System() as system:
        check_20(*await three(system, [], [], 20, late=True))


class Passing(Doubler):
    """Gives every event once."""

    def handle_events(self, events, source):
        super().handle_events(events, source)
        return events


async def test_a_middle_stage_stops_asking_when_its_consumer_does():
    log, got, gate = Log(), Log(), asyncio.Event()
    async with System() as system:
        counter = await system.start(Child(Counter, log))
        passing = await system.start(Child(Passing, log, subscribe_to=[To(counter, max_demand=10, min_demand=8)]))
        await system.start(Child(Sleeper, got, gate, subscribe_to=[To(passing, max_demand=10, min_demand=5)]))
        await settle()
        assert batches(log) == numbers(0, 2, 4, 6, 8, 10)
        assert batches(log, "demand") == [10, 2, 2, 2, 2, 2]
        assert batches(got) == [[0, 1]]
        gate.set()
        await until(lambda: [10, 11] in batches(log))


async def test_output_that_comes_later_stops_it_as_well():
    """What is already on its way when demand is used up may still be taken in, and no more."""
    log, got, gate = Log(), Log(), asyncio.Event()
    async with System() as system:
        counter = await system.start(Child(Counter, log))
        postponer = await system.start(Child(Postponer, log, subscribe_to=[To(counter, max_demand=10, min_demand=8)]))
        await system.start(Child(Sleeper, got, gate, subscribe_to=[To(postponer, max_demand=10, min_demand=5)]))
        await settle()
        assert batches(log, "postponed")[:5] == numbers(0, 2, 4, 6, 8, 10)
        assert batches(got) == [[0, 1]]
        seen = list(log)
        assert sum(batches(log, "demand")) <= 30
        await settle()
        assert log == seen
        gate.set()
        await until(lambda: len(batches(log, "postponed")) > 20)


async def test_a_middle_stage_that_gives_nothing_goes_on_pulling():
    """G014: what it drops takes nothing off the demand of its consumers."""
    log, got = Log(), Log()
    async with System() as system:
        counter = await system.start(Child(Counter))
        discarder = await system.start(Child(Discarder, log, subscribe_to=[To(counter, max_demand=100, min_demand=80)]))
        await system.start(Child(Forwarder, got, subscribe_to=[To(discarder, max_demand=100, min_demand=50)]))
        await until(lambda: len(batches(log)) >= 51)
    assert batches(log)[:51] == numbers(*range(0, 1040, 20))
    assert batches(got) == []


async def test_consumers_of_a_broadcasting_middle_stage_get_the_same_batches():
    """G015: with max_demand 10 and 20 both get the same output in batches of 10."""
    one, two = Log(), Log()
    async with System() as system:
        counter = await system.start(Child(Counter))
        doubler = await system.start(Child(Doubler, dispatcher="broadcast", subscribe_to=[counter]))
        first = await system.start(Child(Forwarder, one))
        second = await system.start(Child(Forwarder, two))
        await first.subscribe(To(doubler, max_demand=10, min_demand=0))
        await second.subscribe(To(doubler, max_demand=20, min_demand=0))
        await until(lambda: len(batches(two)) >= 50)
        await until(lambda: batches(one)[-1][0] >= batches(two)[49][0])
    shared = batches(two)[:50]
    start = shared[0][0]
    assert start % 5 == 0
    assert shared == [doubled(first, first + 5) for first in range(start, start + 250, 5)]
    at = batches(one).index(shared[0])
    assert batches(one)[at : at + 50] == shared


async def test_a_subscriber_of_a_broadcasting_middle_stage_that_never_asks_blocks_until_it_is_cancelled():
    """G016: nothing comes before, and the same batches for all come after."""
    log, one, two = Log(), Log(), Log()
    async with System() as system:
        counter = await system.start(Child(Counter))
        doubler = await system.start(Child(Doubler, log, dispatcher="broadcast", subscribe_to=[counter]))
        stale = await system.start(Child(Forwarder))
        held_up = await stale.subscribe(To(doubler, mode="manual"))
        for got, most in ((one, 10), (two, 20)):
            consumer = await system.start(Child(Forwarder, got))
            await consumer.subscribe(To(doubler, max_demand=most, min_demand=0))
        await settle()
        assert batches(log) == batches(one) == batches(two) == []
        stale.cancel(held_up, "killed")
        await until(lambda: len(batches(one)) >= 50 and len(batches(two)) >= 50)
    assert batches(one)[:50] == batches(two)[:50] == [doubled(at, at + 5) for at in range(0, 250, 5)]


async def test_events_of_a_lost_producer_are_still_handled_and_the_cancel_comes_after_them():
    """G017: they wait for demand, then they are handled, and only then handle_cancel is called."""
    log, got = Log(), Log()
    async with System() as system:
        counter = await system.start(Child(Counter))
        doubler = await system.start(Child(Doubler, log))
        subscription = await doubler.subscribe(To(counter, cancel="temporary", max_demand=100, min_demand=50))
        assert log == [("subscribe", "producer", subscription)]
        counter.cancel(subscription, "done")
        await settle()
        assert log == [("subscribe", "producer", subscription)]
        consumer = await system.start(Child(Forwarder, got))
        downstream = await consumer.subscribe(To(doubler, max_demand=100, min_demand=50))
        await settle()
        assert doubler.alive
        assert log[1:] == [
            ("subscribe", "consumer", downstream),
            ("events", list(range(50))),
            ("events", list(range(50, 100))),
            ("cancel", End("cancel", "done"), subscription),
        ]
        assert batches(got) == [doubled(0, 25), doubled(25, 50), doubled(50, 75), doubled(75, 100)]
