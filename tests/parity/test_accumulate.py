"""The demand mode: holding demand and events, and letting them go."""

from headgate import Child, System, To
from tests.parity.stages import Counter, Doubler, Forwarder, Log, Source, batches, settle, until

FOUR = {"max_demand": 4, "min_demand": 0}


class Echo(Source):
    """Gives one event per demand: how large it was."""

    def handle_demand(self, demand):
        super().handle_demand(demand)
        return [demand]


async def consumer_of(system, producer, log, **terms):
    consumer = await system.start(Child(Forwarder, log))
    await consumer.subscribe(To(producer, **terms))
    return consumer


async def test_a_producer_can_start_by_holding_demand():
    """G018: nothing comes until the mode is forward, and the mode can be read back."""
    log, got = Log(), Log()
    async with System() as system:
        counter = await system.start(Child(Counter, log, demand="accumulate"))
        assert counter.demand == "accumulate"
        await consumer_of(system, counter, got, **FOUR)
        await settle()
        assert batches(log, "demand") == batches(got) == []
        counter.set_demand("forward")
        assert counter.demand == "forward"
        await until(lambda: batches(got)[:1] == [[0, 1, 2, 3]])


async def test_events_emitted_meanwhile_are_held_too():
    """G019: consumers come and go; after forward the new ones get all in order, and the buffer is empty."""
    one, two = Log(), Log()
    async with System() as system:
        source = await system.start(Child(Source, dispatcher="broadcast"))
        assert source.demand == "forward"
        old = [await consumer_of(system, source, log) for log in (one, two)]
        source.set_demand("accumulate")
        assert source.demand == "accumulate"
        for consumer in old:
            await consumer.stop()
        for event in (1, 2, 3, 4):
            source.cast([event])
        await settle()
        one.clear()
        two.clear()
        for log in (one, two):
            await consumer_of(system, source, log)
        await settle()
        assert batches(one) == batches(two) == []
        assert source.statistics().buffered == 4
        source.set_demand("forward")
        assert source.demand == "forward"
        assert source.statistics().buffered == 0
        await settle()
        for log in (one, two):
            assert [event for batch in batches(log) for event in batch] == [1, 2, 3, 4]


async def test_a_running_producer_can_be_told_to_hold_demand():
    """G020: demand that comes after accumulate waits for forward."""
    log, got = Log(), Log()
    async with System() as system:
        counter = await system.start(Child(Counter, log))
        assert counter.demand == "forward"
        counter.set_demand("accumulate")
        assert counter.demand == "accumulate"
        await consumer_of(system, counter, got, **FOUR)
        await settle()
        assert batches(log, "demand") == batches(got) == []
        counter.set_demand("forward")
        assert counter.demand == "forward"
        await until(lambda: batches(got)[:1] == [[0, 1, 2, 3]])


async def test_forward_before_anybody_subscribes():
    """G021: later subscriptions flow as usual."""
    got = Log()
    async with System() as system:
        counter = await system.start(Child(Counter, demand="accumulate"))
        assert counter.demand == "accumulate"
        counter.set_demand("forward")
        assert counter.demand == "forward"
        await consumer_of(system, counter, got, **FOUR)
        await until(lambda: batches(got)[:1] == [[0, 1, 2, 3]])


async def test_accumulate_twice_keeps_the_demand_that_was_held():
    """G022: the second accumulate drops nothing."""
    log, got = Log(), Log()
    async with System() as system:
        counter = await system.start(Child(Counter, log, demand="accumulate"))
        await consumer_of(system, counter, got, **FOUR)
        await settle()
        counter.set_demand("accumulate")
        await settle()
        assert batches(got) == []
        counter.set_demand("forward")
        await until(lambda: batches(got)[:1] == [[0, 1, 2, 3]])
        assert batches(log, "demand")[0] == 4


async def test_demands_that_were_held_are_not_put_together():
    """G023: two asks of 2 are two demands of 2, not one of 4."""
    log, one, two = Log(), Log(), Log()
    async with System() as system:
        echo = await system.start(Child(Echo, log, demand="accumulate"))
        for got in (one, two):
            await consumer_of(system, echo, got, max_demand=2, min_demand=1)
        await settle()
        assert batches(log, "demand") == []
        echo.set_demand("forward")
        await until(lambda: len(batches(log, "demand")) >= 3)
        await until(lambda: one[1:] and two[1:])
        assert batches(log, "demand")[:3] == [2, 2, 1]
        assert batches(one)[0] == batches(two)[0] == [2]
        await until(lambda: [1] in batches(one) + batches(two))


async def test_the_mode_of_a_middle_stage_can_be_read():
    """In the original it crashes."""
    async with System() as system:
        doubler = await system.start(Child(Doubler))
        assert doubler.demand == "forward"
        await settle()
        assert doubler.alive
