# mypy: disable-error-code="var-annotated"
"""Demand through whole pipelines: what arrives, in which batches, and what is asked for it."""

from headgate import HandlerError
from tests.places.helpers import System, To, calm, child, clear, run, spread, until
from tests.places.stages import Chooser, Collect, Counter, Emitter, Surplus, Talkative, Times

DEMANDS = [(1000, 500), (1000, 0), (100, 80), (10, 5), (10, 9), (3, 1), (1, 0)]


@spread(DEMANDS)
def test_three_stages_move_everything_in_order(place, cases):
    async def scenario():
        async with System() as system:
            for most, least in cases:
                seen, batches, total = [], [], 300 if most < 100 else 3000
                counter = await system.start(child(place, Counter, total))
                times = await system.start(
                    child(place, Times, 2, subscribe_to=[To(counter, max_demand=most, min_demand=least)])
                )
                to = To(times, max_demand=most, min_demand=least)
                await system.start(child(place, Collect, seen, batches, subscribe_to=[to]))
                await system.wait()
                assert seen == list(range(0, 2 * total, 2))
                assert max(map(len, batches)) <= most - least
                await clear(system)

    run(scenario)


@spread([((10, 5), (3, 1)), ((3, 1), (10, 5)), ((1, 0), (100, 50))])
def test_unequal_demands_of_one_pipeline(place, cases):
    async def scenario():
        async with System() as system:
            for upper, lower in cases:
                seen = []
                counter = await system.start(child(place, Counter, 200))
                to = To(counter, max_demand=upper[0], min_demand=upper[1])
                times = await system.start(child(place, Times, 1, subscribe_to=[to]))
                to = To(times, max_demand=lower[0], min_demand=lower[1])
                await system.start(child(place, Collect, seen, subscribe_to=[to]))
                await system.wait()
                assert seen == list(range(200))
                await clear(system)

    run(scenario)


def test_a_middle_stage_may_multiply_and_nothing_overtakes(place):
    async def scenario():
        seen = []
        async with System() as system:
            counter = await system.start(child(place, Counter, 50))
            times = await system.start(child(place, Times, 1, 7, subscribe_to=[To(counter, max_demand=10)]))
            await system.start(child(place, Collect, seen, subscribe_to=[To(times, max_demand=4)]))
            await system.wait()
        assert seen == [number for number in range(50) for _ in range(7)]

    run(scenario)


def test_the_demand_conversation(place):
    """A consumer asks for 100; the producer has 60 now and 40 later; both arrive; then the next 100 are asked for."""

    async def scenario():
        log, seen = [], []
        async with System() as system:
            source = await system.start(child(place, Emitter, log))
            sink = await system.start(
                child(place, Collect, seen, subscribe_to=[To(source, max_demand=100, min_demand=0)])
            )
            await until(lambda: ("demand", 100) in log)
            source.cast(list(range(60)))
            await until(lambda: len(seen) == 60)
            await calm(source, sink)
            assert [each for each in log if each[0] == "demand"] == [("demand", 100)]
            assert (await source.statistics()).demand == 40, "it is still owed, and need not be remembered"
            source.cast(list(range(60, 100)))
            await until(lambda: len(seen) == 100)
            await calm(source, sink)
            assert [each for each in log if each[0] == "demand"] == [("demand", 100)] * 2
            assert (await source.statistics()).demand == 100
        assert seen == list(range(100))

    run(scenario)


def test_a_producer_gives_no_more_than_is_asked(place):
    async def scenario():
        demands = []
        async with System() as system:
            counter = await system.start(child(place, Counter, None, demands))
            to = To(counter, max_demand=10, mode="manual")
            sink = await system.start(child(place, Collect, subscribe_to=[to]))
            await calm(counter, sink)
            assert demands == []

    run(scenario)


def test_asking_by_hand_gives_exactly_what_was_asked(place):
    async def scenario():
        seen, batches, demands = [], [], []
        async with System() as system:
            counter = await system.start(child(place, Counter, None, demands))
            sink = await system.start(child(place, Collect, seen, batches))
            subscription = await sink.subscribe(counter, mode="manual")
            await calm(counter, sink)
            assert not seen
            for count in (50, 50, 7):
                before = len(seen)
                sink.ask(subscription, count)
                await until(lambda target=before + count: len(seen) == target)
                await calm(counter, sink)
            subscription.ask(1)
            await until(lambda: len(seen) == 108)
        assert demands == [50, 50, 7, 1]
        assert seen == list(range(108))
        assert batches[0] == list(range(50)), "a message is one batch"

    run(scenario)


