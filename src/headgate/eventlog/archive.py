"""Archives: old events in files, and out of the database; read like all others.

An archive is a compressed file of JSON lines: a head, the rows, and an end with their number and sum. It is written
beside, forced to disk and read again before anything is removed from the database.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
import zlib
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from headgate.errors import DamagedLogError, EventLogError, OptionError
from headgate.eventlog.checks import check_log, check_place, check_text
from headgate.eventlog.record import DIGEST, EVENT_ID, ORIGIN, REVERSES, Row
from headgate.eventlog.store import Query, Statement, in_streams, matches

if TYPE_CHECKING:
    from headgate.eventlog.log import EventLog

_BYTES: Final = (EVENT_ID, REVERSES, DIGEST)
_FORMAT: Final = 1
# What reading something that is no archive of ours may raise, wherever it is not as it should be.
_BROKEN: Final = (
    *(OSError, EOFError, zlib.error, ValueError, TypeError, AttributeError, LookupError),
    *(StopIteration, RecursionError),
)
_IN_ONE: Final = 10_000  # events in one file
_KEPT: Final = 8  # files that were read last and are kept in memory


class Archived(NamedTuple):
    """One archive.

    Attributes:
        first: Position of its first event.
        last: Position of its last event.
        file: Where it is.
    """

    first: int
    last: int
    file: str


async def archive(log: EventLog, folder: str | Path, until: Any) -> list[Archived]:
    """Move the beginning of a log into files. The last event always stays.

    What is archived is read as before by `EventLog.read`, as long as the files stay where they are. It cannot be
    reversed any more. Ids stay in the database, so that an event that is appended again is recognised.

    Args:
        log: The log.
        folder: Where the files go; it is made if it is not there.
        until: Last position or time.

    Returns:
        The new files.

    Raises:
        EventLogError: A file cannot be written, or another log's is there; then nothing is removed.
    """
    check_log("archive", log)
    if not isinstance(folder, (str, Path)):
        raise OptionError("archive", "folder", "a path", folder)
    check_text("archive", "folder", str(folder))
    check_place("archive", "until", until)
    _, last = await log.bounds(None, until)
    head = await log.head()
    last = min(head - 1, head if last is None else last)
    there = await asyncio.to_thread(Path(folder).resolve)
    done: list[Archived] = []
    while True:
        rows: list[Row] = []
        while len(rows) < _IN_ONE:
            some = await log.store.read(Query(until=last), rows[-1] if rows else None, min(5000, _IN_ONE - len(rows)))
            if not some:
                break
            rows += some
        if not rows:
            return done
        file = there / f"events-{rows[0][0]:012d}-{rows[-1][0]:012d}.jsonl.gz"
        try:
            if not await asyncio.to_thread(_is_there, file, rows):
                await asyncio.to_thread(_write, file, rows)
        except OSError as error:
            raise EventLogError(str(file), f"the archive cannot be written: {error}") from error
        if await asyncio.to_thread(read_file, file) != rows:
            raise EventLogError(str(file), "the archive does not read as it was written; nothing was removed")
        await _remove(log, file, rows)
        done.append(Archived(rows[0][0], rows[-1][0], str(file)))


async def discard(log: EventLog, until: Any) -> list[Archived]:
    """Give up the oldest archives for good: their files are deleted, and their events are read no more.

    It is for rules that say for how long something may be kept. Only whole archives go. What is left is sound to
    `verify`, as the digest at their end is kept. Streams go on at their versions, and an event that is appended again
    is still recognised. A file that could not be deleted is tried again by the next call.

    Args:
        log: The log.
        until: Last position or time: archives that end there or before it.

    Returns:
        The archives that are gone.

    Raises:
        EventLogError: A file cannot be deleted.
    """
    check_log("discard", log)
    check_place("discard", "until", until)
    _, last = await log.bounds(None, until)
    mark = "UPDATE ~archives SET discarded_at = ? WHERE last <= ? AND discarded_at IS NULL RETURNING first, last, file"
    every = "SELECT file FROM ~archives WHERE discarded_at IS NOT NULL"
    position = await log.head() if last is None else last
    gone, files = await log.store.transact([Statement(mark, (int(log.clock() * 1e6), position)), Statement(every)])
    log.archives.forget()
    for (file,) in files:
        try:
            await asyncio.to_thread(Path(file).unlink, missing_ok=True)
        except OSError as error:
            raise EventLogError(file, f"the archive is discarded, and cannot be deleted: {error}") from error
    return sorted(Archived(*row) for row in gone)


async def discarded(log: EventLog) -> tuple[int, bytes]:
    """Return the last position that was discarded, and the digest there; 0: none was."""
    sql = "SELECT last, digest FROM ~archives WHERE discarded_at IS NOT NULL ORDER BY last DESC LIMIT 1"
    (rows,) = await log.store.transact([Statement(sql)])
    return (rows[0][0], bytes(rows[0][1])) if rows else (0, ORIGIN)


async def _remove(log: EventLog, file: Path, rows: list[Row]) -> None:
    first, versions = rows[0][0], {row[1]: row[2] for row in rows}
    note = "INSERT INTO ~archives (first, last, file, digest) VALUES (?, ?, ?, ?)"
    keep = (
        "INSERT INTO ~archived_streams (stream, version) VALUES (?, ?) "
        "ON CONFLICT (stream) DO UPDATE SET version = excluded.version"
    )
    within = "INSERT INTO ~archived_in (first, stream) VALUES (?, ?)"
    ids = (
        "INSERT INTO ~archived_ids (event_id, position, stream, version, reverses) "
        "SELECT event_id, position, stream, version, reverses FROM ~events WHERE position <= ?"
    )
    drop = "DELETE FROM ~events WHERE position <= ?"
    await log.store.transact(
        [
            Statement(note, (first, rows[-1][0], str(file), rows[-1][DIGEST] or b"")),
            Statement(keep, many=list(versions.items())),
            Statement(within, many=[(first, stream) for stream in versions]),
            Statement(ids, (rows[-1][0],)),
            Statement(drop, (rows[-1][0],)),
        ]
    )


def _is_there(file: Path, rows: list[Row]) -> bool:
    """Whether an attempt that went no further has written this archive; what is another's is never overwritten."""
    if not file.exists():
        return False
    try:
        same = read_file(file) == rows
    except DamagedLogError:
        same = False
    if not same:
        raise EventLogError(str(file), "there is a file of that name with other contents; archive to another folder")
    _sync(file)  # whoever wrote it may have been killed before that
    _sync(file.parent)
    return True


