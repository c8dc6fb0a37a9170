"""The open batches of one batcher, and the closed ones that wait to be handled. Pure: time comes in as ``now``.

There is at most one open batch for each key. It closes for exactly one reason, its *trigger*:

* ``"size"``: it has as many items as it may have, or the splitter said so;
* ``"bytes"``: one more item would make it too large, or it is as large as it may be;
* ``"timeout"``: its first item came ``timeout`` seconds ago;
* ``"flush"``: an item asked for it; it closes at the end of the `Batches.add` that brought the item;
* ``"limit"``: another batch was to be opened and there are as many as there may be: the oldest closes;
* ``"end"``: nothing more will come.

There are no timers to be forgotten. All batches have the same timeout, so they are due in the order in which they were
opened, which is the order in which they are kept: the next deadline is read off the oldest open batch whenever somebody
asks. A batch that has closed is not there any more, so it cannot close again.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, repeat
from operator import attrgetter
from typing import Any, Final

from headgate.errors import OptionError, ProtocolError
from headgate.types import BULK, FLUSH

SIZE: Final = "size"
BYTES: Final = "bytes"
TIMEOUT: Final = "timeout"
LIMIT: Final = "limit"
END: Final = "end"

Splitter = tuple[Any, Callable[[Any, Any], tuple[bool, Any]]]
"""The state to begin with, and (item, state) -> (whether the batch closes with this item, the next state)."""

BATCH_KEY: Final[Callable[[Any], Any]] = attrgetter("batch_key")
BATCH_MODE: Final[Callable[[Any], Any]] = attrgetter("batch_mode")

_USUAL: Final[tuple[Any, str]] = (None, BULK)
_KEPT: Final = 10_000
"""Keys whose splitter's state is remembered although it is not the one to begin with."""
_MISSING: Final[Any] = object()


class Batch:
    """Items that are handled together.

    Attributes:
        items: In the order in which they came.
        key: What they have in common.
        trigger: Why it closed; "" as long as it is open.
        size: How many items it had when it closed, whatever becomes of the list.
        opened_at: When its first item came.
        number: The place in the order in which batches have closed, from 1 on.
        running: It was handed out and is not done.
        bytes: What the sizer says of its items, in total.
        state: What the splitter has returned last.
    """

    __slots__ = ("bytes", "items", "key", "number", "opened_at", "running", "size", "state", "trigger")

    def __init__(self, key: Any, opened_at: float) -> None:
        """Open it, without items."""
        self.items: list[Any] = []
        self.key = key
        self.trigger = ""
        self.size = 0
        self.opened_at = opened_at
        self.number = 0
        self.running = False
        self.bytes: float = 0
        self.state: Any = None

    def __repr__(self) -> str:
        """Show the key, the size and why it closed."""
        return f"<Batch of {self.size or len(self.items)}, key {self.key!r}, {self.trigger or 'open'}>"