def test_asking_for_nothing_is_nothing(place):
    async def scenario():
        demands = []
        async with System() as system:
            counter = await system.start(child(place, Counter, None, demands))
            sink = await system.start(child(place, Collect))
            subscription = await sink.subscribe(counter, mode="manual")
            sink.ask(subscription, 0)
            await calm(counter, sink)
        assert demands == []

    run(scenario)


def test_a_stage_may_ask_from_inside_of_its_handlers(place):
    async def scenario():
        seen, demands = [], []
        async with System() as system:
            counter = await system.start(child(place, Counter, None, demands))
            sink = await system.start(child(place, Chooser, seen, subscribe_to=[counter]))
            await calm(counter, sink)
            assert not demands
            sink.cast(5)
            await until(lambda: len(seen) >= 30)
            await calm(counter, sink)
        assert demands == [5, 10, 10, 10]

    run(scenario)


def test_demand_and_events_are_held_until_they_are_let_go(place):
    async def scenario():
        seen, log = [], []
        async with System() as system:
            source = await system.start(child(place, Emitter, log, demand="accumulate"))
            assert source.demand == "accumulate"
            sink = await system.start(child(place, Collect, seen, subscribe_to=[To(source, max_demand=10)]))
            source.cast([1, 2])
            source.cast([3])
            await calm(source, sink)
            assert (seen, [each for each in log if each[0] == "demand"]) == ([], [])
            assert (await source.statistics()).buffered == 3
            source.set_demand("forward")
            await until(lambda: seen == [1, 2, 3])
            await until(lambda: any(each[0] == "demand" for each in log))
            assert source.demand == "forward"
            source.set_demand("accumulate")
            source.cast([4])
            await calm(source, sink)
            assert seen == [1, 2, 3]
            source.set_demand("forward")
            await until(lambda: seen == [1, 2, 3, 4])

    run(scenario)


def test_consumers_of_one_producer_share_and_none_starves(place):
    async def scenario():
        all_seen = [[] for _ in range(3)]
        async with System() as system:
            counter = await system.start(child(place, Counter, 600, demand="accumulate"))
            for seen, most in zip(all_seen, (100, 10, 2), strict=True):
                await system.start(child(place, Collect, seen, subscribe_to=[To(counter, max_demand=most)]))
            counter.set_demand("forward")
            await system.wait()
        assert sorted(event for seen in all_seen for event in seen) == list(range(600))
        assert all(seen == sorted(seen) and seen for seen in all_seen)

    run(scenario)


def test_a_consumer_of_several_producers_asks_each_for_itself(place):
    async def scenario():
        seen = []
        async with System() as system:
            producers = [await system.start(child(place, Counter, end)) for end in (30, 50)]
            await system.start(child(place, Collect, seen, subscribe_to=[To(each, max_demand=4) for each in producers]))
            await system.wait()
        assert sorted(seen) == sorted([*range(30), *range(50)])

    run(scenario)


def test_a_surplus_is_kept_and_used_up_before_more_is_asked(place):
    async def scenario():
        seen = []
        async with System() as system:
            source = await system.start(child(place, Surplus))
            sink = await system.start(child(place, Collect, seen))
            subscription = await sink.subscribe(source, mode="manual")
            sink.ask(subscription, 3)
            await until(lambda: len(seen) == 3)
            assert (await source.statistics()).buffered == 5
            sink.ask(subscription, 5)
            await until(lambda: len(seen) == 8)
        assert seen == list(range(8))

    run(scenario)


def test_a_consumer_that_returns_events_is_told_and_goes_on(place):
    async def scenario():
        seen, errors = [], []
        async with System(on_error=errors.append) as system:
            counter = await system.start(child(place, Counter, 20))
            await system.start(child(place, Talkative, seen, subscribe_to=[To(counter, max_demand=10)]))
            await system.wait()
        assert seen == list(range(20))
        assert errors
        assert all(isinstance(error, HandlerError) for error in errors)

    run(scenario)
