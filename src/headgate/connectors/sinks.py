"""Files to write batches to: `JSONLinesSink` and `CSVSink`, for a pipeline's ``handle_batch``."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

from headgate.connectors.file_progress import sync_directory
from headgate.connectors.options import check_choice, check_count, check_function, check_seconds
from headgate.errors import OptionError


class FileSink:
    """Appends batches to a file, each of them whole or, if that fails, not at all. Not safe between threads.

    Args:
        path: The file; it is made when it is first written to.
        sync: Whether `write` returns only when the batch is on the disk.
        max_bytes: A file that has reached this size is closed, and another one begun.
        max_seconds: A file that was begun this long ago is closed, and another one begun.
        atomic: A file gets its name when it is closed; before that it is ``NAME.part``.
        clock: Unix time in seconds.

    With ``max_bytes`` or ``max_seconds`` the files are ``NAME-000001.EXT``, ``NAME-000002.EXT`` and so on; with
    ``atomic`` alone a file is called so when its name is taken. A last line that a crash has left without its end is
    ended before anything is added.

    Raises:
        OptionError: An option is of the wrong type or out of range.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sync: bool = False,
        max_bytes: int | None = None,
        max_seconds: float | None = None,
        atomic: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Check the options."""
        where = type(self).__name__
        if not isinstance(path, (str, os.PathLike)) or not str(path):
            raise OptionError(where, "path", "a path", path)
        check_choice(where, "sync", sync, (True, False))
        check_count(where, "max_bytes", max_bytes, 1, optional=True)
        if max_seconds is not None:
            check_seconds(where, "max_seconds", max_seconds)
        check_choice(where, "atomic", atomic, (True, False))
        check_function(where, "clock", clock, "a function without arguments that returns seconds")
        self._path = Path(path)
        self._sync = sync
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._atomic = atomic
        self._clock = clock
        self._file: IO[bytes] | None = None
        self._name = self._path  # of the file that is open
        self._begun = 0.0
        self._number = 0

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close it."""
        self.close()

    def write(self, payloads: Iterable[Any]) -> Path:
        """Append a batch.

        Args:
            payloads: What `encode` takes.

        Returns:
            The file that it is in (will be in, if ``atomic``).

        Raises:
            OSError: It could not be written; nothing of it is in the file.
        """
        payloads = list(payloads)
        if self._file is not None and self._full():
            self.close()
        file = self._file or self._open()
        begin = file.seek(0, os.SEEK_END)
        content = self.encode(payloads, first=not begin)
        try:
            file.write(content)
            file.flush()
            if self._sync:
                os.fsync(file.fileno())
        except BaseException:
            self._file = None
            with contextlib.suppress(OSError):  # it tries to write what is left
                file.close()
            os.truncate(self._part, begin)
            raise
        return self._name

    def close(self) -> None:
        """Close the file; it gets its name."""
        if self._file is None:
            return
        self._file.close()
        self._file = None
        if self._atomic:
            self._part.replace(self._name)
            if self._sync:
                sync_directory(self._name.parent)

    def encode(self, payloads: Sequence[Any], *, first: bool) -> bytes:
        """Return what is to be written.

        Args:
            payloads: The batch.
            first: Whether it is the first of its file.
        """
        raise NotImplementedError

    @property
    def _part(self) -> Path:
        return self._name.with_name(self._name.name + ".part") if self._atomic else self._name

    def _full(self) -> bool:
        assert self._file is not None  # noqa: S101 (the caller sees to it)
        if self._max_bytes is not None and self._file.seek(0, os.SEEK_END) >= self._max_bytes:
            return True
        return self._max_seconds is not None and self._clock() - self._begun >= self._max_seconds

    def _open(self) -> IO[bytes]:
        self._name = self._path
        rotates = self._max_bytes is not None or self._max_seconds is not None
        while rotates or (self._atomic and self._name.exists()):
            self._number += 1
            self._name = self._path.with_name(f"{self._path.stem}-{self._number:06}{self._path.suffix}")
            rotates = rotates and self._name.exists()
        self._begun = self._clock()
        file = self._part.open("a+b")
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        if self._sync:
            sync_directory(self._name.parent)
        self._file = file
        return file


class JSONLinesSink(FileSink):
    """Appends each payload as a line of JSON.

    Args:
        path: As of `FileSink`.
        default: As of ``json.dumps``: makes something of what JSON does not know.
        **options: As of `FileSink`.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, default: Callable[[Any], Any] | None = None, **options: Any
    ) -> None:
        """Check the options."""
        super().__init__(path, **options)
        check_function("JSONLinesSink", "default", default, "a function of a value, or None")
        self._default = default

    def encode(self, payloads: Sequence[Any], *, first: bool) -> bytes:  # noqa: ARG002 (the base class's form)
        """Return a line each."""
        lines = [json.dumps(each, default=self._default, ensure_ascii=False) for each in payloads]
        return "".join(f"{line}\n" for line in lines).encode()


class CSVSink(FileSink):
    """Appends each payload as a row of CSV. A file begins with the names of the fields.

    Args:
        path: As of `FileSink`.
        fields: The names of the fields: the keys of payloads that are dicts, in their order.
        csv_options: Of ``csv.writer``.
        **options: As of `FileSink`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fields: Sequence[str],
        *,
        csv_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Check the options."""
        super().__init__(path, **options)
        if isinstance(fields, str) or not fields or not all(isinstance(each, str) for each in fields):
            raise OptionError("CSVSink", "fields", "a list of names", fields)
        self._fields = list(fields)
        self._options: dict[str, Any] = {"lineterminator": "\n", **(csv_options or {})}

    def encode(self, payloads: Sequence[Any], *, first: bool) -> bytes:
        """Return a row each.

        Raises:
            ValueError: A payload has not exactly the fields.
        """
        text = io.StringIO()
        writer = csv.writer(text, **self._options)
        if first:
            writer.writerow(self._fields)
        for each in payloads:
            row = [each[name] for name in self._fields] if isinstance(each, Mapping) else list(each)
            if len(each) != len(self._fields):
                expected = f"the {len(self._fields)} fields {', '.join(self._fields)}"
                raise ValueError(f"CSVSink: expected {expected}, got {len(each)}: {each!r}")
            writer.writerow(row)
        return text.getvalue().encode()
