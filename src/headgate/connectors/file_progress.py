"""How far a file was read, what of that is settled, and where this is kept so that a killed process goes on there."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

HEAD: Final = 256
_MOST_DONE: Final = 1000


class Record:
    """One record that was read and is not settled.

    Attributes:
        owner: The `Tail` it comes from.
        start: Where it begins, in bytes.
        end: Where it ends.
        line: The number of its first line, from 1.
        raw: What it is made of.
        error: Why it is none; None: it is one.
        deliveries: How often it was handed out, as far as that counts.
    """

    __slots__ = ("deliveries", "end", "error", "line", "owner", "raw", "start")

    def __init__(self, owner: Any, start: int, end: int, line: int, raw: Any, error: Exception | None) -> None:
        """Keep everything."""
        self.owner = owner
        self.start = start
        self.end = end
        self.line = line
        self.raw = raw
        self.error = error
        self.deliveries = 0


@dataclass
class Position:
    """How far a file is settled.

    Attributes:
        path: Where it was.
        identity: Its device and inode.
        head: How many of its first bytes are known, and their digest: another file may get the same inode.
        offset: Everything before it is settled.
        line: The number of the line that begins there.
        done: What is settled behind it: where a stretch begins, where it ends, and the number of the line there.
        over: It was read to its end.
    """

    path: str
    identity: tuple[int, int]
    head: tuple[int, str]
    offset: int = 0
    line: int = 1
    done: list[tuple[int, int, int]] = field(default_factory=list)
    over: bool = False

    def fits(self, path: Path, stat: os.stat_result) -> bool:
        """Say whether this is about the file that is there now."""
        known, digest = self.head
        if (stat.st_dev, stat.st_ino) != self.identity or stat.st_size < known:
            return False
        try:
            return head_of(path, known, self.identity)[1] == digest
        except OSError:
            return False


NO_HEAD: Final = (0, hashlib.sha256(b"").hexdigest())


def head_of(path: Path, size: int, identity: tuple[int, int]) -> tuple[int, str]:
    """Return a digest of the first bytes of a file, at most 256, and of how many it is.

    Raises:
        OSError: It is not there, or it is another one now.
    """
    with path.open("rb") as file:
        stat = os.fstat(file.fileno())
        if (stat.st_dev, stat.st_ino) != identity:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        found = file.read(min(size, HEAD))
    return len(found), hashlib.sha256(found).hexdigest()


def settled(
    outstanding: OrderedDict[int, Record], offset: int, line: int, ahead: list[tuple[int, int, int]]
) -> tuple[int, int, list[tuple[int, int, int]]]:
    """Return up to where everything is settled, the line there, and what is settled behind that.

    Args:
        outstanding: What was read and is not settled, in order.
        offset: How far was read.
        line: The number of the line there.
        ahead: What was settled behind that in an earlier life.
    """
    if not outstanding:
        return offset, line, ahead
    records = iter(outstanding.values())
    first = next(records)
    done: list[tuple[int, int, int]] = []
    end = first.end
    for record in records:
        if record.start > end:
            done.append((end, record.start, record.line))
        end = record.end
    if offset > end:
        done.append((end, offset, line))
    return first.start, first.line, [*done, *ahead][:_MOST_DONE]


class Checkpoint:
    """A file that says how far other files are settled. It is replaced at once, or not at all.

    Args:
        path: Where it is kept. Its directory has to exist.
    """

    def __init__(self, path: Path) -> None:
        """Begin with nothing."""
        self.path = path

    def load(self) -> list[Position]:
        """Read it; there are no positions if it is not there.

        Raises:
            ValueError: It is no checkpoint.
        """
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        try:
            return [
                Position(
                    str(each["path"]),
                    (int(each["device"]), int(each["inode"])),
                    (int(each["head"][0]), str(each["head"][1])),
                    int(each["offset"]),
                    int(each["line"]),
                    [(int(start), int(end), int(line)) for start, end, line in each["done"]],
                    bool(each["over"]),
                )
                for each in json.loads(text)["files"]
            ]
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(f"{self.path}: expected a checkpoint of headgate, got: {error!r}") from error

    def save(self, positions: list[Position]) -> None:
        """Write it, through to the disk."""
        files = [
            {
                "path": each.path,
                "device": each.identity[0],
                "inode": each.identity[1],
                "head": each.head,
                "offset": each.offset,
                "line": each.line,
                "done": each.done,
                "over": each.over,
            }
            for each in positions
        ]
        replace(self.path, json.dumps({"version": 1, "files": files}).encode())


def replace(path: Path, content: bytes) -> None:
    """Replace a file's content, through to the disk: at every moment there is the old one or the new one."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make a rename in a directory durable, where directories can be synced."""
    if os.name == "nt":
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
