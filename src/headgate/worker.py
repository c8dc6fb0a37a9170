"""The inside of a worker process: a node with the stages that it was given, and a link home."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

from headgate.draining import begin, settle
from headgate.errors import CrossingError
from headgate.observe.stall import explain
from headgate.protocol import messages as m
from headgate.protocol.messages import DeadLetter, Message
from headgate.protocol.statistics import statistics
from headgate.runtime import board
from headgate.runtime.detour import Detour
from headgate.runtime.driver import DRIVERS, Driver
from headgate.runtime.exchange import Exchange
from headgate.runtime.far import FarDriver
from headgate.runtime.link import Link
from headgate.runtime.node import Node
from headgate.runtime.tcp import Door, Line, Ports, leave
from headgate.runtime.wire import HINT, RICH

HOME = 0
BEAT = 0.5
"""Seconds between two reports of what the stages are at."""


class WorkerNode(Node):
    """The node of a worker: what it cannot decide, home does."""

    exchange: WorkerExchange

    def report(self, error: Exception) -> None:
        """Let home make an error known."""
        self.exchange.tell(HOME, "report", error)

    def gone(self, driver: Driver, reason: Any) -> None:
        """Tell home how a stage has ended."""
        self.drivers.pop(driver.number, None)
        self.awaited.forget(driver)
        for monitor in driver.monitors:
            monitor(reason)
        self.exchange.ended(driver, reason)
        self.tell()

    def unregister(self, name: str) -> None:
        """Leave names to home."""

    def bury(
        self,
        letter: DeadLetter,
        kept: Callable[[], None],
        hook: Callable[[DeadLetter], Any] | None = None,  # noqa: ARG002 (home has it)
    ) -> None:
        """Let home keep a dead letter."""
        self.exchange.bury(letter, kept)


class WorkerExchange(Exchange):
    """The exchange of a worker."""

    secret = b""
    """What nodes that are joined by TCP have to know; of a worker process: none comes in here."""

    def __init__(
        self, node: Node, number: int, home: socket.socket | None, notes: Any, max_bytes: int, budget: int
    ) -> None:
        """Listen to home; None: when there is a line to it."""
        super().__init__(node, number)
        self.max_bytes = max_bytes
        self.budget = budget
        self.over = node.loop.create_future()
        self._notes = notes
        self._slots: dict[int, int] = {}  # of stages, on the board
        self._drivers: dict[int, Driver] = {}
        self._early: dict[int, list[Message]] = {}
        self._latest = 0
        self._kept: dict[int, Callable[[], None]] = {}
        self._letters = 0
        self._told: dict[int, Any] = {}
        self._draining = False
        self.stranded: asyncio.Future[str] = node.loop.create_future()
        """Why home's port is out of reach."""
        self.links[HOME] = Link(self, HOME, home, local=home is not None, max_bytes=max_bytes, budget=budget)

    def link(self, where: int) -> Link:
        """Return the link to a node; one to another worker is asked for when it is needed first."""
        found = self.links.get(where)
        if found is None:
            found = self.links[where] = Link(self, where, max_bytes=self.max_bytes, budget=self.budget)
            if where in self._lost:
                found.shut = True
            else:
                self.tell(HOME, "connect", where)
        return found

    def forgotten(self, far: FarDriver) -> None:
        """Let home say how it has ended."""
        far.where = HOME
        far.watch()

    def unknown(self, link: Link, number: int) -> None:
        """Let home answer."""
        self.tell(HOME, "monitor_for", link.peer, number)

    def closed(self, link: Link) -> None:
        """End with home; of another worker home will tell what has become."""
        if link.peer == HOME:
            os._exit(1)
        if link.line is not None:  # it may live, and what is between the two would wait for ever
            self.tell(HOME, "unreachable", link.peer, str(link.line.error))

    def line(self, peer: int) -> Line | None:
        """Return the line to a worker that wants to come in."""
        if peer in self._lost:
            return None
        link = self.links.get(peer)
        if link is None:
            link = self.links[peer] = Link(self, peer, local=False, max_bytes=self.max_bytes, budget=self.budget)
        return link.line or Line(self, link)

    def seek_detour(self, line: Line) -> None:
        """Let home make another way, to itself by whoever has started this node."""
        if line.link.peer != HOME:
            self.tell(HOME, "stranded", line.link.peer, str(line.error))
        elif not self.stranded.done():
            self.stranded.set_result(str(line.error))

    def missing(self, number: int, message: Message) -> None:
        """Keep what comes for a stage that home has not told of yet; refuse what comes for one that is gone."""
        if number > self._latest:
            self._early.setdefault(number, []).append(message)
        else:
            super().missing(number, message)

    def ended(self, driver: Driver, reason: Any) -> None:
        """Tell home how a stage has ended."""
        slot = self._slots.pop(driver.number, None)
        if slot is not None:
            board.clear(self._notes, slot)
        self._drivers.pop(driver.number, None)
        core = driver.core
        how = (core.completed, core.follows, core.failure, any(reason is each for each in driver.told_to_end))
        self.tell(HOME, "ended", driver.number, reason, statistics(core), *how)

    def bury(self, letter: DeadLetter, kept: Callable[[], None]) -> None:
        """Let home keep a dead letter."""
        self._letters += 1
        self._kept[self._letters] = kept
        self.tell(HOME, "bury", letter, self._letters)

    # -- what home tells ----------------------------------------------------------------------------------------------

    def _on_home(self, link: Link, level: int, names: tuple[Any, ...]) -> None:
        root = logging.getLogger()
        root.setLevel(level)
        root.handlers = [_ToHome(link)]
        warnings.showwarning = lambda message, category, filename, lineno, file=None, line=None: link.tell(  # noqa: ARG005
            "warning", str(message), category, filename, lineno
        )
        known, expected, groups, over, left = names
        awaited = self.node.awaited
        self.node.names.update(known)
        awaited.expected.update(expected)
        awaited.groups.update(groups)
        awaited.over |= over
        awaited.left |= left

    def _on_names(self, link: Link, what: str, *args: Any) -> None:  # noqa: ARG002 (a listener's form)
        """Follow what home says of names."""
        node, awaited = self.node, self.node.awaited
        if what == "register":
            name, ref = args
            node.names[name] = ref
            awaited.came(name)
        elif what == "unregister":
            node.names.pop(args[0], None)
        elif what == "forget":
            node.forget(args[0])
        elif what == "disband":
            awaited.disband(args[0], over=args[1])
        else:
            getattr(awaited, what)(*args)

    def _on_start(self, link: Link, number: int, name: str, data: bytes, buffers: list[bytearray], hold: bool) -> None:  # noqa: FBT001
        """Make what runs a stage, and start it."""
        self._latest = max(self._latest, number)
        early = self._early.pop(number, ())
        try:
            child = self.codes(link).decode(RICH, data, buffers)
        except Exception as error:  # noqa: BLE001 (a module that is not there, an argument that cannot be made)
            text = f"stage {name!r} cannot be made in another process: {type(error).__name__}: {error}. {HINT}"
            crossing = CrossingError(text)
            crossing.__cause__ = error
            link.tell("started", number, crossing)
            for message in early:
                super().missing(number, message)
            return
        self.node.numbers = iter([number])  # type: ignore[assignment]  # home counts
        driver = DRIVERS[child.place](self.node, child)
        driver.name = name
        self.known[number] = self._drivers[number] = driver
        if hold and driver.core.out is not None:
            driver.core.out.accumulate(hold)
        driver.bound = self._bound
        for message in early:
            self.deliver(link, number, message)
        self.node.job(self._start(link, driver), f"start {name}")

    async def _start(self, link: Link, driver: Driver) -> None:
        """Start a stage, and say how that went."""
        number = driver.number
        try:
            await driver.start()
        except BaseException as error:  # noqa: BLE001 (it is raised at home)
            driver.abandon()
            self._drivers.pop(number, None)
            link.tell("started", number, error)
            return
        link.tell("started", number, None)
        if self._draining:
            begin(self.node)

    def _bound(self, driver: Driver) -> None:
        """Let a stage's handler of events note what it is given, where the notes can be read when this is dead."""
        handler = driver.handlers.get(m.HANDLE_EVENTS)
        if handler is None:
            return
        slot = next((each for each in range(board.SLOTS) if each not in self._slots.values()), None)
        if slot is None or self._notes is None:
            driver.wrap(board.flushing(handler, self))
            return
        self._slots[driver.number] = slot
        driver.wrap(board.noting(self._notes, slot, driver, handler, self))

    def _on_abandon(self, link: Link, number: int) -> None:  # noqa: ARG002 (a listener's form)
        driver = self._drivers.get(number)
        if driver is not None:
            driver.ref.kill()

    def _on_linked(self, link: Link, where: int, descriptor: int) -> None:  # noqa: ARG002 (a listener's form)
        sock = socket.socket(fileno=descriptor)
        found = self.links.get(where)
        if found is None:
            self.links[where] = Link(self, where, sock, max_bytes=self.max_bytes, budget=self.budget)
        elif found.up or found.shut:
            sock.close()
        else:
            found.attach(sock)

    def _on_dial(
        self,
        link: Link,  # noqa: ARG002 (a listener's form)
        where: int,
        address: tuple[str, int],
        secret: bytes | None,
        detour: Detour | None,
    ) -> None:
        """Connect to a worker by TCP."""
        found = self.links.get(where)
        if found is None:
            found = self.links[where] = Link(self, where, local=False, max_bytes=self.max_bytes, budget=self.budget)
        if not found.shut and found.line is None:
            Line(self, found, address=address, secret=secret or self.secret, detour=detour)

    def _on_detour(self, link: Link, where: int, detour: Detour | None) -> None:  # noqa: ARG002 (a listener's form)
        found = self.links.get(where)
        if found is not None and found.line is not None:
            found.line.take(detour)

    def _on_lost(self, link: Link, where: int, reason: Any, spans: dict[int, board.Held]) -> None:  # noqa: ARG002
        other = self.links.get(where)
        if other is not None:
            other.drain()
        self.node_lost(where, reason, spans)

    def _on_kept(self, link: Link, token: int) -> None:  # noqa: ARG002 (a listener's form)
        kept = self._kept.pop(token, None)
        if kept is not None:
            kept()

    def _on_drain(self, link: Link) -> None:  # noqa: ARG002 (a listener's form)
        self._draining = True
        begin(self.node)
        self.node.job(settle(self.node), "drain")

    def _on_exit(self, link: Link) -> None:  # noqa: ARG002 (a listener's form)
        if not self.over.done():
            self.over.set_result(None)

    async def beat(self) -> None:
        """Report from time to time what has changed; also when nothing has, so that home knows that the loop turns."""
        while True:
            await asyncio.sleep(BEAT)
            found = {
                number: (statistics(driver.core), tuple(explain(driver))) for number, driver in self._drivers.items()
            }
            if found:
                self.tell(
                    HOME, "beat", {number: each for number, each in found.items() if self._told.get(number) != each}
                )
            self._told = found


