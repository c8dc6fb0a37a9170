"""The commands ``headgate queue ...``: look at the queues in an SQLite file, and mend them."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from headgate.errors import HeadgateError

if TYPE_CHECKING:
    from headgate.connectors.sqlite import QueuedMessage, SQLiteQueue

FAILED: Final = 1
"""Exit status: the file could not be read or written, or there is no such message."""
BAD_COMMAND: Final = 2
"""Exit status: the command itself was wrong."""
LONGEST: Final = 60
"""Characters of a payload or a reason in a table."""

_file = click.argument("file", type=click.Path(dir_okay=False))
_queue = click.option("-q", "--queue", "name", default="default", show_default=True, help="The queue in the file.")
_json = click.option("--json", "as_json", is_flag=True, help="A JSON object in each line, for programs.")


def _limit(count: int) -> Callable[[Any], Any]:
    kind = click.IntRange(min=1)
    return click.option("-n", "--limit", type=kind, default=count, show_default=True, help="At most so many.")


@click.group("queue")
def queue() -> None:
    """Look at the queues in an SQLite file, and mend them."""


@queue.command("ls")
@_file
@_json
def ls_command(file: str, as_json: bool) -> None:  # noqa: FBT001 (click gives it)
    """List the queues of FILE, with how many messages are in which state."""
    rows: list[dict[str, Any]] = []
    with _opened(file, "default") as opened:
        for name in opened.queues():
            with _opened(file, name) as each:
                rows.append({"queue": name, **asdict(each.counts())})
    if as_json:
        _lines(rows)
    elif rows:
        _table(list(rows[0]), [list(row.values()) for row in rows])
    else:
        click.echo("no queues")


@queue.command("put")
@_file
@click.argument("data", nargs=-1)
@_queue
@click.option("--text", is_flag=True, help="DATA is text as it stands, not JSON.")
@click.option("--key", help="What the messages belong to.")
@click.option("--user", help="Whose the messages are.")
@click.option("--priority", type=int, default=0, help="Those of a higher one go first.")
@click.option("--delay", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS", help="Not before that.")
@click.option("--dedupe", help="Not while another message of this name has not been done. For one message.")
@click.option("--create", is_flag=True, help="Make FILE when there is none.")
def put_command(file: str, data: Sequence[str], name: str, *, text: bool, create: bool, **options: Any) -> None:
    """Put messages into a queue of FILE, all or none; print their ids.

    Each DATA is a JSON value. Without any, each line of the standard input is one.
    """
    given = list(data) if data else [line for line in sys.stdin.read().splitlines() if line.strip()]
    dedupe = options.pop("dedupe")
    if dedupe is not None and len(given) != 1:
        _give_up("--dedupe is for one message", BAD_COMMAND)
    payloads = given if text else [_parsed(each, number) for number, each in enumerate(given, 1)]
    with _opened(file, name, create=create) as opened:
        if dedupe is not None:
            ids = [opened.put(payloads[0], dedupe=dedupe, **options)]
        else:
            ids = opened.put_many(payloads, **options)
        for number in ids:
            click.echo("-" if number is None else str(number))


@queue.command("show")
@_file
@click.argument("id", type=int, required=False)
@_queue
@_limit(10)
@_json
def show_command(file: str, id: int | None, name: str, limit: int, as_json: bool) -> None:  # noqa: A002, FBT001 (click)
    """Show the message of this ID, or what is to be handed out next."""
    with _opened(file, name) as opened:
        if id is None:
            found = opened.peek(limit)
        else:
            message = opened.get(id)
            if message is None:
                _give_up(f"{file}: queue {name!r} has no message {id}", FAILED)
            found = [message]
    if as_json:
        _lines(map(_plain, found))
    elif id is not None:
        _block(found[0])
    elif found:
        head = ["id", "priority", "deliveries", "key", "user", "put", "data"]
        _table(head, [[m.id, m.priority, m.deliveries, m.key, m.user, _time(m.put_at), _text(m.data)] for m in found])
    else:
        click.echo("nothing is ready")


@queue.command("dead")
@_file
@_queue
@_limit(100)
@click.option("--after", type=int, default=0, metavar="ID", help="Only those of higher ids.")
@click.option("--short", is_flag=True, help="One line each, without tracebacks.")
@_json
def dead_command(file: str, name: str, limit: int, after: int, short: bool, as_json: bool) -> None:  # noqa: FBT001
    """List the dead letters of a queue, with their tracebacks."""
    with _opened(file, name) as opened:
        letters = opened.dead_letters(limit, after=after)
    if as_json:
        _lines(map(_plain, letters))
    elif not letters:
        click.echo("no dead letters")
    elif short:
        rows = [[m.id, _time(m.ended_at), m.deliveries, m.key, _text(m.data), m.reason] for m in letters]
        _table(["id", "since", "deliveries", "key", "data", "reason"], rows)
    else:
        for index, letter in enumerate(letters):
            if index:
                click.echo()
            _block(letter)


@queue.command("retry")
@_file
@click.argument("ids", nargs=-1, type=int)
@_queue
@click.option("--all", "everything", is_flag=True, help="All dead letters of the queue.")
@click.option("--delay", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS", help="Not before that.")
def retry_command(file: str, ids: Sequence[int], name: str, everything: bool, delay: float) -> None:  # noqa: FBT001
    """Send dead letters back to be handled, those of these IDS or all."""
    if bool(ids) is everything:
        _give_up("give the ids of dead letters, or --all", BAD_COMMAND)
    with _opened(file, name) as opened:
        count = opened.retry_dead(None if everything else ids, delay=delay)
    click.echo(f"{count} sent back")
    if not everything and count < len(set(ids)):
        _give_up(f"{file}: the other {len(set(ids)) - count} are no dead letters of queue {name!r}", FAILED)


@queue.command("purge")
@_file
@_queue
@click.option("--done", "states", flag_value="done", multiple=True, help="What was acknowledged and kept (default).")
@click.option("--dead", "states", flag_value="dead", multiple=True, help="Dead letters.")
@click.option("--waiting", "states", flag_value="waiting", multiple=True, help="What is ready to be handed out.")
@click.option("--delayed", "states", flag_value="delayed", multiple=True, help="What is delayed or being retried.")
@click.option("--older-than", type=click.FloatRange(min=0), metavar="SECONDS", help="Only what is older.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge_command(file: str, name: str, states: Sequence[str], older_than: float | None, yes: bool) -> None:  # noqa: FBT001
    """Delete messages of a queue. What is leased stays."""
    chosen = states or ("done",)
    if not yes and set(chosen) != {"done"}:
        click.confirm(f"Delete what is {' and '.join(chosen)} in queue {name!r}?", abort=True)
    before = None if older_than is None else datetime.now(UTC).timestamp() - older_than
    with _opened(file, name) as opened:
        click.echo(f"{opened.purge(*chosen, before=before)} deleted")


# -- files ------------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(file: str, name: str, *, create: bool = False) -> Generator[SQLiteQueue]:
    """Open a queue that is there; say in one line what is wrong with it."""
    from headgate.connectors.sqlite import SQLiteQueue  # noqa: PLC0415 (only whoever uses a connector imports it)

    try:
        opened = SQLiteQueue(file, queue=name, create=create)
        try:
            yield opened
        finally:
            opened.close()
    except HeadgateError as error:
        _give_up(str(error), FAILED)


def _parsed(text: str, number: int) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        hint = " (give --text for text as it stands)" if number == 1 else ""
        _give_up(f"message {number} is no JSON: {error}{hint}", BAD_COMMAND)


def _give_up(text: str, status: int) -> NoReturn:
    click.echo(f"headgate: {' '.join(text.split())}", err=True)
    raise SystemExit(status)


# -- what is shown ----------------------------------------------------------------------------------------------------


def _plain(message: QueuedMessage) -> dict[str, Any]:
    """Return a message as JSON can say it: bytes as ``{"base64": ...}``."""
    found = asdict(message)
    if isinstance(message.data, bytes):
        found["data"] = {"base64": base64.b64encode(message.data).decode()}
    return found


def _lines(rows: Iterable[dict[str, Any]]) -> None:
    for row in rows:
        click.echo(json.dumps(row, default=repr))


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    lines = [list(head), *([_cell(each) for each in row] for row in rows)]
    numeric = [all(isinstance(row[column], (int, type(None))) for row in rows) for column in range(len(head))]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        cells = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, numeric, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


def _cell(value: Any) -> str:
    text = "-" if value is None else _safe(str(value))
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _block(message: QueuedMessage) -> None:
    """Show all about one message."""
    times = f"put {_time(message.put_at)}"
    if message.ended_at is not None:
        times += f", ended {_time(message.ended_at)}"
    if message.due is not None:
        times += f", due {_time(message.due)}"
    click.echo(f"message {message.id}: {message.state}, handed out {message.deliveries} time(s), {times}")
    for name in ("key", "user", "priority", "deadline", "dedupe", "metadata", "reason"):
        value = getattr(message, name)
        if value is not None and value != 0:
            click.echo(f"  {name + ':':10} {_safe(value if isinstance(value, str) else _text(value))}")
    click.echo(f"  {'data:':10} {_safe(_text(message.data))}")
    for line in (message.traceback or "").splitlines():
        click.echo(f"    {_safe(line)}".rstrip())


def _text(data: Any) -> str:
    return repr(data) if isinstance(data, bytes) else json.dumps(data, ensure_ascii=False, default=repr)


def _safe(text: str) -> str:
    """Show what a terminal would obey, and what would begin a new line."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="seconds").replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):  # somebody's own clock
        return f"{seconds:g}"
