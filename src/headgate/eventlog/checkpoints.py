"""Checkpoints: how far somebody has come, kept with the log, and moved on only by who has come there.

A checkpoint is moved from the position where its owner took it up. One who was taken for dead and replaced has an old
epoch, and gets a `FencedError`: what he did does not count, and he learns it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from headgate.errors import FencedError, OptionError
from headgate.eventlog.store import Statement, Store

_GROUP: Final = "group "
_MEMBERS: Final = "members of "
_PROJECTION: Final = "projection "
_OURS: Final = (_GROUP, _MEMBERS, _PROJECTION)  # how the names of checkpoints begin that are not a user's own


def group_name(group: str) -> str:
    """Return the name of the checkpoints of a group."""
    return _GROUP + group


def members_name(group: str) -> str:
    """Return the name of the rows that say who is in a group."""
    return _MEMBERS + group


def projection_name(projection: str, generation: int) -> str:
    """Return the name of the checkpoint of a generation of states."""
    return f"{_PROJECTION}{projection}#{generation}"


def kind_of(name: str) -> tuple[str, str]:
    """Return whose a checkpoint is: ``"group"``, ``"members"``, ``"projection"`` or ``"checkpoint"``, and his name."""
    for kind, prefix in (("group", _GROUP), ("members", _MEMBERS), ("projection", _PROJECTION)):
        if name.startswith(prefix):
            return kind, name.removeprefix(prefix)
    return "checkpoint", name


def check_own(where: str, name: str) -> str:
    """Refuse names that are not for a user's own checkpoints: groups and projections keep theirs beside them."""
    if name.startswith(_OURS):
        raise OptionError(where, "name", f"a name that begins with none of {', '.join(map(repr, _OURS))}", name)
    return name


class Checkpoint(NamedTuple):
    """How far somebody has come.

    Attributes:
        name: Whose it is.
        partition: Which part of it.
        position: The last position that is done with.
        epoch: How often it has changed hands.
    """

    name: str
    partition: int = 0
    position: int = 0
    epoch: int = 0


async def load(store: Store, name: str, partition: int = 0) -> Checkpoint:
    """Return a checkpoint; one that is not there is at position 0, epoch 0."""
    sql = "SELECT position, epoch FROM ~checkpoints WHERE name = ? AND partition = ?"
    (rows,) = await store.transact([Statement(sql, (name, partition))])
    return Checkpoint(name, partition, *(rows[0] if rows else (0, 0)))


def taken(store: Store, old: Checkpoint, now: int) -> list[Statement]:
    """Return the statements that take a checkpoint up: whoever has had it is fenced off from then on."""
    add = (
        "INSERT INTO ~checkpoints (name, partition, position, epoch, updated_at) VALUES (?, ?, 0, 0, ?) "
        "ON CONFLICT (name, partition) DO NOTHING"
    )
    take = (
        "UPDATE ~checkpoints SET epoch = epoch + 1, updated_at = ? "
        "WHERE name = ? AND partition = ? AND position = ? AND epoch = ?"
    )
    return [
        Statement(add, (old.name, old.partition, now)),
        Statement(
            take, (now, old.name, old.partition, old.position, old.epoch), changes=1, otherwise=fenced(store, old)
        ),
    ]


def taken_over(name: str, now: int) -> list[Statement]:
    """Return the statements that take a checkpoint up wherever it is; the last one gives its position and epoch."""
    add = (
        "INSERT INTO ~checkpoints AS old (name, partition, position, epoch, updated_at) VALUES (?, 0, 0, 1, ?) "
        "ON CONFLICT (name, partition) DO UPDATE SET epoch = old.epoch + 1, updated_at = excluded.updated_at"
    )
    found = "SELECT position, epoch FROM ~checkpoints WHERE name = ? AND partition = 0"
    return [Statement(add, (name, now)), Statement(found, (name,))]


def moved(store: Store, old: Checkpoint, position: int, now: int) -> Statement:
    """Return the statement that moves a checkpoint on, if it is still where its owner believes it to be."""
    sql = (
        "UPDATE ~checkpoints SET position = ?, updated_at = ? "
        "WHERE name = ? AND partition = ? AND position = ? AND epoch = ?"
    )
    values = (position, now, old.name, old.partition, old.position, old.epoch)
    return Statement(sql, values, changes=1, otherwise=fenced(store, old))


def fenced(store: Store, checkpoint: Checkpoint) -> FencedError:
    """Return what is raised when a checkpoint is no longer one's own."""
    part = f"partition {checkpoint.partition} of " if checkpoint.partition else ""
    expected = f"position {checkpoint.position} and epoch {checkpoint.epoch}"
    return FencedError(
        store.name, f"checkpoint {part}{checkpoint.name!r}: expected it at {expected}; somebody else has moved it"
    )
