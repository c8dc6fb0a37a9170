"""How a log is shown to people: tables, time-lines, differences. What comes from events is never taken for markup."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.text import Text

from headgate.eventlog import Difference, Reader, Recorded, StreamInfo, Verified
from headgate.eventlog.access import Access
from headgate.eventlog.explain import Step
from headgate.eventlog.export import as_dict, one_line
from headgate.eventlog.replay import MISSING, FieldChange

_COLOURS: Final = ("cyan", "green", "yellow", "magenta", "bright_cyan", "bright_green", "bright_blue")
_WIDEST: Final = 40  # a column that is wider than that is not made so for all rows
_BELOW: Final = 8  # where a line goes on that does not fit
_COLUMNS: Final = 80  # of a terminal that does not say it
_LEAST: Final = 20  # columns that there are for it at least
_GLUE: Final = "\ue000"  # a space at which a line is not broken; `clean` leaves none in what comes from elsewhere

Part = tuple[str, str]
"""Text, and its style."""


class Undoing(NamedTuple):
    """What some events undo, and what has undone them: positions by position."""

    undoes: dict[int, int]
    undone_by: dict[int, int]


def clean(text: str) -> str:
    """Return text that does nothing to a terminal: what cannot be printed is written as its code."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def instant(moment: datetime) -> str:
    """Return a time to the second, in UTC."""
    return moment.strftime("%Y-%m-%d %H:%M:%SZ")


def when(event: Recorded) -> str:
    """Return when an event was recorded, to the second."""
    return instant(event.recorded_at)


@functools.cache
def _console() -> Console:
    made = Console(highlight=False, emoji=False, markup=False)
    if not made.width:  # COLUMNS=0, where nobody knows: it would write nothing at all
        made.width = _COLUMNS
    return made


def put(*parts: Part | Text, below: int = _BELOW) -> None:
    """Write a line: each part cleaned and in its style.

    In a terminal, what does not fit goes on below, indented. Elsewhere a line stays a line, however long.
    """
    line = Text.assemble(*(each if isinstance(each, Text) else (clean(each[0]), each[1]) for each in parts))
    out = _console()
    if not sys.stdout.isatty() or line.cell_len <= out.width:
        line.plain = line.plain.replace(_GLUE, " ")
        out.print(line, soft_wrap=True)
        return
    first = line.wrap(out, out.width, overflow="fold")[0]
    rest = line[len(line) - len(line.plain[len(first) :].lstrip(" ")) :]
    lines = [first, *rest.wrap(out, max(out.width - below, _LEAST), overflow="fold")]
    for number, each in enumerate(lines):
        each.plain = each.plain.replace(_GLUE, " ").rstrip()
        out.print(Text(" " * below if number else "").append_text(each), soft_wrap=True)


def _remark(text: str, style: str) -> Text:
    """Return something that is said behind the rest of a line, and stays together; nothing if it is empty."""
    return Text.assemble(("  " + clean(text).replace(" ", _GLUE), style)) if text else Text()


def named(name: str) -> Text:
    """Return a name in a colour of its own."""
    return Text.assemble((clean(name), _COLOURS[sum(map(ord, name)) % len(_COLOURS)]))


def _padded(text: Text, width: int) -> Text:
    text.pad_right(max(0, width - text.cell_len))
    return text


def _width(texts: Iterable[Text], least: int) -> int:
    return max([least, *(min(each.cell_len, _WIDEST) for each in texts)])


def show_streams(streams: Sequence[StreamInfo]) -> None:
    """Show a table of streams."""
    names = [named(each.name) for each in streams]
    width = _width(names, len("STREAM"))
    put((f"{'STREAM':{width}}  VERSION  EVENTS    LAST  CHANGED (UTC)", "bold"))
    for each, name in zip(streams, names, strict=True):
        rest = f"  {each.version:>7}  {each.events:>6}  {each.last:>6}  {instant(each.changed_at)[:-1]}"
        put(_padded(name, width), (rest, ""))


def show_readers(readers: Sequence[Reader]) -> None:
    """Show a table of those who read a log."""
    names = [named(each.name) for each in readers]
    width = _width(names, len("READER"))
    put((f"{'READER':{width}}  KIND        POSITION  BEHIND  MEMBERS  PARKED  CAME ON (UTC)", "bold"))
    for each, name in zip(readers, names, strict=True):
        members, parked = ("" if count is None else str(count) for count in (each.members, each.parked))
        put(
            _padded(name, width),
            (f"  {each.kind:<10}  {each.position:>8}  ", ""),
            (f"{each.behind:>6}", "yellow" if each.behind else ""),
            (f"  {members:>7}  ", ""),
            (f"{parked:>6}", "red" if each.parked else ""),
            (f"  {instant(each.updated_at)[:-1]}", ""),
        )


class EventLines:
    """Shows events, one in a line, with what they have in common below each other.

    Args:
        found: What is to stand out in their data.
    """

    def __init__(self, found: re.Pattern[str] | None = None) -> None:
        """Begin with narrow columns."""
        self._found = found
        self._name = self._type = 0

    def show(self, events: Sequence[Recorded], undoing: Undoing) -> None:
        """Show some events; the columns never become narrower."""
        names = [Text.assemble(named(each.stream), (f"@{each.version}", "dim")) for each in events]
        types = [Text.assemble((clean(each.type), "bold")) for each in events]
        self._name, self._type = _width(names, self._name), _width(types, self._type)
        for event, name, kind in zip(events, names, types, strict=True):
            data = Text(one_line(event.plain))
            if self._found is not None:
                data.highlight_regex(self._found, "reverse")
            put(
                (f"{event.position:>6}  {when(event)}  ", "dim"),
                *(_padded(name, self._name), ("  ", ""), _padded(kind, self._type), ("  ", ""), data),
                _remark(f"by {event.actor}" if event.actor else "", "dim"),
                *_undone(event, undoing),
            )