class Batches:
    """The batches of one batcher.

    Items of one `add` are taken key by key, in the order in which the keys first come in it; within a key in their own.

    Args:
        size: The most items of a batch; or a pair of a state and a function (item, state) -> (closes, state), which is
            asked with each item whether the batch closes with it. Each key has a state of its own. The next batch of a
            key begins with the state that came with the last ``True``: also when a batch closes for another reason,
            the next one begins as this one did. States must not be changed in place; those of the 10,000 keys that
            were used last are remembered, and any number that equal the first one.
        max_bytes: The most bytes of a batch, unless a single item alone has more. Default None: any number.
        sizer: Item -> its bytes. Needed for ``max_bytes``.
        timeout: Seconds after its first item at which a batch closes. Default None: never.
        max_open: The most batches that may be open.
        serial: Batches of one key are handed out one at a time, in order: the next when the one before is `done`.
        max_waiting: Closed batches that may wait, those that were handed out not counted. It is up to the caller to
            put in nothing more when `full` says so; what is put in all the same is not lost. As many may wait behind
            the one of their own key that is out, if they are serial: then the key is one of `choked`.
        key_of: Item -> its key (hashable). Default: its ``batch_key``; None: all have the same.
        flush_of: Item -> ``"flush"`` or True: its batch is to close at the end of this `add`; anything else: it is not.
            Default: its ``batch_mode``; None: it never is.
        where: What errors call it.

    Attributes:
        errors: Items for which a function of the user's has failed, with what it raised: nothing else has become of
            them. For the caller to take out.
        open_items: Items in open batches.
        waiting: Closed batches that were not handed out, or given back.
        running: Batches that were handed out and are not done.
        choked: Serial keys that have as many closed batches waiting behind the one that is out as may.

    Raises:
        OptionError: An option is of the wrong type or out of range.
    """

    def __init__(  # noqa: PLR0913 (each is a choice of its own)
        self,
        size: int | Splitter,
        *,
        max_bytes: float | None = None,
        sizer: Callable[[Any], float] | None = None,
        timeout: float | None = None,
        max_open: int = 1000,
        serial: bool = False,
        max_waiting: int = 10,
        key_of: Callable[[Any], Any] | None = BATCH_KEY,
        flush_of: Callable[[Any], Any] | None = BATCH_MODE,
        where: str = "Batches",
    ) -> None:
        """Check the options and start without batches."""
        self._size, self._initial, self._splitter = _split_up(where, size)
        _check_bytes(where, max_bytes, sizer)
        if timeout is not None:
            _check_number(where, "timeout", timeout, "a number of seconds above 0, or None", above=0)
        _check_count(where, "max_open", max_open)
        _check_count(where, "max_waiting", max_waiting)
        _check_function(where, "key_of", key_of)
        _check_function(where, "flush_of", flush_of)
        self._max_bytes = max_bytes
        self._sizer = sizer if max_bytes is not None else None
        self._timeout = timeout
        self._max_open = max_open
        self._serial = bool(serial)
        self._max_waiting = max_waiting
        self._key_of = key_of
        self._flush_of = flush_of
        self._usual = key_of is BATCH_KEY and flush_of is BATCH_MODE  # of messages
        self._whole = key_of is None and flush_of is None  # nobody need look at an item
        self._counted = self._splitter is None and self._sizer is None
        self._now = -math.inf
        self._number = 0
        self._open: OrderedDict[Any, Batch] = OrderedDict()  # the oldest first
        self._states: OrderedDict[Any, Any] = OrderedDict()  # to begin the next batch with, where it is not the usual
        self._ready: deque[Batch] = deque()  # could be handed out now
        self._lines: dict[Any, deque[Batch] | None] = {}  # serial: keys with a batch ahead, and what waits behind it
        self.errors: list[tuple[Any, Exception]] = []
        self.choked: set[Any] = set()
        self.open_items = 0
        self.waiting = 0
        self.running = 0

    @property
    def open(self) -> int:
        """How many batches are open."""
        return len(self._open)

    @property
    def ready(self) -> int:
        """How many batches could be handed out now."""
        return len(self._ready)

    def held(self) -> Iterable[Any]:
        """Return the items of all batches that were not handed out."""
        lines = (line for line in self._lines.values() if line)
        for batch in chain(self._open.values(), self._ready, chain.from_iterable(lines)):
            yield from batch.items

    @property
    def full(self) -> bool:
        """Whether as many closed batches could be handed out as may wait: nothing more should be put in."""
        return len(self._ready) >= self._max_waiting

    # -- what comes in ------------------------------------------------------------------------------------------------

    def add(self, items: Sequence[Any], now: float) -> bool:
        """Put items into the batches of their keys.

        Args:
            items: In the order in which they came. The sequence stays the caller's.
            now: The time in seconds. It does not go back: an earlier one than before counts as the same.

        Returns:
            Whether there are batches that could be handed out now.
        """
        if not items:
            return bool(self._ready)
        if now > self._now:  # noqa: PLR1730 (max() costs a call)
            self._now = now
        key = None
        try:
            if self._usual:
                for item in items:
                    if item.batching is not None:  # everything but the usual case is looked at with more care
                        self._add_mixed(items)
                        return bool(self._ready)
            elif not self._whole:
                self._add_mixed(items)
                return bool(self._ready)
            batch = self._open.get(key)
        except Exception:  # noqa: BLE001 (an item without a key, or a key without a hash)
            self._add_mixed(items)
            return bool(self._ready)
        if batch is not None and self._counted and len(batch.items) + len(items) < self._size:
            batch.items += items
            self.open_items += len(items)
        else:
            self._put(key, items)
        return bool(self._ready)

    def _add_mixed(self, items: Sequence[Any]) -> None:
        """Put items in that may have different keys, and may flush."""
        groups: dict[Any, list[Any]] = {}
        flushed: dict[Any, None] = {}
        for item, key, mode in self._looked_at(items):
            try:
                group = groups.get(key)
            except Exception as error:  # noqa: BLE001 (the key's hash)
                self.errors.append((item, error))
                continue
            if group is None:
                groups[key] = [item]
            else:
                group.append(item)
            if mode is not BULK and mode is not False and (mode is True or mode == FLUSH):
                flushed[key] = None
        counted, size, batches = self._counted, self._size, self._open
        for key, group in groups.items():
            batch = batches.get(key)
            if batch is not None and counted and len(batch.items) + len(group) < size:
                batch.items += group
                self.open_items += len(group)
            else:
                self._put(key, group)
        for key in flushed:
            batch = batches.get(key)
            if batch is not None:
                self._close(batch, FLUSH)

    def _looked_at(self, items: Sequence[Any]) -> Iterable[tuple[Any, Any, Any]]:
        """Return each item with its key and its mode; report those for which a function fails."""
        key_of, flush_of = self._key_of, self._flush_of
        try:
            if self._usual:
                usual: list[tuple[Any, Any, Any]] = []
                for item in items:
                    key, mode = item.batching or _USUAL
                    usual.append((item, key, mode))
                return usual
            keys = repeat(None) if key_of is None else list(map(key_of, items))
            modes = repeat(BULK) if flush_of is None else list(map(flush_of, items))
        except Exception:  # noqa: BLE001 (the user's function: one by one, then)
            seen: list[tuple[Any, Any, Any]] = []
            for item in items:
                try:
                    key = None if key_of is None else key_of(item)
                    seen.append((item, key, BULK if flush_of is None else flush_of(item)))
                except Exception as error:  # noqa: BLE001 (the user's function)
                    self.errors.append((item, error))
            return seen
        return zip(items, keys, modes, strict=False)

    def _put(self, key: Any, items: Sequence[Any]) -> None:
        """Put items of one key into as many batches as they need."""
        if self._splitter is not None:
            self._put_each(key, items)
            return
        sizes: list[float] | None = None
        if self._sizer is not None:
            sizes = self._sizes(items)
            batch = self._open.get(key)
            had, count = (0.0, 0) if batch is None else (batch.bytes, len(batch.items))
            if sizes is None or count + len(items) >= self._size or not had + sum(sizes) < (self._max_bytes or 0):
                self._put_each(key, items)
                return
        size, start, total = self._size, 0, len(items)
        while start < total:
            batch = self._open.get(key)
            if batch is None:
                batch = self._begin(key)
            stop = start + size - len(batch.items)
            batch.items += items[start:stop]
            self.open_items += min(stop, total) - start
            if sizes is not None:  # all of it fits
                batch.bytes += sum(sizes)
            if stop <= total:
                self._close(batch, SIZE)
            start = stop

    def _sizes(self, items: Sequence[Any]) -> list[float] | None:
        """Return the bytes of each item, or None when the sizer fails."""
        try:
            sizes: list[Any] = list(map(self._sizer, items))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            return sizes if min(sizes) >= 0 else None
        except Exception:  # noqa: BLE001 (the user's function: one by one, then)
            return None

    def _put_each(self, key: Any, items: Sequence[Any]) -> None:
        """Put items of one key in one by one: the splitter and the sizer are asked for each."""
        splitter, sizer, most = self._splitter, self._sizer, math.inf if self._max_bytes is None else self._max_bytes
        for item in items:
            batch = self._open.get(key)
            # Everything of the user's is called before anything is changed: when it raises, only this item is affected.
            try:
                weight = 0 if sizer is None else _weight(sizer(item))
                fits = batch is None or batch.bytes + weight <= most
                if splitter is None:
                    state = None
                    closes = (len(batch.items) if batch is not None and fits else 0) + 1 == self._size
                else:
                    state = batch.state if batch is not None and fits else self._states.get(key, self._initial)
                    closes, state = _answer(splitter(item, state))
            except Exception as error:  # noqa: BLE001 (the user's functions)
                self.errors.append((item, error))
                continue
            if batch is not None and not fits:
                self._close(batch, BYTES)
                batch = None
            if batch is None:
                batch = self._begin(key)
            batch.items.append(item)
            batch.bytes += weight
            batch.state = state
            self.open_items += 1
            if closes:
                self._keep(key, state)
                self._close(batch, SIZE)
            elif batch.bytes >= most:
                self._close(batch, BYTES)

    def _keep(self, key: Any, state: Any) -> None:
        """Remember what the next batch of this key begins with."""
        if self._splitter is None:
            return
        states = self._states
        states.pop(key, None)
        if not _same(state, self._initial):
            states[key] = state
            if len(states) > _KEPT:
                states.popitem(last=False)

    def _begin(self, key: Any) -> Batch:
        """Open a batch; close the oldest if there are as many as there may be."""
        if len(self._open) >= self._max_open:
            self._close(next(iter(self._open.values())), LIMIT)
        batch = self._open[key] = Batch(key, self._now)
        return batch

    # -- what closes --------------------------------------------------------------------------------------------------

    def due(self) -> float | None:
        """Return when the next batch is to be closed by `expire`; None: there is nothing to wait for."""
        if self._timeout is None or not self._open:
            return None
        return next(iter(self._open.values())).opened_at + self._timeout

    def expire(self, now: float) -> int:
        """Close the batches whose time is up; return how many."""
        self._now = max(self._now, now)
        closed = 0
        while (due := self.due()) is not None and due <= self._now:
            self._close(next(iter(self._open.values())), TIMEOUT)
            closed += 1
        return closed

    def flush(self, trigger: str = END) -> int:
        """Close all batches, the oldest first; return how many."""
        batches = list(self._open.values())
        for batch in batches:
            self._close(batch, trigger)
        return len(batches)

    def _close(self, batch: Batch, trigger: str) -> None:
        key = batch.key
        del self._open[key]
        batch.trigger = trigger
        batch.size = len(batch.items)
        self._number += 1
        batch.number = self._number
        self.open_items -= batch.size
        self.waiting += 1
        if self._serial:
            line = self._lines.get(key, _MISSING)
            if line is None:
                line = self._lines[key] = deque()
            if line is not _MISSING:
                line.append(batch)
                if len(line) >= self._max_waiting:
                    self.choked.add(key)
                return
            self._lines[key] = None
        self._ready.append(batch)

    # -- what goes out ------------------------------------------------------------------------------------------------

    def take(self, count: int) -> list[Batch]:
        """Hand out up to so many closed batches; each is to be given to `done` or `give_back`."""
        ready = self._ready
        taken = [ready.popleft() for _ in range(min(count, len(ready)))]
        for batch in taken:
            batch.running = True
        self.waiting -= len(taken)
        self.running += len(taken)
        return taken

    def done(self, batch: Batch) -> None:
        """Take note that a batch was handled, however that went: the next one of its key may go.

        Raises:
            ProtocolError: It is not handed out.
        """
        self._returned(batch)
        if not self._serial:
            return
        line = self._lines.pop(batch.key)
        if line:
            self._ready.append(line.popleft())
            self._lines[batch.key] = line or None
            if self.choked and len(line) < self._max_waiting:
                self.choked.discard(batch.key)

    def give_back(self, batch: Batch) -> None:
        """Take a batch back that was not handled: it is the next of its key.

        Raises:
            ProtocolError: It is not handed out.
        """
        self._returned(batch)
        self.waiting += 1
        ready = self._ready
        place = 0  # several may come back, in any order
        while place < len(ready) and ready[place].number < batch.number:
            place += 1
        ready.insert(place, batch)

    def _returned(self, batch: Batch) -> None:
        if not batch.running:
            raise ProtocolError(f"expected a batch that is handed out, got {batch!r}")
        batch.running = False
        self.running -= 1


