"""``headgate log``: looking at an event log. Every look is written down in the log, with who and why."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

import click

from headgate.cli import log_view as view
from headgate.cli.log_target import find_log, find_policy, find_projection, parse_at, who
from headgate.errors import EventLogError, HeadgateError
from headgate.eventlog import EventLog, Projection, Reading, Recorded, compare, fork, verify
from headgate.eventlog.access import accesses, note_access
from headgate.eventlog.explain import explain
from headgate.eventlog.export import as_dict, export_lines, one_line
from headgate.eventlog.replay import MISSING, differences
from headgate.eventlog.reverse import reversals
from headgate.eventlog.verify import as_json

DAMAGED: Final = 1
"""Exit status: `verify` has found something."""
BAD_COMMAND: Final = 2
_LAST: Final = 10

Command = Callable[..., Awaitable[None]]


class Part(NamedTuple):
    """Which events a command is about."""

    start: str | None
    until: str | None
    streams: tuple[str, ...]
    types: tuple[str, ...]
    correlation: str | None

    def read(self, log: EventLog, **options: Any) -> Reading:
        """Return them."""
        return log.read(
            self.streams or None,
            start=parse_at(self.start),
            until=parse_at(self.until),
            types=self.types or None,
            correlation_id=self.correlation,
            **options,
        )


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
    projections. Times are ISO 8601, in UTC unless they say otherwise; a number is a position.

    Nothing here changes an event. Who looks is written down in the log (see "access").
    """


def _common(command: Command) -> Callable[..., None]:
    """Give a command its log, the options that all have, and one line for each error."""

    @click.argument("target", metavar="LOG")
    @click.option("--json", "as_json_", is_flag=True, help="Output for programs: a JSON document per line.")
    @click.option("--actor", default=None, help="Who is looking. Default: the user of this machine.")
    @click.option("--reason", default=None, help="Why, e.g. the number of a ticket.")
    @functools.wraps(command)
    def run(target: str, *, as_json_: bool, actor: str | None, reason: str | None, **options: Any) -> None:
        async def main() -> None:
            async with _Look(target, actor, reason, as_json=as_json_).open(command.__name__, options) as look:
                await command(look, **_packed(options))

        try:
            asyncio.run(main())
        except HeadgateError as error:
            click.echo(f"headgate: {view.clean(' '.join(str(error).split()))}", err=True)
            raise SystemExit(BAD_COMMAND) from None
        except KeyboardInterrupt:
            raise SystemExit(130) from None

    return run


def _packed(options: dict[str, Any]) -> dict[str, Any]:
    """Put the filters of a command into one argument."""
    if "correlation" not in options:
        return options
    rest = dict(options)
    part = Part(*(rest.pop(name) for name in Part._fields))
    return {"part": part, **rest}


class _Look:
    """One look at a log.

    Attributes:
        log: The log, open.
        as_json: Whether the output is for programs.
    """

    log: EventLog

    def __init__(self, target: str, actor: str | None, reason: str | None, *, as_json: bool) -> None:
        self._target = target
        self._actor = actor or who()
        self._reason = reason
        self.as_json = as_json

    @asynccontextmanager
    async def open(self, command: str, options: dict[str, Any]) -> AsyncGenerator[_Look]:
        self.log = find_log(self._target)
        asked = {name: value for name, value in options.items() if value not in (None, False, ())}
        async with self.log:
            await note_access(self.log, self._actor, command.rstrip("_"), asked, self._reason)
            yield self

    def events(self, events: list[Recorded], found: str | None = None) -> None:
        """Show events."""
        if self.as_json:
            for event in events:
                self.document(as_dict(event))
        else:
            view.show_events(events, found)

    def document(self, value: Any) -> None:
        """Write a line for programs."""
        click.echo(one_line(value))


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--start", metavar="AT", help="From this position or time on."),
        click.option("--until", metavar="AT", help="Up to this position or time."),
        click.option("--stream", "streams", multiple=True, help="Only this stream; 'account-*' for all that begin so."),
        click.option("--type", "types", multiple=True, help="Only events of this type."),
        click.option("--correlation", metavar="ID", help="Only events of this command or request."),
    ):
        command = option(command)
    return command


_projection = click.option("--projection", metavar="NAME", help="How events become state: its name, or MODULE:NAME.")


