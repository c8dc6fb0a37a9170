"""Every source keeps what `Source` promises, and `check_source` notices when one does not."""

import asyncio
import gzip
import itertools
import json
from typing import Any

import pytest

from headgate.connectors.files import FileSource
from headgate.connectors.iterables import IterableSource
from headgate.connectors.memory import MemoryQueue
from headgate.connectors.sqlite import SQLiteQueue
from headgate.errors import OptionError
from headgate.testing import ConformanceError, StubSource, check_source, sources
from headgate.testing.source_kit.rules import RULES
from headgate.types import Message, Source


def put_all(queue, payloads):
    queue.put_many(payloads, key=lambda payload: payload["key"])


def put_each(queue, payloads):
    for number, payload in enumerate(payloads):
        queue.put(payload, key=payload["key"], priority=number % 3, metadata={"n": number})


def put_bare(queue, payloads):
    queue.put_many(payloads)


def letters(queue):
    return [letter.data["number"] for letter in queue.dead_letters]


MEMORY = {
    "bare": (MemoryQueue, put_bare),
    "keys": (MemoryQueue, put_all),
    "priorities": (lambda: MemoryQueue(max_deliveries=3), put_each),
    "ordered": (lambda: MemoryQueue(ordered=True), put_all),
    "ordered with priorities": (lambda: MemoryQueue(ordered=True, max_deliveries=2), put_each),
    "by a function": (lambda: MemoryQueue(ordered=True, key=lambda payload: payload["key"]), put_bare),
    "stub": (lambda: StubSource(ordered=True), put_all),
}


@pytest.mark.parametrize("kind", MEMORY)
def test_memory(kind):
    make, put = MEMORY[kind]
    report = check_source(make, put=put, finish=MemoryQueue.close_input, letters=letters, seeds=range(40))
    lacking = {"fetch-recovers", "lease-expires", "lease-extended", "rivals"}
    if "ordered" not in kind and kind not in ("by a function", "stub"):
        lacking |= {"order", "order-nack"}
    if not make().max_deliveries:
        lacking |= {"max-deliveries"}
    assert set(report.skipped) == lacking
    assert set(report.ran) == {*RULES, "script"} - lacking


def test_a_stub_fails_when_it_is_told_to():
    report = check_source(StubSource, put=put_all, finish=StubSource.finish, fail=StubSource.fail_next_fetch)
    assert "fetch-recovers" in report.ran


class Slowly:
    """An async iterator which is no generator."""

    def __init__(self, payloads):
        self.payloads = list(payloads)

    def __aiter__(self):
        return self

    async def __anext__(self):
        if not self.payloads:
            raise StopAsyncIteration
        return self.payloads.pop(0)


async def generated(payloads):
    for payload in payloads:
        yield payload


ITERABLES: dict[str, Any] = {
    "list": list,
    "tuple": tuple,
    "iterator": iter,
    "generator": lambda payloads: (payload for payload in payloads),
}


@pytest.mark.parametrize("kind", ITERABLES)
@pytest.mark.parametrize("key", [None, lambda payload: payload["key"]], ids=["no key", "key"])
def test_iterables(kind, key):
    report = check_source(lambda payloads: IterableSource(ITERABLES[kind](payloads), key=key), seeds=range(40))
    assert {"fetch-end", "nack-after-end", "nack-delay", "reopen", "script"} <= set(report.ran)


@pytest.mark.slow
def test_an_iterable_that_blocks():
    report = check_source(lambda payloads: IterableSource(iter(payloads), blocking=True), seeds=range(3))
    assert {"fetch-end", "nack-after-end", "nack-delay", "reopen", "script"} <= set(report.ran)


@pytest.mark.parametrize("make", [generated, Slowly])
def test_async_iterables(make):
    report = check_source(
        lambda payloads: IterableSource(make(payloads)),
        skip=["reopen"],  # the iterator is closed
        seeds=range(40),
    )
    assert {"fetch-end", "nack-after-end", "nack-delay", "drain", "script"} <= set(report.ran)


