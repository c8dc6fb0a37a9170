"""A function of the user's raises: who is told what, and what becomes of the other events."""

import asyncio
from typing import Any

import pytest

from headgate import Flow, OperatorError, OptionError
from headgate.errors import HandlerError
from headgate.flow import Side, retry, windows

NUMBERS = Flow.from_iterable(range(1000))


def inverse(x):
    return 1 / (x - 500)


def line_of(function):
    return function.__code__.co_firstlineno


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_error_has_the_operator_its_line_the_event_and_the_cause(workers):
    flow = NUMBERS.options(workers=workers).filter(lambda x: x >= 0).map(inverse).map(str)
    with pytest.raises(OperatorError) as caught:
        flow.to_list()
    error = caught.value
    assert error.event == 500
    line = line_of(test_the_error_has_the_operator_its_line_the_event_and_the_cause)
    assert error.operator == f"map(inverse) at test_errors.py:{line + 2}"
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert "ZeroDivisionError" in error.error
    assert "in inverse" in error.traceback


def test_a_function_that_is_not_written_in_python_is_found_as_well():
    texts = Flow.from_iterable(["1", "2", "x", "4"])
    with pytest.raises(OperatorError, match=r"map\(int\) at test_errors.py:\d+ raised ValueError.*for 'x'"):
        texts.map(str.strip).filter(len).map(int).map(abs).to_list()