_PLAIN = frozenset({str, int, float, bool, bytes, type(None)})


class _ToHome(logging.Handler):
    """Sends log records home, where they are logged."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Send one, from any thread: its traceback as text, and of what was added to it no more than can cross."""
        plain = {name: value for name, value in vars(record).items() if type(value) in _PLAIN}
        text = record.exc_text
        if record.exc_info and record.exc_info[0] is not None and not text:
            text = logging.Formatter().formatException(record.exc_info)
        record = logging.makeLogRecord(
            plain | {"msg": record.getMessage(), "args": None, "exc_info": None, "exc_text": text}
        )
        if threading.get_ident() == self._thread:
            self._link.tell("log", record)
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._link.tell, "log", record)


def _node(number: int, home: socket.socket | None, notes: Any, max_bytes: int, budget: int) -> WorkerExchange:
    node = WorkerNode(asyncio.get_running_loop())
    node.subscription_numbers = iter(range(number << 40, (number + 1) << 40))  # type: ignore[assignment]
    return WorkerExchange(node, number, home, notes, max_bytes, budget)


async def _serve(exchange: WorkerExchange) -> None:
    beat = exchange.node.job(exchange.beat(), "beat")
    await exchange.over
    beat.cancel()
    exchange.links[HOME].finish()


async def _serve_here(number: int, home: int, notes: int, max_bytes: int, budget: int) -> None:
    await _serve(_node(number, socket.socket(fileno=home), board.open_there(notes), max_bytes, budget))


