# mypy: disable-error-code="var-annotated"
"""Every dispatcher in a running system."""

from collections import Counter as Tally

import pytest

from headgate import (
    BroadcastDispatcher,
    DemandDispatcher,
    DispatchError,
    FairDispatcher,
    PartitionDispatcher,
    PriorityDispatcher,
    SubscriptionError,
)
from tests.places.helpers import System, To, calm, child, run, shows, until
from tests.places.stages import Collect, Counter, Emitter, Faulty, Times, first, parity


def test_broadcast_gives_everything_to_everybody(place):
    async def scenario():
        seen = [[], [], []]
        async with System() as system:
            counter = await system.start(child(place, Counter, 200, dispatcher="broadcast", demand="accumulate"))
            for each, most in zip(seen, (100, 10, 3), strict=True):
                await system.start(child(place, Collect, each, subscribe_to=[To(counter, max_demand=most)]))
            counter.set_demand("forward")
            await system.wait()
        assert seen == [list(range(200))] * 3

    run(scenario)


def test_broadcast_with_selectors(place):
    async def scenario():
        even, every = [], []
        async with System() as system:
            counter = await system.start(child(place, Counter, 100, dispatcher="broadcast", demand="accumulate"))
            to = To(counter, max_demand=7, selector=lambda event: event % 2 == 0)
            await system.start(child(place, Collect, even, subscribe_to=[to]))
            await system.start(child(place, Collect, every, subscribe_to=[To(counter, max_demand=10)]))
            counter.set_demand("forward")
            await system.wait()
        assert even == list(range(0, 100, 2))
        assert every == list(range(100))

    run(scenario)


def test_broadcast_goes_on_when_who_holds_it_up_leaves(place):
    async def scenario():
        seen = []
        async with System() as system:
            counter = await system.start(child(place, Counter, dispatcher="broadcast"))
            silent = await system.start(child(place, Collect))
            subscription = await silent.subscribe(counter, mode="manual")
            sink = await system.start(child(place, Collect, seen, subscribe_to=[To(counter, max_demand=10)]))
            await calm(counter, silent, sink)
            assert not seen
            silent.cancel(subscription)
            await until(lambda: len(seen) > 50)
        assert seen == list(range(len(seen)))

    run(scenario)


def test_broadcast_replaces_a_crashed_consumer_while_events_wait(place):
    """reliability.md 0.1: in the original nothing arrives for ever."""

    async def scenario():
        seen = []
        async with System() as system:
            source = await system.start(child(place, Emitter, dispatcher="broadcast"))
            sink = await system.start(child(place, Collect, subscribe_to=[To(source, max_demand=10)]))
            await sink.stop()
            source.cast([1, 2, 3])
            await shows(source, lambda read: read.buffered == 3)
            await system.start(child(place, Collect, seen, subscribe_to=[To(source, max_demand=10)]))
            await until(lambda: len(seen) == 3)
            source.cast([4, 5])
            await until(lambda: len(seen) == 5)
        assert seen == [1, 2, 3, 4, 5]

    run(scenario)


def test_a_middle_stage_may_broadcast(place):
    async def scenario():
        seen = [[], []]
        async with System() as system:
            counter = await system.start(child(place, Counter, 60, demand="accumulate"))
            times = await system.start(
                child(place, Times, 3, dispatcher="broadcast", subscribe_to=[To(counter, max_demand=10)])
            )
            for each, most in zip(seen, (10, 20), strict=True):
                await system.start(child(place, Collect, each, subscribe_to=[To(times, max_demand=most)]))
            counter.set_demand("forward")
            await system.wait()
        assert seen == [list(range(0, 180, 3))] * 2

    run(scenario)


@pytest.mark.parametrize("slow", ["drop", "detach"])
def test_a_slow_subscriber_need_not_hold_up_the_others(place, slow):
    async def scenario():
        seen, log = [], []
        async with System() as system:
            dispatcher = BroadcastDispatcher(slow=slow, lag=5)
            source = await system.start(child(place, Emitter, log, dispatcher=dispatcher))
            silent = await system.start(child(place, Collect))
            subscription = await silent.subscribe(source, mode="manual", cancel="temporary")
            sink = await system.start(child(place, Collect, seen, subscribe_to=[To(source, max_demand=100)]))
            await calm(source, sink)
            for number in range(20):
                source.cast([number])
            await until(lambda: len(seen) == 20)
            if slow == "drop":
                assert (await source.statistics()).discarded == {"slow subscriber": 15}
                silent.ask(subscription, 10)
                await shows(silent, lambda read: read.handled == 5)
            else:
                await until(lambda: any(each[0] == "cancel" for each in log))
                assert len((await source.statistics()).consumers) == 1
            assert silent.alive

    run(scenario)


