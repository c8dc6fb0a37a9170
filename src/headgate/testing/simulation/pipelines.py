"""Families for the machines of pipelines: batches, the intake, retries. Each seed draws options and a list of steps.

A step is done by the machine and by its slow model (`headgate.testing.simulation.models`), and after each step all that
can be seen of both is compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, ClassVar, Final

from headgate.protocol.batches import Batch, Batches
from headgate.protocol.intake import Intake
from headgate.testing.simulation.models import SlowBatch, SlowBatches, SlowIntake
from headgate.testing.simulation.plays import Broken, Play, numbers, start
from headgate.testing.simulation.retrying import RetryPlay
from headgate.types import BULK, FLUSH, Message

__all__ = ["PLAYS", "BatcherPlay", "Broken", "IntakePlay", "Play", "start"]


# -- batcher ----------------------------------------------------------------------------------------------------------


def weigh(message: Message) -> int:
    """Say how many bytes a message has; some cannot be weighed."""
    weight: int = message.data[1]
    if weight < 0:
        raise Broken(message.data)
    return weight


def alternate(message: Message, state: tuple[int, int]) -> tuple[bool, tuple[int, int]]:
    """Close after 2, 3, 1, 2, 3, 1, ... items: what is left of this batch, and how many the next one has."""
    left, following = state
    if message.data[2]:
        raise Broken(message.data)
    return (False, (left - 1, following)) if left > 1 else (True, (following, following % 3 + 1))


class BatcherPlay(Play):
    """Batches that open, close, wait, run and come back."""

    kinds = ("size", "bytes", "timeout", "flush", "limit", "end", "error", "give_back", "held", "full", "choked")

    def __init__(self, rng: Random, tail: int) -> None:
        """Draw the options."""
        super().__init__(rng, tail)
        split = (2, 3) if rng.random() < 0.3 else None  # noqa: PLR2004 (some)
        size = rng.choice((1, 2, 3, 5))
        max_bytes = rng.choice((None, None, 6, 10))
        timeout = rng.choice((None, 1.0, 3.0))
        max_open = rng.choice((1, 2, 3, 100))
        self.serial = rng.random() < 0.5  # noqa: PLR2004 (half)
        self.keys: list[Any] = rng.choice(([None], [None, 1, 2], [1, 2, 3, 4, 5]))
        self.wrong = rng.choice((0.0, 0.0, 0.1))
        self.most = rng.choice((1, 3))
        self.machine = Batches(
            (split, alternate) if split else size,
            max_bytes=max_bytes,
            sizer=weigh,
            timeout=timeout,
            max_open=max_open,
            serial=self.serial,
            max_waiting=self.most,
        )
        self.model = SlowBatches(
            None if split else size,
            max_bytes=max_bytes,
            weigh=weigh,
            splitter=(split, alternate) if split else None,
            timeout=timeout,
            max_open=max_open,
            serial=self.serial,
        )
        self.running: list[tuple[Batch, SlowBatch]] = []
        self.handled: Counter[Any] = Counter()
        self.last: dict[Any, int] = {}  # by key: the number of its last item that was handled

    def choices(self) -> dict[str, Callable[[], None]]:
        """Return what may be done."""
        return {
            "add": self.add,
            "more": self.add,
            "pass": self.time_passes,
            "expire": self.expire,
            "take": self.take,
            "done": self.done,
            "give_back": self.give_back,
            "close": self.close,
        }

    def add(self) -> None:
        """Put some items in."""
        rng = self.rng
        items: list[Message] = []
        one_key = rng.random() < 0.5  # noqa: PLR2004 (half)
        key = rng.choice((None, *self.keys))
        for _ in range(rng.choice((1, 2, 3, 7))):
            self.number += 1
            wrong = rng.random() < self.wrong
            message = Message((self.number, -1 if wrong else rng.randint(0, 4), wrong and rng.random() < 0.5))  # noqa: PLR2004 (half)
            if not one_key or key is not None:  # most messages have none: nobody touches what says so
                message.batch_key = key if one_key else rng.choice(self.keys)
            if wrong and rng.random() < 0.3:  # noqa: PLR2004 (some)
                message.batch_key = []  # cannot be looked up
            if rng.random() < 0.05:  # noqa: PLR2004 (a few)
                message.batch_mode = FLUSH
            elif rng.random() < 0.05:  # noqa: PLR2004 (a few)
                message.batch_mode = BULK
            items.append(message)
        self.note("add", [(item.data, item.batch_key, item.batch_mode) for item in items], self.now)
        self.machine.add(items, self.now)
        self.model.add(items, self.now)

    def time_passes(self) -> None:
        """Let time pass."""
        self.now += self.rng.choice((0.25, 1.0, 3.0))
        self.note("now", self.now)

    def expire(self) -> None:
        """Close what is due."""
        due = self.machine.due()
        if due is not None and self.rng.random() < 0.5:  # noqa: PLR2004 (as a driver's timer does)
            self.now = max(self.now, due)
        self.note("expire", self.now)
        self.machine.expire(self.now)
        self.model.expire(self.now)

    def take(self) -> None:
        """Hand some out."""
        count = self.rng.randint(1, 3)
        got, expected = self.machine.take(count), self.model.take(count)
        self.note("take", count, got)
        self.same("batches-taken", [_shown(batch) for batch in got], [batch.shown() for batch in expected])
        self.running += zip(got, expected, strict=True)
        for batch in got:
            self.faults[batch.trigger] += 1

    def done(self) -> None:
        """End one that runs."""
        if self.running:
            batch, model = self.running.pop(self.rng.randrange(len(self.running)))
            self.note("done", batch)
            self.handled.update(item.data[0] for item in batch.items)
            if self.serial:
                numbers = [self.last.get(batch.key, 0), *(item.data[0] for item in batch.items)]
                self.same("order-within-key", numbers, sorted(numbers))
                self.last[batch.key] = numbers[-1]
            self.machine.done(batch)
            self.model.done(model)

    def give_back(self) -> None:
        """Give one back, or all that run."""
        if self.running and self.rng.random() < 0.5:  # noqa: PLR2004 (half)
            self.faults["give_back"] += 1
            self.rng.shuffle(self.running)
            for _ in range(self.rng.choice((1, len(self.running)))):
                batch, model = self.running.pop()
                self.note("give_back", batch)
                self.machine.give_back(batch)
                self.model.give_back(model)

    def close(self) -> None:
        """Close everything."""
        if self.rng.random() < 0.3:  # noqa: PLR2004 (not too often)
            self.note("end")
            self.machine.flush()
            for batch in list(self.model.open):
                self.model.close(batch, "end")

    def check(self) -> None:
        """Compare all that can be seen."""
        machine, model = self.machine, self.model
        self.same("batches-due", machine.due(), model.due())
        self.same("batches-open", (machine.open, machine.open_items), (len(model.open), _total(model.open)))
        self.same("batches-waiting", machine.waiting, model.count("waiting"))
        self.same("batches-ready", machine.ready, len(model.ready))
        self.same("batches-running", machine.running, model.count("running"))
        self.same("batches-full", machine.full, len(model.ready) >= self.most)
        self.same("batches-choked", machine.choked, model.choked(self.most))
        self.same("batches-errors", [item for item, _ in machine.errors], model.errors)
        self.happened("error", bool(model.errors))
        self.happened("held", machine.waiting > machine.ready)
        self.happened("full", machine.full)
        self.happened("choked", bool(machine.choked))

    def end(self) -> None:
        """Handle everything."""
        self.machine.flush()
        for batch in list(self.model.open):
            self.model.close(batch, "end")
        while self.machine.ready or self.running:
            self.take()
            self.done()
            self.check()
        failed = {item.data[0] for item, _ in self.machine.errors}
        expected = {number: 1 for number in range(1, self.number + 1) if number not in failed}
        self.same("every-item-once", dict(sorted(self.handled.items())), expected)
        self.same("batches-leak", _left(self.machine), [])


def _shown(batch: Batch) -> tuple[Any, ...]:
    return batch.key, batch.opened_at, batch.items, batch.trigger


def _total(batches: list[SlowBatch]) -> int:
    return sum(len(batch.items) for batch in batches)


def _left(machine: Any) -> list[Any]:
    return [each for each in (machine._lines, machine._open, machine._ready) if each]  # noqa: SLF001 (a white-box test kit)


# -- intake -----------------------------------------------------------------------------------------------------------


class IntakePlay(Play):
    """Items that wait, have their turns, are released, or come back."""

    kinds = ("put_back", "again", "held", "error", "overflow", "withdrawn", "clear")
    weights: ClassVar[dict[Any, int]] = {0: 2, 1: 3}

    def __init__(self, rng: Random, tail: int) -> None:
        """Draw the options."""
        super().__init__(rng, tail)
        self.fair, self.serial, self.ranked = (rng.random() < 0.6 for _ in range(3))  # noqa: PLR2004 (any combination)
        weighted = self.fair and rng.random() < 0.5  # noqa: PLR2004 (half)
        ageing = rng.choice((None, 1, 3, 1000))
        key_limit = rng.choice((None, 1, 2)) if self.serial else None
        self.wrong = rng.choice((0.0, 0.0, 0.1))
        self.users, self.keys, self.classes = rng.randint(1, 4), rng.randint(1, 5), rng.randint(1, 4)
        self.machine = Intake(
            fair=_user if self.fair else None,
            weights=_share if weighted else None,
            serial=_key if self.serial else None,
            priority=_class if self.ranked else None,
            ageing=ageing,
            limit=10,
            key_limit=key_limit,
        )
        self.model = SlowIntake(
            self._look, _share if weighted else _one, fair=self.fair, ageing=ageing, key_limit=key_limit
        )
        self.taken: list[Message] = []  # and not done
        self.waiting: set[int] = set()

    def _look(self, message: Message) -> tuple[Any, Any, int]:
        return (
            _user(message) if self.fair else None,
            _key(message) if self.serial else None,
            _class(message) if self.ranked else 0,
        )

    def choices(self) -> dict[str, Callable[[], None]]:
        """Return what may be done."""
        return {
            "offer": self.offer,
            "more": self.offer,
            "take": self.take,
            "again": self.take,
            "release": self.release,
            "put_back": self.put_back,
            "overflow": self.overflow,
            "withdraw": self.withdraw,
            "clear": self.clear,
        }

    def offer(self) -> None:
        """Put some items in."""
        rng = self.rng
        items: list[Message] = []
        for _ in range(rng.choice((1, 2, 5))):
            self.number += 1
            user = "heavy" if rng.random() < self.wrong else rng.randrange(self.users)  # one without a weight
            key = None if rng.random() < 0.2 else (user, rng.randrange(self.keys))  # noqa: PLR2004 (some)
            message = Message((self.number, user, rng.randrange(self.classes), rng.random() < self.wrong))
            if key is not None:
                message.key = key if rng.random() < 0.8 else key[1]  # noqa: PLR2004 (most users have keys of their own)
            items.append(message)
        self.note("offer", [(item.data, item.key) for item in items])
        self.machine.offer(items)
        self.model.offer(items)

    def take(self) -> None:
        """Take some."""
        count = self.rng.randint(1, 4)
        got = self.machine.take(count)
        self.note("take", count, [item.data[0] for item in got])
        self.same("intake-taken", numbers(got), numbers(self.model.take(count)))
        self.taken += got
        if self.serial:
            keys = [item.key for item in self.taken if item.key is not None]
            self.same("one-of-a-key", sorted(keys, key=str), sorted(set(keys), key=str))

    def release(self) -> None:
        """Be done with some."""
        rng = self.rng
        items = [self.taken.pop(rng.randrange(len(self.taken))) for _ in range(min(len(self.taken), rng.randint(1, 3)))]
        self.note("release", numbers(items))
        if len(items) == 1 and items[0].key is not None and self.serial:
            self.same("released", self.machine.release_key(items[0].key), True)  # noqa: FBT003 (a value)
        else:
            self.machine.release(items)
        self.model.release(items)

    def put_back(self) -> None:
        """Give some back; now and then some that were released before, or never taken."""
        rng = self.rng
        if not self.taken or rng.random() < 0.3:  # noqa: PLR2004 (some)
            return
        count = rng.randint(1, len(self.taken))
        items, self.taken = self.taken[:count], self.taken[count:]
        if rng.random() < 0.3:  # noqa: PLR2004 (some)
            self.faults["again"] += 1
            self.machine.release(items)
            self.model.release(items)
        self.faults["put_back"] += 1
        self.note("put_back", numbers(items))
        self.machine.put_back(items)
        self.model.put_back(items)

    def overflow(self) -> None:
        """Take out what keys have too many of."""
        got, expected = self.machine.overflow(), self.model.overflow()
        self.note("overflow", {key: numbers(items) for key, items in got.items()})
        self.same("intake-overflow", got, expected)
        self.happened("overflow", bool(got))

    def withdraw(self) -> None:
        """Take out what waits behind one that is out, or behind any."""
        keys = [item.key for item in self.taken] or [(0, 0), None]
        key = self.rng.choice(keys)
        got, expected = self.machine.withdraw(key), self.model.withdraw(key)
        self.note("withdraw", key, numbers(got))
        self.same("intake-withdrawn", numbers(got), numbers(expected))
        self.happened("withdrawn", got)

    def clear(self) -> None:
        """Take out everything, and put it in again."""
        if self.rng.random() < 0.3:  # noqa: PLR2004 (not too often)
            got, expected = self.machine.clear(), self.model.clear()
            self.note("clear", numbers(got))
            self.same("intake-cleared", numbers(got), numbers(expected))
            self.check()
            self.happened("clear", bool(got))
            back = self.machine.put_back if self.rng.random() < 0.5 else self.machine.offer  # noqa: PLR2004 (half)
            self.note(back.__name__, numbers(got))
            back(got)
            getattr(self.model, back.__name__)(got)

    def check(self) -> None:
        """Compare all that can be seen."""
        machine, model = self.machine, self.model
        self.same("intake-waiting", machine.waiting, len(model.waiting))
        self.same("intake-ready", machine.ready, len(model.turns))
        self.same("intake-room", machine.room, max(0, 10 - len(model.waiting)))
        self.same("intake-out", machine.out, len(model.out))
        keys = {each.key for each in model.waiting + model.out} - {None}
        self.same("intake-keys", machine.keys, len(keys))
        self.same("intake-errors", sorted(item.data[0] for item, _ in machine.errors), sorted(numbers(model.errors)))
        self.happened("held", machine.waiting > machine.ready)
        self.happened("error", bool(model.errors))

    def end(self) -> None:
        """Take everything."""
        while self.machine.waiting or self.taken:
            self.take()
            self.release()
            self.check()
        machine: Any = self.machine
        left = [machine._heads, machine._lines, machine._out, getattr(machine._turns, "_users", None)]  # noqa: SLF001 (white-box)
        self.same("intake-leak", [each for each in left if each], [])


def _user(message: Message) -> Any:
    if message.data[3]:
        raise Broken(message.data)
    return message.data[1]


def _key(message: Message) -> Any:
    return message.key


def _class(message: Message) -> int:
    number: int = message.data[2]
    return number


def _share(user: Any) -> int:
    if user == "heavy":
        raise Broken(user)
    return IntakePlay.weights.get(user, 1)


def _one(user: Any) -> int:  # noqa: ARG001 (all users are alike)
    return 1


PLAYS: Final[dict[str, type[Play]]] = {"batcher": BatcherPlay, "intake": IntakePlay, "retry": RetryPlay}
