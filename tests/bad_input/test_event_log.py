# mypy: disable-error-code="arg-type, call-overload"
"""What the event log is given, with every kind of wrong value: a typed error that names it, and nothing is written."""

import asyncio
import inspect
import math
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from headgate import EventError, OptionError, eventlog
from headgate.errors import short
from headgate.eventlog import (
    Event,
    EventLog,
    Policy,
    Projection,
    Types,
    accesses,
    archive,
    compare,
    compare_handlers,
    discard,
    explain,
    export_lines,
    fork,
    note_access,
    readers,
    reverse,
    reverse_correlation,
    reverse_stream,
    verify,
)

HUGE = 2**63
NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001 (without a time zone: that is what is wrong with it)


@dataclass
class Opened:
    owner: str


def kept(state, event):
    return {**state, event.type: event.position}


def same(*_):
    return None


SUMS = Projection("sums", kept)

# What is wrong for options of one kind.
NAMES = (5, True, b"a", ["a"], "", "a\nb", "a\0b", "\ud800", "x" * 1001, "\N{EURO SIGN}" * 334)
TEXTS = (5, b"a", "\ud800")
UNHELD = (*TEXTS, True, ["a"], "a\0b")
NUMBERS = (-1, 1.5, "1", True, math.nan, HUGE, 10**400)
COUNTS = (0, *NUMBERS)
PLACES = (-1, 1.5, "1", "yesterday", True, HUGE, NAIVE, (1,))
SEVERAL: tuple[Any, ...] = (5, [5], [""], ["\ud800"], {"a": None}.values, b"a", [], (), iter(()))
STREAMS = (None, *NAMES, "*", "a*")
PROJECTIONS = (5, "sums", None, kept)
FLAGS = (1, "yes", None)
FUNCTIONS = (5, "len")

LOG: dict[str, tuple[Any, ...]] = {
    "url": (5, None, b"log.db", "", "a\0b", "\ud800.db", "sqlite:", "sqlite://log.db", "mysql://h/db", "http://h"),
    "types": (5, None, "Opened", [5], Opened),
    "durability": (5, "", "strong", None, []),
    "master_key": (5, "x" * 32, b"", b"short", b"x" * 33),
    "max_event_size": COUNTS,
    "busy_timeout": (-1, "1", None, True, math.nan, math.inf, 1e300),
    "create": FLAGS,
    "projections": (5, None, [5], "sums", SUMS),
    "policy": (5, "mask", {}, Policy),
    "schema": (5, None, "", "a b", "A", "1a", 'a"b', "pg_log", "x" * 55, "é"),
    "clock": (5, "now", None),
}
COMMON = {"actor": NAMES, "reason": TEXTS, "correlation_id": NAMES, "causation_id": NAMES}
APPEND = {
    "stream": STREAMS,
    "events": (5, None, [None], [kept]),
    "expected_version": NUMBERS,
    "unless": (5, "x", [], kept),
    "after": (*NUMBERS, None),
    "connection": (5, "log.db"),
    **COMMON,
}
APPEND_ALL: dict[str, tuple[Any, ...]] = {
    "appends": (5, None, "ab", [None], [5], [("s",)], ["ab"], [()], [("s", [], 0, None, 0, 1)]),
    "connection": (5, "log.db"),
    **COMMON,
}
READ = {
    "streams": SEVERAL,
    "start": PLACES,
    "until": PLACES,
    "types": SEVERAL,
    "correlation_id": NAMES,
    "fields": (5, "a", [("a", 1)], {5: 1}, {"": 1}, {'"': 1}, {"a": 1.5}, {"a": []}, {"a": "\ud800"}),
    "backwards": FLAGS,
    "limit": NUMBERS,
    "batch": COUNTS,
}
EVENT = {
    "data": ("", "a\nb", "\ud800", "x" * 1001),
    "fields": (5, "a", [1]),
    "event_id": (5, "a", b"1" * 16),
    "effective_at": (
        5,
        "2026-01-01",
        NAIVE,
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
        datetime(9999, 12, 31, 23, tzinfo=timezone(-timedelta(hours=14))),
    ),
    "correlation_id": NAMES,
    "causation_id": NAMES,
    "reverses": (5, "a", b"1" * 16),
    "actor": NAMES,
    "reason": (5, b"a"),
    "subject": NAMES,
    "meta": (5, "a", [1]),
}


