"""Rows about the consumer supervisor: its options, its children, their restarts, its end, its demand."""

import asyncio
import contextlib
import math
from typing import Any

import pytest

from headgate import (
    Backoff,
    Child,
    ConsumerSupervisor,
    HeadgateError,
    Ignore,
    NoStageError,
    OptionError,
    Producer,
    RestartLimitError,
    StageCrashed,
    Stop,
    Supervisor,
    System,
    To,
)
from tests.parity.registry import different
from tests.parity.stages import Log, Source, batches, crashed, queue, refused, until

QUICK = Backoff(first=0.0001, most=0.001)
BUDGET = "each event has a budget of its own, waits between its restarts, and is a dead letter after the last"
LIMIT = (
    "a poison event ends nobody: unless max_restarts is given there is no limit, and if it is, "
    "the reason is a RestartLimitError that names the child, instead of a bare shutdown"
)


class Worker(Producer):
    """A child of its event: it starts as the event says, and ends as it is told by ``end``."""

    def __init__(self, book, event=None):
        self.book = book
        self.event = event
        book.began.append(event)
        outcome = book.starts[event].pop(0) if book.starts.get(event) else "ok"
        if isinstance(outcome, BaseException):
            raise outcome
        self.outcome = outcome

    def started(self):
        self.book.running[self.event] = self.stage.ref

    def handle_cast(self, message):
        raise message

    def terminate(self, reason):
        self.book.ended.append((self.event, reason))


class Stubborn(Worker):
    """Is at something that never ends."""

    async def started(self):
        super().started()
        self.stage.cast("go")

    async def handle_cast(self, message):
        await asyncio.Event().wait()


class Book:
    """What the children do.

    Args:
        starts: What the starts of an event's child lead to, one after the other: ``"ok"`` or an exception.
    """

    def __init__(self, starts=None):
        self.starts = {event: list(outcomes) for event, outcomes in (starts or {}).items()}
        self.began = []
        self.ended = []
        self.running = {}

    def recipe(self, restart="temporary", cls=Worker, child_shutdown=5.0, **options):
        child = Child(cls, self, restart=restart, shutdown=child_shutdown)
        return ConsumerSupervisor(child, **{"backoff": QUICK, **options})

    def end(self, event, how):
        """Let a child end: by raising this."""
        self.running[event].cast(how)


@contextlib.asynccontextmanager
async def alone(book, **options):
    """Start a supervisor without a producer."""
    async with System(on_error=lambda error: None) as system:
        yield await system.start(book.recipe(**options))


async def feed(system, *events, log=None):
    source: Any = await system.start(Child(Source, Log() if log is None else log))
    await source.call(queue(*events))
    return source


def test_the_default_recipe_and_one_with_everything_of_its_own():
    """G169: a recipe under a supervisor is what a child specification is."""
    recipe = Book().recipe()
    assert (recipe.id, recipe.restart, recipe.shutdown, recipe.name) == ("Worker", "permanent", 10.0, None)
    own = ConsumerSupervisor(print, id="own", name="work", restart="transient", shutdown=7)
    assert (own.id, own.restart, own.shutdown, own.name) == ("own", "transient", 7.0, "work")


@different("G170", "there is no strategy to give, as only one_for_one fits; every other mistake is an OptionError")
async def test_wrong_options_are_refused():
    """G170: and a child that does not want to run is Ignore."""
    wrong: list[Any] = [[print], [], None, {}]
    for child in wrong:
        with refused(OptionError, "child"):
            ConsumerSupervisor(child)
    with refused(OptionError, "max_restarts", "integer"):
        ConsumerSupervisor(print, max_restarts="no")  # type: ignore[arg-type]
    with refused(OptionError, "max_seconds"):
        ConsumerSupervisor(print, max_seconds="no")  # type: ignore[arg-type]
    with refused(OptionError, "subscribe_to", "list"):
        ConsumerSupervisor(print, subscribe_to="producer")
    with refused(OptionError, "strategy", "known options"):
        ConsumerSupervisor(print, strategy="one_for_one")


def test_a_permanent_child_and_a_wrong_shutdown_are_refused():
    """G171: with an explanation."""
    with refused(OptionError, "restart", "'temporary' or 'transient'", "when its event is done"):
        ConsumerSupervisor(Child(Worker, Book()))
    with refused(OptionError, "child_restart", "'temporary' or 'transient'"):
        ConsumerSupervisor(print, child_restart="permanent")
    with refused(OptionError, "shutdown", "seconds"):
        Child(Worker, Book(), restart="temporary", shutdown="brutal_kill")  # type: ignore[arg-type]
    with refused(OptionError, "child_shutdown", "seconds"):
        ConsumerSupervisor(print, child_shutdown=-1)


