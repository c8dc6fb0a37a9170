"""Tells at once that something has changed in a directory, where the library ``watchfiles`` is there for it."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


class Watcher:
    """A thread that waits for changes.

    Args:
        watch: The function of the library.
        directories: Where to look.
        changed: Called in that thread.
    """

    def __init__(self, watch: Callable[..., Any], directories: Iterable[Path], changed: Callable[[], None]) -> None:
        """Begin to wait."""
        self._watch = watch
        self._directories = list(directories)
        self._changed = changed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headgate: file watcher", daemon=True)
        self._thread.start()

    @classmethod
    def start(cls, directories: Iterable[Path], changed: Callable[[], None]) -> Watcher | None:
        """Begin to wait, if the library is there."""
        try:
            library = importlib.import_module("watchfiles")
        except ImportError:
            return None
        return cls(library.watch, directories, changed)

    def stop(self) -> None:
        """Wait no more."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            for _ in self._watch(
                *self._directories, watch_filter=None, debounce=100, step=10, rust_timeout=200, stop_event=self._stop
            ):
                self._changed()
        except (OSError, RuntimeError):  # a directory that is not there, or too many: there are looks by time as well
            return
