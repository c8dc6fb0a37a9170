"""``headgate log``: looking at an event log. Every look is written down in the log, with who and why."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TextIO

import click

from headgate.cli import log_view as view
from headgate.cli.log_hints import extent, no_state, nothing_there
from headgate.cli.log_look import (
    MOST,
    Look,
    Part,
    common,
    fields,
    filters,
    limit_option,
    plain,
    projection_option,
    undoing,
)
from headgate.cli.log_target import TargetError, find_policy, find_projection, parse_anchor, parse_at
from headgate.errors import EventError, EventLogError
from headgate.eventlog import EventLog, Projection, Recorded, compare, fork, readers, verify
from headgate.eventlog.access import accesses
from headgate.eventlog.explain import explain
from headgate.eventlog.export import as_dict, export_lines, one_line
from headgate.eventlog.replay import MISSING, differences
from headgate.eventlog.verify import as_json

DAMAGED: Final = 1
"""Exit status: `verify` has found something."""
_LAST: Final = 10
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_OF_ID: Final = 8
"""So much of an id has to be given, from its beginning: less turns up in ids by chance."""


class _Command(click.Command):
    """The log comes first, wherever its argument was declared."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params.sort(key=lambda each: each.name != "target")


class _Commands(click.Group):
    command_class = _Command


@click.group("log", cls=_Commands)
def log_group() -> None:
    """Look at an event log: what happened, why, and what would have.

    LOG is a file, postgresql://..., or MODULE:NAME of an EventLog, which knows its types and
    projections.

    AT is a position or a time: a number, 2026-03-01T12:00 (UTC unless it says otherwise), or a day,
    which counts from its beginning for --start and --from, and to its end for --until, --at and --to.

    Nothing here changes an event. Who looks is written down in the log (see "access").
    """


@log_group.command("ls")
@click.argument("prefix", default="")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="How many at most. Default: all.")
@common
async def ls(look: Look, prefix: str, limit: int | None) -> None:
    """List the streams, or those whose names begin with PREFIX."""
    prefix = prefix.removesuffix("*")
    streams = await look.log.streams(prefix, limit=limit)
    if not streams:
        look.note(await nothing_there(look.log, [f"{prefix}*"] if prefix else []))
    elif look.as_json:
        for each in streams:
            look.document(plain(each))
    else:
        view.show_streams(streams)


@log_group.command("show")
@click.argument("what", required=False)
@filters
@limit_option
@click.option("--backwards", is_flag=True, help="The newest first.")
@common
async def show(
    look: Look,
    what: str | None,
    part: Part,
    limit: int | None,
    backwards: bool,  # noqa: FBT001 (click gives it)
) -> None:
    """Show events. WHAT: a position, for all about one event, or the name of a stream (a number: by --stream)."""
    log = look.log
    if what is not None and _is_number(what):
        await _show_one(look, what)
        return
    part = part.of(what)
    events = await part.read(log, limit=(limit or MOST) + 1, backwards=backwards).all()
    await look.found(events, part, limit)


async def _show_one(look: Look, position: str) -> None:
    try:
        event = await look.log.event(_position(position))
    except EventError:
        raise TargetError(f"there is no event at position {position}; {await extent(look.log)}") from None
    links = await undoing(look.log, [event])
    if look.as_json:
        undone = {name: found[event.position] for name, found in links._asdict().items() if event.position in found}
        look.document({**as_dict(event), **undone})
    else:
        view.show_event(event, links)


def _position(text: str) -> int:
    found = parse_at(text)
    assert isinstance(found, int)  # noqa: S101 (they are digits)
    return found