@log_group.command("ls")
@click.argument("prefix", default="")
@click.option("--limit", type=click.IntRange(min=1), help="How many at most.")
@_common
async def ls(look: _Look, prefix: str, limit: int | None) -> None:
    """List the streams, or those whose names begin with PREFIX."""
    streams = await look.log.streams(prefix, limit=limit)
    if look.as_json:
        for each in streams:
            look.document(each._asdict())
    else:
        view.show_streams(streams)


@log_group.command("show")
@click.argument("what", required=False)
@_filters
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="How many at most.")
@click.option("--backwards", is_flag=True, help="The newest first.")
@_common
async def show(
    look: _Look,
    what: str | None,
    part: Part,
    limit: int,
    backwards: bool,  # noqa: FBT001 (click gives it)
) -> None:
    """Show events. WHAT: a position, for all about one event, or the name of a stream (a number: by --stream)."""
    log = look.log
    if what is not None and _is_number(what):
        event = await log.event(int(what))
        undone = (await reversals(log, [event.row[5]])).get(event.row[5])
        if look.as_json:
            look.document({**as_dict(event), **({} if undone is None else {"undone_by": undone})})
        else:
            view.show_event(event, undone)
        return
    if what is not None:
        part = part._replace(streams=(*part.streams, what))
    look.events(await part.read(log, limit=limit, backwards=backwards).all())


@log_group.command("tail")
@_filters
@click.option(
    "-n", "count", type=click.IntRange(min=0), default=_LAST, show_default=True, help="How many to begin with."
)
@click.option("-f", "--follow", is_flag=True, help="Stay, and show what comes, until Ctrl-C.")
@_common
async def tail(
    look: _Look,
    part: Part,
    count: int,
    follow: bool,  # noqa: FBT001 (click gives it)
) -> None:
    """Show the last events, and with -f those that come."""
    log = look.log
    head = await log.head()
    until = part.until or str(head)
    look.events((await part._replace(until=until).read(log, limit=count, backwards=True).all())[::-1])
    while follow:
        sys.stdout.flush()
        await log.store.wait(head)
        now = await log.head()
        look.events(await part._replace(start=str(head + 1), until=str(now)).read(log).all())
        head = now


