"""Where the results of a flow go: files, functions, stages."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from headgate.errors import OptionError
from headgate.flow.exchange import Packet
from headgate.protocol.batching import rows
from headgate.protocol.messages import is_normal
from headgate.runtime.options import Child
from headgate.runtime.reference import Ref
from headgate.stage import Consumer


def as_target(target: Any, where: str) -> Ref | str | Child:
    """Return what a flow sends its results to: a running consumer, or the recipe of one.

    Raises:
        OptionError: It is nothing of the kind.
    """
    if isinstance(target, Ref):
        return target
    if isinstance(target, Child):
        if target.role == "producer":
            raise OptionError(where, "targets", "consumers, or middle stages that have consumers", target)
        return target
    if isinstance(target, os.PathLike) or (isinstance(target, str) and _is_path(target)):
        return Child(FileSink, os.fspath(target), id=f"into {Path(target).name}", restart="temporary")
    if isinstance(target, str):
        return target
    if callable(target):
        return Child(FunctionSink, target, id="into function", restart="temporary")
    expected = "references, names, recipes of consumers, paths of files, or functions of a list of events"
    raise OptionError(where, "targets", expected, target)


def _is_path(text: str) -> bool:
    return os.sep in text or Path(text).suffix in {".txt", ".jsonl", ".csv", ".parquet"}


class FunctionSink(Consumer):
    """Calls a function with the events of each batch."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        """Keep it."""
        self._function = function

    def handle_events(self, events: list[Packet], source: Any) -> None:  # noqa: ARG002 (a callback's form)
        """Call it."""
        self._function(events)


class FileSink(Consumer):
    """Writes events into a file, which has its name when it is complete: before, that ends with ``.part``.

    Args:
        path: Its ending says what is in it: ``.jsonl``: a JSON value a line; ``.csv``: a row for each mapping or
            sequence; else a line of text.
    """

    def __init__(self, path: str) -> None:
        """Open nothing yet."""
        self._path = path
        self._part = f"{path}.part"
        self._kind = Path(path).suffix
        self._file: IO[str] | None = None
        self._writer: Any = None
        self._fields: list[str] | None = None
        self._table: Any = None

    def started(self) -> None:
        """Begin the file."""
        if self._kind == ".parquet":
            from headgate.flow.columns import ParquetFile  # noqa: PLC0415 (an extra)

            self._table = ParquetFile(self._part)
            return
        self._file = open(self._part, "w", encoding="utf-8", newline="")  # noqa: SIM115, PTH123 (closed at the end)

    def handle_events(self, events: Any, source: Any) -> None:  # noqa: ARG002 (a callback's form)
        """Write a batch."""
        if self._table is not None:
            self._table.write(events)
            return
        assert self._file is not None  # noqa: S101 (it was started)
        if self._kind == ".jsonl":
            self._file.writelines(json.dumps(each, ensure_ascii=False) + "\n" for each in rows(events))
        elif self._kind == ".csv":
            self._write_rows(rows(events))
        else:
            self._file.writelines(f"{each}\n" for each in rows(events))

    def _write_rows(self, events: Any) -> None:
        assert self._file is not None  # noqa: S101 (it was started)
        for each in events:
            if self._writer is None:
                self._writer = csv.writer(self._file)
                if hasattr(each, "keys"):
                    self._fields = list(each)
                    self._writer.writerow(self._fields)
            fields = self._fields
            if fields is not None:
                self._writer.writerow([each.get(name) for name in fields])
            else:
                self._writer.writerow(each if isinstance(each, (list, tuple)) else [each])

    def terminate(self, reason: Any) -> None:
        """Close the file; give it its name if all of it is there."""
        if self._file is not None:
            self._file.close()
        if self._table is not None:
            self._table.close()
        if reason == "normal" or (is_normal(reason) and reason != "shutdown"):
            os.replace(self._part, self._path)  # noqa: PTH105 (paths are text here)
        elif os.path.exists(self._part):  # noqa: PTH110
            os.remove(self._part)  # noqa: PTH107
