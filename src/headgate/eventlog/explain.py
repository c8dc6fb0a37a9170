"""How an entity got where it is: its events, one by one, each with what it has changed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from headgate.eventlog.checks import check_kind, check_log, check_option_name
from headgate.eventlog.projection import Projection
from headgate.eventlog.record import Recorded
from headgate.eventlog.replay import MISSING, FieldChange, differences
from headgate.eventlog.reverse import reversals
from headgate.eventlog.store import matches

if TYPE_CHECKING:
    from headgate.eventlog.log import EventLog
    from headgate.eventlog.reading import At


class Step(NamedTuple):
    """One event of an entity.

    Attributes:
        event: The event.
        changes: What it has changed in the state.
        state: The state after it.
        undone_by: The position of the event that has undone it.
        undoes: The position of the event that it undoes.
    """

    event: Recorded
    changes: list[FieldChange]
    state: Any
    undone_by: int | None
    undoes: int | None


async def explain(log: EventLog, projection: Projection, entity: str, *, until: At = None) -> list[Step]:
    """Return every event of an entity, and what it has changed.

    Args:
        log: The log.
        projection: How events become state.
        entity: Whose.
        until: Up to this position or time. Default: now.
    """
    check_log("explain", log)
    check_kind("explain", "projection", projection, Projection, "a Projection")
    check_option_name("explain", "entity", entity)
    query = projection.query(log)
    state: Any = None
    before: Any = MISSING
    steps: list[Step] = []
    positions: dict[bytes, int] = {}
    async for event in log.read(projection.reads(entity), until=until, types=projection.types):
        if entity not in projection.entities(event) or not matches(query, event.row):
            continue
        state = projection.next(state, event, entity)
        after = MISSING if state is None else json.loads(projection.dump(state))
        changes = list(differences(_blank(before, after), _blank(after, before)))
        before = after
        positions[event.row[5]] = event.position
        undoes = None if event.row[10] is None else positions.get(event.row[10])
        steps.append(Step(event, changes, after, None, undoes))
    undone = await reversals(log, positions)
    undone.update(
        (step.event.row[10], step.event.position) for step in steps if step.event.row[10]
    )  # archives of old tables
    return [step._replace(undone_by=undone.get(step.event.row[5])) for step in steps]


def _blank(state: Any, other: Any) -> Any:
    """Let each field be told where there was no state, or is none."""
    return {} if state is MISSING and isinstance(other, dict) else state
