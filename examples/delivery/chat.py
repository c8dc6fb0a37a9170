"""Messages are written: into the chat's own table and into the queue, in one transaction.

So there is no message in the history that nobody will deliver, and none is delivered that was never written, whatever
is killed in between. (Elsewhere this is called a transactional outbox.)
"""

from __future__ import annotations

import os
import random
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Final

from headgate.connectors.sqlite import SQLiteQueue

FOLDER: Final = Path(os.environ.get("DELIVERY_FOLDER") or Path(tempfile.gettempdir(), "headgate_delivery"))
FILE: Final = "chat.sqlite"

TEAMS: Final = {"harbour": (40, 6), "library": (8, 1), "observatory": (3, 1)}
"""How many conversations each team has, and how lively they are. One that writes a lot must not keep others waiting."""
TABLE: Final = """CREATE TABLE IF NOT EXISTS chat (
    conversation TEXT, number INTEGER, team TEXT NOT NULL, PRIMARY KEY (conversation, number)) WITHOUT ROWID"""


def inbox(folder: Path = FOLDER, *, stop_when_empty: bool = False) -> SQLiteQueue:
    """Return the queue, as it is to be opened everywhere."""
    folder.mkdir(parents=True, exist_ok=True)
    return SQLiteQueue(
        folder / FILE,
        queue="inbox",
        ordered=True,  # of one key (a conversation) in the order in which they were put
        per_key=10,  # several of them at a time to one process, whose pipeline keeps them in order: partition_by
        fair=True,  # users (teams) take turns
        lease=10.0,
        max_deliveries=20,
        keep_done=True,  # so that the check can compare what was acknowledged with what was delivered
        stop_when_empty=stop_when_empty,
    )


def connect(folder: Path = FOLDER) -> sqlite3.Connection:
    """Open the chat's own table, which is in the same file."""
    folder.mkdir(parents=True, exist_ok=True)
    chat = sqlite3.connect(folder / FILE, isolation_level=None, timeout=10)
    chat.execute("PRAGMA journal_mode = WAL")
    chat.execute(TABLE)
    return chat


def write(count: int, seed: int | None = None, folder: Path = FOLDER) -> None:
    """Write so many messages, those of the largest team first."""
    chance = random.Random(seed)
    conversations = [(team, f"{team}-{number}") for team, (many, _) in TEAMS.items() for number in range(many)]
    weights = [lively for many, lively in TEAMS.values() for _ in range(many)]
    chosen = sorted(chance.choices(range(len(conversations)), weights, k=count))
    queue = inbox(folder)
    queue.setup()  # its tables have to be there before it is put to in a transaction of ours
    with closing(connect(folder)) as chat:
        chat.execute("BEGIN IMMEDIATE")
        for team, conversation in (conversations[each] for each in chosen):
            sql = "SELECT coalesce(max(number), 0) + 1 FROM chat WHERE conversation = ?"
            number: int = chat.execute(sql, (conversation,)).fetchone()[0]
            chat.execute("INSERT INTO chat VALUES (?, ?, ?)", (conversation, number, team))
            message_id = f"{conversation}/{number}"
            message = {
                "id": message_id,
                "conversation": conversation,
                "number": number,
                "team": team,
                "sender": f"{team}-user-{chance.randrange(12)}",
                "text": f"message {number}",
            }
            # dedupe: should somebody write the same message twice, it is put once.
            queue.put(message, key=conversation, user=team, dedupe=message_id, connection=chat)
        chat.execute("COMMIT")