async def test_it_is_found_under_its_name():
    """G174, G178: what starts it owns it."""
    async with System() as system:
        ref: Any = await system.start(Book().recipe(name="work"))
        assert system.ref("work") == ref
        await ref.start_child(1)
    assert not ref.alive


def test_the_child_may_be_a_class_with_arguments():
    """G176: module and argument."""
    recipe = ConsumerSupervisor(Worker, Book(), child_restart="transient")
    assert recipe.id == "Worker"


def test_the_child_may_be_a_bare_class_or_function():
    """G177: a bare module."""

    class Bare(Producer):
        def __init__(self, event):
            self.event = event

    assert ConsumerSupervisor(Bare).id == "Bare"
    assert ConsumerSupervisor(print).id == "print"


async def test_a_child_is_started_by_hand():
    """G181: ok, error, ignore; no other value can come from a start."""
    book = Book({"error": [ValueError("found")], "ignore": [Ignore()]})
    async with alone(book) as ref:
        first, second = await ref.start_child("a"), await ref.start_child("b")
        assert first != second
        assert [(each.id, each.state, each.ref) for each in ref.children()] == [
            (first, "running", book.running["a"]),
            (second, "running", book.running["b"]),
        ]
        with refused(StageCrashed, "found"):
            await ref.start_child("error")
        with pytest.raises(Ignore):
            await ref.start_child("ignore")
        assert ref.count() == (1, 2, 0, 2)


async def test_a_start_by_hand_that_raises_is_told_to_the_caller():
    """G182: raise, throw and exit are all exceptions here."""
    for error in (ValueError("oops"), KeyError("oops"), HeadgateError("oops")):
        book = Book({1: [error]})
        async with alone(book) as ref:
            with pytest.raises(HeadgateError) as caught:
                await ref.start_child(1)
            assert caught.value is error or caught.value.__cause__ is error
            assert ref.count() == (1, 0, 0, 0)


REASONS = [Stop(), Stop("shutdown"), Stop(("shutdown", "x")), Stop("whoops"), ValueError("whoops")]


async def test_a_temporary_child_is_never_started_again():
    """G183: whatever its reason."""
    book = Book()
    async with alone(book) as ref:
        for event, reason in enumerate(REASONS):
            await ref.start_child(event)
            assert ref.count() == (1, 1, 0, 1)
            book.end(event, reason)
            await until(lambda: ref.count() == (1, 0, 0, 0))
        assert book.began == list(range(len(REASONS)))


async def test_a_transient_child_is_started_again_when_it_ends_abnormally():
    """G184: not after normal, shutdown, (shutdown, x)."""
    book = Book()
    async with alone(book, restart="transient") as ref:
        for event, reason in enumerate(REASONS[:3]):
            await ref.start_child(event)
            book.end(event, reason)
            await until(lambda: ref.count() == (1, 0, 0, 0))
        for event, reason in enumerate(REASONS[3:], 3):
            await ref.start_child(event)
            before = book.running[event]
            book.end(event, reason)
            await until(lambda event=event, before=before: book.running[event] is not before)
            await until(lambda event=event: ref.count() == (1, event - 2, 0, event - 2))
        assert book.began == [0, 1, 2, 3, 3, 4, 4]


@different("G185", f"a restart that cannot be started is not left as it is: {BUDGET}")
async def test_what_a_restart_leads_to():
    """G185: ok keeps it, ignore removes it, errors are tried again until the budget is spent."""
    never = [ValueError("no")] * 9
    book = Book({"ok": ["ok", "ok"], "ignore": ["ok", Ignore()], "error": ["ok", *never]})
    async with System() as system:
        ref: Any = await system.start(book.recipe(restart="transient", retries=2))
        for event in ("ok", "ignore", "error"):
            await ref.start_child(event)
            book.end(event, ValueError("again"))
        await until(lambda: ref.count() == (1, 1, 0, 1))
        await until(lambda: [letter.event for letter in system.letters] == ["error"])
        assert [book.began.count(event) for event in ("ok", "ignore", "error")] == [2, 2, 3]


async def test_a_restart_that_fails_once_is_tried_again():
    """G186: each attempt counts."""
    book = Book({1: ["ok", ValueError("once"), "ok"]})
    async with alone(book, restart="transient", max_restarts=2) as ref:
        await ref.start_child(1)
        book.end(1, ValueError("again"))
        await until(lambda: len(book.began) == 3 and ref.count() == (1, 1, 0, 1))
        assert ref.children()[0].restarts == 2


