"""The buffer of a stage: events that nobody has asked for yet, and what happens to those that do not fit."""

import logging

import pytest

from headgate import BufferOverflowError, Child, System, To
from tests.parity.registry import different
from tests.parity.stages import Counter, Forwarder, Log, Source, batches, queue, settle, until

FOUR = {"max_demand": 4, "min_demand": 0}


class Discarding(Source):
    """Is told what its buffer drops."""

    def __init__(self, log, answer):
        super().__init__(log)
        self.loud = answer

    def handle_discarded(self, count):
        self.log.append(("discarded", count))
        return self.loud


async def drain(system, producer, count=2, **terms):
    """Return the first batches of a new consumer."""
    got = Log()
    consumer = await system.start(Child(Forwarder, got))
    await consumer.subscribe(To(producer, **(terms or FOUR)))
    await until(lambda: len(batches(got)) >= count)
    return batches(got)[:count]


async def test_events_without_demand_are_kept_and_served_first():
    """G024: in order, and new ones come right after them."""
    async with System() as system:
        counter = await system.start(Child(Counter))
        counter.cast(["a", "b", "c"])
        counter.cast(["d", "e"])
        assert await drain(system, counter, 4) == [["a", "b", "c", "d"], ["e"], [0, 1, 2], [3, 4, 5, 6]]


async def test_keep_first_drops_the_newest(caplog):
    """G025: with room for 5 the last 3 of 8 are dropped, and a line of the log says so."""
    async with System() as system:
        source = await system.start(Child(Source, name="source", buffer_size=5, buffer_keep="first"))
        await source.call(queue(*"abcde"))
        assert caplog.messages == []
        await source.call(queue(*"fgh"))
        assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
            "stage 'source' has discarded 3 events from its buffer"
        ]
        assert source.statistics().discarded == {"buffer full": 3}
        assert await drain(system, source) == [["a", "b", "c", "d"], ["e"]]


@different(
    "G026",
    "dropping the oldest is a choice; by default a surplus is an error for who emits it, and nothing is dropped",
)
async def test_keep_last_drops_the_oldest_but_is_not_the_default(caplog):
    """G026: with room for 5 the first 3 of 8 are dropped, and a line of the log says so."""
    async with System() as system:
        source = await system.start(Child(Source, name="source", buffer_size=5, buffer_keep="last"))
        await source.call(queue(*"abcde"))
        assert caplog.messages == []
        await source.call(queue(*"fgh"))
        assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
            "stage 'source' has discarded 3 events from its buffer"
        ]
        assert await drain(system, source) == [["d", "e", "f", "g"], ["h"]]

        def surplus(stage):
            with pytest.raises(BufferOverflowError) as caught:
                stage.emit(list("fgh"))
            return caught.value.refused

        strict = await system.start(Child(Source, buffer_size=5))
        await strict.call(queue(*"abcde"))
        assert await strict.call(surplus) == ["f", "g", "h"]
        assert await drain(system, strict) == [["a", "b", "c", "d"], ["e"]]


async def test_without_a_bound_everything_is_kept():
    """G027: in order."""
    async with System() as system:
        counter = await system.start(Child(Counter, buffer_size=None))
        await counter.call(queue(*"abcde"))
        await counter.call(queue(*"fgh"))
        assert await drain(system, counter) == [["a", "b", "c", "d"], ["e", "f", "g", "h"]]


async def test_a_stage_is_told_how_many_events_its_buffer_dropped():
    """G028: handle_discarded gets 3, once."""
    log = Log()
    async with System() as system:
        source = await system.start(Child(Discarding, log, False, buffer_size=5, buffer_keep="first"))
        await source.call(queue(*"abcdefgh"))
        await settle()
        assert log == [("discarded", 3)]
        assert await drain(system, source) == [["a", "b", "c", "d"], ["e"]]
        assert batches(log, "discarded") == [3]


@pytest.mark.parametrize("keep", ["first", "last"])
async def test_handle_discarded_can_let_the_log_line_through(caplog, keep):
    """G029: when it returns True."""
    log = Log()
    async with System() as system:
        source = await system.start(Child(Discarding, log, True, name="source", buffer_size=5, buffer_keep=keep))
        await source.call(queue(*"abcdefgh"))
        await settle()
        assert caplog.messages == ["stage 'source' has discarded 3 events from its buffer"]
        kept = {"first": "abcde", "last": "defgh"}[keep]
        assert await drain(system, source, 1, max_demand=5, min_demand=0) == [list(kept)]
        assert len(caplog.messages) == 1


async def test_handle_discarded_can_suppress_the_log_line(caplog):
    """G030: when it returns False."""
    log = Log()
    async with System() as system:
        source = await system.start(Child(Discarding, log, False, buffer_size=5, buffer_keep="first"))
        await source.call(queue(*"abcdefgh"))
        await settle()
        assert log == [("discarded", 3)]
        assert caplog.messages == []
        assert await drain(system, source, 1, max_demand=5, min_demand=0) == [list("abcde")]
        assert caplog.messages == []


async def test_the_number_of_buffered_events_can_be_asked_at_any_time():
    """G031: 5, then 8, then 0 after a consumer has come."""
    async with System() as system:
        counter = await system.start(Child(Counter, buffer_size=None))
        await counter.call(queue(*"abcde"))
        assert counter.statistics().buffered == 5
        await counter.call(queue(*"fgh"))
        assert counter.statistics().buffered == 8
        assert await drain(system, counter) == [["a", "b", "c", "d"], ["e", "f", "g", "h"]]
        assert counter.statistics().buffered == 0
