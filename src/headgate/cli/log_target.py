"""From what stands on the command line to an open log, a place in it, a projection, a policy."""

from __future__ import annotations

import importlib
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headgate.errors import HeadgateError
from headgate.eventlog import EventLog, Policy, Projection


class TargetError(HeadgateError):
    """What stands on the command line leads nowhere."""


def find_log(target: str) -> EventLog:
    """Return a log that is not open yet.

    Args:
        target: A file, ``postgresql://...``, or ``MODULE:NAME`` of an `EventLog`, which knows its types and
            projections.
    """
    if target.startswith(("postgres:", "postgresql:")):
        return EventLog(target, create=False)
    if Path(target).exists() or ":" not in target:
        if not Path(target).is_file():
            raise TargetError(f"there is no file {target!r}")
        return EventLog(target, create=False)
    found = find(target, "an EventLog")
    if not isinstance(found, EventLog):
        raise TargetError(f"{target} is no EventLog, but {type(found).__name__}")
    return found


def find(target: str, what: str) -> Any:
    """Return an object of a module.

    Args:
        target: ``MODULE:NAME``.
        what: What is expected there, for errors.
    """
    module, _, name = target.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise TargetError(f"expected {what} at MODULE:NAME, got {target!r} ({error})") from error
    return found


def find_projection(log: EventLog, wanted: str | None) -> Projection:
    """Return one of the projections that a log knows, or one of a module.

    Args:
        log: The log.
        wanted: Its name, or ``MODULE:NAME``. None: the only one that there is.
    """
    known = {each.name: each for each in log.projections}
    if wanted is None:
        if len(known) == 1:
            return next(iter(known.values()))
        if not known:
            return Projection("fields", last_fields)
        raise TargetError(f"there are several projections; choose by --projection: {', '.join(sorted(known))}")
    if wanted in known:
        return known[wanted]
    if ":" not in wanted:
        names = ", ".join(sorted(known)) or "none"
        raise TargetError(f"there is no projection {wanted!r} (there are: {names}); give its name, or MODULE:NAME")
    found = find(wanted, "a Projection")
    if not isinstance(found, Projection):
        raise TargetError(f"{wanted} is no Projection, but {type(found).__name__}")
    return found


def last_fields(state: dict[str, Any], event: Any) -> dict[str, Any]:
    """Fold events whose meaning is not known: the last value of each field counts."""
    state.update(event.plain)
    state["(last event)"] = event.type
    return state


def find_policy(log: EventLog, wanted: str | None) -> Policy:
    """Return the policy of a module, or that of the log; else one that masks personal fields."""
    if wanted is None:
        return log.policy or Policy()
    found = find(wanted, "a Policy")
    if not isinstance(found, Policy):
        raise TargetError(f"{wanted} is no Policy, but {type(found).__name__}")
    return found


def parse_at(text: str | None) -> int | datetime | None:
    """Return a place in a log: a position, or a time in ISO 8601, in UTC unless it says otherwise."""
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise TargetError(f"expected a position or a time such as 2026-03-01T12:00, got {text!r}") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def who() -> str:
    """Return the name of whoever runs this command."""
    for name in ("HEADGATE_ACTOR", "SUDO_USER", "LOGNAME", "USER"):
        if os.environ.get(name, "").isprintable() and os.environ.get(name):
            return os.environ[name]
    return f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"
