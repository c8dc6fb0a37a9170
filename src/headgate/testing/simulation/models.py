"""Slow and obvious models of `headgate.protocol.batches.Batches` and `headgate.protocol.intake.Intake`.

They keep plain lists, look at everything each time, and take one item after the other. Whatever the machines do has to
be what these do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class SlowBatch:
    """A batch as the model has it."""

    def __init__(self, key: Any, opened_at: float) -> None:
        """Open it, without items."""
        self.key = key
        self.opened_at = opened_at
        self.items: list[Any] = []
        self.trigger = ""
        self.where = "open"  # then waiting, running, done
        self.number = 0

    def shown(self) -> tuple[Any, ...]:
        """Return what is to be equal."""
        return self.key, self.opened_at, self.items, self.trigger


class SlowBatches:
    """What `Batches` does; ``size``, ``weigh`` and ``splitter`` raise what the user's functions raise."""

    def __init__(
        self,
        size: int | None,
        *,
        max_bytes: float | None,
        weigh: Callable[[Any], float],
        splitter: tuple[Any, Callable[[Any, Any], tuple[bool, Any]]] | None,
        timeout: float | None,
        max_open: int,
        serial: bool,
    ) -> None:
        """Start without batches."""
        self.size = size
        self.max_bytes = max_bytes
        self.weigh = weigh
        self.splitter = splitter
        self.timeout = timeout
        self.max_open = max_open
        self.serial = serial
        self.open: list[SlowBatch] = []
        self.closed: list[SlowBatch] = []  # and not done, in order
        self.number = 0
        self.ready: list[SlowBatch] = []
        self.states: dict[Any, Any] = {}  # after the last batch of the key that the splitter has closed
        self.errors: list[Any] = []

    def add(self, items: list[Any], now: float) -> None:
        """Put items in, key by key."""
        groups: list[tuple[Any, list[Any]]] = []
        flushed: list[Any] = []
        for item in items:
            key = item.batch_key
            if type(key) is list:  # no hash
                self.errors.append(item)
                continue
            if key not in [name for name, _ in groups]:
                groups.append((key, []))
            next(group for name, group in groups if name == key).append(item)
            if item.batch_mode == "flush" and key not in flushed:
                flushed.append(key)
        for key, group in groups:
            for item in group:
                self._one(key, item, now)
        for key in flushed:
            for batch in [each for each in self.open if each.key == key]:
                self.close(batch, "flush")

    def _one(self, key: Any, item: Any, now: float) -> None:
        batch = next((each for each in self.open if each.key == key), None)
        full = False
        try:
            if self.max_bytes is not None:
                weight = self.weigh(item)
                full = batch is not None and sum(map(self.weigh, batch.items)) + weight > self.max_bytes
            items = [item] if batch is None or full else [*batch.items, item]
            if self.splitter is None:
                closes, state = len(items) == self.size, None
            else:
                closes, state = False, self.states.get(key, self.splitter[0])
                for each in items:  # from the beginning of the batch on
                    closes, state = self.splitter[1](each, state)
        except ValueError:
            self.errors.append(item)
            return
        if batch is not None and full:
            self.close(batch, "bytes")
            batch = None
        if batch is None:
            if len(self.open) == self.max_open:
                self.close(self.open[0], "limit")
            batch = SlowBatch(key, now)
            self.open.append(batch)
        batch.items.append(item)
        if closes:
            self.states[key] = state
            self.close(batch, "size")
        elif self.max_bytes is not None and sum(map(self.weigh, batch.items)) >= self.max_bytes:
            self.close(batch, "bytes")

    def close(self, batch: SlowBatch, trigger: str) -> None:
        """Close a batch."""
        self.open.remove(batch)
        self.closed.append(batch)
        batch.trigger = trigger
        batch.where = "waiting"
        self.number += 1
        batch.number = self.number
        self._look()

    def due(self) -> float | None:
        """Return when the next one is to be closed."""
        return (
            None if self.timeout is None else min((each.opened_at + self.timeout for each in self.open), default=None)
        )

    def expire(self, now: float) -> None:
        """Close those whose time is up."""
        for batch in list(self.open):
            if self.timeout is not None and batch.opened_at + self.timeout <= now:
                self.close(batch, "timeout")

    def _look(self) -> None:
        """See which batches may go."""
        for batch in self.closed:
            before = [each for each in self.closed if each.key == batch.key and each.number < batch.number]
            if batch.where == "waiting" and batch not in self.ready and not (self.serial and before):
                self.ready.append(batch)

    def take(self, count: int) -> list[SlowBatch]:
        """Hand out the first ones."""
        taken, self.ready = self.ready[:count], self.ready[count:]
        for batch in taken:
            batch.where = "running"
        return taken

    def done(self, batch: SlowBatch) -> None:
        """Take note that one was handled."""
        batch.where = "done"
        self.closed.remove(batch)
        self._look()

    def give_back(self, batch: SlowBatch) -> None:
        """Take one back: before all that closed later."""
        batch.where = "waiting"
        place = next((at for at, each in enumerate(self.ready) if each.number > batch.number), len(self.ready))
        self.ready.insert(place, batch)

    def choked(self, most: int) -> set[Any]:
        """Return the keys with so many batches that wait behind one of theirs."""
        behind = [each.key for each in self.closed if each.where == "waiting" and each not in self.ready]
        return {key for key in behind if behind.count(key) >= most}

    def count(self, where: str) -> int:
        """Return how many closed batches are there."""
        return sum(each.where == where for each in self.closed)