@different("G187", LIMIT)
async def test_too_many_restarts_end_it():
    """G187: with a RestartLimitError."""
    book = Book()
    async with alone(book, restart="transient", max_restarts=1, max_seconds=60) as ref:
        await ref.start_child(1)
        before = book.running[1]
        book.end(1, ValueError("one"))
        await until(lambda: book.running[1] is not before)
        book.end(1, ValueError("two"))
        crash = await crashed(ref)
        assert isinstance(crash.__cause__, RestartLimitError)
        assert ref.children() == []


@different("G189", LIMIT)
async def test_a_restart_that_fails_over_and_over_ends_it():
    """G189: at the limit."""
    book = Book({1: ["ok", *[ValueError("no")] * 50]})
    async with alone(book, restart="transient", retries=100, max_restarts=10, max_seconds=60) as ref:
        await ref.start_child(1)
        book.end(1, ValueError("again"))
        crash = await crashed(ref)
        assert isinstance(crash.__cause__, RestartLimitError)
        assert len(book.began) == 11


async def three(book, **options):
    """Stop a supervisor with three children; return why they ended."""
    async with alone(book, **options) as ref:
        for event in (1, 2, 3):
            await ref.start_child(event)
        await until(lambda: all(each.driver.core.state == "running" for each in book.running.values()))
        assert await ref.stop("shutdown") == "shutdown"
        assert not any(each.alive for each in book.running.values())
        return [book.running[event].reason for event in (1, 2, 3)]


async def test_no_time_at_all_means_that_children_are_killed():
    """G190: brutal kill is a limit of 0 seconds."""
    assert await three(Book(), cls=Stubborn, child_shutdown=0) == ["killed"] * 3


async def test_without_a_limit_children_end_by_themselves():
    """G191: math.inf seconds."""
    book = Book()
    assert await three(book, child_shutdown=math.inf) == ["shutdown"] * 3
    assert sorted(book.ended) == [(1, "shutdown"), (2, "shutdown"), (3, "shutdown")]


class Odd(Worker):
    """Ends with a reason of its own."""

    def terminate(self, reason):
        raise Stop(("shutdown", "other"))


async def test_a_reason_of_their_own_disturbs_nobody():
    """G192, G194: without a limit, and with one of a second."""
    for limit in (math.inf, 1.0):
        assert await three(Book(), cls=Odd, child_shutdown=limit) == ["shutdown"] * 3


async def test_after_the_limit_those_that_are_left_are_killed():
    """G195: the obedient ones have ended by themselves."""

    class Some(Stubborn):
        async def handle_cast(self, message):
            if self.event == 2:
                await super().handle_cast(message)

    assert await three(Book(), cls=Some, child_shutdown=0.02) == ["shutdown", "killed", "shutdown"]


async def test_one_child_is_terminated():
    """G196: the second request says that there is none."""
    book = Book()
    async with alone(book, child_shutdown=0.0) as ref:
        child = await ref.start_child(1)
        assert ref.count() == (1, 1, 0, 1)
        await ref.stop_child(child)
        assert not book.running[1].alive
        with refused(NoStageError, child):
            await ref.stop_child(child)
        assert ref.count() == (1, 0, 0, 0)
        assert ref.children() == []


async def test_a_child_between_restarts_is_terminated():
    """G198: the second request says that there is none."""
    book = Book({1: ["ok", "ok"]})
    async with alone(book, restart="transient", backoff=Backoff(first=60, jitter=0)) as ref:
        child = await ref.start_child(1)
        first = book.running[1]
        book.end(1, ValueError("one"))
        await until(lambda: book.running[1] is not first)
        book.end(1, ValueError("two"))
        await until(lambda: [each.state for each in ref.children()] == ["waiting"])
        assert ref.count() == (1, 0, 0, 1)
        await ref.stop_child(child)
        assert ref.count() == (1, 0, 0, 0)
        with refused(NoStageError, child):
            await ref.stop_child(child)


async def test_a_permanent_subscription_to_nobody_ends_it():
    """G201, G202: an unknown name, and a producer that has ended."""
    async with System() as system:
        dead = await system.start(Child(Source))
        await dead.stop()
        for producer in ("unknown", dead):
            with pytest.raises(HeadgateError, match=r"no stage|no such stage"):
                await system.start(Book().recipe(subscribe_to=[To(producer, cancel="permanent")]))
        assert system.stages() == []