def _undone(event: Recorded, undoing: Undoing) -> list[Text]:
    undone_by, undoes = undoing.undone_by.get(event.position), undoing.undoes.get(event.position)
    another = "another" if event.reverses is not None else None  # which is not in this log (any more)
    return [
        _remark(f"undone by {undone_by}" if undone_by is not None else "", "red"),
        _remark(f"undoes {undoes or another}" if undoes or another else "", "red"),
    ]


def show_event(event: Recorded, undoing: Undoing) -> None:
    """Show all there is to know about an event."""
    fields = as_dict(event)
    data, meta = fields.pop("data"), fields.pop("meta", None)
    for text, found in (("undoes", undoing.undoes), ("undone by", undoing.undone_by)):
        if event.position in found:
            fields[text] = f"position {found[event.position]}"
    styles = {"stream": "bold", "type": "bold", "undoes": "red", "undone by": "red"}
    for name, value in fields.items():
        put((f"{name:>15}  ", "dim"), (str(value), styles.get(name, "")), below=17)
    for name, value in (("data", data), ("meta", meta)):
        if value is not None:
            label = f"{name:>15}  "
            for line in json.dumps(value, ensure_ascii=False, indent=2).split("\n"):
                put((label, "dim"), (line, ""), below=17 + 2)
                label = " " * 17


def _change(change: FieldChange) -> list[Part]:
    """Return a field that has changed, come or gone, marked as in other differences."""
    mark = "+ " if change.before is MISSING else "- " if change.after is MISSING else "  "
    parts: list[Part] = [(f"{mark}{change.path}: ", "")]
    if change.before is not MISSING:
        parts.append((one_line(change.before), "red"))
    if mark == "  ":
        parts.append((" -> ", "dim"))
    if change.after is not MISSING:
        parts.append((one_line(change.after), "green"))
    return parts


def show_steps(entity: str, steps: Sequence[Step], of: int) -> None:
    """Show a time-line: each event of an entity, and what it has changed.

    Args:
        entity: Its name.
        steps: What is shown,
        of: of how many.
    """
    count = f"{len(steps)} of {of}" if len(steps) < of else f"{of}"
    put((f"{entity}: {count} events", "bold"))
    width = max([5, *(len(str(each.event.position)) for each in steps)])
    for step in steps:
        event, gone = step.event, step.undone_by is not None
        put(
            ("o ", "red" if gone else "green"),
            (f"{event.position:>{width}}  {when(event)}  ", "dim"),
            (event.type, "bold strike" if gone else "bold"),
            _remark(f"by {event.actor}" if event.actor else "", "dim"),
            (f"  ({event.reason})" if event.reason else "", "italic"),
            _remark(f"undone by {step.undone_by}" if gone else "", "red"),
            _remark(f"undoes {step.undoes}" if step.undoes is not None else "", "red"),
            below=width + 4,
        )
        for change in step.changes:
            put(("|" + " " * (width + 1), "dim"), *_change(change), below=width + 6)


def show_state(entity: str, state: Any) -> None:
    """Show a state."""
    if state is None or state is MISSING:
        put((f"{entity}: nothing", "dim"))
        return
    head = f"{entity} = "
    for line in json.dumps(state, ensure_ascii=False, indent=2, default=str).split("\n"):
        put((head, "bold"), (line, ""))
        head = ""


def show_difference(difference: Difference) -> None:
    """Show what a replay would change."""
    head = f"{len(difference.changes)} of {difference.entities} entities differ after {difference.events} events"
    put((head, "bold"))
    for change in difference.changes:
        put(named(change.entity), ("" if change.since is None else f"  since position {change.since}", "dim"))
        for field in change.fields:
            put(("  ", ""), *_change(field), below=6)


def show_changes(entity: str, changes: Sequence[FieldChange]) -> None:
    """Show in what two states of an entity differ."""
    put(named(entity), ("" if changes else ": no difference", "dim"))
    for each in changes:
        put(("  ", ""), *_change(each), below=6)


def show_verified(found: Verified) -> None:
    """Show what a verification has found."""
    for damage in found.damages:
        put(("DAMAGED  ", "bold red"), (str(damage), ""))
    count = len(found.damages)
    result = ("sound", "bold green") if found.ok else (f"{count} damage{'s' * (count > 1)}", "bold red")
    put(result, (f": {found.events} events up to position {found.position}", ""))
    put((f"anchor: {found.position}:{found.digest.hex()}", "dim"))


def show_accesses(found: Sequence[Access]) -> None:
    """Show who has looked."""
    width = max([0, *(min(len(each.command), _WIDEST) for each in found)])
    names = [Text.assemble((clean(each.actor), "bold")) for each in found]
    longest = _width(names, 0)
    for each, name in zip(found, names, strict=True):
        put(
            (f"{instant(each.at)}  ", "dim"),
            _padded(name, longest),
            (f"  {each.command:{width}}  ", ""),
            (one_line(each.details), "dim"),
            (f"  ({each.reason})" if each.reason else "", "italic"),
        )
