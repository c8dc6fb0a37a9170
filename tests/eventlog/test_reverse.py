"""Reversing: by events, once, never by deleting; against an obvious model."""

import asyncio
import random
import sys
import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import AppendConditionError, AppendConflictError, EventError, OptionError, ReversalError
from headgate.eventlog import Event, EventLog, reverse, reverse_correlation, reverse_stream
from tests.eventlog.conftest import run
from tests.eventlog.ledger import Deposited, Moved, Opened, Withdrawn, balances, types


def test_an_event_is_undone_by_another_that_says_so(place):
    @run
    async def _():
        async with place.log(types=types) as log:
            await log.append("a", [Deposited(10), Deposited(5)])
            done = await reverse(log, 1, actor="ada", reason="a mistake")
            event = await log.event(done.last)
            assert (event.data, event.actor, event.reason) == (Withdrawn(10), "ada", "a mistake")
            assert event.reverses == (await log.event(1)).event_id
            assert event.causation_id == str(event.reverses)
            assert (await log.fold(balances, "a")).state == {"balance": 5}
            with pytest.raises(ReversalError, match="already, by position 3"):
                await reverse(log, 1)
            assert await log.head() == 3


def test_an_inverse_can_be_given(place):
    @run
    async def _():
        async with place.log(types=types) as log:
            await log.append("a", [Opened("Ada")])
            with pytest.raises(ReversalError, match=r"event 1 \(Opened\).*nothing is known"):
                await reverse(log, 1)
            with pytest.raises(ReversalError, match="it cannot be undone"):
                await reverse(log, 1, inverse=lambda event: None)
            await reverse(log, (await log.event(1)).event_id, inverse=Event("closed", {}))
            assert (await log.event(2)).type == "closed"


def test_all_events_of_a_command_are_undone_together_the_last_one_first(place):
    @run
    async def _():
        async with place.log(types=types) as log:
            await log.append("a", [Deposited(1)], correlation_id="c1")
            await log.append_all([("a", [Deposited(10)]), ("b", [Withdrawn(10), Deposited(3)])], correlation_id="c2")
            await reverse(log, 3)
            await reverse_correlation(log, "c2")
            undone = [each.reverses for each in await log.read(start=5).all()]
            ids = [each.event_id for each in await log.read().all()]
            assert undone == [ids[2], ids[3], ids[1]]
            assert {name: (await log.fold(balances, name)).state for name in "ab"} == {
                "a": {"balance": 1},
                "b": {"balance": 0},
            }
            assert await reverse_correlation(log, "c2") == []
            with pytest.raises(EventError, match="correlation"):
                await reverse_correlation(log, "other")


def test_nothing_is_undone_when_one_of_several_cannot_be(place):
    @run
    async def _():
        async with place.log(types=types) as log:
            await log.append("a", [Opened("Ada"), Deposited(1)], correlation_id="c")
            with pytest.raises(ReversalError):
                await reverse_correlation(log, "c")
            assert await log.head() == 2


def test_of_two_who_undo_the_same_one_succeeds(place):
    @run
    async def _():
        async with place.log(types=types) as log:
            await log.append("a", [Deposited(10)])
            results = await asyncio.gather(*(reverse(log, 1) for _ in range(5)), return_exceptions=True)
            assert sum(not isinstance(each, Exception) for each in results) == 1
            assert await log.head() == 2


def test_a_stream_goes_back_to_a_time(place):
    now = 1000.0

    @run
    async def _():
        nonlocal now
        async with place.log(types=types, clock=lambda: now) as log:
            for step in range(5):
                now = 1000.0 + step
                await log.append("a", [Deposited(2**step)])
                await log.append("b", [Deposited(1)])
            await reverse_stream(log, "a", datetime.fromtimestamp(1001.5, UTC))
            assert (await log.fold(balances, "a")).state == {"balance": 3}
            assert (await log.fold(balances, "b")).state == {"balance": 5}


