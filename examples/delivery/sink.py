"""Where messages are delivered to. It writes down what came, in the order in which it came, and refuses nothing.

A real one would refuse an id that it has seen: then even a process that is killed between delivering and acknowledging
delivers once. Here duplicates are to be seen, if there are any.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any, Final

from .chat import FOLDER

FILE: Final = "delivered.sqlite"
TABLE: Final = """CREATE TABLE IF NOT EXISTS delivered (
    place INTEGER PRIMARY KEY AUTOINCREMENT, message TEXT NOT NULL, team TEXT NOT NULL, conversation TEXT NOT NULL,
    number INTEGER NOT NULL, line TEXT NOT NULL, process INTEGER NOT NULL)"""


class Sink:
    """A connection to what was delivered."""

    def __init__(self, folder: Path = FOLDER) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(folder / FILE, isolation_level=None, timeout=10)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute(TABLE)

    def deliver(self, message: dict[str, Any], line: str) -> None:
        """Deliver one message."""
        self._database.execute(
            "INSERT INTO delivered (message, team, conversation, number, line, process) VALUES (?, ?, ?, ?, ?, ?)",
            (message["id"], message["team"], message["conversation"], message["number"], line, os.getpid()),
        )

    def query(self, sql: str, *parameters: Any) -> list[Any]:
        """Look something up."""
        return self._database.execute(sql, parameters).fetchall()

    def close(self) -> None:
        self._database.close()
