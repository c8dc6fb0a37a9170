"""Log lines that read well on a terminal."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator

logger = logging.getLogger("headgate")


class Lines(logging.Formatter):
    """``12:30:05 warning  the text``; lines of others say whose they are."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(level)-8s %(whose)s%(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Indent what follows the first line, so that each new record stands out."""
        record.level = record.levelname.lower()
        record.whose = "" if record.name == "headgate" else f"{record.name}: "
        return super().format(record).rstrip().replace("\n", "\n    ").replace("\n    \n", "\n\n")


@contextlib.contextmanager
def logging_to_stderr(level: str | None) -> Generator[None]:
    """Log to stderr while the app runs, unless the program sees to that itself."""
    if level is None or logger.hasHandlers():
        yield
        return
    root = logging.getLogger()
    handler = logging.StreamHandler()
    handler.setFormatter(Lines())
    before = root.level, logger.level
    root.addHandler(handler)
    logger.setLevel(level.upper())
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before[0])
        logger.setLevel(before[1])
