"""The home node's exchange: it starts worker processes, gives stages to them, and sees to their ends."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headgate.errors import CrossingError, OptionError, WorkerLostError, short
from headgate.runtime import board
from headgate.runtime.exchange import Exchange
from headgate.runtime.far import FarDriver, parts, stripped
from headgate.runtime.link import Link
from headgate.runtime.places import Process, Ray, cores
from headgate.runtime.wire import HINT, check
from headgate.runtime.workers import ProcessWorker, Worker

if TYPE_CHECKING:
    from headgate.runtime.detour import Detour
    from headgate.runtime.node import Node
    from headgate.runtime.options import Child
    from headgate.runtime.ray_place import Cluster
    from headgate.runtime.tcp import Line

logger = logging.getLogger("headgate")

EXIT_SECONDS = 2.0
"""How long a worker may take to exit, when all its stages have ended, before it is killed."""


class Hub(Exchange):
    """The exchange of the node that all others are started from."""

    def __init__(self, node: Node) -> None:
        """Begin without workers."""
        super().__init__(node, 0)
        self.workers: dict[int, Worker] = {}
        self.secret = secrets.token_bytes(32)
        self.cluster: Cluster | None = None
        self._groups: dict[tuple[str, str], Worker] = {}
        self._idle: deque[Worker] = deque()
        self._numbers = 0
        self._joined: set[frozenset[int]] = set()
        node.publish = self._publish

    # -- starting a stage ---------------------------------------------------------------------------------------------

    def driver(self, child: Child) -> FarDriver:
        """Return what stands for a stage that is to run in a worker."""
        place = child.place
        if isinstance(place, Process) and not hasattr(socket, "AF_UNIX"):
            raise OptionError(child.where, "place", "a place in this process, on a system like this", place)
        if not isinstance(place, (Process, Ray)):
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

    def _worker(self, place: Process | Ray) -> Worker:
        """Return a worker for one more stage."""
        group = None if place.group is None else (place.word, place.group)
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

    def _spawn(self, place: Process | Ray) -> Worker:
        self._numbers += 1
        worker: Worker
        if isinstance(place, Process):
            worker = ProcessWorker(self, self._numbers, place)
        else:
            from headgate.runtime.ray_place import Cluster, RayWorker  # noqa: PLC0415 (only for those who use it)

            self.cluster = self.cluster or Cluster(self)
            worker = RayWorker(self, self._numbers, place, self.cluster)
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
            self._ungroup(worker)
            self._idle.append(worker)
            worker.rest()
            if len(self._idle) > cores():
                self.retire(self._idle[0])

    def _ungroup(self, worker: Worker) -> None:
        self._groups = {group: each for group, each in self._groups.items() if each is not worker}

    def retire(self, worker: Worker) -> None:
        """Let a worker end that has been without stages for a while."""
        if worker in self._idle:
            self._idle.remove(worker)
            worker.exit()

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
        if worker is not None:
            worker.closed()

    def line(self, peer: int) -> Line | None:
        """Return the line to a worker that wants to come in."""
        worker = self.workers.get(peer)
        return None if worker is None or worker.over else worker.link.line

    def _publish(self, *what: Any) -> None:
        for worker in self.workers.values():
            worker.link.tell("names", *what)

    def _on_monitor_for(self, link: Link, peer: int, number: int) -> None:  # noqa: ARG002 (a listener's form)
        """Tell a node of the end of a stage whose own node has forgotten it."""
        self._on_monitor(self.link(peer), number)

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
        asking = self.workers[link.peer]
        if not asking.distant and not other.distant:
            one, two = socket.socketpair()
            link.pass_on(("linked", where), one.detach())
            other.link.pass_on(("linked", link.peer), two.detach())
            return
        door, dialler = (other, asking) if other.distant else (asking, other)
        door.reached(lambda: self._dial(dialler, door))

    def _dial(self, dialler: Worker, door: Worker) -> None:
        """Let a worker connect to another one's door."""
        secret = None if dialler.distant else self.secret  # it has it, and it never goes over a network

        def dial(detour: Detour | None) -> None:
            dialler.link.tell("dial", door.number, door.address, secret, detour)

        if self.cluster is not None and self.cluster.walled(dialler, door):
            self.node.job(self._bridge(dialler, door, dial), "detour")
        else:
            dial(None)

    async def _bridge(
        self, one: Worker | None, two: Worker, then: Callable[[Detour | None], None], why: str | None = None
    ) -> None:
        """Make another way from one worker (None: from home) to another, and go on with it; None: there is none."""
        assert self.cluster is not None  # noqa: S101 (one of them is there)
        try:
            detour = await self.cluster.bridge(one, two, why)
        except Exception as error:  # noqa: BLE001 (whatever Ray raises)
            logger.error("%s cannot be reached from %s by Ray's calls either: %s", two, one or "home", error)  # noqa: TRY400
            detour = None
        then(detour)

    def seek_detour(self, line: Line) -> None:
        """Make another way to a worker."""
        worker = self.workers.get(line.link.peer)
        if worker is not None:
            self.node.job(self._bridge(None, worker, line.take, str(line.error)), "detour")

    def _on_stranded(self, link: Link, where: int, why: str) -> None:
        """Make another way from one worker to another."""
        worker = self.workers.get(where)
        if worker is not None:  # else that is told by itself
            asking = self.workers[link.peer]
            self.node.job(self._bridge(asking, worker, lambda it: link.tell("detour", where, it), why), "detour")

    def _on_up(self, link: Link, *where: Any) -> None:
        """Know where a worker on another machine can be reached."""
        worker: Any = self.workers.get(link.peer)
        if worker is not None:
            worker.up(*where)

    def _on_unreachable(self, link: Link, where: int, how: str) -> None:
        """End a worker that another one cannot reach: what was between them would wait for ever."""
        worker = self.workers.get(where)
        if worker is not None:
            logger.error("worker %d cannot be reached by worker %d: %s", where, link.peer, how)
            worker.kill()

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
        self._ungroup(worker)
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
            worker.exit()
        if workers:
            _, late = await asyncio.wait([each.gone for each in workers], timeout=EXIT_SECONDS)
            if late:
                self.kill()
                await asyncio.wait(late)
        if self.cluster is not None:
            await self.cluster.leave()

    def kill(self) -> None:
        """End all workers at once."""
        for worker in list(self.workers.values()):
            worker.kill()
        if self.cluster is not None:
            self.cluster.close()

    def reap(self) -> None:
        """End all workers at once, and see them end: there will be no loop any more that could."""
        self.kill()
        for worker in list(self.workers.values()):
            worker.exited()
