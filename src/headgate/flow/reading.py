"""Files that are read in parts: what crosses to a worker is a range of bytes, and the worker reads it itself.

A range owns the lines that begin in it. So a reader that does not start at the beginning of a file skips up to the
first line break, and reads the last line to its end, beyond the range.
"""

from __future__ import annotations

import bz2
import csv
import glob as globbing
import gzip
import io
import json
import lzma
import mmap
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from headgate.errors import OptionError, RecordError, short

LINES: Final = "lines"
CSV: Final = "csv"
JSONL: Final = "jsonl"
PARQUET: Final = "parquet"


def _open_zip(path: str, mode: str, **options: Any) -> IO[Any]:
    """Open the only file of a zip archive, in bytes or as text."""
    with zipfile.ZipFile(path) as archive:
        names = [each for each in archive.namelist() if not each.endswith("/")]
        if len(names) != 1:
            raise RecordError(path, 1, 0, f"expected an archive of one file, it has {len(names)}")
        file = archive.open(names[0])  # it keeps the archive open by itself
    return io.TextIOWrapper(file, **options) if mode == "rt" else file


_OPENERS: Final[dict[str, Callable[..., Any]]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zip": _open_zip,
}
MANY: Final = 64
"""Small files that a worker has at most; and a worker has at most one of so many parts of all files."""
LINES_AT_ONCE: Final = 20_000
"""Lines that are read at once from a file that cannot be split."""


