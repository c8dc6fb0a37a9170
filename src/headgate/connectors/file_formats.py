"""How the records of a file are read: lines, CSV rows, JSON lines. Bytes in, one record at a time, constant memory."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from headgate.connectors.options import check_choice
from headgate.errors import OptionError

BLANK: Final = object()
"""There was a line, and no record in it."""


class EndReached(Exception):  # noqa: N818 (a signal)
    """There is no (complete) record any more, for now."""


class BadRecord(Exception):  # noqa: N818 (a signal)
    """What was read is no record.

    Attributes:
        raw: What was read.
        why: What was expected and what came.
        resume: The offset and the line to go on from; None: from where it was read to.
    """

    def __init__(self, raw: Any, why: str, resume: tuple[int, int] | None = None) -> None:
        """Keep everything."""
        super().__init__(raw, why, resume)
        self.raw = raw
        self.why = why
        self.resume = resume


class Lines(Protocol):
    """Where a format reads from."""

    offset: int
    line: int

    @property
    def at_once(self) -> bool:
        """Whether a record that has no end yet will not get one."""
        ...

    def next_line(self) -> bytes:
        """Return the next line with its end.

        Raises:
            EndReached: There is none.
            BadRecord: It is too long.
        """
        ...


class LineFormat:
    """Each line is a record.

    Args:
        encoding: Of the file.
        parse: Makes the payload of a line without its end. Default: the line itself.
        blank: Whether an empty line is a record.
    """

    def __init__(self, encoding: str, parse: Callable[[str], Any] | None = None, *, blank: bool = True) -> None:
        """Keep the options."""
        self._encoding = encoding
        self._parse = parse
        self._blank = blank

    def begin(self, lines: Lines) -> None:
        """Read what stands before the first record: nothing."""

    def rewind(self) -> None:
        """Forget what was read of a record that is not complete."""

    def next(self, lines: Lines) -> Any:
        """Read one record: what it is made of, or `BLANK`.

        Raises:
            EndReached: There is none.
            BadRecord: It is none.
        """
        text = read_text(lines, self._encoding)
        text = text.removesuffix("\n")
        text = text.removesuffix("\r")
        return text if text or self._blank else BLANK

    def payload(self, raw: Any) -> Any:
        """Make the payload of what a record is made of.

        Raises:
            Exception: It is none.
        """
        return raw if self._parse is None else self._parse(raw)


class CSVFormat:
    """Each row is a record, which may go over several lines.

    Args:
        encoding: Of the file.
        header: True: the first row has the names; a sequence: the names; False: there are none, a payload is a list.
        options: Of ``csv.reader``.
    """

    def __init__(self, encoding: str, header: bool | Sequence[str], options: Mapping[str, Any]) -> None:  # noqa: FBT001
        """Keep the options."""
        self._encoding = encoding
        self._header = header
        self._options: dict[str, Any] = {"strict": True, **options}
        self._names: list[str] | None = None if isinstance(header, bool) else list(header)
        self._texts: _Texts | None = None
        self._reader: Iterator[list[str]] | None = None

    def begin(self, lines: Lines) -> None:
        """Read the names, unless they are known.

        Raises:
            EndReached: They are not there yet.
            BadRecord: They cannot be read.
        """
        if self._header is True:
            row: Any = BLANK
            while row is BLANK:
                row = self._row(lines)
            self._names = list(row)

    def rewind(self) -> None:
        """Forget what was read of a row that is not complete."""
        self._reader = None

    def next(self, lines: Lines) -> Any:
        """Read one row, as `LineFormat.next`."""
        row = self._row(lines)
        names = self._names
        if row is not BLANK and names is not None and len(row) != len(names):
            raise BadRecord(row, f"expected {len(names)} fields ({', '.join(names)}), got {len(row)}")
        return row

    def payload(self, raw: Any) -> Any:
        """Make a dict of a row, or a list if there are no names."""
        return list(raw) if self._names is None else dict(zip(self._names, raw, strict=True))

    def _row(self, lines: Lines) -> Any:
        if self._reader is None or self._texts is None:
            self._texts = _Texts(lines, self._encoding)
            self._reader = csv.reader(self._texts, **self._options)
        self._texts.first = None
        try:
            return next(self._reader) or BLANK
        except StopIteration:
            self._reader = None
            raise EndReached from None
        except BadRecord:
            self._reader = None
            raise
        except csv.Error as error:
            self._reader = None
            if self._texts.ended and not lines.at_once:
                raise EndReached from None
            # A quote that is never closed takes everything to the end along: only its first line is to blame.
            text, resume = self._texts.first or ("", None)
            raise BadRecord(text, f"expected a row of CSV, got: {error}", resume) from error


class _Texts:
    """The lines as text, for ``csv.reader``."""

    def __init__(self, lines: Lines, encoding: str) -> None:
        self._lines = lines
        self._encoding = encoding
        self.first: tuple[str, tuple[int, int]] | None = None  # the first line of a row, and what comes after it
        self.ended = False

    def __iter__(self) -> _Texts:
        return self

    def __next__(self) -> str:
        try:
            text = read_text(self._lines, self._encoding)
        except EndReached:
            self.ended = True
            raise StopIteration from None
        if self.first is None:
            self.first = (text, (self._lines.offset, self._lines.line))
        return text


def read_text(lines: Lines, encoding: str) -> str:
    """Read one line as text.

    Raises:
        EndReached: There is none.
        BadRecord: It is no text.
    """
    first = not lines.offset
    raw = lines.next_line()
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        bad = raw[error.start : error.start + 1].hex()
        why = f"expected text in {encoding}, got byte 0x{bad} at column {error.start + 1}"
        raise BadRecord(raw, why) from error
    return text.removeprefix("\ufeff") if first else text


def make_format(
    where: str,
    kind: str | Callable[[str], Any],
    encoding: str,
    header: bool | Sequence[str],  # noqa: FBT001 (an option of its own)
    options: Mapping[str, Any] | None,
) -> Callable[[], LineFormat | CSVFormat]:
    """Check the options of a format; return what makes one for each file.

    Raises:
        OptionError: One of them is wrong.
    """
    encoding = _check_encoding(where, encoding)
    if kind != "csv" and options is not None:
        raise OptionError(where, "csv_options", "left out unless format='csv'", options)
    if callable(kind):
        return lambda: LineFormat(encoding, kind)
    check_choice(where, "format", kind, ("lines", "csv", "jsonl", "files"))
    if kind == "csv":
        if not isinstance(header, bool) and (isinstance(header, str) or not all(isinstance(n, str) for n in header)):
            raise OptionError(where, "header", "True, False or a list of names", header)
        options = dict(options or {})
        try:
            csv.reader((), strict=True, **{name: value for name, value in options.items() if name != "strict"})
        except (TypeError, csv.Error) as error:
            raise OptionError(where, "csv_options", f"options of csv.reader ({error})", options) from error
        return lambda: CSVFormat(encoding, header, options)
    if kind == "jsonl":
        return lambda: LineFormat(encoding, json.loads, blank=False)
    return lambda: LineFormat(encoding)


def _check_encoding(where: str, encoding: Any) -> str:
    expected = "the name of an encoding in which a line ends with the one byte 0x0A, such as 'utf-8'"
    if encoding == "utf-8-sig":
        return "utf-8"  # a byte order mark is left out anyway
    try:
        fits = "\n".encode(encoding) == b"\n"
    except (LookupError, TypeError):
        fits = False
    if not fits:
        raise OptionError(where, "encoding", expected, encoding)
    return str(encoding)
