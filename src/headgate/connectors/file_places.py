"""Where files are found, and where they go when they are done with."""

from __future__ import annotations

import glob
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from traceback import format_exception_only
from typing import Any

from headgate.connectors.file_progress import Record
from headgate.connectors.sinks import JSONLinesSink
from headgate.errors import OptionError
from headgate.types import Message


def check_paths(where: str, path: Any) -> list[Path]:
    """Return a path, or several, as a list; refuse what is none."""
    paths = [path] if isinstance(path, (str, os.PathLike)) else list(path) if isinstance(path, Iterable) else []
    if not paths or not all(isinstance(each, (str, os.PathLike)) and str(each) for each in paths):
        raise OptionError(where, "path", "a file, a directory or a pattern, or several", path)
    return [Path(each) for each in paths]


def find_files(paths: Iterable[Path], ours: Iterable[Path], checkpoint: Path | None) -> Iterator[Path]:
    """Return all files that are meant, in order.

    Args:
        paths: Files, directories and patterns. A file is returned whether it is there or not.
        ours: Directories whose files are not meant.
        checkpoint: A file that is not meant, nor those that are made on its way.
    """
    apart = {each.resolve() for each in ours}
    for path in paths:
        if glob.has_magic(str(path)):
            found = [Path(each) for each in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207 (may be absolute)
        elif path.is_dir():
            found = sorted(path.iterdir())
        else:
            yield path
            continue
        for each in found:
            hidden = each.name.startswith(".") or (checkpoint is not None and each.name.startswith(checkpoint.name))
            if not hidden and each.is_file() and not apart.intersection(each.resolve().parents):
                yield each


def directory_of(path: Path) -> Path:
    """Return the directory in which changes are to be looked for."""
    while glob.has_magic(str(path)):
        path = path.parent
    return path if path.is_dir() else path.parent


def move(path: Path, directory: Path) -> None:
    """Move a file to a directory, under a name that is not taken there."""
    shutil.move(path, _free(directory / path.name))


def bury(messages: Iterable[tuple[Message, Record]], directory: Path, *, whole: bool) -> None:
    """Keep dead letters.

    Args:
        messages: What was given up, and where each comes from.
        directory: Where letters are kept.
        whole: They are the files themselves: each is moved there, and the reason put beside it.
    """
    lines: dict[str, list[dict[str, Any]]] = {}
    for message, record in messages:
        path: Path = record.owner.path
        letter = _letter(message, path)
        if whole:
            kept = _free(directory / path.name)
            with JSONLinesSink(kept.with_name(f"{kept.name}.reason.json"), sync=True) as sink:
                sink.write([letter])
            shutil.move(path, kept)
            continue
        raw = record.raw.decode("utf-8", "backslashreplace") if isinstance(record.raw, bytes) else record.raw
        letter.update(line=record.line, offset=record.start, record=raw)
        lines.setdefault(path.name, []).append(letter)
    for name, letters in lines.items():
        with JSONLinesSink(directory / f"{name}.letters.jsonl", sync=True) as sink:
            sink.write(letters)


def _letter(message: Message, path: Path) -> dict[str, Any]:
    reason = message.reason
    if isinstance(reason, BaseException):
        reason = "".join(format_exception_only(reason)).strip()
    return {
        "path": str(path),
        "reason": str(reason),
        "traceback": message.traceback,
        "deliveries": message.deliveries,
        "time": time.time(),
    }


def _free(path: Path) -> Path:
    number = 0
    free = path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free
