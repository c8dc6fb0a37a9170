"""The commands."""

from __future__ import annotations

import atexit
import importlib.util
import os
import platform
import signal
import sys
from types import FrameType
from typing import Any, Final, NoReturn

import click

import headgate as package
from headgate.cli.load import LoadError, load
from headgate.cli.queue import queue
from headgate.errors import HeadgateError
from headgate.observe.graph import Graph
from headgate.runner import LEVELS, run

BAD_COMMAND: Final = 2
"""Exit status: the command itself was wrong."""

_target = click.argument("target", metavar="MODULE:APP")
_traceback = click.option("--traceback", is_flag=True, help="Show the whole traceback of an error in MODULE.")


class _Group(click.Group):
    """Loads ``headgate log`` when it is asked for: nobody else needs what it imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "log"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "log":
            return super().get_command(ctx, cmd_name)
        if importlib.util.find_spec("rich") is None:
            _give_up("'headgate log' needs an extra; install it by: pip install 'headgate[cli]'")
        from headgate.cli.log_commands import log_group  # noqa: PLC0415 (see above)

        return log_group


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(
    package.__version__, message=f"headgate %(version)s (Python {platform.python_version()}, {sys.platform})"
)
def headgate() -> None:
    """Demand-driven data pipelines: run one, or draw it, or look at its queues."""


headgate.add_command(queue)


@headgate.command("run")
@_target
@click.option(
    "--shutdown",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="Time to finish what was begun after a first SIGTERM or SIGINT. Then it is killed.",
)
@click.option(
    "--log-level", type=click.Choice(LEVELS), default="info", show_default=True, help="What is logged to stderr."
)
@click.option(
    "--watch-blocked",
    type=click.FloatRange(min=0),
    default=0.25,
    show_default=True,
    metavar="SECONDS",
    help="Name handlers that block the event loop for longer. 0: do not look.",
)
@_traceback
def run_command(target: str, shutdown: float, log_level: str, watch_blocked: float, traceback: bool) -> None:  # noqa: FBT001 (click gives it)
    """Run an app until it is done.

    APP is a Supervisor, a Child, a list of them, or a function without arguments that returns one.
    The current directory can be imported from.

    A first SIGTERM or SIGINT (Ctrl-C) finishes what was begun, a second one cancels it, a third one
    ends the process at once. SIGUSR1 prints what every stage is at, and for whom it waits.

    \b
    Exit status:
      0    done, or drained after a signal
      1    the app has failed
      2    the command is wrong
      3    the deadline has passed, and something was killed
      128+ the number of a second signal
    """  # noqa: D301 (click's mark for lines that it shall not join)
    app = _load(target, full=traceback)
    status = _Status()
    try:
        run(app, shutdown=shutdown, log_level=log_level, watch_blocked=watch_blocked or None)
        status.code = 0
    except SystemExit as exit_:
        status.code = exit_.code if isinstance(exit_.code, int) else 1
        raise
    except HeadgateError as error:
        _give_up(f"{target}: {error}")


@headgate.command("graph")
@_target
@click.option("--format", "form", type=click.Choice(["text", "mermaid"]), default="text", show_default=True)
@_traceback
def graph_command(target: str, form: str, traceback: bool) -> None:  # noqa: FBT001 (click gives it)
    """Draw the topology of an app, without starting it.

    Edges say how many events a consumer asks for at most, and at how many it asks again.
    """
    app = _load(target, full=traceback)
    if not hasattr(app, "children"):
        _give_up(f"{target}: expected a Supervisor, there is nothing to draw in a {type(app).__name__}")
    graph = Graph(app)
    text = graph.mermaid() if form == "mermaid" else graph.text()
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        text = graph.text(ascii_only=True) if form == "text" else text.replace("·", "-")
    click.echo(text)


def _load(target: str, *, full: bool) -> Any:
    try:
        return load(target)
    except LoadError as error:
        details = error.details(full=full)
        if details is not None:
            click.echo(details.rstrip(), err=True)
        _give_up(str(error))


def _give_up(text: str) -> NoReturn:
    click.echo(f"headgate: {' '.join(text.split())}", err=True)
    raise SystemExit(BAD_COMMAND)


class _Status:
    """Keeps the exit status when a signal comes after the app has ended, while the interpreter still tidies up.

    Attributes:
        code: The exit status; None: the app has not ended yet.
    """

    def __init__(self) -> None:
        """Take the signals; `run` has its own handlers while it runs, and then gives them back to these."""
        self.code: int | None = None
        self._signals = [signal.SIGTERM]
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            self._signals.append(signal.SIGINT)
        for number in self._signals:
            signal.signal(number, self._end)
        atexit.register(self._ignore)  # the last thing to be done, as it is the first to be registered

    def _end(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (a handler's form)
        os._exit(128 + number if self.code is None else self.code)

    def _ignore(self) -> None:
        for number in self._signals:
            signal.signal(number, signal.SIG_IGN)
