"""How a log is shown to people: tables, time-lines, differences. What comes from events is never taken for markup."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from headgate.eventlog import Difference, Recorded, StreamInfo, Verified
from headgate.eventlog.access import Access
from headgate.eventlog.explain import Step
from headgate.eventlog.export import as_dict, one_line
from headgate.eventlog.replay import MISSING, FieldChange

_WIDE = 140
_COLOURS = ("cyan", "green", "yellow", "blue", "magenta", "bright_cyan", "bright_green", "bright_blue")


def console() -> Console:
    """Return where to write: a terminal has colours and a width, a pipe has neither."""
    return Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False, emoji=False, markup=False)


def clean(text: str) -> str:
    """Return text that does nothing to a terminal: what cannot be printed is written as its code."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in text)


def compact(value: Any) -> str:
    """Return a value as one line of JSON that is easy to read."""
    return one_line(value)


def when(event: Recorded) -> str:
    """Return when an event was recorded, to the second."""
    return event.recorded_at.strftime("%Y-%m-%d %H:%M:%S")


def coloured(name: str) -> Text:
    """Return a name in a colour of its own."""
    return Text(clean(name), style=_COLOURS[sum(map(ord, name)) % len(_COLOURS)])


def _table(*columns: str, right: Iterable[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for each in columns:
        table.add_column(
            each, justify="right" if each in right else "left", no_wrap=each != "DATA", overflow="ellipsis"
        )
    return table


def show_streams(streams: list[StreamInfo]) -> None:
    """Show a table of streams."""
    table = _table("STREAM", "VERSION", "EVENTS", "LAST", "CHANGED (UTC)", right=("VERSION", "EVENTS", "LAST"))
    for each in streams:
        changed = each.changed_at.strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(coloured(each.name), str(each.version), str(each.events), str(each.last), changed)
    console().print(table)


def event_line(event: Recorded, found: str | None = None) -> Text:
    """Return an event in a line."""
    line = Text(f"{event.position:>6}  {when(event)}  ", style="dim")
    line.append_text(coloured(event.stream))
    line.append(f"@{event.version}  ", style="dim")
    line.append(clean(event.type), style="bold")
    line.append("  ")
    data = Text(compact(event.plain))
    if found:
        data.highlight_words([found], style="reverse", case_sensitive=False)
    line.append_text(data)
    if event.actor:
        line.append(f"  by {clean(event.actor)}", style="dim")
    if event.reverses is not None:
        line.append("  (undoes another)", style="red")
    return line


def show_events(events: Iterable[Recorded], found: str | None = None) -> None:
    """Show events, one in a line."""
    out = console()
    for event in events:
        out.print(event_line(event, found), soft_wrap=True)


def show_event(event: Recorded, undone_by: int | None) -> None:
    """Show all there is to know about an event."""
    out = console()
    fields = as_dict(event)
    data = fields.pop("data")
    meta = fields.pop("meta", None)
    for name, value in fields.items():
        line = Text(f"{name:>15}  ", style="dim")
        out.print(line.append(clean(str(value)), style="bold" if name in ("type", "stream") else ""), soft_wrap=True)
    if undone_by is not None:
        out.print(Text(f"{'undone by':>15}  ", style="dim").append(f"position {undone_by}", style="red"))
    for name, value in (("data", data), ("meta", meta)):
        if value is not None:
            text = clean(json.dumps(value, ensure_ascii=False, indent=2)).replace("\n", "\n" + " " * 17)
            out.print(Text(f"{name:>15}  ", style="dim").append(text, style=""), soft_wrap=True)


def _change(change: FieldChange) -> Text:
    line = Text(f"{clean(change.path)}: ")
    if change.before is not MISSING:
        line.append(compact(change.before), style="red").append(" -> ", style="dim")
    if change.after is MISSING:
        return line.append("(removed)", style="dim")
    return line.append(compact(change.after), style="green")


def show_steps(entity: str, steps: list[Step]) -> None:
    """Show a time-line: each event of an entity, and what it has changed."""
    out = console()
    out.print(Text(f"{clean(entity)}: {len(steps)} events", style="bold"))
    for step in steps:
        event = step.event
        line = Text("o ", style="red" if step.undone_by is not None else "green")
        line.append(f"{event.position:>5}  {when(event)}  ", style="dim")
        line.append(clean(event.type), style="bold strike" if step.undone_by is not None else "bold")
        if event.actor:
            line.append(f"  by {clean(event.actor)}", style="dim")
        if event.reason:
            line.append(f"  ({clean(str(event.reason))})", style="italic")
        if step.undone_by is not None:
            line.append(f"  undone by {step.undone_by}", style="red")
        if step.undoes is not None:
            line.append(f"  undoes {step.undoes}", style="red")
        out.print(line, soft_wrap=True)
        for change in step.changes:
            out.print(Text("|        ", style="dim").append_text(_change(change)), soft_wrap=True)
    if steps:
        show_state(entity, steps[-1].state)


def show_state(entity: str, state: Any) -> None:
    """Show a state."""
    if state is None or state is MISSING:
        console().print(Text(f"{clean(entity)}: nothing", style="dim"))
        return
    text = clean(json.dumps(state, ensure_ascii=False, indent=2, default=str))
    console().print(Text(f"{clean(entity)} = ", style="bold").append(text, style=""), soft_wrap=True)


def show_difference(difference: Difference) -> None:
    """Show what a replay would change."""
    out = console()
    head = f"{len(difference.changes)} of {difference.entities} entities differ after {difference.events} events"
    out.print(Text(head, style="bold"))
    for change in difference.changes:
        line = coloured(change.entity)
        if change.since is not None:
            line.append(f"  since position {change.since}", style="dim")
        out.print(line, soft_wrap=True)
        for field in change.fields:
            out.print(Text("  ").append_text(_change(field)), soft_wrap=True)


def show_changes(entity: str, changes: list[FieldChange]) -> None:
    """Show in what two states of an entity differ."""
    out = console()
    out.print(coloured(entity).append("" if changes else ": no difference", style="dim"))
    for each in changes:
        out.print(Text("  ").append_text(_change(each)), soft_wrap=True)


def show_verified(found: Verified) -> None:
    """Show what a verification has found."""
    out = console()
    for damage in found.damages:
        out.print(Text("DAMAGED  ", style="bold red").append(clean(str(damage)), style=""), soft_wrap=True)
    style = "bold green" if found.ok else "bold red"
    result = "sound" if found.ok else f"{len(found.damages)} damages"
    out.print(Text(result, style=style).append(f": {found.events} events up to position {found.position}", style=""))
    out.print(Text(f"anchor: {found.position}:{found.digest.hex()}", style="dim"), soft_wrap=True)


def show_accesses(found: list[Access]) -> None:
    """Show who has looked."""
    out = console()
    for each in found:
        line = Text(each.at.strftime("%Y-%m-%d %H:%M:%S  "), style="dim")
        line.append(clean(each.actor), style="bold").append(f"  {clean(each.command)}  ")
        line.append(compact(each.details), style="dim")
        if each.reason:
            line.append(f"  ({clean(each.reason)})", style="italic")
        out.print(line, soft_wrap=True)