@given(st.integers(0, 2**31), st.integers(0, 30))
def test_a_stream_that_went_back_has_the_state_that_it_had(seed, back_to):
    """Whatever was done, undone and done again in between."""

    @run
    async def _():
        chance = random.Random(seed)
        async with EventLog(":memory:", types=types) as log:
            for _ in range(30):
                head = await log.head()
                if head and chance.random() < 0.4:
                    try:
                        await reverse(log, chance.randint(1, head))
                    except ReversalError:
                        continue
                elif head and chance.random() < 0.2:
                    await reverse_stream(log, "a", chance.randint(0, head))
                else:
                    kind = chance.choice([Deposited, Withdrawn])
                    await log.append("a", [kind(chance.randint(1, 100))])
            then = (await log.fold(balances, "a", until=back_to)).state
            await reverse_stream(log, "a", back_to)
            now = (await log.fold(balances, "a")).state
            assert (now or {}).get("balance", 0) == (then or {}).get("balance", 0)
            reversed_ones = [each.reverses for each in await log.read().all() if each.reverses]
            assert len(reversed_ones) == len(set(reversed_ones)), "never twice"


@pytest.fixture
def meanwhile(monkeypatch):
    """Do something between the time when events were read and the time when they are undone."""
    module = sys.modules["headgate.eventlog.reverse"]
    original = module.in_effect

    def put(action):
        async def in_effect(log, events):
            monkeypatch.setattr(module, "in_effect", original)
            await action()
            return await original(log, events)

        monkeypatch.setattr(module, "in_effect", in_effect)

    return put


def test_a_stream_goes_back_with_all_that_stands_before_what_undoes_it_or_not_at_all(place, meanwhile):
    """Also when what was read last needs no undoing."""

    @run
    async def _():
        async with place.log(types=types) as log:
            await log.append("a", [Deposited(1), Deposited(2), Deposited(4)])
            await reverse(log, 3)
            meanwhile(lambda: log.append("a", [Deposited(8)]))
            with pytest.raises(AppendConflictError) as found:
                await reverse_stream(log, "a", 1)
            assert (found.value.expected_version, found.value.version) == (4, 5)
            assert await log.head() == 5
            meanwhile(lambda: log.append("b", [Deposited(8)]))  # another stream is another matter
            await reverse_stream(log, "a", 1)
            assert (await log.fold(balances, "a")).state == {"balance": 1}


def test_a_command_that_goes_on_is_undone_as_a_whole_or_not_at_all(place, meanwhile):
    """Also in a stream that it had not touched; what undoes it may have its correlation."""

    @run
    async def _():
        async with place.log(types=types) as log:
            await log.append_all([("a", [Deposited(1)]), ("b", [Deposited(2)])], correlation_id="c")
            meanwhile(lambda: log.append("x", [Deposited(4)], correlation_id="c"))
            with pytest.raises(AppendConditionError):
                await reverse_correlation(log, "c")
            assert await log.head() == 3
            meanwhile(lambda: log.append("y", [Deposited(4)], correlation_id="d"))
            same = await reverse_correlation(
                log, "c", inverse=lambda event: Event(Withdrawn(event.data.amount), correlation_id="c")
            )
            assert len(same) == 3
            assert [(await log.fold(balances, name)).state["balance"] for name in "abxy"] == [0, 0, 0, 4]


def test_an_inverse_that_was_refused_can_be_given_again(place, meanwhile):
    @run
    async def _():
        async with place.log(types=types) as log:
            await log.append("a", [Opened("Ada"), Opened("Eve")])
            undone = Event("closed", {})
            meanwhile(lambda: log.append("a", [Deposited(8)]))
            with pytest.raises(AppendConflictError):
                await reverse_stream(log, "a", 0, inverse=undone)
            await reverse_stream(log, "a", 0, inverse=undone)
            assert [each.type for each in await log.read(start=4).all()] == ["closed"] * 3
            assert undone.event_id is undone.reverses is None
            await log.append("a", [Opened("Ada")])
            with pytest.raises(ReversalError, match="without 'event_id'"):
                await reverse(log, 7, inverse=Event("closed", {}, event_id=uuid.uuid4()))


@pytest.mark.parametrize("back_to", [None, -1, "1", 1.5, datetime(2026, 1, 1), True])  # noqa: DTZ001 (it is refused)
def test_where_a_stream_goes_back_to_is_checked(back_to):
    @run
    async def _():
        async with EventLog(":memory:", types=types) as log:
            await log.append("a", [Deposited(1)])
            with pytest.raises(OptionError, match="back_to"):
                await reverse_stream(log, "a", back_to)
            assert await log.head() == 1


def test_a_move_is_undone_the_other_way_round(place):
    @run
    async def _():
        async with place.log(types=types) as log:
            await log.append("moves", [Moved("a", "b", 5)])
            await reverse(log, 1)
            assert (await log.event(2)).data == Moved("b", "a", 5)
            assert (await log.fold(balances, "a")).state == {"balance": 0}
