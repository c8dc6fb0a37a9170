"""The log as a stage: catching up and going on, consumers that append, groups with fenced checkpoints."""

import asyncio
import itertools
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

import headgate
from headgate import Child, Consumer, FencedError, OptionError, PartitionDispatcher, Supervisor, System, To, stable_hash
from headgate.eventlog import Event, Recorded
from headgate.eventlog.store import Statement
from tests.eventlog.conftest import run


def events(*numbers):
    return [Event("counted", {"n": number}) for number in numbers]


class Take(Consumer):
    """Collects what it gets, and says when it has so many."""

    def __init__(self, got, wanted, done):
        self.got, self.wanted, self.done = got, wanted, done

    def handle_events(self, events, source):
        self.got.extend(events)
        if len(self.got) >= self.wanted and not self.done.done():
            self.done.set_result(None)


def taking() -> tuple[list[Recorded], asyncio.Future[None]]:
    return [], asyncio.get_running_loop().create_future()


def numbers(found):
    return [each.data["n"] for each in found]


def test_a_producer_catches_up_and_goes_on_live(place):
    @run
    async def _():
        async with place.log() as log, System() as system:
            await log.append("a", events(*range(2500)))
            got, done = taking()
            await system.start(log.producer(name="log"))
            await system.start(Child(Take, got, 2600, done, subscribe_to=[To("log", max_demand=100)]))
            for number in range(2500, 2600):
                await log.append("b", events(number))
            await done
            assert numbers(got) == list(range(2600))
            assert [each.position for each in got] == list(range(1, 2601))