async def test_a_temporary_subscription_to_nobody_does_not():
    """G203, G204: an unknown name, and a producer that has ended."""
    async with System(on_error=lambda error: None) as system:
        dead = await system.start(Child(Source))
        await dead.stop()
        for producer in ("unknown", dead):
            ref: Any = await system.start(Book().recipe(subscribe_to=[To(producer, cancel="temporary")]))
            assert ref.alive


async def test_events_become_children():
    """G205: those that cannot be started, or are not to run, do not disturb the others."""
    book = Book({"error": [ValueError("no")], "ignore": [Ignore()]})
    async with System() as system:
        source = await feed(system, "a", "error", "b", "ignore", "c")
        ref: Any = await system.start(book.recipe(subscribe_to=[source]))
        await until(lambda: len(book.running) == 3 and ref.count() == (1, 3, 0, 3) and system.letters)
        assert sorted(book.running) == ["a", "b", "c"]
        assert [letter.event for letter in system.letters] == ["error"]


async def test_one_at_a_time():
    """G208: the next one comes when a child ends, cannot be started, is not to run, or is terminated."""
    book = Book({2: [ValueError("no")], 3: [Ignore()]})
    async with System() as system:
        source = await feed(system, *range(6))
        ref: Any = await system.start(book.recipe(subscribe_to=[To(source, max_demand=1, min_demand=0)]))
        await until(lambda: ref.count() == (1, 1, 0, 1) and 0 in book.running)
        book.end(0, Stop())
        await until(lambda: 1 in book.running)
        assert book.began == [0, 1]
        book.end(1, Stop())
        await until(lambda: 4 in book.running)
        assert book.began == [0, 1, 2, 3, 4]
        await until(lambda: ref.count() == (1, 1, 0, 1))
        await ref.stop_child(ref.children()[0].id)
        await until(lambda: 5 in book.running)


async def test_a_child_that_waits_for_its_restart_keeps_its_slot():
    """G209: terminating it frees the slot; its crash asks for nothing."""
    book = Book()
    log = Log()
    async with System() as system:
        source = await feed(system, 0, 1, log=log)
        backoff = Backoff(first=60, jitter=0)
        to = [To(source, max_demand=1, min_demand=0)]
        ref: Any = await system.start(book.recipe(restart="transient", backoff=backoff, subscribe_to=to))
        await until(lambda: 0 in book.running)
        first = book.running[0]
        book.end(0, ValueError("one"))
        await until(lambda: book.running[0] is not first)
        book.end(0, ValueError("two"))
        await until(lambda: [each.state for each in ref.children()] == ["waiting"])
        assert batches(log, "demand") == []  # the buffer has what was asked for
        assert source.statistics().buffered == 1
        await ref.stop_child(ref.children()[0].id)
        await until(lambda: 1 in book.running)


async def test_new_demand_waits_for_as_many_ends_as_min_demand_says():
    """G211: max 3, min 2; never more than three at a time."""
    book = Book()
    log = Log()
    async with System() as system:
        source: Any = await system.start(Child(Source, log))
        ref: Any = await system.start(book.recipe(subscribe_to=[To(source, max_demand=3, min_demand=2)]))
        await until(lambda: batches(log, "demand") == [3])
        await source.call(queue(0, 1, 2))
        await until(lambda: len(book.running) == 3)
        book.end(0, Stop())
        await until(lambda: ref.count() == (1, 2, 0, 2))
        assert batches(log, "demand") == [3]
        book.end(1, Stop())
        await until(lambda: batches(log, "demand") == [3, 2])
        await source.call(queue(3, 4))
        await until(lambda: ref.count() == (1, 3, 0, 3))


async def test_fewer_events_than_asked_for_lead_to_no_more_demand():
    """G212: max 3, min 0."""
    book = Book()
    log = Log()
    async with System() as system:
        source: Any = await system.start(Child(Source, log))
        ref: Any = await system.start(book.recipe(subscribe_to=[To(source, max_demand=3, min_demand=0)]))
        await until(lambda: batches(log, "demand") == [3])
        await source.call(queue(0, 1))
        await until(lambda: len(book.running) == 2 and ref.count() == (1, 2, 0, 2))
        assert batches(log, "demand") == [3]
        book.end(0, Stop())
        await until(lambda: batches(log, "demand") == [3, 1])


def test_it_stands_in_a_supervisor_like_any_child():
    """As its recipe says."""
    assert [child.id for child in Supervisor([Book().recipe(id="a"), Book().recipe(id="b")]).children] == ["a", "b"]
