"""What a supervisor knows of its children."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from headgate.protocol.children import Life
from headgate.runtime.options import Child
from headgate.runtime.reference import Ref

if TYPE_CHECKING:
    from headgate.supervision.running import Supervision
    from headgate.supervision.supervisor import Supervisor


class Member:
    """One child: its recipe, and what has become of it.

    Attributes:
        recipe: What it is started from; for one of a group, that one's own.
        group: The id of its group, or its own.
        followed: The name of its group, to which others may subscribe; None for a single child.
        handle: Its reference while it lives.
        state: ``"starting"``, ``"running"``, ``"waiting"`` (to be started again), ``"done"`` or ``"stopped"``.
        reason: Why it ended last.
        life: Its restarts.
        handled: Events that it had handled in this life when that was looked at.
    """

    __slots__ = (
        "followed",
        "group",
        "handle",
        "handled",
        "life",
        "logged",
        "names",
        "reason",
        "recipe",
        "state",
        "unlogged",
    )

    def __init__(self, recipe: Child | Supervisor) -> None:
        """Begin before its start."""
        self.recipe = recipe
        template = recipe.template if isinstance(recipe, Child) else None
        self.group = recipe.id if template is None else template.id
        self.followed = None if template is None else template.name
        self.handle: Ref | Supervision | None = None
        self.state = "starting"
        self.reason: Any = None
        self.life = Life()
        self.handled = 0
        self.names: list[str] = []  # those that are said to come
        self.logged: float | None = None
        self.unlogged = 0


@dataclass(frozen=True, slots=True)
class ChildInfo:
    """What `Supervision.children` says of a child.

    Attributes:
        id: Its id; one of a group has a number behind it.
        kind: ``"stage"`` or ``"supervisor"``.
        state: ``"starting"``, ``"running"``, ``"waiting"`` (to be started again), ``"done"`` (its stream is over, or it
            is not to be started again) or ``"stopped"`` (by hand).
        ref: Its reference, or None when it does not run.
        restarts: How often it was started again.
        reason: Why it ended last; None if it has not.
    """

    id: str
    kind: str
    state: str
    ref: Ref | Supervision | None
    restarts: int
    reason: Any


class Counts(NamedTuple):
    """How many children a supervisor has.

    Attributes:
        specs: Recipes.
        active: Those that run.
        supervisors: Those that are supervisors, running or not.
        workers: Those that are not.
    """

    specs: int
    active: int
    supervisors: int
    workers: int
