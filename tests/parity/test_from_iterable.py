"""Producers over anything that can be iterated."""

import contextlib
import itertools

import pytest

import headgate
from headgate import Child, StageCrashed, System, To
from tests.parity.checks import take
from tests.parity.registry import different
from tests.parity.stages import Forwarder, settle


def broken():
    """Give one event, then fail."""
    yield 1
    raise ValueError("broken")


@different(
    "G116",
    "there are no links: a stage belongs to its System, which ends it and raises a crash that nobody waited for",
)
async def test_a_producer_shares_the_fate_of_its_system():
    """G116: the system ends it and raises its crash; whoever waits for it takes the crash, and the rest lives."""
    async with System() as system:
        producer = await system.start(headgate.from_iterable([]))
        assert producer.alive
    assert producer.reason == "shutdown"

    with pytest.raises(StageCrashed) as caught:
        async with System() as system:
            linked = await system.start(headgate.from_iterable(broken()))
            await system.start(Child(Forwarder, subscribe_to=[To(linked, cancel="temporary")]))
            await settle()
    assert isinstance(caught.value.__cause__, ValueError)

    async with System() as system:
        alone = await system.start(headgate.from_iterable(broken()))
        consumer = await system.start(Child(Forwarder, subscribe_to=[To(alone, cancel="temporary")]))
        with pytest.raises(StageCrashed):
            await alone.wait()
        await settle()
        assert consumer.alive


async def test_it_can_have_a_name():
    """G117: under which it is found."""
    async with System() as system:
        producer = await system.start(headgate.from_iterable([1, 2, 3], name="numbers"))
        assert producer.name == "numbers"
        assert system.ref("numbers") is producer
        assert await take([To("numbers", max_demand=2)], system=system) == [1, 2, 3]


@pytest.mark.parametrize(
    ("options", "lives"), [({}, True), ({"on_cancel": "continue"}, True), ({"on_cancel": "stop"}, False)]
)
async def test_what_happens_when_the_last_consumer_leaves(options, lives):
    """G118: it goes on by default and with on_cancel "continue", and ends with "stop"."""
    async with System() as system:
        producer = await system.start(headgate.from_iterable(itertools.cycle([1, 2, 3]), **options))
        async with contextlib.aclosing(headgate.stream([producer])) as other:
            assert await anext(other) == 1
            assert len(await take([producer], 5)) == 5
            await settle()
            assert producer.alive
        await settle()
        assert producer.alive is lives
        if not lives:
            assert await producer.wait() == "normal"


@pytest.mark.parametrize("options", [{}, {"on_cancel": "stop"}])
async def test_what_a_stream_takes_of_a_cycle(options):
    async with System() as system:
        producer = await system.start(headgate.from_iterable(itertools.cycle([1, 2, 3]), **options))
        assert await take([producer], 5) == [1, 2, 3, 1, 2]
