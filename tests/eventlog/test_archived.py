"""What holds for events holds when they are archived: conditions, reversals, ids."""

import asyncio

import pytest

from headgate import AppendConditionError, EventError, ReversalError
from headgate.eventlog import Event, Projection, archive, explain, reverse
from headgate.eventlog.archive import Archives
from tests.eventlog.conftest import run


async def enrolled_and_left(log):
    await log.append("c1", [Event("enrolled", {"who": "ada"})])
    await reverse(log, 1, inverse=Event("left", {}))
    await log.append("other", [Event("x", {})])


def test_a_condition_is_held_against_archives_too(place, tmp_path):
    @run
    async def _():
        async with place.log() as log:
            await enrolled_and_left(log)
            await archive(log, tmp_path, 2)
            taken = log.read(types="enrolled", fields={"who": "ada"})
            with pytest.raises(AppendConditionError) as refused:
                await log.append("y", [Event("z", {})], unless=taken, after=0)
            assert (refused.value.after, refused.value.position) == (0, 1)
            again = Event("z", {})
            await log.append("y", [again], unless=taken, after=1)
            assert (await log.append("y", [again], unless=taken, after=0)).duplicates == 1
            await log.append("y", [Event("z", {})], unless=log.read(types="enrolled", fields={"who": "bob"}))


def test_a_condition_is_held_against_what_is_archived_at_that_very_moment(place, tmp_path, monkeypatch):
    """Between the look at the archives and the append, what stands in its way goes from the database to a file."""

    @run
    async def _():
        async with place.log() as log:
            await enrolled_and_left(log)
            known, looks = Archives.known, []

            async def archived_just_after(archives):
                found = await known(archives)
                looks.append(len(found))
                if len(looks) == 1:
                    await archive(log, tmp_path, 2)
                return found

            monkeypatch.setattr(Archives, "known", archived_just_after)
            with pytest.raises(AppendConditionError):
                await log.append("y", [Event("z", {})], unless=log.read(types="enrolled"), after=0)
            assert looks[0] == 0
            assert looks[-1] == 1


def test_what_was_undone_before_it_was_archived_stays_undone(place, tmp_path):
    @run
    async def _():
        async with place.log() as log:
            await enrolled_and_left(log)
            first = await log.event(1)
            await archive(log, tmp_path, 2)
            with pytest.raises(ReversalError, match="already, by position 2"):
                await log.append("c1", [Event("left", {}, reverses=first)])
            steps = await explain(log, Projection("p", lambda state, event: state), "c1")
            assert [each.undone_by for each in steps] == [2, None]


def test_the_same_event_in_two_appends_at_once_is_written_once(place):
    """Both, and a stranger's, failed with a constraint of the database."""

    @run
    async def _():
        async with place.log() as log:
            same = Event("e", {})
            appends = [log.append("other", [Event("e", {})]), log.append("a", same), log.append("a", [same, same])]
            results = await asyncio.gather(*appends)
            assert [each.duplicates for each in results] == [0, 0, 2]
            same = Event("e", {})
            wrong = asyncio.create_task(log.append_all([("a", [same]), ("b", [same])]))
            other = await log.append("other", [Event("e", {})])
            with pytest.raises(EventError, match="in stream 'a'"):
                await wrong
            assert other.version == 2
            assert [(each.name, each.version) for each in await log.streams()] == [("a", 1), ("other", 2)]