@pytest.mark.parametrize(
    ("build", "operator"),
    [
        (lambda flow: flow.filter(inverse), "filter"),
        (lambda flow: flow.reject(inverse), "reject"),
        (lambda flow: flow.flat_map(lambda x: [inverse(x)]), "flat_map"),
        (lambda flow: flow.map(lambda x: (x, x)).map_values(inverse), "map_values"),
        (lambda flow: flow.tap(inverse), "tap"),
        (lambda flow: flow.map_batches(lambda batch: list(map(inverse, batch))), "map_batches"),
        (lambda flow: flow.count_by(inverse), "count_by"),
        (lambda flow: flow.sum_by(halves, inverse), "sum_by"),
        (lambda flow: flow.group_by(inverse), "group_by"),
        (lambda flow: flow.uniq(inverse), "uniq"),
        (lambda flow: flow.sum(inverse), "sum"),
        (lambda flow: flow.top(3, inverse), "top"),
        (lambda flow: flow.reduce(int, lambda total, x: total + inverse(x)), "reduce"),
        (lambda flow: flow.window(windows.count(10)).reduce(int, lambda total, x: total + inverse(x)), "reduce"),
        (lambda flow: flow.window(windows.fixed(10, by=inverse)).count(), "count"),
        (lambda flow: flow.join(NUMBERS, inverse), "join"),
        (lambda flow: flow.map_async(later), "map_async"),
        (lambda flow: flow.reduce(int, int.__add__).on_trigger(lambda total: inverse(total - total + 500)), "reduce"),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_whatever_raises_ends_the_flow_with_its_name(build, operator, workers):
    with pytest.raises(OperatorError, match=operator) as caught:
        build(NUMBERS.options(workers=workers)).to_list()
    assert "ZeroDivisionError" in caught.value.error


def halves(x):
    return x // 2


async def later(x):
    await asyncio.sleep(0)
    return inverse(x)


def test_skipped_events_are_counted_and_some_are_shown():
    flow = NUMBERS.options(workers=2).map(lambda x: 1 // (x % 100), errors="skip")
    numbers = flow.run()
    ((operator, count),) = numbers.skipped.items()
    assert operator.startswith("map(lambda) at test_errors.py:")
    assert count == 10
    samples = numbers.samples[operator]
    assert {event % 100 for event, _ in samples} == {0}
    assert samples[0][1] == "ZeroDivisionError: integer division or modulo by zero"
    assert numbers.read == 1000
    assert flow.count().to_list() == [990]


@pytest.mark.parametrize("kind", ["map", "filter", "reject", "flat_map", "map_values", "tap"])
def test_a_side_output_gets_what_was_left_out(kind):
    side = Side()
    source = Flow.from_iterable([(x, x) for x in range(10)] if kind == "map_values" else range(10)).options(workers=2)
    function = {"flat_map": lambda x: [1 // (x - 3)], "map_values": lambda x: 1 // (x - 3)}.get(
        kind, lambda x: 1 // (x - 3)
    )
    getattr(source, kind)(function, errors=side).run()
    (failure,) = side.events
    assert failure.event == ((3, 3) if kind == "map_values" else 3)
    assert failure.operator.startswith(f"{kind}(lambda)")
    assert failure.error == "ZeroDivisionError: integer division or modulo by zero"
    assert "Traceback" in failure.traceback


def test_a_side_output_may_be_a_function():
    seen: list[Any] = []
    Flow.from_iterable(range(10)).map(lambda x: 1 // x, errors=Side(seen.extend)).run()
    assert [failure.event for failure in seen] == [0]


def test_a_function_is_called_again_before_it_counts_as_failed():
    calls = []

    def sometimes(x):
        calls.append(x)
        if calls.count(x) < 3:
            raise ValueError(x)
        return x

    assert Flow.from_iterable([1, 2]).map(sometimes, errors=retry(2)).to_list() == [1, 2]
    calls.clear()
    with pytest.raises(OperatorError, match="ValueError: 1"):
        Flow.from_iterable([1, 2]).map(sometimes, errors=retry(1)).to_list()
    calls.clear()
    assert Flow.from_iterable([1, 2]).map(sometimes, errors=retry(1, "skip")).to_list() == []


def test_a_source_that_raises_ends_the_flow():
    def source():
        yield 1
        raise LookupError("gone")

    with pytest.raises(Exception, match="gone") as caught:
        Flow.from_iterable(source()).map(str).to_list()
    assert isinstance(caught.value.__cause__, LookupError)


def test_a_batch_function_that_returns_no_batch():
    with pytest.raises((OperatorError, HandlerError), match="a sequence of events"):
        NUMBERS.map_batches(len).to_list()


@pytest.mark.parametrize(
    ("build", "what"),
    [
        (lambda: Flow.from_iterable(3), "iterable"),
        (lambda: Flow.from_iterable("text"), "iterable"),
        (lambda: Flow.from_iterables([]), "iterables"),
        (lambda: Flow.from_iterable(NUMBERS), "no flow"),
        (lambda: Flow.from_iterables(NUMBERS), "no flow"),
        (lambda: Flow.from_lines("/nowhere/*.txt"), "files that exist"),
        (lambda: Flow.from_lines(__file__, split=0), "split"),
        (lambda: Flow.from_lines(__file__, encoding="utf-16"), "encoding"),
        (lambda: NUMBERS.map(3), "function"),  # type: ignore[arg-type]
        (lambda: NUMBERS.map(str, errors="ignore"), "errors"),
        (lambda: NUMBERS.map_async(later, concurrency=0), "concurrency"),
        (lambda: NUMBERS.map_async(later, rate=0), "rate"),
        (lambda: NUMBERS.options(workers=0), "workers"),
        (lambda: NUMBERS.partition(workers=0), "workers"),
        (lambda: NUMBERS.partition(key=str, hash=int), "hash"),
        (lambda: NUMBERS.reduce(0, int.__add__), "init"),  # type: ignore[arg-type]
        (lambda: NUMBERS.on_trigger(str), "reduce"),
        (lambda: NUMBERS.emit("state"), "reduce"),
        (lambda: NUMBERS.count().emit("all"), "what"),
        (lambda: NUMBERS.window(3), "window"),  # type: ignore[arg-type]
        (lambda: NUMBERS.join(NUMBERS, str, how="cross"), "how"),
        (lambda: NUMBERS.join([1], str), "other"),  # type: ignore[arg-type]
        (NUMBERS.tee, "branches"),
        (NUMBERS.through, "stages"),
        (NUMBERS.into, "targets"),
        (lambda: NUMBERS.into(3), "targets"),
        (lambda: NUMBERS.top(0), "count"),
        (Flow.merge, "flows"),
        (lambda: retry(0), "times"),
        (lambda: NUMBERS.count().emit("state").emit("state"), "emit"),
        (lambda: NUMBERS.window(windows.count(3)).run(), "spec.*followed by a reduce"),
        (lambda: NUMBERS.count().window(windows.count(3)).map(str).to_list(), "followed by a reduce"),
        (lambda: NUMBERS.partition(window=windows.count(3)).to_list(), "followed by a reduce"),
        (lambda: NUMBERS.window(windows.count(3)).map(str).app(), "followed by a reduce"),
        (lambda: NUMBERS.window(windows.count(3)).explain(), "followed by a reduce"),
        (lambda: NUMBERS.map(str).departition(int, int.__add__, str).explain(), "departition"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_written_down(build, what):
    with pytest.raises(OptionError, match=what):
        build()


def test_a_key_that_no_two_processes_agree_on_is_refused():
    class Odd:
        pass

    with pytest.raises(OptionError, match="a key of numbers, text"):
        Flow.from_iterable([Odd(), Odd()]).options(workers=2).partition().to_list()


def test_a_hash_that_gives_no_partition():
    with pytest.raises(OperatorError, match="a number from 0 to 1"):
        NUMBERS.partition(hash=lambda _: 2, workers=2).to_list()
    with pytest.raises(OperatorError, match="a number from 0 to 1"):
        NUMBERS.partition(hash=lambda _: -1, workers=2).to_list()


@pytest.mark.parametrize("workers", [1, 2, 4])
async def test_iterating_a_flow_that_fails_at_once_says_why(workers):
    flow = NUMBERS.options(workers=workers).partition().map(inverse)
    for _ in range(5):
        with pytest.raises(OperatorError, match="ZeroDivisionError"):
            [event async for event in flow]
