"""The keys of subjects: one for each person whose data is in the log, destroyed on request."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from headgate.eventlog import sealing
from headgate.eventlog.store import Statement, Store

_CHUNK: Final = 500
_NAME: Final = "master_key"
_PROVEN: Final = b"headgate: the master key of this log"
_PROOF: Final = Statement(f"SELECT value FROM ~meta WHERE name = '{_NAME}'")  # noqa: S608 (a constant)
"""What is sealed with the master key, and nothing else: it tells another one before that does harm."""
LAST_SHRED: Final = "SELECT value FROM ~meta WHERE name = 'shredded'"
"""A mark that is another one each time that a key was destroyed; nothing: none was."""
_MARK: Final = "INSERT INTO ~meta AS old (name, value) VALUES ('shredded', ?) ON CONFLICT (name) DO UPDATE "


def no_shred_since(mark: str, otherwise: Exception) -> Statement:
    """Return what takes a transaction back when a key was destroyed since a mark (empty: since ever).

    It holds the mark until the transaction ends, so that whoever destroys a key comes before it, or sees all of it.
    """
    sql = _MARK + "SET value = excluded.value WHERE old.value = excluded.value"
    return Statement(sql, (mark,), changes=1, otherwise=otherwise)


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
        self._proved = False

    async def lookup(self, subjects: Iterable[str]) -> dict[str, bytes | None]:
        """Return the keys that there are or were; None: destroyed; `sealing.DAMAGED`: it cannot be opened.

        They are read each time: a key that somebody has just destroyed is not used from memory. A damaged one is told
        by whoever reads an event that was sealed with it, so that all others can be read.

        Raises:
            OptionError: The log has another master key.
        """
        found: dict[str, bytes | None] = {}
        wanted = sorted(set(subjects))
        for at in range(0, len(wanted), _CHUNK):
            some = tuple(wanted[at : at + _CHUNK])
            marks = ", ".join("?" * len(some))
            sql = f"SELECT subject, sealed, created_at FROM ~data_keys WHERE subject IN ({marks})"  # noqa: S608 (marks only)
            rows, *proofs = await self._store.transact([Statement(sql, some), *([] if self._proved else [_PROOF])])
            for each in proofs:
                self._check(each)
            for subject, sealed, created_at in rows:
                found[subject] = None if sealed is None else self._opened(subject, bytes(sealed), created_at)
        return found

    async def ensure(self, subjects: Iterable[str]) -> dict[str, bytes]:
        """Return the keys of these subjects, with new ones for those who have none; destroyed ones are left out.

        Raises:
            OptionError: The log has another master key.
            DamagedLogError: A key cannot be opened.
        """
        wanted = set(subjects)
        await self._prove()
        found = await self.lookup(wanted)
        missing = sorted(each for each in wanted if each not in found)  # in one order: nobody waits in a circle
        if missing:
            now = int(self._clock() * 1e6)
            made = [(each, sealing.encrypt(self._master, sealing.new_key(), each.encode()), now) for each in missing]
            # Two who do this at once agree on one key: the first.
            sql = (
                "INSERT INTO ~data_keys (subject, sealed, created_at) VALUES (?, ?, ?) ON CONFLICT (subject) DO NOTHING"
            )
            await self._store.transact([Statement(sql, many=made)])
            found = await self.lookup(wanted)
        for subject in wanted:
            if found.get(subject) == sealing.DAMAGED:
                raise sealing.damaged_key(subject)
        return {each: key for each in wanted if (key := found.get(each)) is not None}

    async def destroy(self, subject: str) -> bool:
        """Destroy a key: what was sealed with it is never read again. False: there was none, or it is destroyed.

        Snapshots go with it: they may hold in the clear what was read with it, and are made again when they are missed.
        None is kept of what was being read meanwhile (`no_shred_since`).
        """
        await self._prove()
        sql = (
            "UPDATE ~data_keys SET sealed = NULL, destroyed_at = ? WHERE subject = ? AND sealed IS NOT NULL "
            "RETURNING subject"
        )
        destroyed, *_ = await self._store.transact(
            [
                Statement(sql, (int(self._clock() * 1e6), subject)),
                Statement(_MARK + "SET value = excluded.value", (uuid.uuid4().hex,)),
                Statement("DELETE FROM ~snapshots"),  # after the mark: those that were kept before it are seen here
            ]
        )
        await self._store.scrub()
        return bool(destroyed)

    def _opened(self, subject: str, sealed: bytes, created_at: int = 0) -> bytes:
        try:
            key = sealing.Key(sealing.decrypt(self._master, sealed, subject.encode()))
        except ValueError:
            return sealing.DAMAGED
        key.created_at = created_at
        return key

    async def _prove(self) -> None:
        """See that the log has this master key before anything is written; at first, keep what proves it."""
        if self._proved:
            return
        first = "SELECT subject, sealed FROM ~data_keys WHERE sealed IS NOT NULL ORDER BY created_at, subject LIMIT 1"
        proofs, keys = await self._store.transact([_PROOF, Statement(first)])
        if not proofs:
            for subject, sealed in keys:  # of a log that is older than its proof
                if self._opened(subject, bytes(sealed)) == sealing.DAMAGED:
                    raise sealing.another_master()
            proof = base64.b64encode(sealing.encrypt(self._master, _PROVEN, _PROVEN)).decode()
            sql = f"INSERT INTO ~meta (name, value) VALUES ('{_NAME}', ?) ON CONFLICT (name) DO NOTHING"  # noqa: S608
            _, proofs = await self._store.transact([Statement(sql, (proof,)), _PROOF])  # the first one counts
        self._check(proofs)

    def _check(self, proofs: Sequence[tuple[str]]) -> None:
        for (proof,) in proofs:
            try:
                sealing.decrypt(self._master, base64.b64decode(proof), _PROVEN)
            except ValueError:
                raise sealing.another_master() from None
            self._proved = True