def now():
    """The virtual time, also in a thread of a source: on a virtual loop that is the loop's own."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return 0.0


def file_of(directory, payloads, kind):
    path = directory / f"{next(NUMBERS)}.{kind}"
    if kind == "jsonl.gz":
        with gzip.open(path, "wt") as file:
            file.writelines(json.dumps(payload) + "\n" for payload in payloads)
    else:
        path.write_text("".join(json.dumps(payload) + "\n" for payload in payloads))
    return path


NUMBERS = itertools.count()
FILES: dict[str, dict[str, Any]] = {
    "jsonl": {"format": "jsonl", "key": lambda payload: payload["key"]},
    "jsonl.gz": {"format": "jsonl"},
    "lines": {"format": json.loads},
}


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("kind", FILES)
def test_files(kind, checkpoint, tmp_path):
    def make(payloads):
        path = file_of(tmp_path, payloads, kind)
        options: dict[str, Any] = {"checkpoint": f"{path}.checkpoint"} if checkpoint else {}
        return FileSource(path, **FILES[kind], letters=f"{path}.letters", clock=now, **options)

    def letters(source):
        return [
            json.loads(json.loads(line)["record"])["number"]
            for path in source._letters.glob("*.jsonl")
            for line in path.read_text().splitlines()
        ]

    seeds = range(15 if kind == "jsonl" else 3)
    report = check_source(make, letters=letters, virtual=True, seeds=seeds)
    lacking = {"fetch-empty", "fetch-recovers", "fetch-wakes", "lease-expires", "lease-extended"}
    assert set(report.skipped) == {*lacking, "max-deliveries", "order", "order-nack", "rivals"}


def test_files_from_their_checkpoint(tmp_path):
    """Whoever opens them next is another source, as after a crash."""

    def make(payloads):
        path = file_of(tmp_path, payloads, "jsonl")
        return FileSource(path, format="jsonl", checkpoint=f"{path}.checkpoint", clock=now)

    def reopen(source):
        return FileSource(source._paths, format="jsonl", checkpoint=source._checkpoint.path, clock=now)

    check_source(make, reopen=reopen, virtual=True)


@pytest.mark.parametrize("options", [{}, {"checkpoint": True}], ids=str)
def test_files_that_grow(options, tmp_path):
    def make():
        path = file_of(tmp_path, [], "jsonl")
        chosen: dict[str, Any] = {"checkpoint": f"{path}.checkpoint"} if options else {}
        return FileSource(path, format="jsonl", watch="poll", clock=now, **chosen)

    def put(source, payloads):
        with source._paths[0].open("a") as file:
            file.writelines(json.dumps(payload) + "\n" for payload in payloads)

    report = check_source(make, put=put, virtual=True)
    assert {"fetch-empty", "fetch-wakes", "reopen", "script"} <= set(report.ran)


@pytest.mark.parametrize("options", [{}, {"done": "delete"}, {"done": "move"}], ids=str)
def test_whole_files_in_a_directory(options, tmp_path):
    def make():
        directory = tmp_path / str(next(NUMBERS))
        directory.mkdir()
        chosen = {"destination": directory / "done"} if options.get("done") == "move" else {}
        return FileSource(directory, format="files", watch="poll", settle=0, clock=now, **options, **chosen)

    def put(source, payloads):
        for payload in payloads:
            (source._paths[0] / f"{payload['number']:04}.txt").write_text(json.dumps(payload))

    report = check_source(make, put=put, number=lambda message: int(message.data.stem), virtual=True, seeds=range(4))
    assert {"fetch-empty", "fetch-wakes", "reopen", "script"} <= set(report.ran)


SQLITE: dict[str, dict[str, Any]] = {
    "plain": {},
    "many deliveries": {"max_deliveries": None},
    "fair": {"fair": True},
    "ordered": {"ordered": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SQLITE)
def test_sqlite(kind, tmp_path):
    options = {"lease": 400.0, "sleep": lambda seconds: None, "clock": lambda: 1e9 + now(), **SQLITE[kind]}

    def make():
        return SQLiteQueue(tmp_path / f"{next(NUMBERS)}.db", **options)

    def put(queue, payloads):
        for payload in payloads:
            queue.put(payload, key=payload["key"], user=payload["key"])

    report = check_source(
        make,
        put=put,
        peer=lambda queue: SQLiteQueue(queue.path, **options),
        letters=lambda queue: [letter.data["number"] for letter in queue.dead_letters()],
        virtual=True,
        seeds=range(10),
    )
    assert {"lease-expires", "lease-extended", "rivals", "reopen", "letter-kept", "script"} <= set(report.ran)


# -- sources that do not keep it --------------------------------------------------------------------------------------


class TooMany(MemoryQueue):
    def fetch(self, count):
        return super().fetch(count + 1)


class NoList(MemoryQueue):
    def fetch(self, count):
        messages = super().fetch(count)
        return tuple(messages) if messages else messages


class Bare(MemoryQueue):
    def fetch(self, count):
        messages = super().fetch(count)
        return messages and [message.data for message in messages]


class Early(MemoryQueue):
    def fetch(self, count):
        return super().fetch(count) or None


class Twice(MemoryQueue):
    def fetch(self, count):
        messages = super().fetch(count)
        if messages and messages[0].data["number"] == 2 and messages[0].deliveries == 1:
            self._lines.add_bare([messages[0].data])
        return messages


class Loses(MemoryQueue):
    def nack(self, messages, delay=0.0, *, counted=True):
        super().nack(messages[1:], delay, counted=counted)
        super().ack(messages[:1])


class NoCount(MemoryQueue):
    def nack(self, messages, delay=0.0, *, counted=True):
        super().nack(messages, delay, counted=False)


class NoDelay(MemoryQueue):
    def nack(self, messages, delay=0.0, *, counted=True):
        super().nack(messages, 0.0, counted=counted)


class Sleeps(MemoryQueue):
    """Nobody is told that a delay is over."""

    def fetch(self, count):
        wake, self.wake = self.wake, lambda: None
        try:
            return super().fetch(count)
        finally:
            self.wake = wake

    def nack(self, messages, delay=0.0, *, counted=True):
        self._lines.delays.arm = lambda wake: None  # type: ignore[method-assign]
        super().nack(messages, delay, counted=counted)


class Silent(MemoryQueue):
    """Nobody is told that something was put."""

    def put_many(self, payloads, **options):
        wake, self.wake = self.wake, lambda: None
        super().put_many(payloads, **options)
        self.wake = wake


class Changed(MemoryQueue):
    def nack(self, messages, delay=0.0, *, counted=True):
        datas = [message.data for message in messages]
        super().nack(messages, delay, counted=counted)
        for entry, data in zip(list(self._lines._line._front), datas, strict=False):
            entry.data = {"number": entry.data["number"], "other": data}


class Unordered(MemoryQueue):
    def __init__(self):
        super().__init__(ordered=False)
        self.ordered = True


class Forgets(MemoryQueue):
    """Opened again, it does not know what was under way."""

    def close(self):
        super().close()
        self._lines.under_way.clear()


class Remembers(MemoryQueue):
    """Opened again, it hands out what was acknowledged."""

    def ack(self, messages):
        self.kept = [*getattr(self, "kept", ()), *({"number": 0, "key": "key-0"} for _ in messages)]
        super().ack(messages)

    def open(self):
        super().open()
        if getattr(self, "kept", None):
            self.put(self.kept[0])


class HandsOutLetters(MemoryQueue):
    def dead_letter(self, messages):
        return self.nack(messages)


class KeepsFailures(MemoryQueue):
    def discard(self, messages):
        return self.nack(messages)


class OneDeliveryMore(MemoryQueue):
    def __init__(self):
        super().__init__(max_deliveries=3)
        self.max_deliveries = 2

    def nack(self, messages, delay=0.0, *, counted=True):
        self.max_deliveries = 3
        super().nack(messages, delay, counted=counted)
        self.max_deliveries = 2


class TakesAllOptions(MemoryQueue):
    def configure(self, message, options):
        pass


class NeverEnds(MemoryQueue):
    def fetch(self, count):
        return super().fetch(count) or []


class SameAgain(MemoryQueue):
    """Hands out the same message, not a new one."""

    back: Any = ()

    def nack(self, messages, delay=0.0, *, counted=True):
        self.back = list(messages)
        for message in messages:
            message.data = self._lines.under_way[message]

    def fetch(self, count):
        if self.back:
            return [self.back.pop()]
        return super().fetch(count)


BROKEN = {
    TooMany: {"fetch-count"},
    NoList: {"fetch-list"},
    Bare: {"fetch-list"},
    Early: {"fetch-empty"},
    Twice: {"fetch-all", "fetch-once"},
    Loses: {"nack-returns"},
    NoCount: {"nack-counts"},
    NoDelay: {"nack-delay"},
    Sleeps: {"nack-delay"},
    Silent: {"fetch-wakes"},
    Changed: {"nack-original", "nack-returns"},
    Unordered: {"order"},
    Forgets: {"reopen"},
    Remembers: {"ack-forgets"},
    HandsOutLetters: {"letter-kept"},
    KeepsFailures: {"discard-forgets"},
    OneDeliveryMore: {"max-deliveries"},
    TakesAllOptions: {"options"},
    NeverEnds: {"fetch-end"},
    SameAgain: {"fetch-new"},
}


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_what_a_source_breaks_is_found_and_named(kind):
    with pytest.raises(ConformanceError) as caught:
        check_source(kind, put=put_all, finish=MemoryQueue.close_input, letters=letters)
    assert caught.value.rule in BROKEN[kind]
    assert "the last calls:" in str(caught.value)


@pytest.mark.parametrize("kind", [Twice, Loses, NoCount, NoDelay, Unordered, Forgets, HandsOutLetters, KeepsFailures])
def test_the_scripts_alone_find_it_too(kind, monkeypatch):
    monkeypatch.setattr(sources, "RULES", {})
    with pytest.raises(ConformanceError) as caught:
        check_source(
            kind,
            put=put_all,
            finish=MemoryQueue.close_input,
            letters=letters,
            seeds=range(60),
        )
    assert caught.value.rule == "script"


class Leased(Source):
    """A queue whose leases can be broken in a test."""

    redelivers = True
    lease = 8.0
    poll = 1.0
    late_acks = False
    expires = True
    extends = True

    def __init__(self):
        self.waiting: list[Any] = []
        self.under_way: dict[Any, Any] = {}

    def now(self):
        return asyncio.get_running_loop().time()

    def fetch(self, count):
        for message, (until, number, delivered) in list(self.under_way.items()):
            if self.expires and until <= self.now():
                del self.under_way[message]
                self.waiting.append((number, delivered, 0.0))
        ready = [each for each in self.waiting if each[2] <= self.now()][:count]
        messages = []
        for each in ready:
            self.waiting.remove(each)
            message = Message({"number": each[0]}, deliveries=each[1] + 1)
            self.under_way[message] = (self.now() + self.lease, each[0], each[1] + 1)
            messages.append(message)
        return messages

    def _lost(self, messages):
        now = self.now()
        lost = [each for each in messages if each not in self.under_way or self.under_way[each][0] <= now]
        return [] if self.late_acks else lost

    def ack(self, messages):
        lost = self._lost(messages)
        for message in messages:
            self.under_way.pop(message, None)
        return lost

    def nack(self, messages, delay=0.0, *, counted=True):
        lost = self._lost(messages)
        for message in messages:
            _, number, delivered = self.under_way.pop(message)
            self.waiting.append((number, delivered - (not counted), self.now() + delay))
        return lost

    def extend(self, messages, seconds):
        lost = self._lost(messages)
        for message in messages if self.extends else ():
            if message not in lost:
                self.under_way[message] = (self.now() + seconds, *self.under_way[message][1:])
        return lost


def put_leased(source, payloads):
    source.waiting += [(payload["number"], 0, 0.0) for payload in payloads]


def shared(source):
    other = Leased()
    other.waiting, other.under_way = source.waiting, source.under_way
    return other


def test_leases():
    report = check_source(Leased, put=put_leased, peer=shared, delay=1.0)
    assert {"lease-expires", "lease-extended", "rivals", "reopen"} <= set(report.ran)


def test_rivals_that_get_the_same_message_are_found():
    def doubled(source):
        other = Leased()
        other.waiting = list(source.waiting)
        return other

    with pytest.raises(ConformanceError, match=r"\[rivals\]"):
        check_source(Leased, put=put_leased, peer=doubled, delay=1.0)


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        ({"late_acks": True}, "lease-expires"),
        ({"expires": False}, "lease-expires"),
        ({"extends": False}, "lease-extended"),
    ],
    ids=str,
)
def test_broken_leases_are_found(broken, rule):
    kind = type("Broken", (Leased,), broken)
    with pytest.raises(ConformanceError) as caught:
        check_source(kind, put=put_leased, delay=1.0)
    assert caught.value.rule == rule


def test_a_fetch_that_does_not_return_after_drain_is_found():
    class Stuck(Source):
        def __init__(self, payloads):
            self.payloads = payloads

        async def fetch(self, count):
            if self.payloads:
                taken, self.payloads = self.payloads[:count], self.payloads[count:]
                return [Message(payload) for payload in taken]
            await asyncio.sleep(1e6)
            return None

    with pytest.raises(ConformanceError) as caught:
        check_source(Stuck, skip=["fetch-end"])
    assert caught.value.rule == "drain"


def test_a_rule_that_there_is_not_cannot_be_left_out():
    with pytest.raises(OptionError, match="fetch-everything"):
        check_source(MemoryQueue, put=put_all, skip=["fetch-everything"])


def test_a_report_shows_what_was_checked_and_what_not():
    text = str(check_source(MemoryQueue, put=put_all, seeds=range(2), skip=["options"]))
    assert "fetch-all: kept" in text
    assert "options: -, left out" in text
    assert "order: -, ordered is not set" in text
    assert "script: kept" in text
