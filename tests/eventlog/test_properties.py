"""Random scripts against the obvious model: append, read, reverse, archive, fork, fold, replay; the clock jumps."""

import itertools
import tempfile
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headgate import AppendConflictError, EventError, ReversalError
from headgate.eventlog import (
    Append,
    Event,
    EventLog,
    Projection,
    archive,
    compare,
    fork,
    reverse,
    reverse_correlation,
    reverse_stream,
    verify,
)
from headgate.eventlog.record import from_micros
from tests.eventlog.conftest import run
from tests.eventlog.model import Model, New, Refused
from tests.eventlog.server import server

REFUSALS = (AppendConflictError, EventError, ReversalError)
STREAMS = ["a", "a-1", "b", "b\u00e9"]
TYPES = ["x", "y"]
DECADE = 315_360_000
EXAMPLES = settings().max_examples

stream = st.sampled_from(STREAMS)
expected = st.sampled_from([None, None, "right", "wrong"])
# A small pool of ids: some events come twice.
new = st.tuples(st.sampled_from(TYPES), st.one_of(st.none(), st.integers(1, 12)), st.integers(-9, 9))
order = st.tuples(stream, expected, st.lists(new, min_size=0, max_size=4))
correlation = st.sampled_from([None, "c", "d"])
place = st.integers(0, 40)
query = st.fixed_dictionaries(
    {
        "streams": st.sampled_from([(), ("a",), ("a*",), ("a*", "b"), ("b\u00e9",), ("none",), ("a-*",)]),
        "start": st.integers(1, 20),
        "until": st.one_of(st.none(), st.integers(0, 40)),
        "types": st.sampled_from([(), ("x",), ("undo", "y")]),
        "correlation": correlation,
    }
)
step = st.one_of(
    st.tuples(st.just("append"), st.lists(order, min_size=1, max_size=3), correlation),
    st.tuples(st.just("append"), st.lists(order, min_size=1, max_size=3), correlation),
    st.tuples(st.just("jump"), st.one_of(st.integers(-DECADE, DECADE), st.integers(-3, 3))),
    st.tuples(
        st.just("read"), query, st.booleans(), st.one_of(st.none(), st.integers(0, 9)), st.sampled_from([1, 3, 99])
    ),
    st.tuples(st.just("time"), place, st.integers(-1, 1)),
    st.tuples(st.just("reverse"), place),
    st.tuples(st.just("command"), st.sampled_from(["c", "d"])),
    st.tuples(st.just("back"), stream, place),
    st.tuples(st.just("archive"), place),
    st.tuples(st.just("fork"), query),
    st.tuples(st.just("fold"), stream, place, st.sampled_from([None, 1, 3])),
    st.tuples(st.just("project"), st.sampled_from([1, 2, 100])),
    st.tuples(st.just("replay"), place, place),
    st.tuples(st.just("reopen")),
)


def inverse(event):
    return Event("undo", {"n": -event.plain["n"]}, event_id=None)


def apply(state, event):
    return {
        "sum": state.get("sum", 0) + event.plain["n"],
        "events": state.get("events", 0) + 1,
        "last": f"{event.type}{state.get('last', '')}"[:6],
    }


def apply_without_y(state, event):
    return state if event.type == "y" else apply(state, event)


states = Projection("states", apply)


def seen(event):
    """What the model knows about an event."""
    identity = event.event_id.int
    reverses = None if event.reverses is None else event.reverses.int
    return (
        event.position, event.stream, event.version, event.type, identity, event.row[6], event.plain["n"],
        event.correlation_id, reverses
    )  # fmt: skip


def known(row):
    return (
        row.position, row.stream, row.version, row.type, row.identity, row.recorded_at, row.n,
        row.correlation, row.reverses
    )  # fmt: skip


