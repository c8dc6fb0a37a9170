# mypy: disable-error-code="var-annotated"
"""What handlers may do to the stage above while a batch of it is shared out and handed straight down."""

from headgate import Child, Consumer, PartitionDispatcher
from tests.places.helpers import Counter, System, To, run, until


class Meddler(Consumer):
    """Collects events; does something to the source when it has the first batch."""

    def __init__(self, seen, meddle=None):
        self.seen = seen
        self.meddle = meddle

    def handle_events(self, events, source):
        self.seen += events
        meddle, self.meddle = self.meddle, None
        if meddle is not None:
            meddle()


def test_what_a_handler_makes_its_source_emit_comes_after_what_others_have_still_to_get():
    async def scenario():
        one, two = [], []
        async with System() as system:
            counter = await system.start(Child(Counter, 40, dispatcher="broadcast", demand="accumulate"))
            more = Child(Meddler, one, lambda: counter.driver.instance.stage.emit([-1]), subscribe_to=[counter])
            await system.start(more)
            await system.start(Child(Meddler, two, subscribe_to=[To(counter, max_demand=8)]))
            counter.set_demand("forward")
            await system.wait()
        assert one == two
        assert one[0] == 0
        assert sorted(one) == list(range(-1, 40))
        assert [event for event in one if event >= 0] == list(range(40))

    run(scenario)


def test_a_subscriber_that_a_handler_has_cancelled_gets_what_was_on_its_way():
    async def scenario():
        one, two = [], []
        async with System() as system:
            counter = await system.start(Child(Counter, 40, dispatcher="broadcast", demand="accumulate"))
            subscriptions = []

            def cancel():
                counter.cancel(subscriptions[0])
                two.append(len(one))

            await system.start(Child(Meddler, one, cancel, subscribe_to=[To(counter, max_demand=8)]))
            other = await system.start(Child(Meddler, two))
            subscriptions.append(await other.subscribe(To(counter, max_demand=8, cancel="temporary")))
            counter.set_demand("forward")
            await counter.wait()
            await other.stop()
        assert one == list(range(40))
        had, *got = two
        assert len(got) >= had
        assert got == list(range(len(got)))

    run(scenario)


def test_what_partitions_ask_together_is_one_demand():
    async def scenario():
        seen, demands = [[], []], []
        async with System() as system:
            dispatcher = PartitionDispatcher(2, hash=lambda event: event % 2)
            counter = await system.start(Child(Counter, 60, demands, dispatcher=dispatcher, demand="accumulate"))
            for way, each in enumerate(seen):
                await system.start(Child(Meddler, each, subscribe_to=[To(counter, max_demand=8, partition=way)]))
            counter.set_demand("forward")
            await system.wait()
        assert seen == [list(range(0, 60, 2)), list(range(1, 60, 2))]
        assert max(demands) > 8

    run(scenario)


def test_a_source_that_several_keep_busy_still_answers_calls_and_takes_subscribers():
    async def scenario():
        seen = [[], [], []]
        async with System() as system:
            counter = await system.start(Child(Counter, demand="accumulate"))
            for each in seen[:2]:
                await system.start(Child(Meddler, each, subscribe_to=[To(counter, max_demand=8)]))
            counter.set_demand("forward")
            await until(lambda: all(len(each) > 100 for each in seen[:2]))
            assert await counter.call("anybody there?") == "anybody there?"
            await system.start(Child(Meddler, seen[2], subscribe_to=[To(counter, max_demand=8)]))
            await until(lambda: len(seen[2]) > 100)
            await counter.stop()

    run(scenario)