@dataclass(frozen=True)
class Files:
    """Which files, and what is in them.

    Attributes:
        paths: Their paths, in order.
        kind: ``"lines"``, ``"csv"``, ``"jsonl"`` or ``"parquet"``.
        split: Bytes of a range; None: each file is read by one worker.
        encoding: Of text.
        errors: What happens with bytes that are no such text, as of ``open``.
        options: Of csv: ``delimiter``, ``fields`` (None: the first line has them); of parquet: ``columns``, ``batch``.
    """

    paths: tuple[str, ...] = ()
    kind: str = LINES
    split: int | None = 4 << 20
    encoding: str = "utf-8"
    errors: str = "strict"
    options: tuple[tuple[str, Any], ...] = ()

    def size(self) -> int:
        """Return their bytes."""
        return sum(os.path.getsize(path) for path in self.paths)  # noqa: PTH202 (paths are text here)

    def weigh(self) -> tuple[int, int]:
        """Return their bytes, and how many ranges there are at most; so many workers can read them at a time."""
        if self.kind == PARQUET:
            from headgate.flow.columns import row_groups  # noqa: PLC0415 (an extra)

            return self.size(), sum(map(row_groups, self.paths))
        size, parts, split = 0, 0, self.split
        for path in self.paths:
            bytes_ = os.path.getsize(path)  # noqa: PTH202
            size += bytes_
            parts += 1 if split is None or compressed(path) else -(-bytes_ // split)
        return size, parts

    def ahead(self) -> int:
        """Return how many ranges a worker has at most: two, or more of many small files, so that fewer messages go."""
        if self.split is None or self.kind == PARQUET or len(self.paths) < 2 * MANY:
            return 2
        weight = max(1, self.size() // len(self.paths))
        return max(2, min(self.split // weight, len(self.paths) // MANY, MANY))

    def in_pieces(self, path: str) -> bool:
        """Say whether a range of this file may be all of it, and so is read bit by bit as its results are wanted."""
        return self.kind != PARQUET and (self.kind == CSV or self.split is None or compressed(path))

    def option(self, name: str) -> Any:
        """Return one of the options."""
        return dict(self.options).get(name)


class FileRange(NamedTuple):
    """A part of a file.

    Attributes:
        path: The file.
        start: Its first byte, or the first row group.
        stop: The byte after its last, or the row group.
        files: What is in it; it names no paths.
    """

    path: str
    start: int
    stop: int
    files: Files


def find(paths: Any, where: str) -> tuple[str, ...]:
    """Return the files of a path, a pattern, or several of them, in order.

    Raises:
        OptionError: There is no such file, or none that the pattern fits.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    found: list[str] = []
    for path in paths:
        text = os.fspath(path)
        if not isinstance(text, str):
            raise OptionError(where, "paths", "paths or patterns, as text or pathlib.Path", path)
        if os.path.exists(text):  # noqa: PTH110 (text, not a Path)
            found.append(text)
            continue
        matches = sorted(globbing.glob(text, recursive=True)) if globbing.has_magic(text) else []  # noqa: PTH207
        matches = [each for each in matches if os.path.isfile(each)]  # noqa: PTH113
        if not matches:
            raise OptionError(where, "paths", "files that exist, or patterns that fit some", text)
        found.extend(matches)
    if not found:
        raise OptionError(where, "paths", "at least one file", paths)
    return tuple(found)


def compressed(path: str) -> bool:
    """Say whether a file can only be read from its beginning."""
    return os.path.splitext(path)[1] in _OPENERS  # noqa: PTH122 (a path object takes ten times as long)


def plan_ranges(files: Files) -> Iterator[FileRange]:
    """Yield the ranges of all files, file by file. Each knows its own path only, so that it weighs the same of many."""
    paths, files = files.paths, replace(files, paths=())
    for path in paths:
        if files.kind == PARQUET:
            from headgate.flow.columns import row_groups  # noqa: PLC0415 (an extra)

            for group in range(row_groups(path)):
                yield FileRange(path, group, group + 1, files)
            continue
        size = os.path.getsize(path)  # noqa: PTH202
        if not size:
            continue
        if files.split is None or compressed(path) or not _splittable(path, files):
            yield FileRange(path, 0, size, files)
            continue
        for start in range(0, size, files.split):
            yield FileRange(path, start, min(start + files.split, size), files)


def _splittable(path: str, files: Files) -> bool:
    """Say whether each line break of a file ends a record: in csv it does where nothing is quoted."""
    if files.kind != CSV or os.path.getsize(path) <= (files.split or 0):  # noqa: PTH202
        return files.kind != CSV
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:  # noqa: PTH123
        return content.find(b'"') < 0


def read(part: FileRange) -> Iterator[Any]:
    """Yield the events of a range, in batches.

    Raises:
        RecordError: Its text or a record of it cannot be read.
    """
    kind = part.files.kind
    if kind == PARQUET:
        from headgate.flow.columns import read_groups  # noqa: PLC0415 (an extra)

        yield from read_groups(part)
        return
    if kind == CSV and (compressed(part.path) or part.stop - part.start == os.path.getsize(part.path)):  # noqa: PTH202
        yield from _whole_csv(part)
        return
    for at, lines in _blocks(part):
        if kind == LINES:
            yield lines
        elif kind == JSONL:
            yield _json(part, at, lines)
        else:
            yield from _csv(part, lines)


def _blocks(part: FileRange) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines of a range, without their ends, with the byte at which they begin."""
    files = part.files
    if compressed(part.path):
        opener = _OPENERS[Path(part.path).suffix]
        with opener(part.path, "rb") as file:
            yield from _stream(part, file)
        return
    with open(part.path, "rb") as file:  # noqa: PTH123 (text, not a Path)
        if files.split is None or part.stop - part.start > 2 * files.split:
            yield from _stream(part, file)
            return
        begin = part.start
        if begin:
            file.seek(begin - 1)
            begin += len(file.readline()) - 1
        if begin >= part.stop:
            return
        data = file.read(part.stop - begin)
        if not data.endswith(b"\n"):
            data += file.readline()
        yield begin, _lines(part, begin, data)


def _stream(part: FileRange, file: IO[bytes]) -> Iterator[tuple[int, list[str]]]:
    at = 0
    while True:
        data = file.read(1 << 20)
        if not data:
            return
        data += file.readline()
        yield at, _lines(part, at, data)
        at += len(data)


def _lines(part: FileRange, at: int, data: bytes) -> list[str]:
    try:
        text = data.decode(part.files.encoding, part.files.errors)
    except UnicodeDecodeError as error:
        raise _wrong(part, at + error.start, str(error)) from error
    lines = (text.replace("\r\n", "\n") if "\r" in text else text).split("\n")
    if lines[-1]:
        lines[-1] = lines[-1].removesuffix("\r")
    else:
        lines.pop()
    return lines


def _json(part: FileRange, at: int, lines: list[str]) -> list[Any]:
    try:
        return [json.loads(line) for line in lines if line and not line.isspace()]
    except ValueError:
        for line in lines:
            try:
                if line.strip():
                    json.loads(line)
            except ValueError as error:
                raise _wrong(part, at, f"expected one JSON value a line ({error}), got: {short(line)}") from error
            at += len(line.encode(part.files.encoding, part.files.errors)) + 1
        raise


def _csv(part: FileRange, lines: list[str]) -> Iterator[list[dict[str, str]]]:
    """Yield the rows of a range in which each line is one."""
    files = part.files
    fields, given = _fields(part)
    rows = csv.reader(lines, delimiter=files.option("delimiter") or ",")
    if not given and part.start == 0:
        next(rows, None)
    yield [dict(zip(fields, row, strict=False)) for row in rows if row]


def _whole_csv(part: FileRange) -> Iterator[list[dict[str, str]]]:
    """Yield the rows of a whole file, whose records may go over several lines."""
    files = part.files
    fields, given = _fields(part)
    opener = _OPENERS.get(Path(part.path).suffix, open)
    with opener(part.path, "rt", encoding=files.encoding, errors=files.errors, newline="") as file:
        rows = csv.reader(file, delimiter=files.option("delimiter") or ",")
        if not given:
            next(rows, None)
        while True:
            try:
                batch = [dict(zip(fields, row, strict=False)) for row in islice(rows, LINES_AT_ONCE) if row]
            except (csv.Error, UnicodeDecodeError) as error:
                raise RecordError(part.path, rows.line_num, 0, str(error)) from error
            if not batch:
                return
            yield batch


def _fields(part: FileRange) -> tuple[list[str], bool]:
    """Return the names of the columns, and whether the user has given them."""
    given = part.files.option("fields")
    return (list(given), True) if given is not None else (header(part.path, part.files), False)


def _wrong(part: FileRange, offset: int, why: str) -> RecordError:
    """Return the error that says where in the file something is wrong; only now are the lines before it counted."""
    line, left = 1, offset
    opener = _OPENERS.get(Path(part.path).suffix, open)
    with opener(part.path, "rb") as file:
        while left > 0 and (data := file.read(min(left, 1 << 20))):
            line += data.count(b"\n")
            left -= len(data)
    return RecordError(part.path, line, offset, why)


def header(path: str, files: Files) -> list[str]:
    """Return the names of the columns: the first record of a csv file."""
    opener = _OPENERS.get(Path(path).suffix, open)
    with opener(path, "rt", encoding=files.encoding, newline="") as file:
        return next(csv.reader(file, delimiter=files.option("delimiter") or ","), [])
