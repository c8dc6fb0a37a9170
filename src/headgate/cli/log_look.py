"""What all commands of ``headgate log`` share: which log and which events, who looks and why, how it is put out."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, NoReturn

import click

from headgate.cli import log_view as view
from headgate.cli.log_hints import nothing_there
from headgate.cli.log_target import TargetError, find_log, find_projection, last_fields, parse_at, who
from headgate.errors import EventError, HeadgateError
from headgate.eventlog import EventLog, Projection, Reading, Recorded
from headgate.eventlog.access import note_access
from headgate.eventlog.export import as_dict, one_line
from headgate.eventlog.replay import MISSING, FieldChange
from headgate.eventlog.reverse import reversals

BAD_COMMAND: Final = 2
"""Exit status: the command was wrong, or the log cannot be read."""
MOST: Final = 100
"""How many are shown when nothing is said."""

_STREAM: Final = "Only this stream, or with 'account-*' those that begin so."

Command = Callable[..., Awaitable[None]]


class Part(NamedTuple):
    """Which events a command is about."""

    start: str | None
    until: str | None
    streams: tuple[str, ...]
    types: tuple[str, ...]
    correlation: str | None

    def of(self, *streams: str | None) -> Part:
        """Return the part with more streams; None is none."""
        return self._replace(streams=(*self.streams, *(each for each in streams if each is not None)))

    def read(self, log: EventLog, **options: Any) -> Reading:
        """Return them."""
        return log.read(
            self.streams or None,
            start=parse_at(self.start),
            until=parse_at(self.until, end=True),
            types=self.types or None,
            correlation_id=self.correlation,
            **options,
        )


class Look:
    """One look at a log.

    Attributes:
        log: The log, open.
        as_json: Whether the output is for programs.
    """

    log: EventLog

    def __init__(self, target: str, actor: str | None, reason: str | None, *, as_json: bool) -> None:
        """Keep who looks at what, and why."""
        self._target = target
        self._actor = actor or who()
        self._reason = reason
        self.as_json = as_json

    @contextlib.asynccontextmanager
    async def open(self, command: str, options: dict[str, Any]) -> AsyncGenerator[Look]:
        """Open the log, and write down that somebody looks at it."""
        self.log = find_log(self._target)
        asked = {name: value for name, value in options.items() if value not in (None, False, ())}
        async with self.log:
            await note_access(self.log, self._actor, command.rstrip("_"), asked, self._reason)
            yield self

    def projection(self, wanted: str | None) -> Projection:
        """Return how events become state; where that is a guess, say so."""
        chosen = find_projection(self.log, wanted)
        if chosen is last_fields:
            self.note("no projection is known here, so the last value of each field is shown; see --projection")
        elif chosen not in self.log.projections and not self.log.types.known():
            what = "the types of this log are not known here, so its events are dicts to this projection"
            self.note(f"{what}; give LOG as MODULE:NAME of the EventLog of your program")
        return chosen

    async def events(self, events: Sequence[Recorded], lines: view.EventLines | None = None) -> None:
        """Show events.

        Args:
            events: They.
            lines: To go on with the columns of earlier ones.
        """
        if not self.as_json:
            (lines or view.EventLines()).show(events, await undoing(self.log, events))
            return
        for event in events:
            self.document(as_dict(event))

    async def found(self, events: list[Recorded], part: Part, limit: int | None, lines: Any = None) -> None:
        """Show what was looked for: as many as were asked for; when there is none, or more than is shown, say so.

        Args:
            events: One more than may be shown, if there is one more.
            part: Where they were looked for.
            limit: How many were asked for at most. None: `MOST`.
            lines: As for `events`.
        """
        await self.events(events[: limit or MOST], lines)
        if not events:
            self.note(await nothing_there(self.log, part.streams, part.types))
        self.more(events, limit)

    def more(self, found: Sequence[Any], limit: int | None) -> None:
        """Say when not all is shown, unless that was asked for."""
        if limit is None and len(found) > MOST:
            self.note(f"there is more than these {MOST}; see --limit")

    def document(self, value: Any) -> None:
        """Write a line for programs."""
        click.echo(one_line(value))

    def note(self, text: str) -> None:
        """Say something that is no part of the output."""
        click.echo(f"headgate: {view.clean(text)}", err=True)


async def undoing(log: EventLog, events: Sequence[Recorded]) -> view.Undoing:
    """Find what some events undo, and what has undone them."""
    positions = {event.row[5]: event.position for event in events}
    undone_by = {positions[each]: by for each, by in (await reversals(log, positions)).items()}
    undoes: dict[int, int] = {}
    for event in events:
        if event.reverses is None:
            continue
        try:
            undone = positions.get(event.reverses.bytes) or (await log.event(event.reverses)).position
        except EventError:  # it is archived, or was left out of a fork
            continue
        undoes[event.position] = undone
    return view.Undoing(undoes, undone_by)


def fields(changes: Iterable[FieldChange]) -> list[dict[str, Any]]:
    """Return changes as JSON can hold them: what was not there before, or is not there after, is left out."""
    return [{name: value for name, value in each._asdict().items() if value is not MISSING} for each in changes]


def plain(value: NamedTuple) -> dict[str, Any]:
    """Return a tuple as JSON can hold it, with times as in events."""
    return {
        name: each.isoformat().replace("+00:00", "Z") if isinstance(each, datetime) else each
        for name, each in value._asdict().items()
    }


def common(command: Command) -> Callable[..., None]:
    """Give a command its log, the options that all have, and one line for each error."""

    @click.argument("target", metavar="LOG")
    @click.option("--json", "as_json_", is_flag=True, help="Output for programs: a JSON document per line.")
    @click.option("--actor", metavar="NAME", default=None, help="Who is looking. Default: the user of this machine.")
    @click.option("--reason", metavar="TEXT", default=None, help="Why, e.g. the number of a ticket.")
    @functools.wraps(command)
    def run(target: str, *, as_json_: bool, actor: str | None, reason: str | None, **options: Any) -> None:
        if sys.stdout is None:  # closed; the first file that is opened would take its place
            _give_up("there is no standard output to write to")

        async def main() -> None:
            async with Look(target, actor, reason, as_json=as_json_).open(command.__name__, options) as look:
                await command(look, **_packed(options))

        try:
            asyncio.run(main())
        except HeadgateError as error:
            if isinstance(error, TargetError) and error.details is not None:
                click.echo(error.details.rstrip(), err=True)
            _give_up(str(error))
        except OSError as error:
            if error.errno == errno.EPIPE:  # nobody reads on; click ends in silence
                raise
            with contextlib.suppress(OSError):  # else the interpreter tries once more, at its end
                sys.stdout.close()
            _give_up(str(error))
        except KeyboardInterrupt:
            raise SystemExit(130) from None

    return run


def _give_up(text: str) -> NoReturn:
    click.echo(f"headgate: {view.clean(' '.join(text.split()))}", err=True)
    raise SystemExit(BAD_COMMAND) from None


def _packed(options: dict[str, Any]) -> dict[str, Any]:
    """Put the filters of a command into one argument."""
    if "correlation" not in options:
        return options
    rest = dict(options)
    part = Part(*(rest.pop(name) for name in Part._fields))
    return {"part": part, **rest}


def filters(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say which events it is about."""
    for option in (
        click.option("--correlation", metavar="ID", help="Only events of this command or request."),
        click.option("--type", "types", metavar="TYPE", multiple=True, help="Only events of this type."),
        click.option(
            "--stream",
            "streams",
            metavar="NAME",
            multiple=True,
            help="Only this stream, or with 'account-*' those that begin so.",
        ),
        click.option("--until", metavar="AT", help="Up to this position, time or day."),
        click.option("--start", metavar="AT", help="From this position, time (2026-03-01T12:00) or day on."),
    ):
        command = option(command)
    return command


projection_option = click.option(
    "--projection", metavar="NAME", help="How events become state: its name, or MODULE:NAME."
)
limit_option = click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help=f"How many at most. Default: {MOST}."
)
