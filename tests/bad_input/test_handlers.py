# mypy: disable-error-code="assignment,var-annotated"
"""What a handler may do wrong: a typed error names the stage, and everybody else goes on receiving everything."""

import asyncio
import contextlib
from collections import UserDict, deque
from types import MappingProxyType

import numpy as np
import pytest

from headgate import (
    BufferOverflowError,
    Child,
    Consumer,
    HandlerError,
    HeadgateError,
    OptionError,
    Producer,
    ProducerConsumer,
    StageCrashed,
    System,
    To,
)
from tests.places.helpers import Collect, Counter, calm, child, run, until


@pytest.fixture(params=["inline", "task", "thread"])
def place(request):
    return request.param


class Unsliceable:
    """Says that it is a sequence, and fails when it is cut."""

    def __len__(self):
        return 7

    def __getitem__(self, index):
        raise RuntimeError("no slices here")


class BadLength:
    def __len__(self):
        raise RuntimeError("no length here")

    def __getitem__(self, index):
        return index


class NoTruth:
    def __bool__(self):
        raise RuntimeError("neither true nor false")

    def __eq__(self, other):
        raise RuntimeError("not comparable")

    __hash__ = None


class NoText:
    def __repr__(self):
        raise RuntimeError("no text")


async def sleeping():
    await asyncio.sleep(0)


WRONG = {
    "int": lambda: 5,
    "zero": lambda: 0,
    "minus": lambda: -1,
    "float": lambda: 1.5,
    "nan": lambda: float("nan"),
    "true": lambda: True,
    "false": lambda: False,
    "str": lambda: "text",
    "empty str": lambda: "",
    "bytes": lambda: b"bytes",
    "bytearray": lambda: bytearray(b"x"),
    "memoryview": lambda: memoryview(b"x"),
    "dict": lambda: {"a": 1},
    "empty dict": dict,
    "mapping": lambda: UserDict(a=1),
    "proxy": lambda: MappingProxyType({"a": 1}),
    "set": lambda: {1, 2},
    "frozenset": lambda: frozenset({1}),
    "generator": lambda: (each for each in [1, 2]),
    "iterator": lambda: iter([1]),
    "deque": lambda: deque([1, 2, 3]),
    "object": object,
    "class": lambda: list,
    "function": lambda: len,
    "exception": lambda: ValueError("returned, not raised"),
    "ellipsis": lambda: ...,
    "number of numpy": lambda: np.int64(3),
    "array without dimensions": lambda: np.array(5),
    "unsliceable": Unsliceable,
    "bad length": BadLength,
    "no truth": NoTruth,
    "no text": NoText,
}
wrong = pytest.mark.parametrize("make", WRONG.values(), ids=WRONG.keys())


def quiet(errors=None):
    return System(on_error=(errors if errors is not None else []).append)


async def bystanders(system, place, seen):
    """A pipeline next to the one at fault: it has to go on."""
    counter = await system.start(child(place, Counter, 200))
    return await system.start(child(place, Collect, seen, subscribe_to=[To(counter, max_demand=10)]))


def the_error(crash, name, callback):
    error = crash.__cause__
    assert isinstance(error, (HeadgateError, RuntimeError))
    assert "culprit" in str(crash)
    if isinstance(error, HandlerError):
        assert (error.stage, error.callback) == (name, callback)
        assert "\n" not in str(error)


class Giver(Producer):
    def __init__(self, make):
        self.make = make

    def handle_demand(self, demand):
        return self.make()


@wrong
def test_a_producer_that_gives_what_is_no_sequence_ends_and_nobody_else(place, make):
    async def scenario():
        seen = []
        async with quiet() as system:
            other = await bystanders(system, place, seen)
            culprit = await system.start(child(place, Giver, make, name="culprit"))
            sink = await system.start(child(place, Collect))
            await sink.subscribe(culprit, max_demand=3, cancel="temporary")
            with pytest.raises(StageCrashed) as caught:
                await culprit.wait()
            the_error(caught.value, "culprit", "handle_demand")
            await other.wait()
            assert sink.alive
        assert seen == list(range(200))

    run(scenario)


class Turner(ProducerConsumer):
    def __init__(self, make):
        self.make = make

    def handle_events(self, events, source):
        return self.make()


@wrong
def test_a_middle_stage_that_gives_what_is_no_sequence_gives_its_input_back(place, make):
    async def scenario():
        seen = []
        async with quiet() as system:
            counter = await system.start(child(place, Counter, 20))
            culprit = await system.start(child(place, Turner, make, name="culprit"))
            await culprit.subscribe(counter, max_demand=5)
            sink = await system.start(child(place, Collect))
            await sink.subscribe(culprit, max_demand=3, cancel="temporary")
            with pytest.raises(StageCrashed) as caught:
                await culprit.wait()
            the_error(caught.value, "culprit", "handle_events")
            assert counter.alive
            await (await system.start(child(place, Collect, seen, subscribe_to=[counter]))).wait()
        assert seen == list(range(20))

    run(scenario)


class Returner(Collect):
    def __init__(self, make, seen):
        super().__init__(seen)
        self.make = make

    def handle_events(self, events, source):
        super().handle_events(events, source)
        return self.make()


@wrong
def test_a_consumer_that_returns_something_is_told_and_goes_on(place, make):
    async def scenario():
        seen, errors = [], []
        async with quiet(errors) as system:
            counter = await system.start(child(place, Counter, 20))
            sink = await system.start(
                child(place, Returner, make, seen, name="culprit", subscribe_to=[To(counter, max_demand=5)])
            )
            await sink.wait()
        assert seen == list(range(20))
        assert all(isinstance(error, HandlerError) and error.stage == "culprit" for error in errors)

    run(scenario)