@log_group.command("tail", short_help="Show the last events, and with -f those that come.")
@click.argument("stream", required=False)
@filters
@click.option(
    "-n",
    "count",
    type=click.IntRange(min=0),
    metavar="N",
    default=_LAST,
    show_default=True,
    help="How many to begin with.",
)
@click.option("-f", "--follow", is_flag=True, help="Stay, and show what comes, until Ctrl-C.")
@common
async def tail(
    look: Look,
    stream: str | None,
    part: Part,
    count: int,
    follow: bool,  # noqa: FBT001 (click gives it)
) -> None:
    """Show the last events, or those of STREAM, and with -f those that come."""
    if follow and part.until is not None:
        raise click.UsageError("--follow has no end, so there is no --until with it")
    log, part, shown = look.log, part.of(stream), view.EventLines()
    head = await log.head()
    last = part if part.until is not None else part._replace(until=str(head))
    events = (await last.read(log, limit=count, backwards=True).all())[::-1]
    await look.events(events, shown)
    if count and not events:
        look.note(await nothing_there(log, part.streams, part.types))
    while follow:
        sys.stdout.flush()
        await log.store.wait(head)
        now = await log.head()
        await look.events(await part._replace(start=str(head + 1), until=str(now)).read(log).all(), shown)
        head = now


@log_group.command("grep", short_help="Find events by a regular expression.")
@click.argument("pattern")
@filters
@click.option("-i", "--ignore-case", is_flag=True, help="Small and large letters are the same.")
@limit_option
@common
async def grep(
    look: Look,
    pattern: str,
    part: Part,
    ignore_case: bool,  # noqa: FBT001 (click gives it)
    limit: int | None,
) -> None:
    """Find events by a regular expression.

    It is looked for in the stream, the type, the actor and the correlation, and in data and metadata
    as they are shown; ids (UUIDs) are found by their first 8 characters or more.
    """
    try:
        wanted = re.compile(pattern, re.IGNORECASE if ignore_case else 0)
    except re.error as error:
        raise click.UsageError(f"PATTERN is no regular expression: {error}") from None
    found: list[Recorded] = []
    async for event in part.read(look.log):
        if _matches(wanted, event):
            found.append(event)
            if len(found) > (limit or MOST):
                break
    await look.found(found, part, limit, view.EventLines(wanted))


def _matches(wanted: re.Pattern[str], event: Recorded) -> bool:
    given = (event.stream, event.type, event.actor, event.subject, event.correlation_id, event.causation_id)
    for text in (*given, str(event.event_id), str(event.reverses), one_line(event.plain), one_line(event.meta or {})):
        if text is None:
            continue
        if not _UUID.fullmatch(text):
            if wanted.search(text):
                return True
        elif (begins := wanted.match(text)) and begins.end() >= _OF_ID:
            return True
    return False


@log_group.command("state")
@click.argument("entity")
@click.option("--at", metavar="AT", help="At this position or time, or at the end of this day. Default: now.")
@projection_option
@common
async def state(look: Look, entity: str, at: str | None, projection: str | None) -> None:
    """Show the state of ENTITY, now or --at another time."""
    chosen = look.projection(projection)
    folded = await look.log.fold(chosen, entity, until=parse_at(at, end=True), snapshots=None)
    found = _plain(chosen, folded.state)
    if look.as_json:
        look.document({"entity": entity, "state": found, "position": folded.position, "version": folded.version})
    else:
        view.show_state(entity, found)
    if found is None:
        look.note(await no_state(look.log, chosen, entity))


@log_group.command("why", short_help="Show how ENTITY got where it is, event by event.")
@click.argument("entity")
@click.option("--at", metavar="AT", help="How it got where it was at this position, time or day. Default: now.")
@click.option("--field", metavar="PATH", help="Only the events that have changed this field.")
@projection_option
@common
async def why(look: Look, entity: str, at: str | None, field: str | None, projection: str | None) -> None:
    """Show how ENTITY got where it is: each of its events, and what it has changed."""
    chosen = look.projection(projection)
    every = steps = await explain(look.log, chosen, entity, until=parse_at(at, end=True))
    if field is not None:
        values = [MISSING, *(_field(each.state, field) for each in every)]
        steps = [step for step, before, after in zip(every, values, values[1:], strict=False) if before != after]
    if not every:
        look.note(await no_state(look.log, chosen, entity))
    elif not look.as_json:
        view.show_steps(entity, steps, of=len(every))
        view.show_state(entity, every[-1].state)
    else:
        for step in steps:
            more = {"undone_by": step.undone_by, "undoes": step.undoes, "changes": fields(step.changes)}
            look.document({**as_dict(step.event), **more, "state": step.state})


