"""Projections: exactly once in effect, snapshots, rebuilding beside, lag. Replays and their differences."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import EventError, FencedError, OptionError, StoreError, Supervisor
from headgate.eventlog import Event, EventLog, Projection, compare, compare_handlers, explain
from headgate.eventlog.replay import MISSING
from tests.eventlog.conftest import run
from tests.eventlog.ledger import Deposited, Moved, Opened, Withdrawn, apply, balances, types, wrong_balances


async def fill(log, count=200, seed=1):
    chance = random.Random(seed)
    for number in range(count):
        account = f"account-{chance.randrange(7)}"
        event = chance.choice([Opened(f"owner {number}"), Deposited(number), Withdrawn(number // 2), None])
        if event is None:
            other = f"account-{chance.randrange(7)}"
            await log.append("moves", [Moved(account, other, number)])
        else:
            await log.append(account, [event])


async def expected(log, projection=balances, until=None):
    """The obvious way: fold everything from the beginning."""
    states: dict[str, dict[str, object]] = {}
    async for event in log.read(until=until):
        for entity in projection.entities(event):
            states[entity] = projection.next(states.get(entity), event, entity)
    return states


def test_states_are_what_a_fold_of_everything_gives(place):
    @run
    async def _():
        async with place.log(types=types) as log:
            await fill(log)
            projector = log.projector(balances, batch=17)
            assert await projector.catch_up() == 200
            assert await projector.all() == await expected(log)
            assert await projector.get("account-3") == (await expected(log))["account-3"]
            assert await projector.get("nobody") is None
            await fill(log, 50, seed=2)
            again = log.projector(balances)
            assert await again.catch_up() == 50
            assert await again.all() == await expected(log)


def test_lag_says_how_far_behind_it_is(place):
    now = 1000.0

    @run
    async def _():
        nonlocal now
        async with place.log(types=types, clock=lambda: now) as log:
            projector = log.projector(balances)
            await fill(log, 10)
            now = 1060.0
            assert await projector.lag() == (10, 60.0)
            await projector.catch_up()
            assert await projector.lag() == (0, 0.0)


def test_stages_keep_a_projection_up_to_date(place):
    @run
    async def _():
        async with place.log(types=types) as log:
            await fill(log, 100)
            projector = log.projector(balances)
            async with Supervisor(projector.stages()):
                await fill(log, 100, seed=3)
                while (await projector.lag()).positions:
                    await asyncio.sleep(0.001)
            assert await projector.all() == await expected(log)


def test_a_crash_between_batches_counts_nothing_twice(place):
    crashes = iter([False, True] * 6)

    def shaky(state, event, entity):
        if event.position % 13 == 0 and next(crashes, False):
            raise ValueError("shaky")
        return apply(state, event, entity)

    @run
    async def _():
        async with place.log(types=types) as log:
            await fill(log, 200)
            projection = Projection("balances", shaky, entity=balances.entities)
            projector = log.projector(projection, batch=10)
            while (await projector.lag()).positions:
                try:
                    await projector.catch_up()
                except ValueError:
                    continue
            assert await projector.all() == await expected(log)


def test_two_who_keep_one_projection_do_not_count_twice(shared):
    @run
    async def _():
        async with shared.log(types=types) as log:
            await fill(log, 100)
            one, two = log.projector(balances), log.projector(balances)
            await one.catch_up(50)
            await two.catch_up(80)
            with pytest.raises(FencedError):
                await one.catch_up()
            await one.catch_up()
            assert await one.all() == await expected(log)


def test_another_logic_does_not_go_on_with_old_states(place):
    @run
    async def _():
        async with place.log(types=types) as log:
            await fill(log)
            await log.projector(wrong_balances).catch_up()
            with pytest.raises(StoreError, match="logic '1', and this is '2'; rebuild"):
                await log.projector(balances).catch_up()


def test_a_rebuild_is_read_only_when_it_is_complete_and_fences_off_the_old_one(place):
    @run
    async def _():
        async with place.log(types=types) as log:
            await fill(log)
            old = log.projector(wrong_balances)
            await old.catch_up()
            seen: list[int] = []

            def looking(state, event, entity):
                if not seen:
                    seen.append(event.position)
                return apply(state, event, entity)

            new = log.projector(Projection("balances", looking, entity=balances.entities, logic="2"))
            before, after = await expected(log, wrong_balances), await expected(log)
            rebuilding = asyncio.create_task(new.rebuild())
            while not rebuilding.done():
                found = await old.all()
                assert found in (before, after)
            assert await rebuilding == 200
            await fill(log, 20, seed=5)
            with pytest.raises(FencedError):
                await old.catch_up()
            with pytest.raises(StoreError, match="rebuild"):
                await old.catch_up()
            await new.catch_up()
            assert await new.all() == await expected(log)


def test_a_running_projection_is_rebuilt_by_another_and_misses_nothing(shared):
    """The one that runs was ahead of the rebuild when they were swapped."""

    @run
    async def _():
        async with shared.log(types=types) as log:
            await fill(log, 60)
            running, rebuilding = log.projector(balances), log.projector(balances)
            await running.catch_up()
            events = await log.read().all()
            await rebuilding.rebuild(until=30)
            await fill(log, 10, seed=8)
            more = await log.read(start=61).all()
            with pytest.raises(FencedError):
                await running.handle(more)
            await running.handle(more)  # as a stage gets it again: what is between is caught up
            assert await running.all() == await expected(log)
            assert len(events) == 60


def test_a_state_that_json_cannot_hold_is_refused_unless_it_is_declared(place):
    @dataclass
    class Balance:
        at: datetime
        amount: int = 0

    def step(state, event):
        return Balance(event.recorded_at, getattr(state, "amount", 0) + event.data.amount)

    @run
    async def _():
        async with place.log(types=types) as log:
            await log.append("a", [Deposited(1), Deposited(2)])
            with pytest.raises(EventError, match="its state"):
                await log.projector(Projection("p", step)).catch_up()
            projector = log.projector(Projection("q", step, state=Balance))
            await projector.catch_up()
            assert (await projector.get("a")).amount == 3
            assert (await projector.get("a")).at == (await log.event(2)).recorded_at


@pytest.mark.parametrize("state", [{1: "a"}, {"a": [{"b": {None: 1}}]}, [{"a": ({2.5: 1},)}], {"a": Counter([5])}])
def test_a_state_with_keys_that_are_no_text_is_refused_as_they_would_be_others_after_a_restart(place, state):
    @run
    async def _():
        async with place.log() as log:
            await log.append("a", [Event("e", {})])
            projection = Projection("p", lambda _, event: state)
            with pytest.raises(EventError, match=r"projection 'p': expected its state to be such that.*a key is"):
                await log.projector(projection).catch_up()


def test_a_state_of_another_class_than_declared_is_told_by_name():
    @dataclass
    class Balance:
        amount: int

    @dataclass
    class Other:
        owner: str

    @run
    async def _():
        async with EventLog(":memory:") as log:
            await log.append("a", [Event("e", {})])
            with pytest.raises(EventError, match="projection 'p': expected its state to be a Balance"):
                await log.projector(Projection("p", lambda state, event: {"amount": 1}, state=Balance)).catch_up()
            await log.projector(Projection("p", lambda state, event: Balance(1), state=Balance)).catch_up()
            other = Projection("p", lambda state, event: Other("Ada"), state=Other)
            with pytest.raises(EventError, match="projection 'p': expected what is stored to be fit"):
                await log.projector(other).get("a")
            (change,) = (await compare(log, other)).changes  # a correction may have other states
            assert [(each.path, each.before, each.after) for each in change.fields] == [
                ("amount", 1, MISSING),
                ("owner", MISSING, "Ada"),
            ]


def with_option(state, event, step=5):
    return {"n": state.get("n", 0) + step}


def with_keyword(state, event, *, step=5):
    return with_option(state, event, step)


def with_entity(state, event, entity):
    return {"n": state.get("n", 0) + 5 * (entity == "a")}


def with_entity_or_not(state, event, entity=None):
    return with_entity(state, event, entity)


@pytest.mark.parametrize("function", [with_option, with_keyword, with_entity, with_entity_or_not])
def test_the_entity_is_given_to_whoever_asks_for_it(function):
    @run
    async def _():
        async with EventLog(":memory:") as log:
            await log.append("a", [Event("e", {}), Event("e", {})])
            assert (await log.fold(Projection("p", function), "a")).state == {"n": 10}


def test_a_state_of_none_is_removed(place):
    def step(state, event):
        return None if event.type == "closed" else {"n": state.get("n", 0) + 1}

    @run
    async def _():
        async with place.log() as log:
            projector = log.projector(Projection("p", step, types=["used", "closed"]))
            await log.append_all([("a", [Event("used", {})]), ("b", [Event("used", {}), Event("other", {})])])
            await projector.catch_up()
            await log.append("a", [Event("closed", {})])
            await projector.catch_up()
            assert await projector.all() == {"b": {"n": 1}}
            await log.append("a", [Event("used", {})])
            await projector.catch_up()
            assert await projector.all() == {"a": {"n": 1}, "b": {"n": 1}}


@pytest.mark.parametrize(
    "options",
    [
        *({"name": "a#b"}, {"name": ""}, {"apply": 5}, {"logic": 2}, {"state": int}, {"name": "a\nb"}),
        *({"types": 5}, {"types": ["a", 5]}, {"streams": 5}, {"streams": [b"a"]}, {"streams": Opened}),
    ],
)
def test_options_of_a_projection_are_checked(options):
    with pytest.raises(OptionError):
        Projection(**{"name": "p", "apply": apply, **options})


# -- which entities, types and streams ---------------------------------------------------------------------------------


def counting(state, event):
    return {"n": state.get("n", 0) + 1}


@pytest.mark.parametrize("found", [5, [5], ["a", None], b"ab", [["a"]]])
def test_an_entity_that_is_no_text_is_refused_as_it_would_be_another_one_after_a_restart(place, found):
    @run
    async def _():
        async with place.log() as log:
            await log.append("s", [Event("e", {})])
            projection = Projection("p", counting, entity=lambda event: found)
            for make in (log.projector(projection).catch_up, lambda: log.fold(projection, "5")):
                with pytest.raises(EventError, match="projection 'p': expected its entity to be text"):
                    await make()
            with pytest.raises(EventError, match="projection 'p': expected its entity to be text"):
                await explain(log, projection, "5")
            assert await log.projector(projection).all() == {}


@pytest.mark.parametrize(
    ("found", "names"),
    [(["a", "a"], ["a"]), (["b", "a", "b"], ["a", "b"]), ([], []), (None, [])],
)
def test_an_event_counts_once_for_an_entity_that_it_names_twice(place, found, names):
    @run
    async def _():
        async with place.log() as log:
            await log.append("s", [Event("e", {}), Event("e", {})])
            projection = Projection("p", counting, entity=lambda event: found and iter(found))
            await log.projector(projection).catch_up()
            assert await log.projector(projection).all() == {name: {"n": 2} for name in names}
            for name in names:
                assert (await log.fold(projection, name)).state == {"n": 2}
                assert [step.state for step in await explain(log, projection, name)] == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("streams", ["x*", ["x-1", "y-*"], ["x-1"], None])
@pytest.mark.parametrize(
    "options",
    [{}, {"entity": lambda event: event.plain["of"]}, {"entity": lambda event: "all", "streams_of": lambda name: "x*"}],
)
def test_fold_and_explain_see_what_the_projector_sees(place, streams, options):
    @run
    async def _():
        async with place.log() as log:
            for name in ("x-1", "y-1", "z", "x-2"):
                await log.append(
                    name, [Event("e", {"of": "x-1"}), Event("other", {"of": "x-1"}), Event("e", {"of": "z"})]
                )
            projection = Projection("p", counting, streams=streams, types="e", **options)
            if options.get("streams_of") and streams != "x*":  # it has to give them all
                projection.streams_of = lambda name: ["*"]
            await log.projector(projection).catch_up()
            kept = await log.projector(projection).all()
            assert kept
            for name in ("x-1", "x-2", "y-1", "z", "all", "x*"):
                assert (await log.fold(projection, name)).state == kept.get(name), name
                assert len(await explain(log, projection, name)) == kept.get(name, {"n": 0})["n"], name
            found = await compare(log, projection)
            assert (found.changes, found.entities) == ([], len(kept))
            found = await compare(log, projection, projection)
            assert (found.changes, found.entities) == ([], len(kept))


def test_no_stream_has_a_name_that_reads_take_for_a_prefix(place):
    @run
    async def _():
        async with place.log() as log:
            with pytest.raises(EventError, match=r"does not end in '\*'"):
                await log.append("q*", [Event("e", {})])
            await log.append("*q", [Event("e", {})])
            assert await log.version("*q") == 1


@pytest.mark.parametrize(
    ("types_", "seen"), [("Opened", 1), (Opened, 1), ({"Opened", "other"}, 2), (iter([Opened]), 1)]
)
def test_a_projection_is_of_one_type_or_several(types_, seen):
    @run
    async def _():
        async with EventLog(":memory:", types=types) as log:
            await log.append("s", [Opened("Ada"), Deposited(1), Event("other", {})])
            projection = Projection("p", counting, types=types_, streams=iter(["s"]))
            for _ in range(2):  # as what was given may be read only once
                await log.projector(projection).rebuild()
                assert await log.projector(projection).get("s") == {"n": seen}
            assert (await log.fold(projection, "s")).state == {"n": seen}


# -- the state of one entity, now and then -----------------------------------------------------------------------------


@given(st.integers(0, 60), st.lists(st.integers(0, 60), max_size=5), st.sampled_from([None, 1, 3, 1000]))
def test_a_fold_of_any_cut_with_snapshots_is_the_fold_of_the_whole(until, looks, snapshots):
    @run
    async def _():
        async with EventLog(":memory:", types=types) as log:
            await fill(log, 60)
            for look in looks:  # each may leave a snapshot
                await log.fold(balances, "account-2", until=look, snapshots=snapshots)
            found = await log.fold(balances, "account-2", until=until, snapshots=snapshots)
            assert found.state == (await expected(log, until=until)).get("account-2")
            assert found.position <= until


def test_the_state_of_an_entity_at_a_time(place):
    now = 1000.0

    @run
    async def _():
        nonlocal now
        async with place.log(types=types, clock=lambda: now) as log:
            for step in range(5):
                now = 1000.0 + step
                await log.append("a", [Deposited(10)])
            own = Projection("own", apply)
            at = datetime.fromtimestamp(1002.5, UTC)
            assert await log.fold(own, "a", until=at) == ({"balance": 30}, 3, 3)
            assert await log.fold(own, "a") == ({"balance": 50}, 5, 5)
            assert await log.fold(own, "b") == (None, 0, 0)


# -- replay ------------------------------------------------------------------------------------------------------------


def test_a_replay_shows_what_a_corrected_logic_changes_and_writes_nothing(place):
    @run
    async def _():
        async with place.log(types=types) as log:
            await log.append("a", [Opened("Ada"), Deposited(100), Withdrawn(30)])
            await log.append("b", [Deposited(5)])
            projector = log.projector(wrong_balances)
            await projector.catch_up()
            for found in (await compare(log, balances), await compare(log, balances, wrong_balances)):
                assert (found.events, found.entities, found.position) == (4, 2, 4)
                (change,) = found.changes
                assert (change.entity, change.before["balance"], change.after["balance"]) == ("a", 100, 70)
                assert change.fields == [("balance", 100, 70)]
                assert change.since in (None, 3)
            assert "a (since position 3)\n  balance: 100 -> 70" in str(found)
            assert await projector.get("a") == {"owner": "Ada", "balance": 100}
            await log.projector(balances).rebuild()
            assert (await compare(log, balances)).changes == []


def test_stored_states_are_compared_at_their_position_while_they_are_kept(shared):
    @run
    async def _():
        async with shared.log() as log, shared.log() as other:
            projection = Projection("p", counting)
            await log.append("s", [Event("e", {})])

            async def keep():
                for number in range(30):
                    await log.append(f"s{number % 3}", [Event("e", {})])
                    await log.projector(projection).catch_up()

            keeping = asyncio.create_task(keep())
            while not keeping.done():
                found = await compare(other, projection)
                assert found.changes == []
                assert found.events == found.position
            await keeping


@pytest.mark.parametrize("option", [{"start": 1}, {"until": 5}, {"until": datetime(2026, 1, 1, tzinfo=UTC)}])
def test_a_part_is_compared_only_with_another_logic(option):
    @run
    async def _():
        async with EventLog(":memory:") as log:
            with pytest.raises(OptionError, match=f"'{next(iter(option))}' to be left out without 'old'"):
                await compare(log, balances, **option)
            with pytest.raises(OptionError, match="'start'"):
                await compare(log, balances, wrong_balances, start=-5)


def test_a_replay_ends_where_the_log_ends_and_counts_who_is_there(place):
    @run
    async def _():
        async with place.log() as log:
            await log.append_all([(name, [Event("e", {})]) for name in "abc"])
            gone = Projection("p", lambda state, event: None if event.stream == "b" else {})
            found = await compare(log, gone, gone, until=100)
            assert (found.events, found.entities, found.position) == (3, 2, 3)
            await log.projector(gone).catch_up()
            assert (await compare(log, gone)).entities == 2


@given(st.integers(0, 30), st.integers(0, 32))
def test_a_replay_of_a_part_is_what_two_folds_give(start, until):
    @run
    async def _():
        async with EventLog(":memory:", types=types) as log:
            await fill(log, 30)
            found = await compare(log, balances, wrong_balances, start=start, until=until)
            before: dict[str, object] = {}
            after: dict[str, object] = {}
            async for event in log.read(until=until):
                for entity in balances.entities(event):
                    old = wrong_balances if event.position < start else balances
                    before[entity] = wrong_balances.next(_copy(before.get(entity)), event, entity)
                    after[entity] = old.next(_copy(after.get(entity)), event, entity)
            differing = {each for each in before if before[each] != after[each]}
            assert {each.entity for each in found.changes} == differing
            assert all((each.before, each.after) == (before[each.entity], after[each.entity]) for each in found.changes)


def _copy(state):
    return None if state is None else dict(state)


def test_two_versions_of_a_handler_are_compared_by_what_they_would_do(place):
    @run
    async def _():
        async with place.log(types=types) as log:
            await log.append("a", [Deposited(5), Deposited(500), Deposited(50)])
            (found,) = await compare_handlers(
                log, lambda event: event.data.amount > 100, lambda event: event.data.amount > 1000, types=Deposited
            )
            assert (found.event.position, found.before, found.after) == (2, False, True)
