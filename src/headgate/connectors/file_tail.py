"""`Tail`: one file that is read from a position on, and perhaps grows meanwhile."""

from __future__ import annotations

import contextlib
import gzip
import os
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any, Final

from headgate.connectors.file_formats import BLANK, BadRecord, CSVFormat, EndReached, LineFormat
from headgate.connectors.file_progress import HEAD, NO_HEAD, Position, Record, head_of, settled
from headgate.errors import RecordError

_DAMAGED: Final = (EOFError, gzip.BadGzipFile, zlib.error)


class Tail:
    """One file.

    Args:
        number: Its place among all files.
        path: Where it is.
        stat: What it is.
        format: Reads it.
        max_line: Bytes of a line; a longer one is no record.
        growing: It may get longer: a last line without an end is not complete.

    Attributes:
        outstanding: What was read and is not settled, by its offset.
        offset: How far it was read.
        line: The number of the line that begins there.
        growing: As above.
        over: It was read to its end, and nothing more will come.
        left: It is not at its path any more. What comes to it is read, until nothing has come for a while.
        looks: How often nothing had come since it was left.
    """

    def __init__(
        self,
        number: int,
        path: Path,
        stat: os.stat_result,
        format: LineFormat | CSVFormat,  # noqa: A002 (the field's word)
        *,
        max_line: int,
        growing: bool,
    ) -> None:
        """Stand at the beginning."""
        self.number = number
        self.path = path
        self.identity = (stat.st_dev, stat.st_ino)
        self.outstanding: OrderedDict[int, Record] = OrderedDict()
        self.offset = 0
        self.line = 1
        self.over = False
        self.left = False
        self.looks = 0
        self.format = format
        self._max_line = max_line
        self.growing = growing
        self._done: list[tuple[int, int, int]] = []  # settled in an earlier life, behind the offset
        self._head = NO_HEAD
        self._file: Any = None
        self._began = False

    @property
    def at_once(self) -> bool:
        """Whether a record that has no end yet will not get one."""
        return not self.growing or self.looks > 0

    def go_to(self, position: Position) -> None:
        """Go on where an earlier life has left it."""
        self.offset, self.line = position.offset, position.line
        self._done = list(position.done)
        self.over = position.over and not self.growing
        self._head = position.head

    def go_to_end(self, size: int) -> None:
        """Stand behind the last complete line."""
        step = 65536
        with self.path.open("rb") as file:
            end = size
            while end > 0:
                start = max(0, end - step)
                file.seek(start)
                at = file.read(end - start).rfind(b"\n")
                if at >= 0:
                    self.offset = start + at + 1
                    return
                end = start

    def was_cut(self, path: Path, stat: os.stat_result) -> bool:
        """Say whether other content has taken the place of what was read."""
        if stat.st_size < self.offset:
            return True
        if stat.st_size == self.offset or not self._head[0]:
            return False
        try:
            return head_of(path, self._head[0], self.identity) != self._head
        except OSError:
            return False

    def know_head(self) -> None:
        """Remember how the file begins, as far as it was read."""
        if self._head[0] < min(self.offset, HEAD):
            with contextlib.suppress(OSError):  # it is gone; what is known of its head has to do
                self._head = head_of(self.path, self.offset, self.identity)

    def position(self) -> Position:
        """Return how far it is settled."""
        offset, line, done = settled(self.outstanding, self.offset, self.line, self._done)
        self.know_head()
        over = self.over and not self.outstanding
        return Position(str(self.path), self.identity, self._head, offset, line, done, over)

    def read(self, count: int) -> list[Record]:
        """Read records, at most so many. Fewer: it is at its end, for now (or `over`)."""
        records: list[Record] = []
        if self.over:
            return records
        try:
            if not self._begin():
                return records
            while len(records) < count:
                record = self._next()
                if record is None:
                    break
                if record is not BLANK:
                    self.outstanding[record.start] = record
                    records.append(record)
        except _DAMAGED as error:
            bad = self.bad(self.line, self.offset, f"expected a gzip file, it cannot be read from here on: {error}")
            bad.__cause__ = error
            records.append(self._give_up(bad))
        except RecordError as error:
            records.append(self._give_up(error))
        return records

    def next_line(self) -> bytes:
        """Return the next line with its end."""
        raw: bytes = self._file.readline(self._max_line + 1)
        if not raw:
            raise EndReached
        if raw[-1] != 10:  # no line feed  # noqa: PLR2004 (the byte)
            if len(raw) > self._max_line:
                self._skip_line(len(raw))
                raise BadRecord(raw[:1000], f"expected a line of at most {self._max_line} bytes, got a longer one")
            if not self.at_once:
                raise EndReached
        self.offset += len(raw)
        self.line += 1
        return raw

    def close(self) -> None:
        """Let the file go."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin(self) -> bool:
        """Open it, and read what stands before the records; say whether there may be some."""
        if not self._open():
            self.over = True
            return False
        if self._began:
            return True
        begin, line = self.offset, self.line
        self.offset, self.line = 0, 1
        try:
            self.format.begin(self)
        except EndReached:
            self._end(0, 1)
            self.offset, self.line = begin, line
            return False
        except BadRecord as bad:
            raise self.bad(1, 0, f"its header: {bad.why}") from bad
        self._began = True
        if begin > self.offset:
            self.offset, self.line = begin, line
            self.format.rewind()
            self._file.seek(begin)
        return True

    def _open(self) -> bool:
        """Open the file, unless it is open or has gone meanwhile."""
        if self._file is not None:
            return True
        opener: Any = gzip.open if self.path.suffix == ".gz" else open
        try:
            file = opener(self.path, "rb")
        except FileNotFoundError:
            if self.left or self.growing:
                return False
            raise
        stat = os.fstat(file.fileno())
        if (stat.st_dev, stat.st_ino) != self.identity:
            file.close()
            return False
        self._file = file
        self.format.rewind()
        if self._began:
            file.seek(self.offset)
        return True

    def _next(self) -> Any:
        """Read one record; None at the end."""
        if self._done and self.offset >= self._done[0][0]:
            _, self.offset, self.line = self._done.pop(0)
            self.format.rewind()
            self._file.seek(self.offset)
            return BLANK
        start, line = self.offset, self.line
        try:
            raw, error = self.format.next(self), None
        except EndReached:
            self._end(start, line)
            return None
        except BadRecord as bad:
            raw = bad.raw
            error = self.bad(line, start, bad.why)
            error.__cause__ = bad.__cause__
            if bad.resume is not None:
                self.offset, self.line = bad.resume
                self._file.seek(self.offset)
        return raw if raw is BLANK else Record(self, start, self.offset, line, raw, error)

    def _end(self, start: int, line: int) -> None:
        """Take note that there is nothing more; what was read of a record that is not complete is read again."""
        if not self.growing or (self.left and self.looks > 1):
            self.over = True
            self.close()
            return
        if self.left:
            self.looks += 1
        self.offset, self.line = start, line
        self.know_head()
        self.format.rewind()
        self._file.seek(start)

    def _skip_line(self, size: int) -> None:
        self.offset += size
        self.line += 1
        while True:
            raw: bytes = self._file.readline(65536)
            self.offset += len(raw)
            if not raw or raw[-1] == 10:  # noqa: PLR2004 (the byte)
                return

    def bad(self, line: int, offset: int, why: str) -> RecordError:
        """Return what a record is refused with."""
        return RecordError(str(self.path), line, offset, why)

    def _give_up(self, error: RecordError) -> Record:
        """Make a record of the place from which on the file cannot be read."""
        record = Record(self, self.offset, self.offset + 1, self.line, b"", error)
        self.outstanding[record.start] = record
        self.offset += 1  # so that it is settled like any other
        self.over = True
        self.close()
        return record
