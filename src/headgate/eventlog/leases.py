"""Leases: which member of a group holds which partitions, as the database knows it.

A partition is a row of the checkpoints: its position, who holds it and until when, and an epoch that counts how often
it was taken up. Whoever takes it up raises the epoch, and so fences off all that came before. Positions only go on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final, NamedTuple

from headgate.errors import EventLogError, OptionError
from headgate.eventlog.checkpoints import Checkpoint, group_name, members_name
from headgate.eventlog.store import Statement, Store

_FORGOTTEN: Final = 10  # leases after which a member that was not heard of is removed


class Standing(NamedTuple):
    """How things are in a group.

    Attributes:
        members: How many members are alive.
        own: The partitions that this member holds, and where they are.
        free: Partitions that it may take up, in order.
    """

    members: int
    own: dict[int, Checkpoint]
    free: list[int]


class Leases:
    """What a member of a group holds.

    Args:
        store: Where; its clock is that of all members.
        group: The group's name.
        owner: The member's: 32 hexadecimal digits.
        partitions: How many there are.
        lease: Seconds.
    """

    def __init__(self, store: Store, group: str, owner: str, partitions: int, lease: float) -> None:
        """Keep them; nothing is written yet."""
        self._store = store
        self._group = group
        self._name = group_name(group)
        self._members = members_name(group)
        self._owner = owner
        self._partitions = partitions
        self._lease = int(lease * 1e6)

    async def begin(self, first: Callable[[], Awaitable[int]]) -> None:
        """Make the partitions, if nobody has before.

        Args:
            first: Says up to which position everything is done with, then.

        Raises:
            OptionError: The group has another number of them.
        """
        found = await self._count()
        if not found:
            await self._make(await first())
            found = await self._count()
        if found != self._partitions:
            expected = f"{found}, as for those who came before"
            raise OptionError(f"group {self._group!r}", "partitions", expected, self._partitions)

    async def _count(self) -> int:
        sql = "SELECT count(*) FROM ~checkpoints WHERE name = ?"
        (((found,),),) = await self._store.transact([Statement(sql, (self._name,))])
        return int(found)

    async def _make(self, position: int) -> None:
        """Make all of them, or none: whoever makes the first, makes the others too."""
        now = await self._store.now()
        add = (
            "INSERT INTO ~checkpoints (name, partition, position, epoch, updated_at) VALUES (?, ?, ?, 0, ?) "
            "ON CONFLICT (name, partition) DO NOTHING"
        )
        late = EventLogError(self._store.name, f"group {self._group!r}: somebody else has made its partitions")
        others = [(self._name, each, position, now) for each in range(1, self._partitions)]
        try:
            await self._store.transact(
                [
                    Statement(add, (self._name, 0, position, now), changes=1, otherwise=late),
                    Statement(add, many=others),
                ]
            )
        except EventLogError as error:
            if error is not late:
                raise

    async def renew(self, held: Iterable[int]) -> Standing:
        """Be there, go on holding what is held, and say how things are."""
        now = await self._store.now()
        until = now + self._lease
        present = (
            "INSERT INTO ~checkpoints (name, partition, position, epoch, owner, lease_until, updated_at) "
            "VALUES (?, ?, 0, 0, ?, ?, ?) "
            "ON CONFLICT (name, partition) DO UPDATE SET lease_until = excluded.lease_until"
        )
        number = int(self._owner[:7], 16)
        # One by one, in order, as `Group.done_in` does: else the two could wait for each other in the database.
        renew = "UPDATE ~checkpoints SET lease_until = ? WHERE name = ? AND owner = ? AND partition = ?"
        members = "SELECT partition, lease_until FROM ~checkpoints WHERE name = ? ORDER BY partition"
        state = (
            "SELECT partition, position, epoch, owner, lease_until FROM ~checkpoints WHERE name = ? ORDER BY partition"
        )
        *_, leases, rows = await self._store.transact(
            [
                Statement(present, (self._members, number, self._owner, until, now)),
                Statement(renew, many=[(until, self._name, self._owner, each) for each in sorted(held)]),
                Statement(members, (self._members,)),
                Statement(state, (self._name,)),
            ]
        )
        await self._forget([row[0] for row in leases if row[1] < now - _FORGOTTEN * self._lease], now)
        own: dict[int, Checkpoint] = {}
        free: list[int] = []
        for partition, position, epoch, owner, leased in rows:
            if owner == self._owner:
                own[partition] = Checkpoint(self._name, partition, position, epoch)
            elif owner is None or leased < now:
                free.append(partition)
        return Standing(sum(row[1] >= now for row in leases), own, free)

    async def _forget(self, members: list[int], now: int) -> None:
        """Remove members that are long dead; one that was only slow comes back with its next renewal."""
        if members:
            # By itself, in order: others do the same, and whoever holds partitions waits for nobody here.
            sql = "DELETE FROM ~checkpoints WHERE name = ? AND partition = ? AND lease_until < ?"
            await self._store.transact([Statement(sql, many=[(self._members, each, now) for each in members])])

    async def own(self) -> dict[int, Checkpoint]:
        """Return the partitions that are this member's, and where they are."""
        sql = "SELECT partition, position, epoch FROM ~checkpoints WHERE name = ? AND owner = ?"
        (rows,) = await self._store.transact([Statement(sql, (self._name, self._owner))])
        return {row[0]: Checkpoint(self._name, *row) for row in rows}

    async def claim(self, partition: int) -> Checkpoint | None:
        """Take a partition up that is free, or this member's own already; None: somebody was quicker."""
        now = await self._store.now()
        sql = (
            "UPDATE ~checkpoints SET owner = ?, epoch = epoch + 1, lease_until = ?, updated_at = ? "
            "WHERE name = ? AND partition = ? AND (owner IS NULL OR owner = ? OR lease_until < ?) "
            "RETURNING position, epoch"
        )
        values = (self._owner, now + self._lease, now, self._name, partition, self._owner, now)
        (rows,) = await self._store.transact([Statement(sql, values)])
        return Checkpoint(self._name, partition, *rows[0]) if rows else None

    async def release(self, reached: Iterable[tuple[Checkpoint, int]]) -> None:
        """Let partitions go, each where it has come to at least.

        Args:
            reached: How they were taken up, and up to where all is handled. A transaction that is under way may have
                moved the checkpoint behind that already; it does not go back.
        """
        await self._store.transact([self._released(*each) for each in sorted(reached)])

    async def leave(self, reached: Iterable[tuple[Checkpoint, int]]) -> None:
        """Let everything go, and be there no more.

        Args:
            reached: As for `release`.
        """
        # What was taken up by a call that was cancelled is in the database alone.
        free = "UPDATE ~checkpoints SET owner = NULL, lease_until = NULL WHERE name = ? AND owner = ?"
        member = "DELETE FROM ~checkpoints WHERE name = ? AND owner = ?"
        await self._store.transact(
            [
                *(self._released(*each) for each in sorted(reached)),
                Statement(free, (self._name, self._owner)),
                Statement(member, (self._members, self._owner)),
            ]
        )

    def _released(self, checkpoint: Checkpoint, reached: int) -> Statement:
        sql = (
            "UPDATE ~checkpoints SET owner = NULL, lease_until = NULL, "
            "position = CASE WHEN position < ? THEN ? ELSE position END "
            "WHERE name = ? AND partition = ? AND owner = ? AND epoch = ?"
        )
        return Statement(sql, (reached, reached, self._name, checkpoint.partition, self._owner, checkpoint.epoch))