@log_group.command("diff", short_help="Show what differs: between two times, or by other logic.")
@click.argument("entity", required=False)
@click.option("--from", "from_", metavar="AT", help="With ENTITY: its state at this position, time or day ...")
@click.option("--to", metavar="AT", help="... and at this one. With --against: where to end. Default: now.")
@projection_option
@click.option("--against", metavar="NAME", help="Without ENTITY: another logic. Default: the states that are stored.")
@click.option("--start", metavar="AT", help="With --against: where the new logic begins.")
@common
async def diff(
    look: Look,
    entity: str | None,
    from_: str | None,
    to: str | None,
    projection: str | None,
    against: str | None,
    start: str | None,
) -> None:
    """Show a difference: of ENTITY between two times, or of a replay with other logic.

    Without ENTITY, all events are replayed by --projection, and compared with the states that are
    stored, or with --against. Nothing is written.
    """
    if entity is None:
        if from_ is not None:
            raise click.UsageError("--from is for one ENTITY; a replay begins at --start")
        if against is None and (start is not None or to is not None):
            raise click.UsageError("stored states are compared as they are: --start and --to need --against")
        await _diff_replay(look, projection, against, start, to)
    elif against is not None or start is not None:
        raise click.UsageError("--against and --start compare all entities: leave ENTITY out")
    else:
        await _diff_entity(look, entity, look.projection(projection), from_, to)


async def _diff_replay(
    look: Look, projection: str | None, against: str | None, start: str | None, to: str | None
) -> None:
    chosen = look.projection(projection)
    old = None if against is None else find_projection(look.log, against)
    found = await compare(look.log, chosen, old, start=parse_at(start), until=parse_at(to, end=True))
    if old is None and not found.position:
        raise TargetError(f"no states of the projection {chosen.name!r} are stored; give another logic by --against")
    if look.as_json:
        for each in found.changes:
            look.document({**each._asdict(), "fields": fields(each.fields)})
    else:
        view.show_difference(found)


async def _diff_entity(look: Look, entity: str, chosen: Projection, from_: str | None, to: str | None) -> None:
    before, after = [
        (await look.log.fold(chosen, entity, until=at, snapshots=None)).state
        for at in (parse_at(from_ or "0"), parse_at(to, end=True))
    ]
    changes = list(differences(_plain(chosen, before, {}), _plain(chosen, after, {})))
    if look.as_json:
        look.document({"entity": entity, "fields": fields(changes)})
    else:
        view.show_changes(entity, changes)
    if before is None and after is None:
        look.note(await no_state(look.log, chosen, entity))


@log_group.command("export")
@filters
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The file. Default: standard output.")
@click.option(
    "--policy",
    metavar="MODULE:NAME",
    help="What may be seen. Default: that of the log; without one, personal fields are masked.",
)
@click.option("--unredacted", is_flag=True, help="Everything, as it is.")
@common
async def export(
    look: Look,
    part: Part,
    out: Path | None,
    policy: str | None,
    unredacted: bool,  # noqa: FBT001 (click gives it)
) -> None:
    """Write events as JSON lines, redacted by the policy of the log."""
    rules = None if unredacted else find_policy(look.log, policy)

    async def write(file: TextIO) -> int:
        count = 0
        async for each in export_lines(look.log, part.read(look.log), rules):
            file.write(each + "\n")
            count += 1
        return count

    if out is None:
        count = await write(sys.stdout)
        sys.stdout.flush()  # what cannot be written is told here, and not when Python ends
    else:
        try:
            count = await _write_whole(out, write)
        except OSError as error:
            raise EventLogError(str(out), f"the export cannot be written: {error}") from error
        if look.as_json:
            look.document({"events": count, "file": str(out)})
        else:
            click.echo(f"{count} events in {out}")
    if not count:
        look.note(await nothing_there(look.log, part.streams, part.types))


