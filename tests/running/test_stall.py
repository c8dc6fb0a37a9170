"""`system.diagnose()` says in words why nothing moves."""

import asyncio
import re
import threading

import pytest

from headgate import (
    Backoff,
    Child,
    Consumer,
    ConsumerSupervisor,
    PartitionDispatcher,
    Producer,
    ProducerConsumer,
    Supervisor,
    System,
    To,
    from_iterable,
)
from headgate.observe import stall
from tests.running.helpers import poll_async


class Numbers(Producer):
    def __init__(self, most=None):
        self.next = 0
        self.most = most

    def handle_demand(self, demand):
        first, self.next = self.next, self.next + demand
        if self.most is not None:
            self.next = min(self.next, self.most)
        return range(first, self.next)


class Silent(Producer):
    def handle_demand(self, demand):
        return []


class Emits(Producer):
    """Has no handle_demand."""


class Passes(ProducerConsumer):
    def handle_events(self, events, source):
        return events


class Hangs(Consumer):
    async def handle_events(self, events, source):
        await self.inner()

    async def inner(self):
        await asyncio.Event().wait()


class Eats(Consumer):
    def handle_events(self, events, source):
        pass


class Asks(Consumer):
    """Asks by hand, and has not."""

    def handle_events(self, events, source):
        pass


class Fails(Consumer):
    def handle_events(self, events, source):
        raise ValueError("cannot digest")


def settled(*recipes, change=lambda system: None, look=None):
    """Start stages, let them go as far as they get, and return the diagnosis."""

    async def main():
        async with System(on_error=lambda error: None) as system:
            for recipe in recipes:
                await system.start(recipe)
            change(system)
            for _ in range(30):
                await asyncio.sleep(0)
            found = system.diagnose()
            text = str(found)
            for ref in system.stages():
                ref.kill("shutdown")
            assert text
            return found

    return asyncio.run(main())


def why(name, *recipes, **options):
    found = settled(*recipes, **options)[name]
    return found.kind, found.why


def test_a_handler_that_runs_is_the_culprit_and_its_stack_is_shown():
    found = settled(
        Child(Numbers, name="numbers"), Child(Hangs, name="hangs", subscribe_to=[To("numbers", max_demand=4)])
    )
    assert found["hangs"].kind == "handler"
    assert found["hangs"].why == "runs handle_events with 2 events"
    assert "await self.inner()" in found["hangs"].stack
    assert "await asyncio.Event().wait()" in found["hangs"].stack
    assert [each.name for each in found.culprits] == ["hangs"]
    assert found["numbers"].why == "is asked for nothing: 'hangs' has 4 events in hand"
    assert "> hangs" in str(found)
    assert "await self.inner()" not in str(found)
    assert "await self.inner()" in found.render(stacks=True)


def test_a_handler_in_a_thread_has_a_stack_too():
    gate, entered = threading.Event(), threading.Event()

    class Waits(Consumer):
        def handle_events(self, events, source):
            entered.set()
            gate.wait(10)

    async def main():
        async with System() as system:
            await system.start(Child(Numbers, 2, name="numbers"))
            await system.start(Child(Waits, name="waits", place="thread", subscribe_to=["numbers"]))
            await poll_async(entered.is_set)
            found = system.diagnose()
            gate.set()
            return found

    found = asyncio.run(main())
    assert found["waits"].why == "runs handle_events with 2 events in its thread"
    assert "gate.wait(10)" in found["waits"].stack


def test_a_source_that_gives_nothing_is_the_culprit():
    found = settled(Child(Silent, name="silent"), Child(Eats, name="eats", subscribe_to=[To("silent", max_demand=8)]))
    assert (found["silent"].kind, found["silent"].why) == (
        "waits for events",
        "has no events: 8 asked for and not given",
    )
    assert found["eats"].kind == "waits for events"
    assert found["eats"].why == "waits for events: has asked 'silent' for 8"
    assert [each.name for each in found.culprits] == ["silent"]


def test_a_source_that_emits_by_itself_is_said_to():
    kind, text = why("emits", Child(Emits, name="emits"), Child(Eats, subscribe_to=[To("emits", max_demand=8)]))
    assert kind == "waits for events"
    assert "it has no handle_demand: it emits by itself" in text


def test_a_source_that_nobody_is_subscribed_to():
    assert why("numbers", Child(Numbers, name="numbers")) == ("idle", "nobody is subscribed")


def test_events_that_nobody_takes():
    def emit(system):
        system.ref("numbers").cast(None)

    class Casts(Producer):
        def handle_cast(self, message):
            return [1, 2, 3]

    found = why("numbers", Child(Casts, name="numbers"), change=emit)
    assert found == ("waits for demand", "has 3 events, and nobody is subscribed")


def test_a_stage_that_has_events_and_no_demand_names_who_does_not_ask():
    found = settled(
        Child(Numbers, name="numbers"),
        Child(Passes, name="passes", subscribe_to=[To("numbers", max_demand=10)]),
        Child(Hangs, name="hangs", subscribe_to=[To("passes", max_demand=2)]),
    )
    assert found["passes"].kind == "waits for demand"
    words = r"has \d+ events, and no demand: waits for 'hangs' to ask; it has 2 events in hand"
    assert re.fullmatch(words, found["passes"].why)
    assert [each.name for each in found.culprits] == ["hangs"]


def test_a_buffer_that_is_full():
    class Floods(Producer):
        def handle_cast(self, message):
            return range(message)

    def flood(system):
        system.ref("floods").cast(3)

    found = why("floods", Child(Floods, name="floods", buffer_size=3), change=flood)
    assert found == ("buffer full", "its buffer is full (3 events), and nobody is subscribed")