class Script:
    """Runs steps on a log and on the model, and compares."""

    def __init__(self, url, folder, options):
        self.url, self.folder, self.options = url, Path(folder), options
        self.model = Model()
        self.now = 1_700_000_000
        self.fresh = itertools.count(1000)
        self.files = itertools.count()
        self.log = EventLog(url, clock=lambda: self.now, **options)

    async def run(self, steps):
        await self.log.__aenter__()
        try:
            for name, *rest in steps:
                await getattr(self, name)(*rest)
            await self.compare()
            assert (await verify(self.log)).ok
        finally:
            await self.log.close()

    async def compare(self):
        everything = [seen(each) for each in await self.log.read().all()]
        assert everything == [known(row) for row in self.model.rows]

    async def both(self, orders, make):
        """Do it on both: the same refusal, or the same result."""
        count, refused, wanted = len(self.model.rows), "", []
        try:
            wanted = self.model.append(orders, int(self.now * 1e6))
        except Refused as error:
            refused = str(error)
        if refused:
            with pytest.raises(REFUSALS) as found:
                await make()
            assert found.type.__name__ == refused
            return
        done = await make()
        assert len(done) == len(wanted)
        # PostgreSQL leaves gaps where something was taken back: the model learns where it goes on.
        fresh = self.model.rows[count:]
        firsts = [each.first for each, rows in zip(done, wanted, strict=True) if rows and rows[0] in fresh]
        if fresh:
            gap = min(firsts) - fresh[0].position
            assert gap == 0 or (gap > 0 and self.url.startswith("postgresql"))
            for row in fresh:
                row.position += gap
        for each, rows in zip(done, wanted, strict=True):
            if rows:
                assert each.version == max(row.version for row in rows)
                assert (each.first, each.last) == (min(r.position for r in rows), max(r.position for r in rows))

    async def append(self, orders, correlation):
        wanted, given_ = [], []
        for name, expected_version, news in orders:
            version = self.model.version(name)
            version = {None: None, "right": version, "wrong": version + 1}[expected_version]
            made = [New(kind, next(self.fresh) if number is None else number, n) for kind, number, n in news]
            for each in made:
                each.correlation = correlation
            wanted.append((name, version, made))
            events = [Event(each.type, {"n": each.n}, event_id=uuid.UUID(int=each.identity)) for each in made]
            given_.append(Append(name, events, version))
        await self.both(wanted, lambda: self.log.append_all(given_, correlation_id=correlation))

    async def jump(self, seconds):
        self.now = max(0, self.now + seconds)

    async def read(self, query, backwards, limit, batch):
        wanted = [known(row) for row in self.model.select(**query)][:: -1 if backwards else 1][:limit]
        found = self.log.read(
            query["streams"] or None,
            start=query["start"],
            until=query["until"],
            types=query["types"] or None,
            correlation_id=query["correlation"],
            backwards=backwards,
            limit=limit,
            batch=batch,
        )
        assert [seen(each) for each in await found.all()] == wanted

    async def time(self, place, more):
        if self.model.rows:
            micros = self.model.rows[place % len(self.model.rows)].recorded_at + more
            if micros >= 0:
                moment = from_micros(micros)
                at = self.model.position_at(micros)
                assert await self.log.position_at(moment) == at
                assert [seen(each) for each in await self.log.read(until=moment).all()] == [
                    known(row) for row in self.model.rows if row.recorded_at <= micros
                ]
                assert [seen(each) for each in await self.log.read(start=moment).all()] == [
                    known(row) for row in self.model.rows if row.recorded_at >= micros
                ]

    async def undo(self, chosen, make):
        """Reversals get ids of their own: the model takes them from the log."""
        try:
            orders = self.model.reversal(chosen, self.fresh)
        except Refused as refused:
            orders = str(refused)
        if isinstance(orders, str):
            with pytest.raises(ReversalError):
                await make()
            return
        count = len(self.model.rows)
        await self.both(orders, make)
        for row in self.model.rows[count:]:
            row.identity = (await self.log.event(row.position)).event_id.int

    async def reverse(self, place):
        if not self.model.rows:
            return
        row = self.model.rows[place % len(self.model.rows)]

        async def make():
            return [await reverse(self.log, row.position, inverse=inverse)]

        await self.undo([row], make)

    async def command(self, correlation):
        chosen = self.model.select(correlation=correlation)
        if not chosen:
            with pytest.raises(EventError):
                await reverse_correlation(self.log, correlation, inverse=inverse)
            return
        await self.undo(
            self.model.in_effect(chosen), lambda: reverse_correlation(self.log, correlation, inverse=inverse)
        )

    async def back(self, stream, place):
        rows = self.model.rows
        at = rows[place % len(rows)].position if rows else 0
        chosen = self.model.select((stream,), start=at + 1)
        refused = any(row.archived for row in self.model.in_effect(chosen))
        await self.undo(self.model.in_effect(chosen), lambda: reverse_stream(self.log, stream, at, inverse=inverse))
        if not refused:  # what it was
            was, is_ = (self.model.fold(until).get(stream, {"sum": 0})["sum"] for until in (at, None))
            assert was == is_

    async def archive(self, place):
        rows = self.model.rows
        until = rows[place % len(rows)].position if rows else 0
        await archive(self.log, self.folder / f"archive-{next(self.files)}", until)
        self.model.archive(until)

    async def fork(self, query):
        query = {**query, "correlation": None}
        wanted = self.model.select(**query)
        async with EventLog(":memory:") as copy:
            done = await fork(
                self.log,
                copy,
                start=query["start"],
                until=query["until"],
                streams=query["streams"] or None,
                types=query["types"] or None,
            )
            assert done.events == len(wanted)
            assert [seen(each) for each in await copy.read().all()] == [known(row) for row in wanted]
            assert (await verify(copy)).ok
            last = wanted[-1].position if wanted else 0
            assert (await copy.append("new", [Event("x", {"n": 0})])).first == last + 1

    async def fold(self, stream, place, snapshots):
        rows = self.model.rows
        until = rows[place % len(rows)].position if rows else 0
        folded = await self.log.fold(states, stream, until=until, snapshots=snapshots)
        assert folded.state == self.model.fold(until).get(stream)
        mine = [row for row in self.model.select((stream,)) if row.position <= until]
        assert (folded.version, folded.position) == ((mine[-1].version, mine[-1].position) if mine else (0, 0))

    async def project(self, batch):
        projector = self.log.projector(states, batch=batch)
        await projector.catch_up()
        assert await projector.all() == self.model.fold()
        assert await projector.position() == self.model.last()

    async def replay(self, start, until):
        last = self.model.last()
        new = Projection("states", apply_without_y)
        found = await compare(self.log, new, states, start=start or None, until=min(until, last))
        before: dict[str, Any] = {}
        after: dict[str, Any] = {}
        for row in self.model.rows:
            if row.position <= min(until, last):
                for those, skipped in ((before, False), (after, row.type == "y" and row.position >= start)):
                    state = those.setdefault(row.stream, {})
                    if not skipped:
                        state["sum"] = state.get("sum", 0) + row.n
                        state["events"] = state.get("events", 0) + 1
                        state["last"] = f"{row.type}{state.get('last', '')}"[:6]
        assert {each.entity for each in found.changes} == {name for name in before if before[name] != after[name]}
        for each in found.changes:
            assert each.after == after[each.entity]

    async def reopen(self):
        if self.url == ":memory:":
            return
        await self.log.close()
        self.log = EventLog(self.url, clock=lambda: self.now, **self.options)
        await self.log.__aenter__()