def appended(log, **options):
    return log.append(**{"stream": "s", "events": [Event("e", {})], **options})


async def stored(log, **options):
    return await log.append("s", [Event("e" if "data" not in options else options.pop("data"), **options)])


async def exported(log, **options):
    return [each async for each in export_lines(log, **{"reading": log.read(), **options})]


async def forked(log, **options):
    async with EventLog(":memory:") as target:
        return await fork(log, target, **options)


def made(log, **options):
    return EventLog(**{"url": ":memory:", **options})


async def reversed_stream(log, **options):
    return await reverse_stream(log, **{"stream": "s", "back_to": 0, "inverse": Event("u", {}), **options})


WHERE = {"streams": SEVERAL, "types": SEVERAL}
PART = {"start": PLACES, "until": PLACES}
TABLE: dict[str, Any] = {
    "EventLog": (made, LOG),
    "EventLog.append": (appended, APPEND),
    "EventLog.append_all": (lambda log, **o: log.append_all(**{"appends": [("s", [Event("e", {})])], **o}), APPEND_ALL),
    "EventLog.read": (EventLog.read, READ),
    "EventLog.event": (EventLog.event, {"which": (*NUMBERS, None, b"1" * 16)}),
    "EventLog.version": (EventLog.version, {"stream": STREAMS}),
    "EventLog.position_at": (EventLog.position_at, {"moment": (5, None, "now", NAIVE)}),
    "EventLog.streams": (EventLog.streams, {"prefix": (5, None, "\ud800", "a\0b", "x" * 1001), "limit": NUMBERS}),
    "EventLog.bounds": (lambda log, **o: log.bounds(**{"start": None, "until": None, **o}), PART),
    "EventLog.producer": (
        EventLog.producer,
        {**PART, **WHERE, "checkpoint": NAMES, "live": FLAGS, "batch": COUNTS},
    ),
    "EventLog.consumer": (
        EventLog.consumer,
        {"stream": NAMES, "event_id": FUNCTIONS, "actor": NAMES, "reason": TEXTS},
    ),
    "EventLog.group": (lambda log, **o: log.group("g", **o), {**WHERE, "start": PLACES}),
    "EventLog.checkpoint": (EventLog.checkpoint, {"name": (None, *NAMES)}),
    "EventLog.save_checkpoint": (
        lambda log, **o: log.save_checkpoint(**{"name": "c", "position": 1, **o}),
        {"name": (None, *NAMES), "position": (*NUMBERS, None)},
    ),
    "EventLog.projector": (
        lambda log, **o: log.projector(**{"projection": SUMS, **o}),
        {"projection": PROJECTIONS, "batch": COUNTS},
    ),
    "EventLog.fold": (
        lambda log, **o: log.fold(**{"projection": SUMS, "entity": "s", **o}),
        {"projection": PROJECTIONS, "entity": (None, *NAMES), "until": PLACES, "snapshots": NUMBERS},
    ),
    "EventLog.index": (EventLog.index, {"field": (5, None, "", 'a"b', "a?b", "a'b", "\ud800")}),
    "EventLog.shred": (EventLog.shred, {"subject": (None, *NAMES)}),
    "Event": (stored, EVENT),
    "Projection": (
        lambda log, **o: Projection(**{"name": "p", "apply": kept, **o}),
        {
            "name": (None, *NAMES, "a#b"),
            "apply": (*FUNCTIONS, None),
            "initial": (*FUNCTIONS, None),
            "entity": FUNCTIONS,
            "streams_of": FUNCTIONS,
            **WHERE,
            "state": (5, "x", int),
            "logic": (None, *NAMES),
        },
    ),
    "Projector.handle": (
        lambda log, **o: log.projector(SUMS).handle(**{"events": [], **o}),
        {"events": (5, None, "ab", [5], iter(())), "upto": NUMBERS},
    ),
    "Projector.catch_up": (lambda log, **o: log.projector(SUMS).catch_up(**o), {"until": NUMBERS}),
    "Projector.rebuild": (lambda log, **o: log.projector(SUMS).rebuild(**o), {"until": NUMBERS}),
    "Projector.get": (lambda log, **o: log.projector(SUMS).get(**o), {"entity": (None, *UNHELD)}),
    "Projector.all": (lambda log, **o: log.projector(SUMS).all(**o), {"prefix": (None, *UNHELD)}),
    "Policy": (
        lambda log, **o: Policy(**o),
        {
            "rules": (5, "mask", ["a"], {5: "mask"}, {"": "mask"}),
            "default": (5, None, "hide", ""),
            "key": (5, "x" * 16, b"", b"short"),
        },
    ),
    "Types": (lambda log, classes: Types(classes), {"classes": (5, None, "", int)}),
    "Types.add": (
        lambda log, **o: Types().add(**{"cls": Opened, **o}),
        {
            "cls": (5, "", "a\nb", int),
            "name": NAMES,
            "version": (*COUNTS, None, 2**31),
            "personal": (5, None, "owner", [5], ["nothing"]),
            "subject": (5, "", "nothing", ["owner"]),
        },
    ),
    "Types.add of a name": (lambda log, **o: Types().add("opened", **o), {"subject": (5, "", ["owner"])}),
    "Types.upcast": (
        lambda log, **o: Types(Opened).upcast(**{"of": Opened, "version": 1, **o}),
        {"of": (5, None, int, "", "a\nb"), "version": (*COUNTS, None, 2**31)},
    ),
    "Types.names_of": (lambda log, **o: Types(Opened).names_of(**o), {"types": SEVERAL}),
    "Types.kind": (lambda log, **o: Types(Opened).kind(**o), {"of": (5, None, int, "", "a\nb", ["a"])}),
    "accesses": (accesses, {"limit": (*NUMBERS, None)}),
    "archive": (
        lambda log, **o: archive(log, **{"folder": "nowhere", "until": 0, **o}),
        {"folder": (5, None, b"a", "a\0b", "\ud800"), "until": (*PLACES, None)},
    ),
    "discard": (discard, {"until": (*PLACES, None)}),
    "compare": (
        lambda log, **o: compare(log, **{"new": SUMS, "old": SUMS, **o}),
        {"new": PROJECTIONS, "old": (5, "sums", kept), **PART},
    ),
    "compare_handlers": (
        lambda log, **o: compare_handlers(log, **{"new": same, "old": same, **o}),
        {"new": (*FUNCTIONS, None), "old": (*FUNCTIONS, None), **PART, "types": SEVERAL},
    ),
    "explain": (
        lambda log, **o: explain(log, **{"projection": SUMS, "entity": "s", **o}),
        {"projection": PROJECTIONS, "entity": (None, *NAMES), "until": PLACES},
    ),
    "export_lines": (exported, {"reading": (5, None, "s", []), "policy": (5, "mask", {}, Policy)}),
    "fork": (
        forked,
        {
            **PART,
            **WHERE,
            "sample": COUNTS,
            "depth": NUMBERS,
            "seed": (None, "1", 1.5, True, HUGE, 10**5000),
            "references": FUNCTIONS,
            "policy": (5, "mask", {}, Policy),
        },
    ),
    "fork of a sample": (lambda log, **o: forked(log, sample=1, **o), {**PART, **WHERE}),
    "note_access": (
        lambda log, **o: note_access(log, **{"actor": "ada", "command": "show", "details": {}, **o}),
        {
            "actor": (None, *NAMES),
            "command": (None, *NAMES),
            "details": (5, None, "a", [], {("a",): 1}, {"a": math.nan}),
            "reason": (*TEXTS, "a\0b"),
        },
    ),
    "reverse": (lambda log, **o: reverse(log, inverse=Event("u", {}), **o), {"which": (*NUMBERS, None)}),
    "reverse_correlation": (
        lambda log, **o: reverse_correlation(log, inverse=Event("u", {}), **o),
        {"correlation_id": (None, *NAMES)},
    ),
    "verify": (
        verify,
        {
            "anchor": (
                *(5, "1:00", (), (1,), (1, "00"), (1, b"1"), [1, b"1" * 16]),
                *((each, b"1" * 16) for each in NUMBERS),
            ),
        },
    ),
    "reverse_stream": (reversed_stream, {"stream": STREAMS, "back_to": (*PLACES, None)}),
}
OF_A_LOG: dict[str, Any] = {
    "accesses": accesses,
    "archive": lambda log: archive(log, "nowhere", 0),
    "compare": lambda log: compare(log, SUMS, SUMS),
    "compare_handlers": lambda log: compare_handlers(log, same, same),
    "discard": lambda log: discard(log, 0),
    "explain": lambda log: explain(log, SUMS, "s"),
    "export_lines": lambda log: anext(export_lines(log, None)),
    "fork": lambda log: fork(log, EventLog(":memory:")),
    "fork into": lambda log: fork(EventLog(":memory:"), log),
    "note_access": lambda log: note_access(log, "ada", "show", {}),
    "readers": readers,
    "reverse": lambda log: reverse(log, 1),
    "reverse_correlation": lambda log: reverse_correlation(log, "c"),
    "reverse_stream": lambda log: reverse_stream(log, "s", 0),
    "verify": verify,
}
CASES = [
    pytest.param(call, option, values, id=f"{name}-{option}")
    for name, (call, options) in TABLE.items()
    for option, values in options.items()
]


