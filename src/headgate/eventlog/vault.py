"""The keys of subjects: one for each person whose data is in the log, destroyed on request."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from headgate.eventlog import sealing
from headgate.eventlog.store import Statement, Store

_CHUNK = 500


class Vault:
    """Keeps a data key for each subject, sealed with the master key, next to the log.

    Args:
        store: Where they are.
        master: The master key.
        clock: Unix time in seconds.
    """

    def __init__(self, store: Store, master: bytes, clock: Callable[[], float] = time.time) -> None:
        """Keep the master key."""
        self._store = store
        self._master = master
        self._clock = clock

    async def lookup(self, subjects: Iterable[str]) -> dict[str, bytes | None]:
        """Return the keys that there are or were; None: destroyed.

        They are read each time: a key that somebody has just destroyed is not used from memory.
        """
        found: dict[str, bytes | None] = {}
        wanted = sorted(set(subjects))
        for at in range(0, len(wanted), _CHUNK):
            some = tuple(wanted[at : at + _CHUNK])
            marks = ", ".join("?" * len(some))
            sql = f"SELECT subject, sealed FROM ~data_keys WHERE subject IN ({marks})"  # noqa: S608 (marks only)
            (rows,) = await self._store.transact([Statement(sql, some)])
            for subject, sealed in rows:
                found[subject] = None if sealed is None else self._opened(subject, bytes(sealed))
        return found

    async def ensure(self, subjects: Iterable[str]) -> dict[str, bytes]:
        """Return the keys of these subjects, with new ones for those who have none; destroyed ones are left out."""
        wanted = set(subjects)
        found = await self.lookup(wanted)
        missing = [each for each in wanted if found.get(each) is None]
        if missing:
            now = int(self._clock() * 1e6)
            made = [(each, sealing.encrypt(self._master, sealing.new_key(), each.encode()), now) for each in missing]
            # Two who do this at once agree on one key: the first.
            sql = (
                "INSERT INTO ~data_keys (subject, sealed, created_at) VALUES (?, ?, ?) ON CONFLICT (subject) DO NOTHING"
            )
            await self._store.transact([Statement(sql, many=made)])
            found = await self.lookup(wanted)
        return {each: key for each in wanted if (key := found.get(each)) is not None}

    async def destroy(self, subject: str) -> bool:
        """Destroy a key: what was sealed with it is never read again. False: there was none, or it is destroyed.

        Snapshots go with it: they may hold in the clear what was read with it, and are made again when they are missed.
        """
        sql = (
            "UPDATE ~data_keys SET sealed = NULL, destroyed_at = ? WHERE subject = ? AND sealed IS NOT NULL "
            "RETURNING subject"
        )
        destroyed, _ = await self._store.transact(
            [Statement(sql, (int(self._clock() * 1e6), subject)), Statement("DELETE FROM ~snapshots")]
        )
        return bool(destroyed)

    def _opened(self, subject: str, sealed: bytes) -> bytes:
        return sealing.decrypt(self._master, sealed, subject.encode(), f"the key of subject {subject!r}")