def script(url, steps, options=None):
    @run
    async def _():
        with tempfile.TemporaryDirectory() as folder:
            await Script(url or str(Path(folder, "log.db")), folder, options or {}).run(steps)


@pytest.mark.slow
@settings(max_examples=EXAMPLES * 5)
@given(st.lists(step, max_size=30))
def test_scripts_in_memory(steps):
    script(":memory:", steps)


@pytest.mark.slow
@settings(max_examples=EXAMPLES * 2)
@given(st.lists(step, max_size=30))
def test_scripts_in_a_file(steps):
    script(None, steps)


numbers = itertools.count()


@pytest.mark.slow
@settings(suppress_health_check=list(HealthCheck))
@given(st.lists(step, min_size=5, max_size=25))
def test_scripts_on_postgres(postgres, steps):
    script(postgres, steps, {"schema": f"s{next(numbers)}"})


@pytest.fixture(scope="module")
def postgres():
    return server().database()


@given(st.lists(st.tuples(st.integers(-DECADE, DECADE), st.integers(1, 3), st.booleans()), min_size=1, max_size=20))
def test_times_never_go_back_whatever_the_clock_does(moves):
    """Not within a log, not when another one with another clock has written to the same file."""

    @run
    async def _():
        now = 1_700_000_000.0
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder, "log.db"))
            async with EventLog(path, clock=lambda: now) as one, EventLog(path, clock=lambda: now / 2) as two:
                for jump, count, other in moves:
                    now = max(0.0, now + jump)
                    await (two if other else one).append("s", [Event("x", {"n": 1})] * count)
                times = [each.recorded_at for each in await one.read().all()]
                assert times == sorted(times)
                assert (await verify(two)).ok


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(-9, 9)), max_size=40),
    st.lists(st.integers(0, 45), max_size=6),
    st.integers(1, 7),
)
def test_a_projection_that_stops_anywhere_is_the_fold_of_the_whole(events, cuts, batch):
    @run
    async def _():
        async with EventLog(":memory:") as log:
            for name, n in events:
                await log.append(name, [Event("x", {"n": n})])
            for cut in sorted(cuts):
                await log.projector(states, batch=batch).catch_up(cut)
            projector = log.projector(states, batch=batch)
            await projector.catch_up()
            whole: dict[str, Any] = {}
            for event in await log.read().all():
                states.step(whole, event)
            assert await projector.all() == whole
            for name in "abc":
                for cut in cuts:
                    one = await log.fold(states, name, until=min(cut, len(events)), snapshots=1)
                    two = await log.fold(states, name, until=min(cut, len(events)), snapshots=None)
                    assert one == two
            assert {name: (await log.fold(states, name)).state for name in whole} == whole
            await projector.rebuild()
            assert await projector.all() == whole
