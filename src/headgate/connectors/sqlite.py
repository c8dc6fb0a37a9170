"""`SQLiteQueue`: a durable queue in a file, without a server, for any number of processes of one machine."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Final
from weakref import WeakSet

from headgate.connectors.options import check_choice, check_count, check_seconds
from headgate.connectors.sqlite_claims import Claims, Receipt
from headgate.connectors.sqlite_database import DEAD, DONE, FAIR_INDEX, ORDER_INDEX, Database
from headgate.connectors.sqlite_group import Group
from headgate.connectors.sqlite_inspection import Inspection
from headgate.connectors.sqlite_putting import Putting
from headgate.connectors.sqlite_records import Codec, QueueCounts, QueuedMessage, check_text, why_unreadable
from headgate.connectors.sqlite_store import Store
from headgate.errors import OptionError
from headgate.failures import why
from headgate.types import Message, Source

__all__ = ["QueueCounts", "QueuedMessage", "SQLiteQueue"]

_ANY_LEFT: Final = """SELECT
    EXISTS (SELECT 1 FROM headgate_messages INDEXED BY headgate_ready WHERE queue = ?1 AND state = 0)
    OR EXISTS (SELECT 1 FROM headgate_messages INDEXED BY headgate_delayed WHERE queue = ?1 AND state = 1)
    OR EXISTS (SELECT 1 FROM headgate_messages INDEXED BY headgate_leased WHERE queue = ?1 AND state = 2)
    OR EXISTS (SELECT 1 FROM headgate_messages INDEXED BY headgate_behind WHERE queue = ?1 AND state = 3)"""
_AT_WORK: Final = """SELECT 1 FROM headgate_messages INDEXED BY headgate_leased
    WHERE queue = ? AND state = 2 AND due > ? LIMIT 1"""

_open_here: Final[dict[tuple[str, str], WeakSet[SQLiteQueue]]] = {}
"""Who reads which queue of which file in this process."""
_open_here_lock = Lock()


def _forget_the_parents() -> None:
    """After a fork nobody reads here; and whoever held the lock is not there to let it go."""
    global _open_here_lock  # noqa: PLW0603 (a lock cannot be made free by others)
    _open_here_lock = Lock()
    _open_here.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_the_parents)


class SQLiteQueue(Putting, Inspection, Source):
    """A durable queue in an SQLite file.

    What was put is there until it is acknowledged, whoever is killed: with ``durability="normal"`` it outlives any
    process, with ``"power"`` a power cut as well. Each message is leased to one consumer at a time; when its lease is
    over without a word, the next one gets it, alone, and that counts as a delivery. After ``max_deliveries`` it is a
    dead letter, with the reason and the traceback. Whoever acknowledges too late is told so, and changes nothing.

    Several queues can be in one file, and a program's own tables as well (ours begin with ``headgate_``). The file must
    be on a local disk; it is put into WAL mode, so ``FILE-wal`` and ``FILE-shm`` belong to it.

    Payloads are JSON, or bytes. What JSON does not tell apart comes back as JSON has it: tuples as lists, keys of dicts
    as strings.

    Args:
        path: The file. It is made with the first use.
        queue: The queue's name in it. Default ``"default"``.
        lease: Seconds for which a message is a consumer's, unless it is extended (a pipeline does that). Default 30.
        max_deliveries: How often a message is handed out before it is a dead letter. Default 5. None: any number.
        ordered: The messages of one key are handed out in the order in which they were put, and never while an earlier
            one is with another consumer, delayed or waiting for its retry. The order within a key goes before
            priorities: an urgent message brings the earlier ones of its key forward.
        per_key: With ``ordered``, how many messages of one key, in order, this consumer may have under way at a time.
            Default 1: the next one comes when the one before has ended, so a pipeline may handle whatever it has at the
            same time. More is quicker where few keys have many messages, for a pipeline that handles those of a key one
            after the other (``partition_by``).
        fair: The users take turns, one message each, whatever each has waiting: one with 100,000 does not keep one
            with 10 waiting. What has no user has turns like a user. Priorities count within a user's messages.
        poll: Seconds after which to look whether another process has put something. Default 0.1. A look costs a few
            microseconds. What is put by this process is noticed at once.
        durability: ``"normal"`` (default): what was put outlives any process; ``"power"``: and power cuts, as every
            commit waits for the disk (SQLite's ``synchronous`` NORMAL and FULL).
        keep_done: Keep what was acknowledged or discarded, until `purge`. Default: delete it.
        stop_when_empty: `fetch` returns None, so a pipeline ends, when nothing is waiting, delayed or leased.
        encode: A function of a payload that returns a string or bytes. Default: JSON.
        decode: Its inverse. What it raises makes the message a dead letter.
        create: Make the file and the queue when they are not there. Default True.
        patience: Seconds to try while other processes keep the file locked. Default 10.
        name: For statistics and errors. Default: the file's name and the queue's.
        clock: Unix time in seconds; leases, delays and all that is kept in the file go by it.
        sleep: Waits so many seconds, while somebody else writes.
        chance: Gives a number from 0 to 1, for how long.

    Raises:
        OptionError: An option is of the wrong type or out of range.
    """

    blocking = True
    redelivers = True
    lookahead = 100  # leases run while messages wait
    keeps_letters = True

    def __init__(  # noqa: PLR0913 (each is a choice of its own)
        self,
        path: str | os.PathLike[str],
        *,
        queue: str = "default",
        lease: float = 30.0,
        max_deliveries: int | None = 5,
        ordered: bool = False,
        per_key: int = 1,
        fair: bool = False,
        poll: float = 0.1,
        durability: str = "normal",
        keep_done: bool = False,
        stop_when_empty: bool = False,
        encode: Callable[[Any], str | bytes] | None = None,
        decode: Callable[[Any], Any] | None = None,
        create: bool = True,
        patience: float = 10.0,
        name: str = "",
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Check the options; the file is not touched yet."""
        absolute = _absolute(path)
        where = f"SQLiteQueue({os.fspath(path)!r})"
        if not queue:
            raise OptionError(where, "queue", "a string that is not empty", queue)
        check_text(where, "queue", queue)
        check_count(where, "max_deliveries", max_deliveries, 1, optional=True)
        check_count(where, "per_key", per_key, 1)
        if per_key > 1 and not ordered:
            raise OptionError(where, "per_key", "left out, as the queue is not ordered", per_key)
        check_choice(where, "durability", durability, ("normal", "power"))
        _check_seconds(where, lease=lease, poll=poll, patience=patience)
        _check_flags(
            where, ordered=ordered, fair=fair, keep_done=keep_done, create=create, stop_when_empty=stop_when_empty
        )
        _check_functions(where, clock=clock, sleep=sleep, chance=chance)
        if not isinstance(name, str):
            raise OptionError(where, "name", "a string", name)
        self.name = name or f"{Path(absolute).name}:{queue}"
        self.path = absolute
        self.queue = queue
        self.lease = float(lease)
        self.poll = float(poll)
        self.max_deliveries = max_deliveries
        self.ordered = ordered
        self.fair = fair
        self._per_key = per_key if ordered else None
        self._keep_done = keep_done
        self._stop_when_empty = stop_when_empty
        self._where = where
        self._clock = clock
        self._codec = Codec(where, encode, decode)
        self._database = Database(
            absolute, create=create, full=durability == "power", patience=float(patience), sleep=sleep, chance=chance
        )
        self._store = Store(where, absolute, queue, self._database, self._codec, clock)
        self._group = Group(self._insert)
        self._claims: Claims | None = None
        self._draining = False
        self._news = True  # something may have been put since the last look
        self._empty = True  # when it was looked at last
        self._held: dict[Receipt, float] = {}  # what is under way here, and until when
        self._alone: tuple[Receipt, float] | None = None  # nothing else is handed out beside this, until then
        self._seen = -1
        self._due = 0.0
        self._numbers: dict[str, int] = dict.fromkeys(
            ("fetched", "acknowledged", "given_back", "discarded", "dead_lettered", "lost", "unreadable"), 0
        )

    def setup(self) -> None:
        """Make the file and the queue in it, unless they are there. Happens by itself with the first use.

        Raises:
            StoreError: It cannot be made, or is no file of ours.
        """
        self._store.number()

    def _insert(self, rows: Sequence[Any]) -> list[int | None]:
        ids = self._store.insert(rows)
        self._stir()
        return ids

    def _stir(self) -> None:
        """Let everybody in this process who reads this queue look at once."""
        with _open_here_lock:
            readers = list(_open_here.get((self.path, self.queue), ()))
        for each in readers:
            each._news = True  # noqa: SLF001 (of the same class)
            each.wake()

    # -- the source ---------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Begin to consume.

        Raises:
            OptionError: Others consume the queue with another ``ordered``.
            StoreError: The file cannot be opened.
        """
        number = self._store.number()
        database = self._database
        with database.transaction("open"):
            self._agree(number)
            sql = "UPDATE headgate_queue_meta SET value = value + 1 WHERE name = 'workers' RETURNING value"
            worker = database.run("open", sql)[0][0]
            for wanted, index in ((self.ordered, ORDER_INDEX), (self.fair, FAIR_INDEX)):
                if wanted:
                    database.run("open", index.replace("$Q", str(number)))
        self._claims = Claims(
            database, number, worker, per_key=self._per_key, fair=self.fair, max_deliveries=self.max_deliveries
        )
        self._draining = False
        self._news = True
        with _open_here_lock:
            _open_here.setdefault((self.path, self.queue), WeakSet()).add(self)

    def _agree(self, number: int) -> None:
        """Keep in the file whether the queue is ordered: one consumer that does not care would spoil it for all."""
        database = self._database
        sql = "SELECT ordered FROM headgate_queues WHERE id = ?"
        before = bool(database.run("open", sql, (number,))[0][0])
        if before is self.ordered:
            return
        if database.run("open", _AT_WORK, (number, self._clock())):
            expected = f"{before}, as messages are out with consumers that have it so (wait until they are done)"
            raise OptionError(self._where, "ordered", expected, self.ordered)
        database.run("open", "UPDATE headgate_queues SET ordered = ? WHERE id = ?", (int(self.ordered), number))
        database.run("open", "UPDATE headgate_messages SET state = 0 WHERE queue = ? AND state = 3", (number,))

    def close(self) -> None:
        """Give the file back. What is still leased is handed to somebody else when its lease is over."""
        with _open_here_lock:
            readers = _open_here.get((self.path, self.queue))
            if readers is not None:
                readers.discard(self)
                if not readers:
                    del _open_here[self.path, self.queue]
        self._claims = None
        self._database.close()

    def drain(self) -> None:
        """Hand out nothing more, until it is opened again."""
        self._draining = True

    def fetch(self, count: int) -> list[Message] | None:
        """Lease the next messages.

        Raises:
            StoreError: The file cannot be read or written.
        """
        if self._draining:
            return []
        claims = self._claims
        if claims is None:
            self.open()
            claims = self._opened()
        now = self._clock()
        if self._alone is not None:
            receipt, until = self._alone
            if receipt in self._held and now < until:
                return []
            self._alone = None
        if not self._news and now < self._due and self._version() == self._seen:
            return []
        self._news = False  # before the look: what is put meanwhile is news again
        version = self._version() if self._empty else None
        until = now + (self.lease or 0.0)
        token, rows = claims.claim(count, now, until, busy=self._busy(now))
        if claims.held_back:  # as soon as what is under way has ended
            self._news = True
            return []
        if claims.alone and rows:
            self._alone = ((rows[0][1], token), until)
        self._empty = not rows
        if rows or claims.more or version is None:  # without a version from before it has to be looked at once more
            self._news = True
            if claims.more:
                self.wake()
            self._numbers["fetched"] += len(rows)
            if rows or not self._stop_when_empty:
                return self._messages(claims, rows, token, now)
        with self._database.lock:
            if self._stop_when_empty and not self._database.run("fetch", _ANY_LEFT, (claims.queue,))[0][0]:
                self._news = True  # it is to be said again if somebody asks again
                return None
            if version is not None and not claims.more:
                self._seen, self._due = version, claims.look(now)[0]
        return []

    def _version(self) -> int:
        """Return a number that changes when another connection has written to the file."""
        with self._database.lock:
            version: int = self._database.run("fetch", "PRAGMA data_version")[0][0]
        return version

    def _messages(self, claims: Claims, rows: list[Any], token: int, now: float) -> list[Message]:
        messages: list[Message] = []
        make = self._codec.message
        for row in rows:
            try:
                messages.append(make(row, token))
            except Exception as error:  # noqa: BLE001 (the user's decode; the others must not suffer from it)
                claims.end(DEAD, [(row[1], token)], [why_unreadable(error)], now)
                self._numbers["unreadable"] += 1
        until = now + (self.lease or 0.0)
        for message in messages:
            self._held[message.receipt] = until
        return messages

    def _busy(self, now: float) -> bool:
        """Say whether messages are under way here; those whose lease is over are somebody else's."""
        held = self._held
        while held:
            receipt, until = next(iter(held.items()))
            if until > now:
                return True
            del held[receipt]
        return False

    def ack(self, messages: Sequence[Message]) -> list[Message] | None:
        """Delete messages that were handled, or keep them as done.

        Returns:
            A list of those whose lease was over, so that somebody else has had or will have them, or None.
        """
        return self._forget(messages, "acknowledged")

    def discard(self, messages: Sequence[Message]) -> list[Message] | None:
        """Delete messages that have failed for good, or keep them as done, with the reason. Returns what `ack` does."""
        return self._forget(messages, "discarded")

    def _forget(self, messages: Sequence[Message], what: str) -> list[Message] | None:
        if not messages:
            return None
        claims = self._opened()
        receipts = [message.receipt for message in messages]
        ours: set[Receipt] | None
        if self._keep_done:
            ours = claims.end(DONE, receipts, [why(message) for message in messages], self._clock())
        else:
            ours = claims.forget(receipts)
        return self._settled(messages, ours, what)

    def nack(self, messages: Sequence[Message], delay: float = 0.0, *, counted: bool = True) -> list[Message] | None:
        """Take messages back. Those that were handed out ``max_deliveries`` times become dead letters.

        Args:
            messages: Any of those that were fetched.
            delay: Seconds before which they are not handed out again.
            counted: Whether that delivery counts; False: nobody has tried to handle them.

        Returns:
            As `ack`.
        """
        if not messages:
            return None
        check_seconds(self._where, "delay", delay)
        receipts = [message.receipt for message in messages]
        ours, dead = self._opened().give_back(
            receipts, [why(message) for message in messages], now=self._clock(), delay=delay, counted=counted
        )
        self._numbers["dead_lettered"] += dead
        if not delay:
            self._stir()
        return self._settled(messages, ours, "given_back")

    def dead_letter(self, messages: Sequence[Message]) -> list[Message] | None:
        """Keep messages that have failed for good, with their reason and traceback. Returns what `ack` does."""
        if not messages:
            return None
        receipts = [message.receipt for message in messages]
        ours = self._opened().end(DEAD, receipts, [why(message) for message in messages], self._clock())
        return self._settled(messages, ours, "dead_lettered")

    def extend(self, messages: Sequence[Message], seconds: float) -> list[Message] | None:
        """Let leases end so many seconds from now. Returns what `ack` does."""
        if not messages:
            return None
        check_seconds(self._where, "seconds", seconds)
        until = self._clock() + seconds
        receipts = [message.receipt for message in messages]
        ours = self._opened().extend(receipts, until)
        for receipt in receipts:
            if ours is not None and receipt not in ours:
                self._held.pop(receipt, None)
            elif receipt in self._held:
                self._held[receipt] = until
        self._due = min(self._due, until)  # it may be sooner than it was
        return self._settled(messages, ours, None)

    def _settled(
        self, messages: Sequence[Message], ours: set[Receipt] | None, what: str | None
    ) -> list[Message] | None:
        lost = [] if ours is None else [message for message in messages if message.receipt not in ours]
        self._numbers["lost"] += len(lost)
        if what is not None:
            for message in messages:
                self._held.pop(message.receipt, None)
            if self._alone is not None or (self._claims is not None and self._claims.held_back):
                self.wake()
            self._numbers[what] += len(messages) - len(lost)
            self._news = True  # it may be empty now
            if self.ordered:  # later messages of their keys may be ready now
                self._stir()
        return lost or None

    def _opened(self) -> Claims:
        if self._claims is None:
            self.open()
        assert self._claims is not None  # noqa: S101 (for the type checkers)
        return self._claims

    # -- looking at it ------------------------------------------------------------------------------------------------

    def statistics(self) -> dict[str, float]:
        """Return what this object has done as a source, by name; of the whole queue: `counts`.

        ``lost``: leases that were over when something was to be done about their messages; ``reclaimed``: leases of
        anybody that this one has found to be over; ``died``: those of them that had been handed out too often;
        ``waited``: seconds that it has waited for other processes.
        """
        claims = self._claims
        return {
            **self._numbers,
            "reclaimed": 0 if claims is None else claims.reclaimed,
            "died": 0 if claims is None else claims.expired_dead,
            "waited": self._database.waited,
        }


def _absolute(path: Any) -> str:
    """Return the path of a file, whatever folder a program goes to later."""
    where = "SQLiteQueue"
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise OptionError(where, "path", "the path of a file", path)
    if os.fspath(path) in ("", ":memory:"):
        raise OptionError(where, "path", "the path of a file (in memory: MemoryQueue)", path)
    return str(os.path.abspath(path))  # noqa: PTH100 (resolve() would look at the disk)


def _check_seconds(where: str, **options: Any) -> None:
    for option, value in options.items():
        if not check_seconds(where, option, value) and option != "patience":
            raise OptionError(where, option, "a number of seconds above 0", value)


def _check_flags(where: str, **options: Any) -> None:
    for option, value in options.items():
        check_choice(where, option, value, (True, False))


def _check_functions(where: str, **options: Any) -> None:
    for option, value in options.items():
        if not callable(value):
            raise OptionError(where, option, "a function", value)