def _write(file: Path, rows: list[Row]) -> None:
    _make_folder(file.parent)
    beside = file.with_suffix(".part")
    total = hashlib.sha256()
    try:
        with beside.open("wb") as raw:
            with gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as out:
                head = {"headgate": "archive", "format": _FORMAT, "first": rows[0][0], "last": rows[-1][0]}
                out.write(json.dumps(head).encode() + b"\n")
                for row in rows:
                    line = json.dumps(_to_json(row), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
                    total.update(line)
                    out.write(line)
                out.write(json.dumps({"events": len(rows), "sha256": total.hexdigest()}).encode() + b"\n")
            raw.flush()
            os.fsync(raw.fileno())
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    beside.replace(file)
    _sync(file.parent)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that they are there after a power failure."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync(folder.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_file(file: Path) -> list[Row]:
    """Return the rows of an archive.

    Raises:
        DamagedLogError: It is damaged, or is missing.
    """
    total = hashlib.sha256()
    rows: list[Row] = []
    try:
        with gzip.open(file, "rb") as lines:
            head: dict[str, Any] = json.loads(next(lines))
            if head.get("headgate") != "archive" or head.get("format") != _FORMAT:
                raise DamagedLogError(str(file), "it is no archive of a format that this Headgate knows")
            end: dict[str, Any] | None = None
            for line in lines:
                found = json.loads(line)
                if isinstance(found, dict):
                    end = found
                    break
                total.update(line)
                rows.append(_from_json(found))
            if lines.read(1):  # at its end, gzip compares its own sum of everything
                raise DamagedLogError(str(file), "something stands behind the end of the archive")
    except _BROKEN as error:
        raise DamagedLogError(str(file), f"the archive cannot be read: {type(error).__name__} {error}") from error
    if end is None or end.get("events") != len(rows) or end.get("sha256") != total.hexdigest():
        raise DamagedLogError(str(file), "the archive is not complete, or was changed")
    return rows


def _to_json(row: Row) -> list[Any]:
    made = list(row)
    for index in _BYTES:
        made[index] = None if made[index] is None else made[index].hex()
    return made


def _from_json(values: list[Any]) -> Row:
    for index in _BYTES:
        values[index] = None if values[index] is None else bytes.fromhex(values[index])
    return tuple(values)


class Archives:
    """Reads the archives of a log; the files that were read last are kept in memory.

    Args:
        log: The log.
    """

    def __init__(self, log: EventLog) -> None:
        """Look at nothing yet."""
        self._log = log
        self._kept: OrderedDict[str, list[Row]] = OrderedDict()

    def forget(self) -> None:
        """Read the next file anew, whatever is in memory."""
        self._kept.clear()

    async def known(self) -> list[Archived]:
        """Return the archives, in order; discarded ones are none any more."""
        sql = "SELECT first, last, file FROM ~archives WHERE discarded_at IS NULL ORDER BY first"
        (rows,) = await self._log.store.transact([Statement(sql)])
        return [Archived(*row) for row in rows]

    async def _of(self, query: Query, low: int) -> list[Archived]:
        """Return the archives that may have events of a query from a position on, in order."""
        sql = "SELECT first, last, file FROM ~archives AS a WHERE discarded_at IS NULL AND last >= ?"
        values: list[Any] = [low]
        if query.until is not None:
            sql += " AND first <= ?"
            values.append(query.until)
        if query.streams:  # what was archived before the streams were noted may have any
            which, names = in_streams(query.streams)
            sql += (
                " AND (NOT EXISTS (SELECT 1 FROM ~archived_in AS i WHERE i.first = a.first)"  # noqa: S608 (no value is in it)
                f" OR EXISTS (SELECT 1 FROM ~archived_in AS i WHERE i.first = a.first AND {which}))"
            )
            values.extend(names)
        (rows,) = await self._log.store.transact([Statement(f"{sql} ORDER BY first", tuple(values))])
        return [Archived(*row) for row in rows]

    async def fill(self, query: Query, cursor: Row | None, limit: int, rows: list[Row]) -> list[Row]:
        """Return a page with those events in it that are in archives.

        Args:
            query: What is read.
            cursor: The last row before it.
            limit: How many at most.
            rows: What the database has.
        """
        low = query.start if cursor is None or query.backwards else cursor[0] + 1
        if query.backwards:
            if len(rows) == limit:
                return rows
        elif rows and rows[0][0] == low:  # nothing is missing
            return rows
        high = query.until if cursor is None or not query.backwards else cursor[0] - 1
        known = await self._of(replace(query, until=high), low)
        if not known:
            return rows
        if query.backwards:
            return await self._backwards(query, rows, known, high, limit)
        found: list[Row] = []
        for each in known:
            for row in await self._read(each.file):
                if row[0] >= low and matches(query, row):
                    found.append(row)
                    if len(found) == limit:
                        return found
        return (found + [row for row in rows if row[0] > known[-1].last])[:limit]

    async def _backwards(
        self, query: Query, rows: list[Row], known: list[Archived], high: int | None, limit: int
    ) -> list[Row]:
        found = [row for row in rows if row[0] > known[-1].last]
        for each in reversed(known):
            for row in reversed(await self._read(each.file)):
                if (high is None or row[0] <= high) and row[0] >= query.start and matches(query, row):
                    found.append(row)
                    if len(found) == limit:
                        return found
        return found

    async def _read(self, file: str) -> list[Row]:
        rows = self._kept.get(file)
        if rows is None:
            rows = self._kept[file] = await asyncio.to_thread(read_file, Path(file))
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        if file in self._kept:
            self._kept.move_to_end(file)
        return rows