def test_a_paused_stage():
    found = settled(
        Child(Numbers, name="numbers"),
        Child(Eats, name="eats", subscribe_to=[To("numbers", max_demand=4)]),
        change=lambda system: system.pause("eats"),
    )
    assert found["eats"].kind == "paused"
    assert found["eats"].why == "is paused; it holds 4 events before its handler"
    assert [each.name for each in found.culprits] == ["eats"]


def test_an_accumulating_source():
    found = why(
        "numbers",
        Child(Numbers, name="numbers", demand="accumulate"),
        Child(Eats, subscribe_to=[To("numbers", max_demand=4)]),
    )
    assert found[0] == "accumulating"
    assert found[1] == "accumulates, until set_demand('forward'); consumers have asked for 4 events"


def test_a_stage_that_waits_for_a_name():
    found = why("eats", Child(Eats, name="eats", subscribe_to=[To("absent", retry=100)]))
    assert found == ("waits for a name", "waits for a stage named 'absent', which is to come")


def test_a_consumer_that_asks_by_hand_and_has_not():
    found = why(
        "asks", Child(Numbers, name="numbers"), Child(Asks, name="asks", subscribe_to=[To("numbers", mode="manual")])
    )
    assert found == ("idle", "has asked 'numbers' for nothing (manual)")


def test_a_consumer_that_is_subscribed_to_nobody():
    assert why("eats", Child(Eats, name="eats")) == ("idle", "is subscribed to nobody")


def test_a_partition_that_is_stuck():
    found = settled(
        Child(Numbers, name="numbers", dispatcher=PartitionDispatcher(2, queue_size=5)),
        Child(Hangs, name="hangs", subscribe_to=[To("numbers", partition=0, max_demand=2)]),
        Child(Eats, name="eats", subscribe_to=[To("numbers", partition=1, max_demand=2)]),
    )
    assert found["numbers"].kind == "partition stuck"
    assert "partition 0 is stuck: 5 events in its queue, and 'hangs' does not ask for more" in found["numbers"].why
    assert "'eats' waits for it" in found["numbers"].why
    assert [each.name for each in found.culprits] == ["hangs"]


def test_a_stage_that_finishes_says_for_what_it_waits():
    found = settled(
        from_iterable(range(3), name="numbers"), Child(Hangs, name="hangs", subscribe_to=[To("numbers", max_demand=8)])
    )
    assert found["numbers"].kind == "finishing"
    assert found["numbers"].why == "finishes: waits for 3 events that 'hangs' has and has not handled"


def test_children_of_a_consumer_supervisor():
    async def child(event):
        await asyncio.Event().wait()

    found = settled(
        Child(Numbers, name="numbers"),
        ConsumerSupervisor(child, name="spawner", subscribe_to=[To("numbers", max_demand=3)]),
    )
    assert found["spawner"].why == "runs 3 children"
    assert "await asyncio.Event().wait()" in found["spawner"].stack
    assert "3 children:" in found["spawner"].stack


def test_a_child_that_waits_for_its_restart():
    async def main():
        app = Supervisor(
            [Child(Numbers, name="numbers"), Child(Fails, name="fails", subscribe_to=["numbers"])],
            name="top",
            max_restarts=None,
            backoff=Backoff(first=60, most=60, jitter=0),
        )
        async with app as running:
            await poll_async(lambda: any(each.state == "waiting" for each in running.children()))
            return running.system.diagnose()

    found = asyncio.run(main())
    assert found["fails"].kind == "waits for its restart"
    assert found["fails"].why.startswith("waits for its restart by supervisor 'top', in ")
    assert found["fails"].why.endswith(" s; it ended: stage 'fails' crashed: ValueError: cannot digest")
    assert found["fails"].culprit


def test_a_second_look_knows_since_when_nothing_moves():
    async def main():
        async with System() as system:
            loop = asyncio.get_running_loop()
            await system.start(Child(Numbers, name="numbers"))
            await system.start(Child(Hangs, name="hangs", subscribe_to=[To("numbers", max_demand=4)]))
            for _ in range(30):
                await asyncio.sleep(0)
            first = system.diagnose()
            clock = loop.time
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(loop, "time", lambda: clock() + 125)
                second = system.diagnose()
            system.ref("hangs").kill("shutdown")
            return first, second

    first, second = asyncio.run(main())
    assert first.first
    assert str(first).startswith("This is the first look; a later one can tell what has not moved since.")
    assert second.seconds >= 125
    assert str(second).startswith("Nothing has moved for 2 min 5 s. It hangs on 'hangs':")
    assert "runs handle_events with 2 events  (for 2 min 5 s)" in str(second)


def test_what_moves_is_said_to_move():
    async def main():
        async with System() as system:
            await system.start(from_iterable(range(3), name="numbers"))
            await system.start(Child(Hangs, name="hangs", subscribe_to=[To("numbers", max_demand=2)]))
            system.diagnose()
            for _ in range(30):
                await asyncio.sleep(0)
            text = str(system.diagnose())
            system.ref("hangs").kill("shutdown")
            return text

    assert asyncio.run(main()).startswith("Events are moving.")


def test_a_system_without_stages():
    async def main():
        async with System() as system:
            return str(system.diagnose())

    assert asyncio.run(main()) == "No stage runs."


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.5, "0.5 s"), (12.7, "12 s"), (125, "2 min 5 s"), (11_400, "3 h 10 min")]
)
def test_times_read_well(seconds, text):
    assert stall.duration(seconds) == text


def test_names_read_well():
    assert stall.join(["a"]) == "'a'"
    assert stall.join(["a", "b"]) == "'a' and 'b'"
    assert stall.join("abcdefg") == "'a', 'b', 'c' and 4 more"