class SlowEntry:
    """An item as the model of the intake has it."""

    def __init__(self, item: Any, user: Any, key: Any, urgency: int) -> None:
        """Keep what the user's functions have said of it."""
        self.item = item
        self.user = user
        self.key = key
        self.urgency = urgency


class SlowIntake:
    """What `Intake` does. ``look`` gives user, key and class of an item; it and ``share`` raise ValueError."""

    def __init__(
        self,
        look: Callable[[Any], tuple[Any, Any, int]],
        share: Callable[[Any], int],
        *,
        fair: bool,
        ageing: int | None,
        key_limit: int | None,
    ) -> None:
        """Start empty."""
        self.look = look
        self.share = share
        self.fair = fair
        self.ageing = ageing
        self.key_limit = key_limit
        self.waiting: list[SlowEntry] = []
        self.turns: list[SlowEntry] = []  # those that may go, in the order in which they have come to that
        self.out: list[SlowEntry] = []  # of keys
        self.rounds: dict[int, list[list[Any]]] = {}  # of each class: users with what is left of their turn
        self.since: dict[int, int] = {}  # of each class that may go: how many were taken when it had its last turn
        self.taken = 0
        self.errors: list[Any] = []

    def offer(self, items: list[Any]) -> None:
        """Put items behind."""
        for item in items:
            try:
                entry = SlowEntry(item, *self.look(item))
            except ValueError:
                self.errors.append(item)
                continue
            blocked = entry.key is not None and entry.key in [each.key for each in self.waiting + self.out]
            self.waiting.append(entry)
            if not blocked:
                self._join(entry, front=False)

    def put_back(self, items: list[Any]) -> None:
        """Put items in front."""
        for item in reversed(items):
            entry = next((each for each in self.out if each.item is item), None)
            if entry is not None:
                self.out.remove(entry)
            else:
                try:
                    entry = SlowEntry(item, *self.look(item))
                except ValueError:
                    self.errors.append(item)
                    continue
            self.waiting.insert(0, entry)
            if entry.key is not None and entry.key in [each.key for each in self.out]:
                continue
            later = [each for each in self.turns if entry.key is not None and each.key == entry.key]
            if self._join(entry, front=True):
                for each in later:
                    self.turns.remove(each)
                    self._tidy(each)

    def _join(self, entry: SlowEntry, *, front: bool) -> bool:
        """Give an entry its turn; when its user has no weight, leave it out and look at the next of its key."""
        if self.fair and not any(each.user == entry.user and each.urgency == entry.urgency for each in self.turns):
            try:
                share = self.share(entry.user)
            except ValueError:
                self.waiting.remove(entry)
                self.errors.append(entry.item)
                self._follow(entry.key)
                return False
            self.rounds.setdefault(entry.urgency, []).append([entry.user, share])
        if entry.urgency not in self.since:
            self.since[entry.urgency] = self.taken
        self.turns.insert(0 if front else len(self.turns), entry)
        return True

    def _follow(self, key: Any) -> None:
        """Give the next of a key its turn, if it is free."""
        if key is None or key in [each.key for each in self.turns + self.out]:
            return
        entry = next((each for each in self.waiting if each.key == key), None)
        if entry is not None:
            self._join(entry, front=False)

    def _tidy(self, gone: SlowEntry) -> None:
        """Forget the user and the class of an entry that has left, if there is nothing more of them."""
        left = [each for each in self.turns if each.urgency == gone.urgency]
        if self.fair and gone.user not in [each.user for each in left]:
            self.rounds[gone.urgency] = [each for each in self.rounds[gone.urgency] if each[0] != gone.user]
        if not left:
            del self.since[gone.urgency]

    def take(self, count: int) -> list[Any]:
        """Take one after the other."""
        return [self._take() for _ in range(min(count, len(self.turns)))]

    def _take(self) -> Any:
        ageing = self.ageing
        urgency = min(self.since, key=lambda each: (each if ageing is None else each * ageing + self.since[each], each))
        entries = [each for each in self.turns if each.urgency == urgency]
        if self.fair:
            turn = self.rounds[urgency][0]
            entries = [each for each in entries if each.user == turn[0]]
            turn[1] -= 1
            if not turn[1]:
                self.rounds[urgency].append([turn[0], self.share(turn[0])])
                del self.rounds[urgency][0]
        entry = entries[0]
        self.turns.remove(entry)
        self.waiting.remove(entry)
        self.taken += 1
        self.since[urgency] = self.taken
        self._tidy(entry)
        if entry.key is not None:
            self.out.append(entry)
        return entry.item

    def release(self, items: list[Any]) -> None:
        """Take note that some are done."""
        for item in items:
            for entry in [each for each in self.out if each.item is item]:
                self.out.remove(entry)
                self._follow(entry.key)

    def overflow(self) -> dict[Any, list[Any]]:
        """Take out the newest of keys that have too many."""
        found: dict[Any, list[Any]] = {}
        if self.key_limit is None:
            return found
        for key in {each.key for each in self.waiting if each.key is not None}:
            over = [each for each in self.waiting if each.key == key][self.key_limit :]
            for entry in over:
                self.waiting.remove(entry)
                found.setdefault(key, []).append(entry.item)
        return found

    def withdraw(self, key: Any) -> list[Any]:
        """Take out what waits behind the one of a key that has its turn, or is out."""
        behind = [each for each in self.waiting if key is not None and each.key == key and each not in self.turns]
        self.waiting = [each for each in self.waiting if each not in behind]
        return [each.item for each in behind]

    def clear(self) -> list[Any]:
        """Take out everything."""
        items = [each.item for each in self.waiting]
        self.taken += len(self.turns)
        self.waiting, self.turns = [], []
        self.rounds, self.since = {}, {}
        return items