class Anything(Producer):
    """Returns (or answers) the wrong value from whichever callback is chosen."""

    def __init__(self, callback, make):
        self.callback = callback
        self.make = make

    def give(self, callback):
        return self.make() if callback == self.callback else None

    def started(self):
        return self.give("started")

    def terminate(self, reason):
        return self.give("terminate")

    def handle_subscribe(self, role, options, peer):
        return self.give("handle_subscribe")

    def handle_cancel(self, reason, peer):
        return self.give("handle_cancel")

    def handle_call(self, request):
        return self.give("handle_call")

    def handle_cast(self, message):
        return self.give("handle_cast")

    def handle_info(self, message):
        return self.give("handle_info")

    def handle_discarded(self, count):
        return self.give("handle_discarded")


CALLBACKS = [name for name in vars(Anything) if name.startswith("handle_") or name in ("started", "terminate")]


@pytest.mark.parametrize("callback", CALLBACKS)
def test_every_wrong_value_from_every_callback_is_a_typed_error_or_taken_and_never_a_hang(place, callback):
    """The sweep: whatever comes, the stage can be reached or has ended with a typed error, and stops in time."""

    async def one(make):
        async with quiet() as system:
            culprit = await system.start(
                child(place, Anything, callback, make, name="culprit", buffer_size=1, buffer_keep="last")
            )
            sink = await system.start(child(place, Collect))
            try:
                subscription = await sink.subscribe(culprit, mode="manual", cancel="temporary", timeout=2)
                sink.cancel(subscription)
            except HeadgateError:
                pass
            culprit.cast(None)
            culprit.info(None)
            culprit.driver.context.emit([1, 2, 3]) if culprit.alive else None
            with contextlib.suppress(HeadgateError):
                await culprit.call(None, timeout=2)
            await calm(culprit, sink)
            await culprit.stop(timeout=2)
            assert culprit.reason != "killed", "it did not stop by itself"
            assert sink.alive
            try:
                await culprit.wait()
            except StageCrashed as crash:
                the_error(crash, "culprit", callback)

    async def scenario():
        for name, make in WRONG.items():
            try:
                await one(make)
            except StageCrashed as crash:
                the_error(crash, "culprit", callback)
            except (Exception, asyncio.CancelledError) as error:
                error.add_note(f"the value was: {name}")
                raise

    run(scenario)


class Forgetful(Producer):
    def handle_demand(self, demand):
        return sleeping()


class ForgetfulSink(Consumer):
    def handle_events(self, events, source):
        return sleeping()


@pytest.mark.parametrize("at", ["inline", "thread"])
@pytest.mark.parametrize("cls", [Forgetful, ForgetfulSink])
def test_a_plain_handler_that_gives_an_awaitable_is_told_what_to_do(at, cls):
    async def scenario():
        seen = []
        async with quiet() as system:
            other = await bystanders(system, at, seen)
            culprit = await system.start(Child(cls, place=at, name="culprit"))
            peer = await system.start(child(at, Collect if cls is Forgetful else Counter))
            source, sink = (culprit, peer) if cls is Forgetful else (peer, culprit)
            await sink.subscribe(source, cancel="temporary")
            with pytest.raises(StageCrashed) as caught:
                await culprit.wait()
            assert isinstance(caught.value.__cause__, HandlerError)
            assert "awaitable" in str(caught.value.__cause__)
            assert peer.alive
            await other.wait()
        assert seen == list(range(200))

    run(scenario)


@pytest.mark.parametrize("at", ["inline", "thread"])
def test_an_async_handler_at_the_wrong_place_is_refused_when_it_is_written_down(at):
    class Async(Consumer):
        async def handle_events(self, events, source):
            pass

    with pytest.raises(OptionError, match="handle_events is async") as caught:
        Child(Async, place=at)
    assert caught.value.option == "place"


class Surplus(Producer):
    def handle_demand(self, demand):
        return list(range(demand + 2))


def test_more_events_than_asked_without_a_buffer(place):
    async def scenario():
        seen, errors = [], []
        async with quiet(errors) as system:
            culprit = await system.start(child(place, Surplus, name="culprit", buffer_size=0))
            sink = await system.start(child(place, Collect, seen))
            subscription = await sink.subscribe(culprit, mode="manual")
            for turn in (1, 2):
                sink.ask(subscription, 3)
                await until(lambda turn=turn: len(seen) == 3 * turn)
            await until(lambda: len(errors) == 2)
            assert culprit.alive
            assert culprit.statistics().discarded == {"buffer full": 4}
        for error in errors:
            assert isinstance(error, BufferOverflowError)
            assert (error.stage, error.buffer_size, error.refused) == ("culprit", 0, [3, 4])

    run(scenario)


class Raiser(Producer):
    def __init__(self, error):
        self.error = error

    def handle_cast(self, message):
        raise self.error


@pytest.mark.parametrize("error", [asyncio.CancelledError(), GeneratorExit(), BaseException("odd")], ids=repr)
def test_a_handler_that_raises_what_is_no_exception_ends_its_stage(place, error):
    """A plain handler may well meet a cancelled future; nobody may hang for it."""

    async def scenario():
        seen = []
        async with quiet() as system:
            other = await bystanders(system, place, seen)
            culprit = await system.start(child(place, Raiser, error, name="culprit"))
            culprit.cast("now")
            with pytest.raises(StageCrashed) as caught:
                async with asyncio.timeout(5):
                    await culprit.wait()
            assert caught.value.stage == "culprit"
            await other.wait()
        assert seen == list(range(200))

    run(scenario)