@pytest.mark.parametrize(("call", "option", "values"), CASES)
def test_what_is_wrong_is_named_and_nothing_is_written(call, option, values):
    async def every():
        async with EventLog(":memory:", master_key=bytes(32)) as log:
            await log.append("s", [Event("e", {"n": number}) for number in range(3)], correlation_id="c")
            before = dump(log)
            for value in values:
                with pytest.raises((OptionError, EventError)) as caught:
                    found = call(log, **{option: value})
                    if inspect.isawaitable(found):
                        found = await found
                    pytest.fail(f"{option}={short(value)} was taken: {short(found)}")
                text = str(caught.value)
                assert option in text or short(value) in text or "its type" in text
                assert dump(log) == before

    asyncio.run(every())


@pytest.mark.parametrize("name", OF_A_LOG)
@pytest.mark.parametrize("log", [5, None, "log.db", EventLog])
def test_what_is_no_log_is_named(name, log):
    option = {"fork": "source", "fork into": "target"}.get(name, "log")

    async def call():
        await OF_A_LOG[name](log)

    with pytest.raises(OptionError) as caught:
        asyncio.run(call())
    assert (caught.value.option, caught.value.expected, caught.value.got) == (option, "an EventLog", log)


def test_no_function_is_forgotten():
    """What takes a log, of all that is public."""
    takes = {
        name
        for name in eventlog.__all__
        if inspect.isfunction(each := getattr(eventlog, name))
        and {"log", "source"} & {*inspect.signature(each).parameters}
    }
    assert takes | {"fork into"} == set(OF_A_LOG)


def dump(log):
    """All that is in a log in memory."""
    return list(log.store._db.iterdump())


@pytest.mark.parametrize("name", sorted(name for name in TABLE if name.startswith("EventLog.")))
def test_no_option_is_forgotten(name):
    """What is not in the table above is checked where it ends up: by the `Group`."""
    elsewhere = {
        "EventLog.group": {"name", "partitions", "lease", "batch"},
    }
    given = set(inspect.signature(getattr(EventLog, name.removeprefix("EventLog."))).parameters)
    assert given - {"self", "options"} - elsewhere.get(name, set()) == set(TABLE[name][1])


def test_no_method_is_forgotten():
    """`rows` and `page` are for the inside."""
    methods = {name for name, each in vars(EventLog).items() if callable(each) and not name.startswith("_")}
    with_options = {name for name in methods if len(inspect.signature(getattr(EventLog, name)).parameters) > 1}
    assert with_options - {"rows", "page"} == {name.partition(".")[2] for name in TABLE if "EventLog." in name}
    assert set(LOG) == set(inspect.signature(EventLog).parameters)
    assert set(EVENT) == set(inspect.signature(Event).parameters)