@log_group.command("grep")
@click.argument("pattern")
@_filters
@click.option("-i", "--ignore-case", is_flag=True, help="Small and large letters are the same.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="How many at most.")
@_common
async def grep(
    look: _Look,
    pattern: str,
    part: Part,
    ignore_case: bool,  # noqa: FBT001 (click gives it)
    limit: int,
) -> None:
    """Find events by a regular expression, in their data, metadata, actor, type, stream and ids."""
    try:
        wanted = re.compile(pattern, re.IGNORECASE if ignore_case else 0)
    except re.error as error:
        raise click.UsageError(f"PATTERN is no regular expression: {error}") from None
    found: list[Recorded] = []
    async for event in part.read(look.log):
        if wanted.search(json.dumps(as_dict(event), ensure_ascii=False)):
            found.append(event)
            if len(found) == limit:
                break
    look.events(found, found=pattern if pattern.isalnum() else None)


@log_group.command("state")
@click.argument("entity")
@click.option("--at", metavar="AT", help="At this position or time. Default: now.")
@_projection
@_common
async def state(look: _Look, entity: str, at: str | None, projection: str | None) -> None:
    """Show the state of ENTITY, now or --at another time."""
    chosen = find_projection(look.log, projection)
    folded = await look.log.fold(chosen, entity, until=parse_at(at), snapshots=None)
    plain = _plain(chosen, folded.state)
    if look.as_json:
        look.document({"entity": entity, "state": plain, "position": folded.position, "version": folded.version})
    else:
        view.show_state(entity, plain)


@log_group.command("why")
@click.argument("entity")
@click.option("--at", metavar="AT", help="How it got where it was at this position or time. Default: now.")
@click.option("--field", metavar="PATH", help="Only the events that have changed this field.")
@_projection
@_common
async def why(look: _Look, entity: str, at: str | None, field: str | None, projection: str | None) -> None:
    """Show how ENTITY got where it is: each of its events, and what it has changed."""
    chosen = find_projection(look.log, projection)
    steps = await explain(look.log, chosen, entity, until=parse_at(at))
    if field is not None:
        values = [MISSING, *(_field(each.state, field) for each in steps)]
        steps = [step for step, before, after in zip(steps, values, values[1:], strict=False) if before != after]
    if not look.as_json:
        view.show_steps(entity, steps)
        return
    for step in steps:
        changes = [{"field": each.path, "before": each.before, "after": each.after} for each in step.changes]
        more = {"undone_by": step.undone_by, "undoes": step.undoes, "changes": changes, "state": step.state}
        look.document({**as_dict(step.event), **more})


@log_group.command("diff")
@click.argument("entity", required=False)
@click.option("--from", "from_", metavar="AT", help="With ENTITY: its state at this position or time ...")
@click.option("--to", metavar="AT", help="... and at this one. Default: now.")
@_projection
@click.option("--against", metavar="NAME", help="Without ENTITY: another logic. Default: the states that are stored.")
@click.option("--start", metavar="AT", help="With --against: where the new logic begins.")
@_common
async def diff(
    look: _Look,
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
    chosen = find_projection(look.log, projection)
    if entity is None:
        old = None if against is None else find_projection(look.log, against)
        found = await compare(look.log, chosen, old, start=parse_at(start), until=parse_at(to))
        if not look.as_json:
            view.show_difference(found)
            return
        for each in found.changes:
            look.document({**each._asdict(), "fields": [field._asdict() for field in each.fields]})
        return
    one, two = [
        (await look.log.fold(chosen, entity, until=parse_at(at), snapshots=None)).state for at in (from_ or "0", to)
    ]
    changes = list(differences(_plain(chosen, one, {}), _plain(chosen, two, {})))
    if look.as_json:
        look.document({"entity": entity, "fields": [each._asdict() for each in changes]})
    else:
        view.show_changes(entity, changes)


@log_group.command("export")
@_filters
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The file. Default: standard output.")
@click.option(
    "--policy", metavar="MODULE:NAME", help="What may be seen. Default: that of the log, or personal fields masked."
)
@click.option("--unredacted", is_flag=True, help="Everything, as it is.")
@_common
async def export(
    look: _Look,
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
        await write(sys.stdout)
        return
    try:
        count = await _write_whole(out, write)
    except OSError as error:
        raise EventLogError(str(out), f"the export cannot be written: {error}") from error
    if look.as_json:
        look.document({"events": count, "file": str(out)})
    else:
        click.echo(f"{count} events in {out}")


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
@_common
async def verify_(look: _Look, anchor: str | None) -> None:
    """Sum every event again, and name what is damaged. Exit status 1 when something is."""
    kept = None
    if anchor is not None:
        position, _, digest = anchor.partition(":")
        try:
            kept = (int(position), bytes.fromhex(digest))
        except ValueError:
            raise click.UsageError("expected --anchor POSITION:DIGEST, as a look prints it") from None
    found = await verify(look.log, anchor=kept)
    if look.as_json:
        look.document(as_json(found))
    else:
        view.show_verified(found)
    if not found.ok:
        raise SystemExit(DAMAGED)


@log_group.command("fork")
@click.argument("new", metavar="NEW", type=click.Path())
@click.option("--start", metavar="AT", help="From this position or time on.")
@click.option("--until", metavar="AT", help="Up to this position or time.")
@click.option("--stream", "streams", multiple=True, help="Only these streams; with --sample: draw from these.")
@click.option("--type", "types", multiple=True, help="Only events of this type.")
@click.option("--sample", type=click.IntRange(min=1), help="So many streams, with all that refers to them.")
@click.option(
    "--depth", type=click.IntRange(min=0), default=1, show_default=True, help="How far references are followed."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Another one draws others.")
@click.option(
    "--policy", metavar="MODULE:NAME", help="How fields are masked. Default: that of the log, or personal fields."
)
@click.option("--unredacted", is_flag=True, help="Everything, as it is.")
@_common
async def fork_(  # noqa: PLR0913, PLR0917 (click gives them)
    look: _Look,
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
    async with EventLog(new, types=look.log.types) as target:
        done = await fork(
            look.log,
            target,
            start=parse_at(start),
            until=parse_at(until),
            streams=streams or None,
            types=types or None,
            sample=sample,
            depth=depth,
            seed=seed,
            policy=None if unredacted else find_policy(look.log, policy),
        )
    if look.as_json:
        look.document(done._asdict())
    else:
        click.echo(f"{done.events} of {done.of} events, of {done.streams} streams, in {new}")


@log_group.command("access")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="How many at most.")
@_common
async def access(look: _Look, limit: int) -> None:
    """Show who has looked at this log, the newest first."""
    found = await accesses(look.log, limit)
    if look.as_json:
        for each in found:
            look.document(each._asdict())
    else:
        view.show_accesses(found)


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