async def _write_whole(out: Path, write: Callable[[TextIO], Awaitable[int]]) -> int:
    """Write a file that only has its name when all of it is there."""
    if out.exists() and not out.is_file():  # noqa: ASYNC240 (a device or a pipe; nothing else runs here)
        with out.open("w", encoding="utf-8") as file:
            return await write(file)
    beside = out.with_name(f"{out.name}.part")
    try:
        with beside.open("w", encoding="utf-8") as file:
            count = await write(file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(out)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return count


@log_group.command("verify")
@click.option("--anchor", metavar="POSITION:DIGEST", help="What an earlier look has printed, kept elsewhere.")
@common
async def verify_(look: Look, anchor: str | None) -> None:
    """Sum every event again, and name what is damaged. Exit status 1 when something is."""
    found = await verify(look.log, anchor=None if anchor is None else parse_anchor(anchor))
    if look.as_json:
        look.document(as_json(found))
    else:
        view.show_verified(found)
    if not found.ok:
        raise SystemExit(DAMAGED)


_DEPTH: Final = "How often the streams that are referred to come along."


@log_group.command("fork", short_help="Make a test environment from a part of this log.")
@click.argument("new", metavar="NEW", type=click.Path())
@click.option("--start", metavar="AT", help="From this position, time (2026-03-01T12:00) or day on.")
@click.option("--until", metavar="AT", help="Up to this position, time or day.")
@click.option(
    "--stream", "streams", metavar="NAME", multiple=True, help="Only this stream; with --sample: draw from these."
)
@click.option("--type", "types", metavar="TYPE", multiple=True, help="Only events of this type.")
@click.option(
    "--sample", type=click.IntRange(min=1), metavar="N", help="So many streams, with all that refers to them."
)
@click.option("--depth", type=click.IntRange(min=0), metavar="N", default=1, show_default=True, help=_DEPTH)
@click.option("--seed", type=int, metavar="N", default=0, show_default=True, help="Another one draws others.")
@click.option(
    "--policy", metavar="MODULE:NAME", help="What becomes of fields. Default: that of the log, or personal ones masked."
)
@click.option("--unredacted", is_flag=True, help="Everything, as it is.")
@common
async def fork_(  # noqa: PLR0913, PLR0917 (click gives them)
    look: Look,
    new: str,
    start: str | None,
    until: str | None,
    streams: tuple[str, ...],
    types: tuple[str, ...],
    sample: int | None,
    depth: int,
    seed: int,
    policy: str | None,
    unredacted: bool,  # noqa: FBT001 (click gives it)
) -> None:
    """Make a new log, NEW, from a part of this one, masked by the policy: a test environment."""
    rules = None if unredacted else find_policy(look.log, policy)
    first, last = parse_at(start), parse_at(until, end=True)
    async with EventLog(new, types=look.log.types) as target:
        done = await fork(
            look.log,
            target,
            start=first,
            until=last,
            streams=streams or None,
            types=types or None,
            sample=sample,
            depth=depth,
            seed=seed,
            policy=rules,
        )
    if look.as_json:
        look.document(done._asdict())
    else:
        click.echo(f"{done.events} of {done.of} events, of {done.streams} streams, in {new}")
    if not done.events:
        look.note(await nothing_there(look.log, streams, types))


@log_group.command("readers")
@common
async def readers_(look: Look) -> None:
    """Show who reads this log, and how far they have come: groups, projections, checkpoints."""
    found = await readers(look.log)
    if look.as_json:
        for each in found:
            look.document(plain(each))
    else:
        view.show_readers(found)


@log_group.command("access")
@limit_option
@common
async def access(look: Look, limit: int | None) -> None:
    """Show who has looked at this log, the newest first."""
    found = await accesses(look.log, (limit or MOST) + 1)
    shown = found[: limit or MOST]
    if look.as_json:
        for each in shown:
            look.document(plain(each))
    else:
        view.show_accesses(shown)
    look.more(found, limit)


def _field(state_: Any, path: str) -> Any:
    """Return what stands in a field of a state, by its path."""
    for name in path.split("."):
        state_ = state_.get(name, MISSING) if isinstance(state_, dict) else MISSING
    return state_


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _plain(projection: Projection, state_: Any, nothing: Any = None) -> Any:
    if state_ is None or state_ is MISSING:
        return nothing
    return json.loads(projection.dump(state_))
