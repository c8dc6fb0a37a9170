"""`FileSource`: the lines, rows or JSON records of files, or whole files; followed as they grow; with a checkpoint."""

from __future__ import annotations

import glob
import heapq
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from headgate.connectors.file_formats import make_format
from headgate.connectors.file_places import bury, check_paths, directory_of, find_files, move
from headgate.connectors.file_progress import Checkpoint, Position, Record
from headgate.connectors.file_tail import Tail
from headgate.connectors.file_watch import Watcher
from headgate.connectors.options import Delays, check_choice, check_count, check_function, check_seconds
from headgate.errors import OptionError
from headgate.types import Message, Source

_OPEN: Final = 32
"""Files that are held open although there is nothing to read."""
_POLL: Final = 0.2
_SKIPPED: Final = 10_000
"""Bad records that one fetch may skip: acknowledgements wait for it."""

Paths = str | os.PathLike[str]


class FileSource(Source):
    """Hands out what is in files, in the order of their names, with constant memory.

    A message's metadata has ``path``, ``line`` (from 1) and ``offset`` (bytes) of a record, or ``path``, ``size`` and
    ``modified`` of a whole file. Files whose name ends with ``.gz`` are unpacked.

    Args:
        path: A file, a directory (its files, no hidden ones), or a pattern such as ``"logs/**/*.log"``; or several.
        format: What a message is: ``"lines"`` (a line without its end), ``"csv"`` (a row as a dict), ``"jsonl"`` (what
            a line of JSON says; empty lines are left out), ``"files"`` (a whole file: its ``Path``); or a function of a
            line that returns the payload, or raises.
        encoding: Of the text. One in which a line ends with the byte 0x0A.
        header: Of CSV. True (default): the first row has the names; a list: the names; False: there are none, and a row
            is a list.
        csv_options: Of ``csv.reader``, e.g. ``{"delimiter": ";"}``.
        key: A function of a payload: the key of its message.
        watch: Whether it goes on when everything is read, with what is added to the files and with new files.
            ``"poll"``: the same, without the library ``watchfiles``, which tells at once (extra ``watch``).
        start: ``"end"``: of files that are there when it is opened, only what is added is read.
        checkpoint: A file that keeps how far everything is settled, so that a process that was killed goes on there.
        commit_interval: Seconds between two writes of the checkpoint. Default 0: it is written with each
            acknowledgement (of many messages, usually).
        done: What becomes of a file of which all is settled: ``"leave"``, ``"move"`` or ``"delete"``. A file that is to
            be moved or deleted is not followed: with ``watch`` it is complete when it has not changed for ``settle``
            seconds.
        destination: The directory for ``done="move"``.
        settle: See ``done``; so long must a whole file be unchanged, too. Only with ``watch``.
        letters: A directory for dead letters: whole files go there, with the reason beside; records are added to
            ``NAME.letters.jsonl``. Default: it keeps none.
        on_bad: What becomes of a record that cannot be read: ``"fail"``: its message has failed already, with a
            `RecordError` as reason, and is treated like one that a handler failed with; ``"skip"``: it is counted.
        max_line: Bytes of a line; a longer one is a bad record.
        poll: Seconds between two looks, with ``watch``.
        name: For statistics and errors.
        clock: Seconds, for delays and looks. Default: ``time.monotonic``.

    Attributes:
        counts: Numbers of ``records`` read, ``bad`` ones of them, and ``files`` that were done with.

    Raises:
        OptionError: An option is of the wrong type or out of range.
    """

    blocking = True
    redelivers = True

    def __init__(  # noqa: PLR0913 (each is a choice of its own)
        self,
        path: Paths | Iterable[Paths],
        *,
        format: str | Callable[[str], Any] = "lines",  # noqa: A002 (the field's word)
        encoding: str = "utf-8",
        header: bool | Sequence[str] = True,
        csv_options: Mapping[str, Any] | None = None,
        key: Callable[[Any], Any] | None = None,
        watch: bool | str = False,
        start: str = "beginning",
        checkpoint: Paths | None = None,
        commit_interval: float = 0.0,
        done: str = "leave",
        destination: Paths | None = None,
        settle: float = 1.0,
        letters: Paths | None = None,
        on_bad: str = "fail",
        max_line: int = 2**24,
        poll: float = 1.0,
        name: str = "",
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Check the options. No file is looked at before it is opened."""
        where = "FileSource"
        self._paths = check_paths(where, path)
        self._make_format = make_format(where, format, encoding, header, csv_options)
        self._whole = format == "files"
        check_function(where, "key", key, "a function of a payload, or None")
        check_choice(where, "watch", watch, (True, False, "poll"))
        check_choice(where, "start", start, ("beginning", "end"))
        check_choice(where, "done", done, ("leave", "move", "delete"))
        if (done == "move") != (destination is not None):
            expected = "a directory" if done == "move" else "left out unless done='move'"
            raise OptionError(where, "destination", expected, destination)
        self._growing = bool(watch) and done == "leave" and not self._whole
        if start == "end" and not self._growing:
            expected = "'beginning', unless lines are followed (watch=True, done='leave')"
            raise OptionError(where, "start", expected, start)
        check_choice(where, "on_bad", on_bad, ("fail", "skip"))
        check_count(where, "max_line", max_line, 1)
        check_function(where, "clock", clock, "a function without arguments that returns seconds, or None")
        if not isinstance(name, str):
            raise OptionError(where, "name", "a string", name)
        self.name = name or where
        self.keeps_letters = letters is not None
        self._key = key
        self._watch = watch
        self._start = start
        self._checkpoint = None if checkpoint is None else Checkpoint(Path(checkpoint))
        self._commit_interval = check_seconds(where, "commit_interval", commit_interval)
        self._action = done
        self._destination = None if destination is None else Path(destination)
        self._settle = check_seconds(where, "settle", settle)
        self._letters = None if letters is None else Path(letters)
        self._skip_bad = on_bad == "skip"
        self._max_line = max_line
        self._poll = check_seconds(where, "poll", poll)
        self.poll = self._poll if watch else None
        self.counts = {"records": 0, "bad": 0, "files": 0}
        self._tails: dict[tuple[int, int], Tail] = {}
        self._unread: OrderedDict[int, Tail] = OrderedDict()  # what may have something to read, by number
        self._number = 0
        self._idle: OrderedDict[int, Tail] = OrderedDict()  # what is held open although nothing is to be read
        self._before: dict[tuple[int, int], Position] = {}  # from the checkpoint, of files that were not seen yet
        self._returned: list[tuple[int, int, Record]] = []  # a heap
        self._under_way: dict[Message, Record] = {}
        self._delays = Delays(clock)
        self._watcher: Watcher | None = None
        self._next_look = 0.0
        self._committed = 0.0
        self._dirty = False
        self._draining = False

    # -- its life -----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Look which files there are.

        Raises:
            FileNotFoundError: One that was named is not there (and `watch` is off).
            ValueError: The checkpoint is none.
        """
        self._draining = False
        for record in self._under_way.values():
            record.deliveries += 1
            self._take_back(record)
        self._under_way.clear()
        if not self._number and self._checkpoint is not None:
            self._before = {each.identity: each for each in self._checkpoint.load()}
        for directory in (self._destination, self._letters):
            if directory is not None:
                directory.mkdir(parents=True, exist_ok=True)
        if self._watch is True:
            self._watcher = Watcher.start([directory_of(path) for path in self._paths], self._stirred)
        self._look(first=not self._number)

    def close(self) -> None:
        """Write the checkpoint, and let all files go."""
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher = None
        if self._dirty:
            self._commit()
        for tail in self._tails.values():
            tail.close()

    def drain(self) -> None:
        """Hand out nothing more, until it is opened again."""
        self._draining = True

    # -- what is handed out -------------------------------------------------------------------------------------------

    def fetch(self, count: int) -> list[Message] | None:
        """Hand out what came back, then what is read."""
        if self._draining:
            return []
        messages: list[Message] = []
        for record in self._delays.due():
            self._take_back(record)
        while self._returned and len(messages) < count:
            self._hand_out(heapq.heappop(self._returned)[2], messages)
        if self._watch and self._delays.clock() >= self._next_look:
            self._look()
        if len(messages) < count:
            self._read(count, messages)
        if self._dirty and self._delays.clock() - self._committed >= self._commit_interval:
            self._commit()
        return messages or self._nothing()

    def _nothing(self) -> list[Message] | None:
        if self._unread:  # there is more, behind much that was skipped
            self.wake()
        if self._watch:
            return []
        left = self._delays.left()
        self.poll = None if left is None else max(left, _POLL)
        return None if left is None and not self._unread else []

    def _read(self, count: int, messages: list[Message]) -> None:
        """Read from the files, each to its end before the next one."""
        enough = self.counts["records"] + count + _SKIPPED
        while self._unread:
            number, tail = next(iter(self._unread.items()))
            while self.counts["records"] < enough and (wanted := count - len(messages)) > 0:
                records = self._whole_file(tail) if self._whole else tail.read(wanted)
                self.counts["records"] += len(records)
                for record in records:
                    self._hand_out(record, messages)
                if len(records) < wanted:
                    break
            else:
                return
            del self._unread[number]
            if tail.over:
                self._finish(tail)
            else:  # until it is seen to have grown
                self._idle[number] = tail
                if len(self._idle) > _OPEN:
                    self._idle.popitem(last=False)[1].close()

    def _whole_file(self, tail: Tail) -> list[Record]:
        if tail.over:
            return []
        tail.over = True
        try:
            stat = tail.path.stat()
        except FileNotFoundError:  # somebody else has taken it
            return []
        record = tail.outstanding[0] = Record(tail, 0, stat.st_size, 1, stat, None)
        tail.offset = stat.st_size
        return [record]

    def _hand_out(self, record: Record, messages: list[Message]) -> None:
        tail: Tail = record.owner
        if self._whole:
            stat: os.stat_result = record.raw
            metadata = {"path": str(tail.path), "size": stat.st_size, "modified": stat.st_mtime}
            message = Message(tail.path, metadata)
        else:
            metadata = {"path": str(tail.path), "line": record.line, "offset": record.start}
            message = Message(record.raw, metadata)
            self._parse(record, message)
        if message.reason is not None:
            self.counts["bad"] += not record.deliveries
            if self._skip_bad:
                self._settled([record])
                return
        if record.deliveries:
            message.deliveries = record.deliveries + 1
        self._under_way[message] = record
        messages.append(message)

    def _parse(self, record: Record, message: Message) -> None:
        """Make the payload, or fail the message."""
        tail: Tail = record.owner
        if record.error is None:
            try:
                message.data = tail.format.payload(record.raw)
            except Exception as error:  # noqa: BLE001 (the user's function)
                record.error = tail.bad(
                    record.line, record.start, f"expected a record: {type(error).__name__}: {error}"
                )
                record.error.__cause__ = error
        if record.error is not None:
            message.reason = record.error
        elif self._key is not None:
            try:
                message.key = self._key(message.data)
            except Exception as error:  # noqa: BLE001 (the user's function)
                message.reason = error

    # -- outcomes -----------------------------------------------------------------------------------------------------

    def ack(self, messages: Sequence[Message]) -> list[Message] | None:
        """Forget records that were handled."""
        records, lost = self._known(messages)
        self._settled([record for _, record in records])
        return lost or None

    def nack(self, messages: Sequence[Message], delay: float = 0.0, *, counted: bool = True) -> list[Message] | None:
        """Take records back: they go out again before what was not read yet."""
        records, lost = self._known(messages)
        due = self._delays.clock() + delay if delay else 0.0
        for _, record in records:
            record.deliveries += counted
            if delay:
                self._delays.add(due, record)
            else:
                self._take_back(record)
        return lost or None

    def dead_letter(self, messages: Sequence[Message]) -> list[Message] | None:
        """Keep what was given up in the directory for that."""
        if self._letters is None:
            raise OptionError("FileSource", "letters", "a directory, as there are dead letters", None)
        records, lost = self._known(messages)
        try:
            bury(records, self._letters, whole=self._whole)
        except BaseException:
            self._under_way.update(records)  # it is told again
            raise
        self._settled([record for _, record in records])
        return lost or None

    def _known(self, messages: Sequence[Message]) -> tuple[list[tuple[Message, Record]], list[Message]]:
        """Take messages that are under way out; the others are lost."""
        known: list[tuple[Message, Record]] = []
        lost: list[Message] = []
        for message in messages:
            record = self._under_way.pop(message, None)
            if record is None:
                lost.append(message)
            else:
                known.append((message, record))
        return known, lost

    def _take_back(self, record: Record) -> None:
        heapq.heappush(self._returned, (record.owner.number, record.start, record))

    def _settled(self, records: Iterable[Record]) -> None:
        """Forget records; a file of which all is settled is done with."""
        ended: dict[int, Tail] = {}
        for record in records:
            tail: Tail = record.owner
            tail.outstanding.pop(record.start, None)
            if tail.over and not tail.outstanding:
                ended[tail.number] = tail
            self._dirty = True
        for number, tail in ended.items():
            if number not in self._unread:
                self._finish(tail)
        if self._dirty and self._checkpoint is None:
            self._dirty = False
        if self._dirty and self._delays.clock() - self._committed >= self._commit_interval:
            self._commit()

    def _finish(self, tail: Tail) -> None:
        """Do with a file what is to be done when all of it is settled."""
        self._dirty = self._checkpoint is not None
        if tail.outstanding:
            return
        tail.close()
        self.counts["files"] += 1
        there = tail.path.exists() and not tail.left
        if there and self._action == "delete":
            tail.path.unlink()
        elif there and self._destination is not None:
            move(tail.path, self._destination)
        if not there or self._action != "leave":
            self._tails.pop(tail.identity, None)

    def _commit(self) -> None:
        """Write the checkpoint."""
        if self._checkpoint is not None:
            self._checkpoint.save([*self._before.values(), *(tail.position() for tail in self._tails.values())])
        self._dirty = False
        self._committed = self._delays.clock()

    # -- which files there are ----------------------------------------------------------------------------------------

    def _stirred(self) -> None:
        """Something has changed (called in the thread of the watcher)."""
        self._next_look = 0.0
        self.wake()

    def _look(self, *, first: bool = False) -> None:
        """Look for new files, for more in the known ones, and for those that were renamed, cut off or taken away."""
        self._next_look = self._delays.clock() + self._poll
        seen: set[tuple[int, int]] = set()
        apart = [each for each in (self._destination, self._letters) if each is not None]
        for path in find_files(self._paths, apart, None if self._checkpoint is None else self._checkpoint.path):
            try:
                stat = path.stat()
            except FileNotFoundError:
                if self._watch or path not in self._paths:
                    continue  # gone between two looks, or to come
                raise
            seen.add((stat.st_dev, stat.st_ino))
            self._look_at(path, stat, first=first)
        for identity, tail in list(self._tails.items()):
            if identity not in seen:
                self._leave(tail)
        if first:
            self._look_for_renamed()

    def _look_at(self, path: Path, stat: os.stat_result, *, first: bool) -> None:
        tail = self._tails.get((stat.st_dev, stat.st_ino))
        if tail is not None and tail.growing and tail.was_cut(path, stat):  # other lines from now on
            tail.over = True
            tail.close()
            self._unread.pop(tail.number, None)
            self._idle.pop(tail.number, None)
            tail = None
        if tail is None:
            if self._watch and not self._growing and time.time() - stat.st_mtime < self._settle:
                return  # whoever puts it there may still write to it
            tail = self._take_up(path, stat, first=first)
        tail.path = path
        tail.left, tail.looks = False, 0
        if not tail.over and stat.st_size > tail.offset:
            self._idle.pop(tail.number, None)
            self._unread[tail.number] = tail

    def _leave(self, tail: Tail) -> None:
        """Take note that a file is not where it was; what was not read of it is read as long as it is held open."""
        tail.left = True
        if not tail.over:
            self._idle.pop(tail.number, None)
            self._unread[tail.number] = tail
            self._unread.move_to_end(tail.number, last=False)  # before what has taken its place
        elif not tail.outstanding:
            del self._tails[tail.identity]
            self._dirty = self._checkpoint is not None

    def _take_up(self, path: Path, stat: os.stat_result, *, first: bool) -> Tail:
        """Begin with a file, where an earlier life has left it."""
        self._number += 1
        growing = self._growing and path.suffix != ".gz"
        tail = Tail(self._number, path, stat, self._make_format(), max_line=self._max_line, growing=growing)
        before = self._before.pop((stat.st_dev, stat.st_ino), None)
        if before is not None and before.fits(path, stat):
            tail.go_to(before)
        elif first and self._start == "end":
            tail.go_to_end(stat.st_size)
        self._tails[tail.identity] = tail
        if tail.over:
            self._finish(tail)
        else:
            self._unread[tail.number] = tail
        return tail

    def _look_for_renamed(self) -> None:
        """Find files that were renamed while nobody looked, as logs are: what is left in them comes first."""
        for before in list(self._before.values()):
            path = Path(before.path)
            for other in sorted(path.parent.glob(glob.escape(path.name) + "*")):
                stat = other.stat()
                if not before.over and other.suffix != ".gz" and before.fits(other, stat):
                    tail = self._take_up(other, stat, first=False)
                    tail.left = True
                    self._unread.move_to_end(tail.number, last=False)
                    break
        self._before.clear()
