"""How messages are put into a `SQLiteQueue`, with or without a pipeline."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from headgate.connectors.options import check_function
from headgate.connectors.sqlite_group import Group
from headgate.connectors.sqlite_records import Codec, Row
from headgate.connectors.sqlite_store import Store


class Putting:
    """The part of `SQLiteQueue` for producers."""

    _where: str
    _clock: Callable[[], float]
    _codec: Codec
    _store: Store
    _group: Group

    def _insert(self, rows: Sequence[Row]) -> list[int | None]:
        """Commit rows, and let those look who read the queue."""
        raise NotImplementedError

    def put(  # noqa: PLR0913 (they are the message's)
        self,
        data: Any,
        *,
        key: str | int | None = None,
        user: str | int | None = None,
        priority: int = 0,
        delay: float = 0.0,
        deadline: float | None = None,
        dedupe: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        connection: sqlite3.Connection | None = None,
    ) -> int | None:
        """Put one message; when this returns, it is committed. May be called from any thread, and without a pipeline.

        Args:
            data: The payload.
            key: What it belongs to: for ``ordered``, and the message's ``key``.
            user: Whose it is: for ``fair``. Comes as ``metadata["user"]``.
            priority: Those of a higher one go out first. Default 0.
            delay: Seconds from now on before which it is not handed out.
            deadline: Unix time in seconds from which on it is not worth handling; a pipeline looks at that.
            dedupe: It is not put while another message of this dedupe key is in the queue and not done. A dead letter
                is not done: it holds its key until it is deleted, or sent back and done.
            metadata: A dict that JSON can say, to go along.
            connection: Yours, to the same file: the message is put in your transaction, and is there when you commit
                that, together with what else you have written. Only INSERTs are made; in a file in which there was no
                queue before, call `setup` first. Default: a transaction of its own.

        Returns:
            The message's id, or None when its dedupe key is taken.

        Raises:
            OptionError: Something cannot be kept.
            StoreError: The file cannot be written. Nothing was put.
        """
        row = self._codec.row(
            data,
            self._clock(),
            key=key,
            user=user,
            priority=priority,
            delay=delay,
            deadline=deadline,
            dedupe=dedupe,
            metadata=metadata,
        )
        if connection is not None:
            return self._store.insert_by(connection, [row])[0]
        return self._insert([row])[0]

    def put_many(  # noqa: PLR0913 (as above)
        self,
        payloads: Iterable[Any],
        *,
        key: Callable[[Any], Any] | str | int | None = None,
        user: Callable[[Any], Any] | str | int | None = None,
        priority: int = 0,
        delay: float = 0.0,
        deadline: float | None = None,
        dedupe: Callable[[Any], str | None] | None = None,
        metadata: Mapping[str, Any] | None = None,
        connection: sqlite3.Connection | None = None,
    ) -> list[int | None]:
        """Put many messages, or none of them, in one transaction. May be called from any thread.

        Args:
            payloads: Of each; or `Message` objects, whose data, key, metadata and deadline are taken.
            key: A function of the payload, or what all of them have.
            user: A function of the payload, or what all of them have.
            priority: As of `put`, of all of them.
            delay: As of `put`, of all of them.
            deadline: As of `put`, of all of them.
            dedupe: A function of the payload, or None.
            metadata: As of `put`, of all of them.
            connection: As of `put`.

        Returns:
            Their ids, None for one whose dedupe key is taken.

        Raises:
            OptionError: Something cannot be kept; nothing was put.
            StoreError: The file cannot be written; nothing was put.
        """
        options = {"priority": priority, "delay": delay, "deadline": deadline, "metadata": metadata}
        check_function(self._where, "dedupe", dedupe, "a function of a payload, or None")
        rows = self._store.rows(payloads, key=key, user=user, dedupe=dedupe, **options)
        if connection is not None:
            return self._store.insert_by(connection, rows)
        return self._insert(rows) if rows else []

    async def aput(
        self,
        data: Any,
        *,
        key: str | int | None = None,
        user: str | int | None = None,
        priority: int = 0,
        delay: float = 0.0,
        deadline: float | None = None,
        dedupe: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> int | None:
        """As `put`, without blocking the event loop. What many tasks put at the same time is committed together."""
        row = self._codec.row(
            data,
            self._clock(),
            key=key,
            user=user,
            priority=priority,
            delay=delay,
            deadline=deadline,
            dedupe=dedupe,
            metadata=metadata,
        )
        return await self._group.put(row)

    async def aput_many(self, payloads: Iterable[Any], **options: Any) -> list[int | None]:
        """As `put_many`, without blocking the event loop; the payloads are taken and encoded in a thread."""
        return await asyncio.to_thread(self.put_many, payloads, **options)
