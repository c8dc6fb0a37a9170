"""Two stages: in which batches events arrive for a given max_demand and min_demand."""

import pytest

from headgate import Child, System, To
from tests.parity.stages import Counter, Forwarder, Log, Source, batches, numbers, settle, until


async def first_batches(count, **terms):
    """Return the first batches that a consumer on these terms gets from a counter."""
    log = Log()
    async with System() as system:
        counter = await system.start(Child(Counter))
        await system.start(Child(Forwarder, log, subscribe_to=[To(counter, **terms)]))
        await until(lambda: len(batches(log)) >= count)
        return batches(log)[:count]


async def test_by_default_batches_have_500_events():
    assert await first_batches(4) == numbers(0, 500, 1000, 1500, 2000)


async def test_with_100_and_80_every_batch_has_20_events():
    got = await first_batches(52, max_demand=100, min_demand=80)
    assert got == numbers(*range(0, 1060, 20))[:52]
    assert got[50] == list(range(1000, 1020))


async def test_with_100_and_20_replies_of_100_are_cut_and_refills_of_80_are_not():
    """G004: batches of 80, 20, 80, 80, 20."""
    got = await first_batches(5, max_demand=100, min_demand=20)
    assert got == numbers(0, 80, 100, 180, 260, 280)


async def test_what_the_producer_is_asked_for_with_100_and_20():
    log, got = Log(), Log()
    async with System() as system:
        counter = await system.start(Child(Counter, log))
        await system.start(Child(Forwarder, got, subscribe_to=[To(counter, max_demand=100, min_demand=20)]))
        await until(lambda: len(batches(got)) >= 5)
    assert batches(log, "demand")[:4] == [100, 80, 100, 80]


async def test_with_1_and_0_events_come_one_by_one():
    """G005: one event at a time, and the next is asked for only when it is handled."""
    log = Log()
    async with System() as system:
        counter = await system.start(Child(Counter, log))
        consumer = await system.start(Child(Forwarder, log))
        await consumer.subscribe(To(counter, max_demand=1, min_demand=0))
        await until(lambda: len(batches(log)) >= 3)
    steps = [entry for entry in log if entry[0] in ("demand", "events")][:6]
    assert steps == [("demand", 1), ("events", [0]), ("demand", 1), ("events", [1]), ("demand", 1), ("events", [2])]


async def test_consumers_of_a_broadcast_get_the_same_batches():
    """G006: with max_demand 10 and 20 both end up with the same batches of 10."""
    one, two = Log(), Log()
    async with System() as system:
        counter = await system.start(Child(Counter, dispatcher="broadcast"))
        await system.start(Child(Forwarder, one, subscribe_to=[To(counter, max_demand=10, min_demand=0)]))
        await system.start(Child(Forwarder, two, subscribe_to=[To(counter, max_demand=20, min_demand=0)]))
        await until(lambda: len(batches(two)) >= 100)
        await until(lambda: batches(one)[-1][0] >= batches(two)[99][0])
    shared = batches(two)[:100]
    assert all(len(batch) == 10 for batch in shared)
    at = batches(one).index(shared[0])
    assert batches(one)[at : at + 100] == shared
    assert shared == numbers(*range(shared[0][0], shared[-1][0] + 20, 10))


async def test_a_subscriber_of_a_broadcast_that_never_asks_blocks_everybody_until_it_is_cancelled():
    """G007: with it nobody gets anything; without it the others get the same batches."""
    log, one, two = Log(), Log(), Log()
    async with System() as system:
        counter = await system.start(Child(Counter, log, dispatcher="broadcast"))
        stale = await system.start(Child(Forwarder))
        held_up = await stale.subscribe(To(counter, mode="manual"))
        first = await system.start(Child(Forwarder, one))
        second = await system.start(Child(Forwarder, two))
        await first.subscribe(To(counter, max_demand=10, min_demand=0))
        await second.subscribe(To(counter, max_demand=20, min_demand=0))
        await settle()
        assert batches(log, "demand") == batches(one) == batches(two) == []
        stale.cancel(held_up, "killed")
        await until(lambda: len(batches(one)) >= 102 and len(batches(two)) >= 102)
    assert batches(one)[:102] == batches(two)[:102] == numbers(*range(0, 1030, 10))[:102]


async def test_the_common_demand_of_a_broadcast_reaches_the_producer_once():
    """G008: of 10 and 20 the producer is asked for 10, one time."""
    log = Log()
    async with System() as system:
        source = await system.start(Child(Source, log, dispatcher="broadcast"))
        for most in (10, 20):
            consumer = await system.start(Child(Forwarder))
            await consumer.subscribe(To(source, max_demand=most, min_demand=0))
        await settle()
        assert batches(log, "demand") == [10]


@pytest.mark.parametrize(
    ("most", "least", "received", "batched", "asked"),
    [
        (1000, 750, [100, 100, 100], [100, 100, 100], [1000, 300]),
        (10, 0, [3, 3, 3], [3, 3, 3], [10]),
        (10, 5, [1] * 6, [1] * 6, [10, 5]),
        (10, 9, [10], [1] * 10, [10] + [1] * 10),
        (3, 1, [3], [2, 1], [3, 2]),
        (7, 3, [7, 4], [4, 3, 4], [7, 4, 7]),
        (100, 80, [100], [20] * 5, [100] + [20] * 5),
        (1000, 500, [100] * 6, [100] * 6, [1000, 500]),
    ],
)
async def test_when_more_is_asked_for(most, least, received, batched, asked):
    """The worked examples of gen_stage's formula: how messages are cut, and which of the batches leads to an ask."""
    log, got = Log(), Log()
    async with System() as system:
        source = await system.start(Child(Source, log))
        consumer = await system.start(Child(Forwarder, got))
        subscription = await consumer.subscribe(To(source, max_demand=most, min_demand=least))
        for size in received:
            source.cast(range(size))
            await settle()
        assert [len(batch) for batch in batches(got)] == batched
        assert sum(asked) == source.statistics().consumers[0].asked
        assert subscription in [entry[2] for entry in log if entry[0] == "subscribe"]
    assert batches(log, "demand") == asked
