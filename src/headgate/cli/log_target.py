"""From what stands on the command line to an open log, a place in it, a projection, a policy."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

from headgate.cli.load import LoadError
from headgate.cli.load import find as find_object
from headgate.errors import HeadgateError
from headgate.eventlog import EventLog, Policy, Projection
from headgate.eventlog.checks import LAST

_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_TIMES: Final = range(2, 9999)  # years that can be moved by a day, or to another zone
_NUMBER: Final = re.compile(r"[0-9]{1,19}")  # no position has more digits, and Python reads no number of thousands

T = TypeVar("T")


class TargetError(HeadgateError):
    """What stands on the command line leads nowhere.

    Attributes:
        details: The traceback of what the user's module has raised, or None.
    """

    def __init__(self, message: str, details: str | None = None) -> None:
        """Keep both."""
        super().__init__(message)
        self.details = details


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
            raise TargetError(f"there is no file {target!r}; LOG is a file, postgresql://..., or MODULE:NAME")
        if target.endswith(".py"):
            raise TargetError(f"expected a log, not a program; MODULE:NAME of an EventLog in it: got {target!r}")
        return EventLog(target, create=False)
    return find(target, EventLog)


def find(target: str, wanted: type[T]) -> T:
    """Return an object of a module.

    Args:
        target: ``MODULE:NAME``.
        wanted: The class that it has to be of.
    """
    kind = wanted.__name__
    try:
        found = find_object(
            target, "log" if wanted is EventLog else kind.lower(), lambda each: isinstance(each, wanted)
        )
    except LoadError as error:
        raise TargetError(str(error), error.details(full=False)) from error
    if not isinstance(found, wanted):
        raise TargetError(f"{target} is no {kind}, but {type(found).__name__}")
    return found


def find_projection(log: EventLog, wanted: str | None) -> Projection:
    """Return one of the projections that a log knows, or one of a module.

    Args:
        log: The log.
        wanted: Its name, or ``MODULE:NAME``. None: the only one that there is; when there is none, `last_fields`.
    """
    known = {each.name: each for each in log.projections}
    if wanted is None:
        if len(known) == 1:
            return next(iter(known.values()))
        if not known:
            return last_fields
        raise TargetError(f"there are several projections; choose by --projection: {', '.join(sorted(known))}")
    if wanted in known:
        return known[wanted]
    if ":" not in wanted:
        names = ", ".join(sorted(known)) or "none"
        raise TargetError(f"there is no projection {wanted!r} (there are: {names}); give its name, or MODULE:NAME")
    return find(wanted, Projection)


def _last_fields(state: dict[str, Any], event: Any) -> dict[str, Any]:
    state.update(event.plain)
    state["(last event)"] = event.type
    return state


last_fields: Final = Projection("fields", _last_fields)
"""Folds events whose meaning is not known: the last value of each field counts."""


def find_policy(log: EventLog, wanted: str | None) -> Policy:
    """Return the policy of a module, or that of the log; else one that masks personal fields.

    Raises:
        TargetError: Neither a policy nor the types of the events are known, so nothing would be masked.
    """
    if wanted is not None:
        return find(wanted, Policy)
    if log.policy is None and not log.types.known():
        raise TargetError(
            f"nothing says what of {log.store.name} may be seen; give LOG as MODULE:NAME of a log that has a policy, "
            "or --policy MODULE:NAME, or --unredacted for everything"
        )
    return log.policy or Policy()


def parse_at(text: str | None, *, end: bool = False) -> int | datetime | None:
    """Return a place in a log: a position, or a time in ISO 8601, in UTC unless it says otherwise.

    Args:
        text: As it was given.
        end: A day without a time stands for its end. Default: for its beginning.
    """
    if text is None:
        return None
    if _NUMBER.fullmatch(text) and int(text) <= LAST:
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        expected = "a position, or a time such as 2026-03-01T12:00, or a day such as 2026-03-01"
        raise TargetError(f"expected {expected}; got {text!r}") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    # No log reaches so far, and the last days of all can be neither moved nor taken to another zone.
    moment = moment.replace(year=min(max(moment.year, _TIMES[0]), _TIMES[-1]))
    return moment + timedelta(days=1, microseconds=-1) if end and _DAY.fullmatch(text) else moment


def parse_anchor(text: str) -> tuple[int, bytes]:
    """Return a position and a digest, as `verify` prints them."""
    position, _, digest = text.removeprefix("anchor:").strip().partition(":")
    if not _NUMBER.fullmatch(position) or not re.fullmatch(r"[0-9a-fA-F]{32}", digest):
        raise TargetError(
            f"expected --anchor POSITION:DIGEST with 32 hexadecimal digits, as it was printed; got {text!r}"
        )
    return int(position), bytes.fromhex(digest)


def who() -> str:
    """Return the name of whoever runs this command."""
    for name in ("HEADGATE_ACTOR", "SUDO_USER", "LOGNAME", "USER"):
        if os.environ.get(name, "").isprintable() and os.environ.get(name):
            return os.environ[name]
    try:
        import pwd  # noqa: PLC0415 (not on Windows)

        return pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"
