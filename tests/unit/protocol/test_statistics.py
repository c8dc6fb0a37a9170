# mypy: disable-error-code="misc"
"""Statistics are read off the state: true at every moment."""

import dataclasses

import pytest

from headgate import DemandDispatcher, PartitionDispatcher
from headgate.protocol import messages as m
from headgate.protocol.statistics import statistics
from tests.unit.protocol.fakes import started, subscription


def test_a_new_stage_has_nothing():
    core, _, _ = started(m.PRODUCER, {}, DemandDispatcher())
    read = statistics(core)
    assert (read.name, read.role, read.state) == ("stage", "producer", "running")
    numbers = (read.demand, read.buffered, read.emitted, read.delivered, read.handled, read.waiting, read.in_flight)
    assert numbers == (0,) * 7
    assert (read.queued, read.discarded, read.producers, read.consumers) == ({}, {}, (), ())


def test_every_number_of_a_producer():
    core, _, feed = started(
        m.PRODUCER, {"handle_demand": lambda demand: None}, DemandDispatcher(), buffer_size=3, buffer_keep="last"
    )
    made = subscription("consumer")
    core.emit([1, 2])
    feed(m.SUBSCRIBE, made)
    assert statistics(core).buffered == 2
    feed(m.ASK, made, 10, 0)
    read = statistics(core)
    assert (read.demand, read.buffered, read.emitted, read.delivered, read.in_flight) == (8, 0, 2, 2, 2)
    [consumer] = read.consumers
    assert (consumer.peer, consumer.asked, consumer.sent, consumer.acked) == ("consumer", 10, 2, 0)
    assert (consumer.pending, consumer.in_flight) == (8, 2)
    feed(m.ASK, made, 10, 1)
    core.emit(list(range(15)))
    feed()
    read = statistics(core)
    assert (read.handled, read.in_flight, read.buffered, read.demand) == (1, 9, 3, 0)
    assert read.discarded == {"buffer full": 4}
    assert read.emitted == read.handled + read.in_flight + read.buffered + 4


def test_what_waits_in_partitions_is_seen():
    core, _, feed = started(m.PRODUCER, {}, PartitionDispatcher(["a", "b"], hash=str))
    made = subscription("consumer", partition="a")
    feed(m.SUBSCRIBE, made)
    feed(m.ASK, made, 10, 0)
    core.emit(["b", "b", "a"])
    read = statistics(core)
    assert (read.queued, read.delivered, read.buffered) == ({"b": 2}, 1, 0)


def test_every_number_of_a_consumer():
    core, _, _ = started(m.CONSUMER, {"handle_events": lambda events, source: None})
    made = subscription(producer="producer", max_demand=4, min_demand=2)
    core.subscribe(made)
    while core.callback is not None:
        core.returned(None)
    core.receive((m.EVENTS, made, [1, 2, 3]))
    assert core.callback is not None
    read = statistics(core)
    assert (read.waiting, read.handled) == (1, 0)
    [producer] = read.producers
    assert (producer.peer, producer.asked, producer.sent, producer.acked) == ("producer", 4, 3, 0)
    assert (producer.pending, producer.in_flight) == (1, 3)
    core.returned(None)
    read = statistics(core)
    assert (read.waiting, read.handled) == (0, 2)
    core.returned(None)
    assert statistics(core).handled == 3


def test_a_reading_does_not_change_and_can_be_awaited():
    core, _, _ = started(m.PRODUCER, {}, DemandDispatcher())
    read = statistics(core)
    core.emit([1])
    assert read.buffered == 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        read.buffered = 5
    with pytest.raises(StopIteration) as caught:
        next(read.__await__())
    assert caught.value.value is read
