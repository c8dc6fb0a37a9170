"""A queue of batches in a temporary file of our own, for partitions that outgrow memory."""

from __future__ import annotations

import pickle
import tempfile
from typing import Any


class SpillFile:
    """First in, first out. The file has no name, so nobody else can write to it, and it goes with the process.

    Args:
        name: What it is for; only for people.
    """

    def __init__(self, name: str) -> None:
        """Open the file."""
        self.name = name
        self._file = tempfile.TemporaryFile(prefix="headgate-")  # noqa: SIM115 (closed with the object)
        self._read = 0
        self._count = 0

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def append(self, batch: Any) -> None:
        """Write a batch at the end."""
        self._file.seek(0, 2)
        pickle.dump(batch, self._file, protocol=5)
        self._count += 1

    def popleft(self) -> Any:
        """Read the oldest batch; the file is emptied when it was the last."""
        self._file.seek(self._read)
        batch = pickle.load(self._file)  # noqa: S301 (written by this very object into an unnamed file)
        self._read = self._file.tell()
        self._count -= 1
        if not self._count:
            self._file.seek(0)
            self._file.truncate()
            self._read = 0
        return batch