def test_a_producer_reads_no_more_than_it_is_asked_for(place):
    @run
    async def _():
        async with place.log() as log, System() as system:
            await log.append("a", events(*range(1000)))
            ref = await system.start(log.producer(name="log"))
            got, done = taking()
            consumer = await system.start(Child(Take, got, 7, done))
            subscription = await consumer.subscribe("log", mode="manual")
            consumer.ask(subscription, 7)
            await done
            await asyncio.sleep(0)
            assert numbers(got) == list(range(7))
            assert ref.statistics().emitted == 7


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"start": 3}, [3, 4, 5, 6]),
        ({"start": 2, "until": 4}, [2, 3, 4]),
        ({"start": datetime.fromtimestamp(1004, UTC)}, [4, 5, 6]),
        ({"until": datetime.fromtimestamp(1003.5, UTC)}, [1, 2, 3]),
        ({"streams": "b"}, [2, 4, 6]),
        ({"streams": ["b"], "start": 3}, [4, 6]),
        ({"types": "odd"}, [1, 3, 5]),
        ({"streams": "x*"}, []),
        ({"checkpoint": "me"}, [5, 6]),
        ({"checkpoint": "other"}, [1, 2, 3, 4, 5, 6]),
        ({"batch": 1}, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_a_producer_of_a_part_finishes(place, options, expected):
    now = 1000.0

    def clock():
        return now

    @run
    async def _():
        nonlocal now
        async with place.log(clock=clock) as log:
            for number in range(1, 7):
                now = 1000.0 + number
                await log.append("ab"[number % 2 == 0], [Event("even" if number % 2 == 0 else "odd", {"n": number})])
            await log.save_checkpoint("me", 4)
            found: list[Recorded] = []
            async with System() as system:
                ref = await system.start(log.producer(live=False, **options))
                async for event in headgate.stream([To(ref, max_demand=2)]):
                    found.append(event)  # noqa: PERF401 (while the system runs)
            assert numbers(found) == expected


def test_a_producer_from_the_end_gives_only_what_comes(place):
    @run
    async def _():
        async with place.log() as log, System() as system:
            await log.append("a", events(1, 2))
            got, done = taking()
            await system.start(log.producer(name="log", start="end"))
            await system.start(Child(Take, got, 1, done, subscribe_to=["log"]))
            await log.append("a", events(3))
            await done
            assert numbers(got) == [3]


def test_a_producer_hears_of_what_another_log_has_appended(shared):
    @run
    async def _():
        async with shared.log() as here, shared.log() as there, System() as system:
            got, done = taking()
            await system.start(here.producer(name="log"))
            await system.start(Child(Take, got, 50, done, subscribe_to=["log"]))
            for number in range(50):
                await there.append("a", events(number))
            await done
            assert numbers(got) == list(range(50))


def test_options_of_a_producer_are_checked(place):
    log = place.log()
    for options in ({"start": "begin"}, {"start": -1}, {"until": 2.5}, {"batch": 0}, {"start": datetime(2020, 1, 1)}):  # noqa: DTZ001
        with pytest.raises(OptionError):
            log.producer(**options)


def test_a_consumer_appends_what_it_is_given(place):
    @run
    async def _():
        async with place.log() as log:
            found = [(f"s{number % 3}", Event("counted", {"n": number})) for number in range(100)]
            await Supervisor(
                [
                    headgate.from_iterable(found, name="numbers"),
                    log.consumer(actor="importer", subscribe_to=[To("numbers", max_demand=10)]),
                ]
            )
            for stream in range(3):
                assert numbers(await log.read(f"s{stream}").all()) == list(range(stream, 100, 3))
            assert {each.actor for each in await log.read().all()} == {"importer"}


def test_a_consumer_appends_what_comes_twice_once(place):
    @run
    async def _():
        async with place.log() as log:
            twice = [*range(20), *range(20)]
            await Supervisor(
                [
                    headgate.from_iterable([Event("counted", {"n": each}) for each in twice], name="numbers"),
                    log.consumer(
                        "all", event_id=lambda event: event.data["n"], subscribe_to=[To("numbers", max_demand=6)]
                    ),
                ]
            )
            assert numbers(await log.read().all()) == list(range(20))


def test_a_checkpoint_is_moved_by_one_only(place):
    @run
    async def _():
        async with place.log() as log:
            assert await log.checkpoint("me") == 0
            await log.save_checkpoint("me", 5)
            await log.save_checkpoint("me", 3)
            assert await log.checkpoint("me") == 3
            results = await asyncio.gather(
                *(log.save_checkpoint("you", number) for number in range(5)), return_exceptions=True
            )
            assert any(each is None for each in results)
            assert all(each is None or isinstance(each, FencedError) for each in results)


# -- groups -----------------------------------------------------------------------------------------------------------


async def take_all(group, count):
    found: list[Recorded] = []
    while len(found) < count:
        some = await group.take(7)
        found += some
        await group.done(some)
    return found


def test_members_share_the_streams_and_each_event_is_handled_once(shared):
    @run
    async def _():
        async with shared.log() as log:
            one, two = log.group("g", partitions=4), log.group("g", partitions=4)
            await one.join()
            assert one.held == [0, 1, 2, 3]
            await two.join()
            await one._balance()  # it learns that it is not alone, and gives some away
            await two._balance()
            assert len(one.held) == len(two.held) == 2
            await log.append_all([(f"s{number % 20}", events(number)) for number in range(200)])
            mine = {
                group: sum(group.partition_of(f"s{n % 20}") in group.held for n in range(200)) for group in (one, two)
            }
            found = [await take_all(group, mine[group]) for group in (one, two)]
            assert sorted(numbers(found[0] + found[1])) == list(range(200))
            for each in found:
                assert [event.position for event in each] == sorted(event.position for event in each)
            await one.leave()
            await two._balance()
            assert two.held == [0, 1, 2, 3]
            await two.leave()
            three = log.group("g", partitions=4)
            await three.join()
            await log.append("s1", events(200))
            assert numbers(await take_all(three, 1)) == [200]
            await three.leave()


def test_one_who_was_replaced_cannot_move_a_checkpoint(shared):
    now = 1000.0

    @run
    async def _():
        nonlocal now
        async with shared.log(clock=lambda: now) as log:
            slow, other = log.group("g", partitions=1, lease=10), log.group("g", partitions=1, lease=10)
            await slow.join()
            await log.append("a", events(1, 2, 3))
            begun = await slow.take(2)
            now += 11
            await other.join()
            assert other.held == [0]
            again = await other.take(3)
            assert numbers(again) == [1, 2, 3]
            with pytest.raises(FencedError):
                await slow.done(begun)
            with pytest.raises(FencedError):
                await slow.done_in(begun, lambda db: None)
            await other.done(again)
            assert (await log.store.transact([_position("group g")]))[0] == [(3,)]
            await slow.leave()
            await other.leave()


def _position(name):
    return Statement("SELECT position FROM ~checkpoints WHERE name = ?", (name,))


def test_a_checkpoint_never_passes_what_is_not_handled(shared):
    @run
    async def _():
        async with shared.log() as log:
            group = log.group("g", partitions=1)
            await group.join()
            await log.append("a", events(*range(6)))
            one, two, three = await group.take(2), await group.take(2), await group.take(2)
            await group.done(three)
            await group.done(two)
            assert (await log.store.transact([_position("group g")]))[0] == [(0,)]
            await group.done(one)
            assert (await log.store.transact([_position("group g")]))[0] == [(6,)]
            await group.leave()


def test_stages_of_a_group_handle_all_and_go_on_where_they_were(shared):
    @run
    async def _():
        found: list[Recorded] = []
        async with shared.log() as log:
            await log.append_all([(f"s{number % 9}", events(number)) for number in range(300)])
            for part in range(2):
                done = asyncio.get_running_loop().create_future()

                def handle(batch, done=done, part=part):
                    found.extend(batch)
                    if len(found) >= 300 * (part + 1) and not done.done():
                        done.set_result(None)

                group = log.group("g", partitions=4)
                async with System() as system:
                    dispatcher = PartitionDispatcher(2, hash=lambda event: stable_hash(event.stream) % 2)
                    await system.start(group.producer(name="events", dispatcher=dispatcher))
                    for index in range(2):
                        to = To("events", partition=index, max_demand=20)
                        await system.start(group.consumer(handle, id=f"c{index}", subscribe_to=[to]))
                    await done
                await log.append_all([(f"s{number % 9}", events(number)) for number in range(300, 600)])
            first = found[:600]
            assert sorted(set(numbers(first))) == list(range(600))
            for stream in {event.stream for event in first}:
                mine = [event.version for event in first if event.stream == stream]
                assert mine == sorted(mine)


def test_a_handler_in_the_transaction_of_the_checkpoint_counts_exactly_once(tmp_path):
    path = str(tmp_path / "log.db")

    @run
    async def _():
        async with headgate.EventLog(path) as log:
            await log.append("a", events(*range(1, 101)))
            await log.store.run(lambda db: db.execute("CREATE TABLE total (n INTEGER)"))
            group = log.group("g", partitions=2)
            crashes = iter([True, False, True])

            def handle(batch, connection):
                connection.execute("INSERT INTO total VALUES (?)", (sum(numbers(batch)),))
                if next(crashes, False):
                    raise ValueError("after it has written")

            done = asyncio.get_running_loop().create_future()

            async def watch():
                while await log.store.run(lambda db: db.execute("SELECT sum(n) FROM total").fetchone()[0]) != 5050:
                    await asyncio.sleep(0.001)
                done.set_result(None)

            watcher = asyncio.create_task(watch())
            app = Supervisor(
                [
                    group.producer(name="events"),
                    group.consumer(handle, transaction=True, subscribe_to=[To("events", max_demand=10)]),
                ]
            )
            async with app:
                await done
            await watcher
        db = sqlite3.connect(path)
        assert db.execute("SELECT sum(n) FROM total").fetchone() == (5050,)
        db.close()


def test_a_new_group_begins_where_it_is_said_and_goes_on_where_it_is(place):
    @run
    async def _():
        now = itertools.count(1000)
        async with place.log(clock=lambda: next(now)) as log:
            for number in range(6):
                await log.append(f"s{number % 3}", [Event("e", {"n": number})])
            fourth = (await log.event(4)).recorded_at
            future = fourth + timedelta(days=1)
            starts = {"all": None, "fourth": 4, "time": fourth, "end": "end", "future": future, "beyond": 99}
            expected = {"all": [0, 1, 2, 3, 4, 5, 6], "fourth": [3, 4, 5, 6], "time": [3, 4, 5, 6]}
            groups = {name: log.group(name, partitions=2, start=start) for name, start in starts.items()}
            for group in groups.values():
                await group.join()
            await log.append("s1", [Event("e", {"n": 6})])
            for name, group in groups.items():
                found: list[int] = []
                while len(found) < len(expected.get(name, [6])):
                    events = await group.take(10)
                    found += [each.data["n"] for each in events]
                    await group.done(events)
                assert sorted(found) == expected.get(name, [6]), name
                await group.leave()
            again = log.group("end", partitions=2, start=1)
            await again.join()
            await log.append("s2", [Event("e", {"n": 7})])
            assert [each.data["n"] for each in await again.take(10)] == [7]
            await again.leave()
            with pytest.raises(OptionError, match="start"):
                log.group("g", start="beginning")
