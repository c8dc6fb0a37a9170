"""Neighbouring element-wise operators as one loop over a batch.

Each operator is one iterator of the interpreter's own (``map``, ``filter``, ``chain``) over the one before, so that an
event costs the calls of the user's functions and nothing else: no list in between, no bytecode of ours. Which event was
at work when a function raised is read off the iterator over the batch afterwards; nothing is noted while all is well.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, filterfalse
from typing import Any, Final, Protocol

from headgate.errors import FlowError, HandlerError, OperatorError
from headgate.flow.operators import (
    FILTER,
    FLAT_MAP,
    MAP,
    MAP_BATCHES,
    MAP_VALUES,
    REJECT,
    TAP,
    Element,
    Failure,
    failed,
)
from headgate.protocol.batching import is_batch, rows

Loop = Callable[[Iterable[Any]], Iterable[Any]]
_FAILED: Final[Any] = object()


class Notes(Protocol):
    """Where a worker notes what it leaves out."""

    def skipped(self, operator: Element, event: Any, error: Exception) -> None:
        """Count an event that an operator has failed with, and send it to its side output."""


def fuse(elements: Sequence[Element], notes: Notes) -> Loop:
    """Return one function that applies all of them to a batch, lazily."""
    loops = [_loop(each, notes) for each in elements]
    if len(loops) == 1:
        return loops[0]

    def run(events: Iterable[Any]) -> Iterable[Any]:
        for loop in loops:
            events = loop(events)
        return events

    return run


def _loop(each: Element, notes: Notes) -> Loop:
    """Return the operator as a function of a batch; one of single events gets rows where there are columns."""
    loop = _plain_loop(each, notes)
    return loop if each.kind == MAP_BATCHES else lambda events: loop(as_rows(events))


def _plain_loop(each: Element, notes: Notes) -> Loop:
    function = _careful(each, notes) if each.careful else each.function
    kind = each.kind
    if each.careful:
        if kind in (FILTER, REJECT):
            wanted = kind == FILTER
            return lambda events: (event for event, keep in _pairs(function, events) if bool(keep) is wanted)
        if kind == FLAT_MAP:
            return lambda events: chain.from_iterable(x for x in map(function, events) if x is not _FAILED)
        if kind == MAP_BATCHES:
            return lambda events: _batch(each, function, events, ())
        return lambda events: (x for x in map(function, events) if x is not _FAILED)
    if kind == MAP:
        return lambda events: map(function, events)
    if kind == FILTER:
        return lambda events: filter(function, events)
    if kind == REJECT:
        return lambda events: filterfalse(function, events)
    if kind == FLAT_MAP:
        return lambda events: chain.from_iterable(map(function, events))
    if kind in (MAP_VALUES, TAP):
        inner = _inner(each)
        return lambda events: map(inner, events)
    if kind == MAP_BATCHES:
        return lambda events: _batch(each, function, events)
    raise FlowError(f"there is no element-wise operator {kind!r}")


def _inner(each: Element) -> Callable[[Any], Any]:
    """Return what the operator does with one event."""
    function = each.function
    if each.kind == MAP_VALUES:

        def values(pair: Any) -> Any:
            key, value = pair
            return key, function(value)

        return values
    if each.kind == TAP:

        def tap(event: Any) -> Any:
            function(event)
            return event

        return tap
    if each.kind == FLAT_MAP:  # so that what the iterator raises is this operator's as well
        return lambda event: list(function(event))
    return function


def _pairs(function: Callable[[Any], Any], events: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    for event in events:
        keep = function(event)
        if keep is not _FAILED:
            yield event, keep


def _careful(each: Element, notes: Notes) -> Callable[[Any], Any]:
    """Return a function that goes on when the user's has raised."""
    inner, retries = _inner(each), each.retries

    def call(event: Any) -> Any:
        for attempt in range(retries + 1):
            try:
                return inner(event)
            except Exception as error:  # the user's function
                if attempt < retries:
                    continue
                if each.fails == "raise":
                    raise failed(each.where, event, error) from error
                notes.skipped(each, event, error)
        return _FAILED

    return call


def _batch(each: Element, function: Callable[[Any], Any], events: Any, *otherwise: Any) -> Any:
    """Give a whole batch to a function."""
    batch = events if is_batch(events) else list(events)
    if not len(batch):
        return batch
    result = function(batch)
    if result is _FAILED and otherwise:
        return otherwise[0]
    if not is_batch(result):
        raise HandlerError(each.where, "the function", "a sequence of events (list, tuple, range, array, ...)", result)
    return result


def as_rows(events: Any) -> Any:
    """Return something to iterate over, event by event."""
    return rows(events) if hasattr(events, "num_rows") else events


def failure(each: Element, event: Any, error: Exception) -> Failure:
    """Return what a side output gets."""
    raised = failed(each.where, event, error)
    return Failure(event, each.where, raised.error, raised.traceback)


def blame(elements: Sequence[Element], events: Any, iterator: Any, error: Exception) -> Exception:
    """Find out which operator has raised, and for which event.

    Args:
        elements: The operators of the loop, in order.
        events: The batch.
        iterator: The one over the batch, as it stands now.
        error: What was raised.

    Returns:
        An `OperatorError`; or the error as it is, if it is one of ours or comes from elsewhere.
    """
    if isinstance(error, (OperatorError, HandlerError)) or not elements:
        return error
    codes = {getattr(each.function, "__code__", None): each for each in elements}
    codes.pop(None, None)
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        each = codes.get(code)
        if each is not None and code.co_argcount:
            event = trace.tb_frame.f_locals.get(code.co_varnames[0], _FAILED)
            if event is not _FAILED:
                return failed(each.where, event, error)
        trace = trace.tb_next
    if elements[0].kind == MAP_BATCHES:
        return failed(elements[0].where, events, error)
    try:
        index = len(events) - operator.length_hint(iterator) - 1
        event = events[index]
    except Exception:  # noqa: BLE001 (a batch of the user's that cannot be indexed)
        return failed(elements[-1].where, None, error)
    return _search(elements, event, error)


def _search(elements: Sequence[Element], event: Any, error: Exception) -> Exception:
    """Follow one event through functions that are not written in Python, to the one that raises."""
    at = [event]
    for each in elements:
        if each.kind == MAP_BATCHES:
            return failed(each.where, at, error)
        given, at = at, []
        for one in given:
            try:
                value = _inner(each)(one)
            except Exception as again:  # noqa: BLE001 (what we look for)
                if type(again) is type(error):
                    return failed(each.where, one, error)
                return failed(each.where, event, error)
            if each.kind == FLAT_MAP:
                at.extend(value)
            elif each.kind not in (FILTER, REJECT):
                at.append(value)
            elif bool(value) is (each.kind == FILTER):
                at.append(one)
    return error  # it came from somewhere else: an aggregation, a key