def test_partitions_get_their_own_events_in_order(place):
    async def scenario():
        seen = {0: [], 1: []}
        async with System() as system:
            dispatcher = PartitionDispatcher(2, hash=parity)
            counter = await system.start(child(place, Counter, 200, dispatcher=dispatcher, demand="accumulate"))
            for name, each in seen.items():
                await system.start(
                    child(place, Collect, each, subscribe_to=[To(counter, partition=name, max_demand=10)])
                )
            counter.set_demand("forward")
            await system.wait()
        assert seen == {0: list(range(0, 200, 2)), 1: list(range(1, 200, 2))}

    run(scenario)


@pytest.mark.parametrize("stuck", ["block", "shed", "spill"])
def test_a_stuck_partition_does_not_stop_the_others(place, stuck):
    async def scenario():
        healthy, late, bound = [], [], 100
        async with System() as system:
            dispatcher = PartitionDispatcher(2, hash=parity, queue_size=bound, stuck=stuck)
            counter = await system.start(child(place, Counter, dispatcher=dispatcher))
            silent = await system.start(child(place, Collect, late))
            subscription = await silent.subscribe(counter, mode="manual", partition=0)
            sink = await system.start(
                child(place, Collect, healthy, subscribe_to=[To(counter, partition=1, max_demand=10)])
            )
            await until(lambda: len(healthy) >= bound - 10)
            if stuck == "block":
                await calm(counter, sink)
                assert (await counter.statistics()).queued == {0: bound}
            else:
                await until(lambda: len(healthy) > 3 * bound)
                if stuck == "shed":
                    assert (await counter.statistics()).queued[0] <= bound
                    assert (await counter.statistics()).discarded["partition full"] >= bound
            before = len(healthy)
            silent.ask(subscription, bound // 2)
            await until(lambda: len(late) >= bound // 2 and len(healthy) > before)
        assert healthy == list(range(1, 2 * len(healthy), 2))
        if stuck != "shed":
            assert late == list(range(0, 2 * len(late), 2))

    run(scenario)


def test_a_partition_keeps_its_queue_for_the_successor(place):
    async def scenario():
        seen = []
        async with System() as system:
            source = await system.start(child(place, Emitter, dispatcher=PartitionDispatcher(2, hash=parity)))
            one = await system.start(child(place, Collect))
            subscription = await one.subscribe(source, partition=0, mode="manual")
            one.ask(subscription, 2)
            other = await system.start(child(place, Collect, subscribe_to=[To(source, partition=1, max_demand=100)]))
            await calm(source, one, other)
            source.cast(list(range(20)))
            await shows(one, lambda read: read.handled == 2)
            await one.stop()
            await system.start(child(place, Collect, seen, subscribe_to=[To(source, partition=0, max_demand=100)]))
            await until(lambda: len(seen) == 8)
        assert seen == list(range(4, 20, 2))

    run(scenario)


def test_a_hash_that_drops_everything_goes_on_asking(place):
    async def scenario():
        demands = []
        async with System() as system:
            dispatcher = PartitionDispatcher(1, hash=lambda event: None)
            counter = await system.start(child(place, Counter, 500, demands, dispatcher=dispatcher))
            sink = await system.start(child(place, Collect, subscribe_to=[To(counter, partition=0, max_demand=10)]))
            await system.wait()
            assert (await sink.statistics()).handled == 0
        assert (await counter.statistics()).discarded == {"hash gave none": 500}

    run(scenario)


def test_users_take_turns(place):
    """Ten events of a small user come through between those of a big one."""

    async def scenario():
        seen = []
        async with System() as system:
            source = await system.start(child(place, Emitter, dispatcher=FairDispatcher(first)))
            source.cast([("big", number) for number in range(5000)])
            source.cast([("small", number) for number in range(10)])
            await shows(source, lambda read: read.buffered == 5010)
            sink = await system.start(child(place, Collect, seen, subscribe_to=[To(source, max_demand=10)]))
            await until(lambda: len(seen) >= 20)
            await sink.stop()
        assert Tally(user for user, _ in seen[:20]) == {"big": 10, "small": 10}

    run(scenario)


def test_a_cap_per_user_holds_across_consumers(place):
    async def scenario():
        all_seen = [[], []]
        async with System() as system:
            source = await system.start(child(place, Emitter, dispatcher=FairDispatcher(first, cap=2)))
            source.cast([("big", number) for number in range(50)])
            for seen in all_seen:
                await system.start(child(place, Collect, seen, subscribe_to=[To(source, max_demand=10)]))
            await until(lambda: sum(map(len, all_seen)) == 50)
        assert sorted(number for seen in all_seen for _, number in seen) == list(range(50))

    run(scenario)


def test_the_urgent_go_first(place):
    async def scenario():
        seen = []
        async with System() as system:
            source = await system.start(child(place, Emitter, dispatcher=PriorityDispatcher(first)))
            source.cast([(2, "a"), (1, "b"), (0, "c"), (1, "d")])
            await shows(source, lambda read: read.buffered == 4)
            await system.start(child(place, Collect, seen, subscribe_to=[source]))
            await until(lambda: len(seen) == 4)
        assert seen == [(0, "c"), (1, "b"), (1, "d"), (2, "a")]

    run(scenario)


def test_fair_and_urgent_streams_end(place):
    async def scenario():
        for dispatcher in (FairDispatcher(parity, cap=3), PriorityDispatcher(lambda event: -event), DemandDispatcher()):
            seen = []
            async with System() as system:
                counter = await system.start(child(place, Counter, 100, dispatcher=dispatcher))
                times = await system.start(
                    child(place, Times, dispatcher=dispatcher, subscribe_to=[To(counter, max_demand=10)])
                )
                await system.start(child(place, Collect, seen, subscribe_to=[To(times, max_demand=10)]))
                await system.wait()
            assert sorted(seen) == list(range(100))

    run(scenario)


def test_a_dispatcher_refuses_one_subscription_and_nobody_dies(place):
    async def scenario():
        seen = []
        async with System() as system:
            dispatcher = PartitionDispatcher(2, hash=parity)
            source = await system.start(child(place, Emitter, dispatcher=dispatcher))
            sink = await system.start(child(place, Collect, seen, subscribe_to=[To(source, partition=0)]))
            other = await system.start(child(place, Collect))
            for options in ({}, {"partition": 5}, {"partition": 0}, {"partition": []}):
                with pytest.raises(SubscriptionError, match="partition"):
                    await other.subscribe(source, **options)
            assert source.alive
            assert other.alive
            await calm(source, sink)
            source.cast([0, 2])
            await until(lambda: seen == [0, 2])

    run(scenario)


@pytest.mark.parametrize("where", ["asked", "dispatch", "cancel"])
def test_a_dispatcher_that_raises_ends_its_stage_and_hangs_nobody(place, where):
    async def scenario():
        async with System(on_error=lambda error: None) as system:
            source = await system.start(child(place, Counter, dispatcher=Faulty(where)))
            sink = await system.start(child(place, Collect))
            subscription = await sink.subscribe(source, cancel="temporary")
            if where == "cancel":
                sink.cancel(subscription)
            await until(lambda: not source.alive)
            with pytest.raises(Exception, match="faulty"):
                await source.wait()
            assert sink.alive

    run(scenario)


def test_a_dispatcher_that_raises_on_subscribe_refuses(place):
    async def scenario():
        async with System() as system:
            source = await system.start(child(place, Counter, dispatcher=Faulty("subscribe")))
            sink = await system.start(child(place, Collect))
            with pytest.raises(SubscriptionError, match="faulty"):
                await sink.subscribe(source)
            assert source.alive

    run(scenario)


def test_errors_of_a_route_name_the_stage_and_the_event(place):
    async def scenario():
        errors, seen = [], []
        async with System(on_error=errors.append) as system:
            dispatcher = PartitionDispatcher([1], hash=lambda event: 1 // event)
            source = await system.start(child(place, Emitter, name="source", dispatcher=dispatcher))
            await system.start(child(place, Collect, seen, subscribe_to=[To(source, partition=1)]))
            source.cast([1, 0, 2, 1])
            await until(lambda: seen == [1, 1])
        assert [(type(error), error.stage, error.event) for error in errors] == [
            (DispatchError, "source", 0),
            (DispatchError, "source", 2),
        ]

    run(scenario)
