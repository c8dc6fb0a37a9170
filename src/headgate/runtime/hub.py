"""The home node's exchange: it starts worker processes, gives stages to them, and sees to their ends."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import warnings
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headgate.errors import CrossingError, OptionError, WorkerLostError, short
from headgate.runtime import board
from headgate.runtime.exchange import Exchange
from headgate.runtime.far import KILL_SECONDS, FarDriver, parts, stripped
from headgate.runtime.link import Link
from headgate.runtime.places import Process, cores
from headgate.runtime.wire import HINT, check

if TYPE_CHECKING:
    from headgate.runtime.node import Node
    from headgate.runtime.options import Child

logger = logging.getLogger("headgate")

EXIT_SECONDS = 2.0
"""How long a worker may take to exit, when all its stages have ended, before it is killed."""
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from headgate.worker import main; main()"


class Worker:
    """One worker process, as home sees it.

    Attributes:
        number: The number of its node.
        place: What it was started for.
        stages: Those that run there.
        pid: Its process id.
    """

    def __init__(self, hub: Hub, number: int, place: Process) -> None:
        """Start it."""
        self.hub = hub
        self.number = number
        self.place = place
        self.stages: dict[int, FarDriver] = {}
        self.over = False
        self.gone: asyncio.Future[None] = hub.loop.create_future()
        self._kills: dict[int, asyncio.TimerHandle] = {}
        ours, theirs = socket.socketpair()
        lifeline, self._lifeline = os.pipe()
        self._board, there = board.make()
        try:
            self.process = subprocess.Popen(  # noqa: S603 (our own interpreter)
                [
                    sys.executable,
                    *subprocess._args_from_interpreter_flags(),  # type: ignore[attr-defined]  # noqa: SLF001
                    "-c",
                    _BOOT,
                    json.dumps(sys.path),
                    json.dumps([number, theirs.fileno(), lifeline, there, place.max_bytes, place.budget]),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), lifeline, there),
                process_group=0,  # what the terminal sends (Ctrl-C) is for the parent
            )
        except OSError:
            for each in (ours, theirs):
                each.close()
            for descriptor in (lifeline, self._lifeline, there):
                os.close(descriptor)
            raise
        theirs.close()
        os.close(lifeline)
        os.close(there)
        self.pid = self.process.pid
        self._watch()
        self.link = Link(hub, number, ours, max_bytes=place.max_bytes, budget=place.budget)

    def __str__(self) -> str:
        """Name it."""
        return f"worker {self.number} (process {self.pid})"

    def _watch(self) -> None:
        """Be told when the process has ended."""
        loop = self.hub.loop
        try:
            self._handle = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # not on this system
            self._handle = -1
            waiting = loop.run_in_executor(None, self.process.wait)
            waiting.add_done_callback(lambda _: self.exited())
            return
        loop.add_reader(self._handle, self.exited)

    def exited(self) -> None:
        """Take note that the process has ended."""
        if self.over:
            return
        self.over = True
        if self._handle >= 0:
            self.hub.loop.remove_reader(self._handle)
            os.close(self._handle)
        code = self.process.wait()
        self.link.drain()  # what it has said before it died counts
        spans = board.read(self._board)
        self._board.close()
        os.close(self._lifeline)
        for timer in self._kills.values():
            timer.cancel()
        self.hub.lost(self, self.reason(code), spans)
        if not self.gone.done():
            self.gone.set_result(None)

    def reason(self, code: int) -> WorkerLostError:
        """Say how it has ended."""
        if code >= 0:
            how = f"has exited with code {code}"
        else:
            try:
                how = f"was killed by {signal.Signals(-code).name}"
            except ValueError:
                how = f"was killed by signal {-code}"
        return WorkerLostError(f"worker {self.number}", self.pid, how)

    def insist(self, far: FarDriver, reason: Any) -> None:
        """Kill the worker when a stage of it does not carry out a kill: a handler is in its way."""
        if far.number not in self._kills and not self.over:
            far.killed = (reason,)
            self._kills[far.number] = self.hub.loop.call_later(KILL_SECONDS, self.kill)

    def left(self, far: FarDriver) -> None:
        """Take note that a stage has ended there."""
        self.stages.pop(far.number, None)
        timer = self._kills.pop(far.number, None)
        if timer is not None:
            timer.cancel()

    def kill(self) -> None:
        """End the process at once."""
        if not self.over:
            self.process.kill()


class Hub(Exchange):
    """The exchange of the node that all others are started from."""

    def __init__(self, node: Node) -> None:
        """Begin without workers."""
        super().__init__(node, 0)
        self.workers: dict[int, Worker] = {}
        self._groups: dict[str, Worker] = {}
        self._idle: deque[Worker] = deque()
        self._numbers = 0
        self._joined: set[frozenset[int]] = set()
        node.publish = self._publish

    # -- starting a stage ---------------------------------------------------------------------------------------------

    def driver(self, child: Child) -> FarDriver:
        """Return what stands for a stage that is to run in a worker."""
        place = child.place
        if not hasattr(socket, "AF_UNIX"):
            raise OptionError(child.where, "place", "a place in this process, on a system like this", place)
        if not isinstance(place, Process):
            raise OptionError(child.where, "place", "a place that this version knows", place)
        number = next(self.node.numbers)
        far = FarDriver(
            self, 0, number, child.name or f"{child.id}-{number}", child.role, child, registered=child.name is not None
        )
        worker = self._worker(place)
        far.where = worker.number
        far.process = worker
        worker.stages[number] = far
        self.known[number] = far
        return far

    def _worker(self, place: Process) -> Worker:
        """Return a worker for one more stage."""
        group = place.group
        found = self._groups.get(group) if group is not None else None
        if found is not None and not found.over:
            return found
        worker = None
        for idle in list(self._idle):
            if not idle.over and replace(idle.place, group=place.group) == place:
                worker = idle
                self._idle.remove(idle)
                worker.place = place
                break
        if worker is None:
            worker = self._spawn(place)
        if group is not None:
            self._groups[group] = worker
        return worker

    def _spawn(self, place: Process) -> Worker:
        self._numbers += 1
        worker = Worker(self, self._numbers, place)
        self.workers[worker.number] = worker
        self.links[worker.number] = worker.link
        level = logging.getLogger().getEffectiveLevel()
        worker.link.tell("home", level, self._names())
        return worker

    def _names(self) -> tuple[Any, ...]:
        """Return what is known of names, for a node that is new."""
        awaited = self.node.awaited
        return (
            dict(self.node.names),
            dict(awaited.expected),
            {group: list(members) for group, members in awaited.groups.items()},
            set(awaited.over),
            set(awaited.left),
        )

    async def start(self, far: FarDriver, *, hold: bool) -> None:
        """Send a recipe to its worker."""
        assert far.child is not None  # noqa: S101 (it was made from one)
        child: Any = far.child
        link = self.link(far.where)
        codes = self.codes(link)  # its own: what fails half-way is not known there
        try:
            _, data, buffers = codes.encode(stripped(child))
        except Exception as error:
            check(child.where, parts(child), self.codes(link))
            raise CrossingError(f"{child.where} cannot go to another process: {error}. {HINT}") from error
        link.tell("start", far.number, far.name, data, [bytearray(each.raw()) for each in buffers], hold)

    def left(self, far: FarDriver) -> None:
        """Let a worker without stages be used again."""
        worker = self.workers.get(far.where)
        if worker is None or far.number not in worker.stages:
            return
        worker.left(far)
        if not worker.stages and not worker.over:
            if worker.place.group is not None and self._groups.get(worker.place.group) is worker:
                del self._groups[worker.place.group]
            self._idle.append(worker)
            if len(self._idle) > cores():
                self._idle.popleft().link.tell("exit")

    # -- links --------------------------------------------------------------------------------------------------------

    def link(self, where: int) -> Link:
        """Return the link to a worker; to one that has ended, a link that leads nowhere."""
        found = self.links.get(where)
        if found is None:
            found = Link(self, where)
            found.shut = True
        return found

    def closed(self, link: Link) -> None:
        """Take note that a worker says nothing more: it has ended, or will at once."""
        worker = self.workers.get(link.peer)
        if worker is not None and worker.process.poll() is None:
            self.loop.call_later(KILL_SECONDS, worker.kill)

    def _publish(self, *what: Any) -> None:
        for worker in self.workers.values():
            worker.link.tell("names", *what)

    def _on_connect(self, link: Link, where: int) -> None:
        """Join two workers by a link of their own."""
        other = self.workers.get(where)
        if other is None or other.over:
            link.tell("lost", where, self._lost.get(where), {})
            return
        pair = frozenset((link.peer, where))
        if pair in self._joined:
            return  # the other has asked as well
        self._joined.add(pair)
        one, two = socket.socketpair()
        link.pass_on(("linked", where), one.detach())
        other.link.pass_on(("linked", link.peer), two.detach())

    # -- what workers tell --------------------------------------------------------------------------------------------

    def _far(self, number: int) -> FarDriver | None:
        found = self.known.get(number)
        return found if isinstance(found, FarDriver) else None

    def _on_started(self, link: Link, number: int, error: BaseException | None) -> None:  # noqa: ARG002
        far = self._far(number)
        if far is not None:
            far.came_up(error)

    def _on_ended(self, link: Link, number: int, reason: Any, numbers: Any, *how: Any) -> None:  # noqa: ARG002
        far = self._far(number)
        if far is not None:
            far.core.statistics = numbers
            completed, follows, failure, told = how
            if told:  # it was one of ours that comes back
                reason = next((each for each in far.told_to_end if short(each) == short(reason)), reason)
            far.ended(reason, completed=completed, follows=follows, failure=failure)

    def _on_beat(self, link: Link, news: dict[int, tuple[Any, tuple[Any, ...]]]) -> None:
        worker = self.workers.get(link.peer)
        if worker is not None:
            now = self.loop.time()
            for far in worker.stages.values():
                far.heard = now
        for number, (statistics, at) in news.items():
            found = self._far(number)
            if found is not None and found.core.state != "ended":
                found.core.statistics, found.at = statistics, at

    def _on_report(self, link: Link, error: Exception) -> None:  # noqa: ARG002 (a listener's form)
        self.node.report(error)

    def _on_bury(self, link: Link, letter: Any, token: int) -> None:
        self.node.bury(letter, lambda: link.tell("kept", token))

    def _on_log(self, link: Link, record: logging.LogRecord) -> None:  # noqa: ARG002 (a listener's form)
        logging.getLogger(record.name).handle(record)

    def _on_warning(self, link: Link, message: Any, category: Any, filename: str, lineno: int) -> None:  # noqa: ARG002
        try:
            warnings.warn_explicit(message, category, filename, lineno)
        except Warning as error:  # it is one here
            self.node.report(error)

    # -- ends ---------------------------------------------------------------------------------------------------------

    def lost(self, worker: Worker, reason: WorkerLostError, spans: dict[int, board.Held]) -> None:
        """Take note that a worker has ended, whatever for, and tell all others."""
        del self.workers[worker.number]
        if worker in self._idle:
            self._idle.remove(worker)
        if worker.place.group is not None and self._groups.get(worker.place.group) is worker:
            del self._groups[worker.place.group]
        lost = [far.name for far in worker.stages.values() if far.killed is None]
        if lost:
            logger.error("%s; it ran %s", reason, ", ".join(map(repr, lost)))
        for other in self.workers.values():
            other.link.tell("lost", worker.number, reason, spans)
        self._joined = {pair for pair in self._joined if worker.number not in pair}
        self.node_lost(worker.number, reason, spans)

    def drain(self) -> None:
        """Let the stages of all workers end in order."""
        for worker in self.workers.values():
            worker.link.tell("drain")

    async def close(self) -> None:
        """Let all workers exit; those that do not are killed."""
        workers = list(self.workers.values())
        for worker in workers:
            worker.link.tell("exit")
        if workers:
            _, late = await asyncio.wait([each.gone for each in workers], timeout=EXIT_SECONDS)
            if late:
                self.kill()
                await asyncio.wait(late)

    def kill(self) -> None:
        """End all workers at once."""
        for worker in list(self.workers.values()):
            worker.kill()

    def reap(self) -> None:
        """End all workers at once, and see them end: there will be no loop any more that could."""
        self.kill()
        for worker in list(self.workers.values()):
            worker.exited()
