"""Infos: messages that come after everything that is buffered when they are sent."""

import pytest

from headgate import Child, System, To
from tests.parity.stages import Doubler, Forwarder, Log, Source, batches, queue, settle, until


async def inform(ref, message):
    """Send an info from outside, and one from inside of the stage, as in gen_stage's sync and async forms."""
    ref.info(message)
    await ref.call(lambda stage: stage.info(message + " from inside"))
    await settle()
    return [message, message + " from inside"]


async def test_an_info_to_a_consumer_comes_at_once():
    """G032: from outside and from inside."""
    log = Log()
    async with System() as system:
        consumer = await system.start(Child(Forwarder, log))
        assert await inform(consumer, "info") == batches(log, "info")


async def test_an_info_to_a_middle_stage_with_nothing_to_do_comes_at_once():
    """G033: when nothing lies before its handler."""
    log = Log()
    async with System() as system:
        source = await system.start(Child(Source))
        doubler = await system.start(Child(Doubler, log, subscribe_to=[source]))
        await system.start(Child(Forwarder, subscribe_to=[doubler]))
        assert await inform(doubler, "info") == batches(log, "info")


async def test_an_info_to_a_middle_stage_waits_for_what_lies_before_its_handler():
    """G034: it comes when that was handled."""
    log = Log()
    async with System() as system:
        source = await system.start(Child(Source))
        doubler = await system.start(Child(Doubler, log, subscribe_to=[source]))
        await source.call(queue(*range(10)))
        await settle()
        sent = await inform(doubler, "info")
        assert batches(log, "info") == batches(log) == []
        await system.start(Child(Forwarder, subscribe_to=[doubler]))
        await until(lambda: batches(log, "info") == sent)
        happened = [entry[:2] for entry in log if entry[0] != "subscribe"]
        assert happened == [("events", list(range(10))), ("info", sent[0]), ("info", sent[1])]


async def test_an_info_to_a_producer_with_an_empty_buffer_comes_at_once():
    """G035: from outside and from inside."""
    log = Log()
    async with System() as system:
        source = await system.start(Child(Source, log))
        assert await inform(source, "info") == batches(log, "info")


async def wait_for_buffer(events, **options):
    """Queue events and an info; check that it waits, and that a consumer's arrival lets it through."""
    log = Log()
    async with System() as system:
        source = await system.start(Child(Source, log, **options))
        await source.call(queue(*events))
        sent = await inform(source, "info")
        assert log == []
        got = Log()
        consumer = await system.start(Child(Forwarder, got))
        await consumer.subscribe(source)
        await until(lambda: batches(log, "info") == sent)
        await settle()
        assert batches(got) == [list(events)]
        assert batches(log, "info") == sent


async def test_an_info_waits_for_all_buffered_events():
    """G036: with a buffer without a bound."""
    await wait_for_buffer("abc", buffer_size=None)


async def test_an_info_waits_for_the_only_event_in_a_buffer_of_three():
    """G037: for one event."""
    await wait_for_buffer("a", buffer_size=3)


async def test_an_info_waits_for_two_events_in_a_buffer_of_three():
    await wait_for_buffer("ab", buffer_size=3)


async def test_an_info_waits_for_a_full_buffer():
    """G039: for three events in a buffer of three."""
    await wait_for_buffer("abc", buffer_size=3)


async def by_hand(system, source, got):
    consumer = await system.start(Child(Forwarder, got))
    return consumer, await consumer.subscribe(To(source, mode="manual"))


async def test_infos_keep_their_places_while_the_buffer_moves():
    log = Log()
    async with System() as system:
        source = await system.start(Child(Source, log, buffer_size=3))
        consumer, subscription = await by_hand(system, source, log)
        log.clear()
        await source.call(queue(*"abc"))
        source.info("first")
        consumer.ask(subscription, 2)
        await settle()
        assert batches(log) == [["a", "b"]]
        assert batches(log, "info") == []
        await source.call(queue(*"de"))
        source.info("second")
        consumer.ask(subscription, 1)
        await settle()
        assert batches(log) == [["a", "b"], ["c"]]
        assert batches(log, "info") == ["first"]
        consumer.ask(subscription, 2)
        await settle()
        assert batches(log) == [["a", "b"], ["c"], ["d", "e"]]
        assert batches(log, "info") == ["first", "second"]


async def test_an_info_is_not_dropped_with_the_event_before_it():
    log = Log()
    async with System() as system:
        source = await system.start(Child(Source, log, buffer_size=3, buffer_keep="last"))
        await source.call(queue(*"ab"))
        source.info("info")
        await settle()
        assert log == []
        await source.call(queue(*"cde"))
        await settle()
        assert log == [("info", "info")]


@pytest.mark.parametrize("at_once", [True, False])
async def test_infos_at_several_places_come_in_order(at_once):
    """G042: first in, first out."""
    log = Log()
    async with System() as system:
        source = await system.start(Child(Source, log, buffer_size=20))
        sent = Log()
        for place, events in enumerate(["ab", "cde", "f"]):
            await source.call(queue(*events))
            for number in range(3):
                sent.append((place, number))
                source.info(sent[-1])
        await settle()
        assert log == []
        got = Log()
        consumer, subscription = await by_hand(system, source, got)
        log.clear()
        for count, through in [(6, 9)] if at_once else [(1, 0), (1, 3), (2, 3), (1, 6), (1, 9)]:
            consumer.ask(subscription, count)
            await settle()
            assert [entry[1] for entry in log if entry[0] == "info"] == sent[:through]
        assert [event for batch in batches(got) for event in batch] == list("abcdef")
