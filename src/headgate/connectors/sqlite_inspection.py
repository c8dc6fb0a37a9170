"""What can be seen of a `SQLiteQueue`, and done to it, without consuming from it."""

from __future__ import annotations

from collections.abc import Iterable

from headgate.connectors.options import check_choice, check_count, check_seconds
from headgate.connectors.sqlite_records import QueueCounts, QueuedMessage
from headgate.connectors.sqlite_store import Store


class Inspection:
    """The part of `SQLiteQueue` for people and their tools. Its methods may be called from any thread."""

    _where: str
    _store: Store

    def _stir(self) -> None:
        """Let those look who read the queue."""
        raise NotImplementedError

    def counts(self) -> QueueCounts:
        """Count the queue's messages by state."""
        return self._store.counts()

    def queues(self) -> list[str]:
        """Return the names of all queues of the file."""
        return self._store.names()

    def peek(self, limit: int = 10) -> list[QueuedMessage]:
        """Return up to ``limit`` messages that are to be handed out next, without taking them; highest priority first.

        With ``fair`` and ``ordered`` others of them may come first.
        """
        check_count(self._where, "limit", limit, 1)
        return self._store.peek(limit)

    def get(self, id: int) -> QueuedMessage | None:  # noqa: A002 (what it is called everywhere here)
        """Return one message of the queue, in whatever state; None: there is none of that id (any more)."""
        return self._store.get(id)

    def dead_letters(self, limit: int = 100, *, after: int = 0) -> list[QueuedMessage]:
        """Return up to ``limit`` dead letters, by id.

        Args:
            limit: At most so many.
            after: Only those of higher ids: to go on where the last call has ended.
        """
        check_count(self._where, "limit", limit, 1)
        return self._store.letters(limit, after)

    def retry_dead(self, ids: Iterable[int] | None = None, *, delay: float = 0.0) -> int:
        """Send dead letters back to be handled, with their deliveries counted from 0 again.

        Args:
            ids: Which. Default: all.
            delay: Seconds before which they are not handed out.

        Returns:
            How many. An id of no dead letter is passed over.
        """
        check_seconds(self._where, "delay", delay)
        count = self._store.retry(ids, delay)
        self._stir()
        return count

    def delete_dead(self, ids: Iterable[int] | None = None) -> int:
        """Delete dead letters: those of these ids, by default all; return how many."""
        return self._store.delete_dead(ids)

    def purge(self, *states: str, before: float | None = None) -> int:
        """Delete messages. What is leased stays.

        Args:
            *states: ``"done"``, ``"dead"``, ``"waiting"``, ``"delayed"``. Default: ``"done"``.
            before: Only those that ended (or were put, where they have not ended) before this Unix time.

        Returns:
            How many.
        """
        for state in states:
            check_choice(self._where, "states", state, ("waiting", "delayed", "dead", "done"))
        count = self._store.purge(states or ("done",), before)
        self._stir()
        return count