def _follow(lifeline: int) -> None:
    """End when the parent has: also when a handler keeps the loop busy, and whoever else has inherited what."""
    with contextlib.suppress(OSError, AttributeError):  # Linux; elsewhere the thread has to do
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    def wait() -> None:
        os.read(lifeline, 1)
        os._exit(1)

    threading.Thread(target=wait, name="headgate: lifeline", daemon=True).start()


def main() -> None:
    """Run a worker: what it needs to know is on its command line."""
    number, home, lifeline, notes, max_bytes, budget = json.loads(sys.argv[2])
    sys.argv[:] = [""]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _follow(lifeline)
    gc.freeze()  # what is imported by now stays: no collection needs to look at it again
    asyncio.run(_serve_here(number, home, notes, max_bytes, budget))


class Guest:
    """A worker on another machine, joined to others by TCP. It ends the process when home is gone.

    Args:
        number: That of its node.
        home: Where home listens.
        secret: Of the system.
        host: The address to listen at.
        ports: The first and the last port that may be used; None: any; False: none that other machines can reach.
        machine: What Ray calls this machine.
        max_bytes: Of the place.
        budget: Of the place.
    """

    def __init__(
        self,
        *,
        number: int,
        home: tuple[str, int],
        secret: bytes,
        host: str,
        ports: Ports,
        machine: str,
        max_bytes: int,
        budget: int,
    ) -> None:
        """Know all that, and do nothing yet."""
        self._number = number
        self._home = home
        self._secret = secret
        self._host = host
        self._ports: Ports = ports
        self._machine = machine
        self._limits = (max_bytes, budget)
        self._runner = asyncio.Runner()
        self._exchange: WorkerExchange | None = None

    def run(self, detour: Detour | None = None) -> str | None:
        """Run, until home lets it go or is out of reach.

        Args:
            detour: The way home, if not the direct one. Without one it is no use to run it again.

        Returns:
            None at the end. Else why home is out of reach: all stands still, to be run again when there is a way.
        """
        try:
            why = self._runner.run(self._run(detour))
        except BaseException:
            self._runner.close()
            raise
        if why is None:
            self._runner.close()
        return why

    async def _run(self, detour: Detour | None) -> str | None:
        exchange = self._exchange
        if exchange is None:
            exchange = self._begin(detour)
        elif detour is not None:
            exchange.stranded = exchange.node.loop.create_future()
            line = exchange.links[HOME].line
            assert line is not None  # noqa: S101 (it came with it)
            line.take(detour)
        await asyncio.wait([self._serving, exchange.stranded], return_when=asyncio.FIRST_COMPLETED)
        if not self._serving.done():
            return exchange.stranded.result()
        await self._serving
        self._door.close()
        await leave(exchange.links[HOME])
        return None

    def _begin(self, detour: Detour | None) -> WorkerExchange:
        exchange = self._exchange = _node(self._number, None, None, *self._limits)
        exchange.secret = self._secret
        self._door = Door(exchange, self._host, self._ports)
        link = exchange.links[HOME]
        Line(exchange, link, address=self._home, secret=self._secret, detour=detour)
        exchange.tell(HOME, "up", self._door.address, os.getpid(), self._machine)
        self._serving = exchange.node.job(_serve(exchange), "serve")
        return exchange