def _answer(answer: Any) -> tuple[bool, Any]:
    """Check what a splitter has returned."""
    if type(answer) is not tuple or len(answer) != 2 or type(answer[0]) is not bool:  # noqa: PLR2004 (a pair)
        raise TypeError(f"expected the splitter to return a pair of True or False and a state, got {answer!r}")
    return answer


def _weight(weight: Any) -> float:
    """Check what a sizer has returned."""
    if not weight >= 0:  # nan too
        raise ValueError(f"expected the sizer to return a number of bytes, got {weight!r}")
    return weight  # type: ignore[no-any-return]  # a number: it can be compared with one


def _same(state: Any, other: Any) -> bool:
    """Say whether two states are equal, as far as they can tell."""
    try:
        return state is other or bool(state == other)
    except Exception:  # noqa: BLE001 (arrays, for example, cannot)
        return False


def _split_up(where: str, size: Any) -> tuple[int, Any, Callable[[Any, Any], tuple[bool, Any]] | None]:
    """Return the number of items, the first state and the function that the option stands for."""
    if type(size) is tuple and len(size) == 2 and callable(size[1]):  # noqa: PLR2004 (a pair)
        function: Any = size[1]
        return 0, size[0], function
    if type(size) is not int or size < 1:
        expected = "an integer of at least 1, or a pair of a state and a function of item and state"
        raise OptionError(where, "size", expected, size)
    return size, None, None


def _check_bytes(where: str, max_bytes: Any, sizer: Any) -> None:
    _check_function(where, "sizer", sizer)
    if max_bytes is None:
        return
    _check_number(where, "max_bytes", max_bytes, "a number of bytes above 0, or None", above=0)
    if sizer is None:
        raise OptionError(where, "sizer", "a function of an item, as there is max_bytes", sizer)


def _check_number(where: str, option: str, value: Any, expected: str, *, above: float) -> None:
    if type(value) not in (int, float) or not value > above:
        raise OptionError(where, option, expected, value)


def _check_count(where: str, option: str, value: Any) -> None:
    if type(value) is not int or value < 1:
        raise OptionError(where, option, "an integer of at least 1", value)


def _check_function(where: str, option: str, value: Any) -> None:
    if value is not None and not callable(value):
        raise OptionError(where, option, "a function of an item, or None", value)
