"""Nodes on a Ray cluster: Ray places and starts an actor for each, and says when it dies; the rest is as everywhere.

An actor is a node: its one call runs what a worker process runs, and returns when that ends. That call is held, and so
its failure tells of the actor's death at once. The actor connects to home (`headgate.runtime.tcp`) with a secret that
it got as an argument of the call, and other nodes are told by home where it listens.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from headgate.errors import OptionError, WorkerLostError
from headgate.runtime.connecting import Address
from headgate.runtime.detour import Detour, key_of
from headgate.runtime.link import Link
from headgate.runtime.ray_ferry import Ferries, start
from headgate.runtime.tcp import Door, Line, Ports
from headgate.runtime.workers import Worker

if TYPE_CHECKING:
    from headgate.runtime.hub import Hub
    from headgate.runtime.places import Ray

logger = logging.getLogger("headgate")

REST_SECONDS: Final = 15.0
"""How long an actor without stages is kept for others."""
AGAIN_SECONDS: Final = 1.0
"""After which Ray is asked again about an actor that it could not reach."""

FERRY_START_SECONDS: Final = 60.0
"""How long it may take to start the ferries of two machines."""
HEARD_SECONDS: Final = 2 * FERRY_START_SECONDS
"""How long an actor waits to be helped home before it ends."""


class Cry(NamedTuple):
    """What an actor says that cannot reach home.

    Attributes:
        machine: What Ray calls its machine.
        host: Its address.
        why: What is in its way; None: it has not even tried, as no port is to be open, or is known to be.
    """

    machine: str
    host: str
    why: str | None


class Node:
    """The actor."""

    def serve(self, paths: list[str], *, ports: Ports, walled: set[str], **terms: Any) -> Cry | None:
        """Be a node until home lets it go.

        Args:
            paths: Where home imports from.
            ports: For `headgate.worker.Guest`.
            walled: Machines that cannot reach home's port.
            **terms: For `Guest` as well.

        Returns:
            None at the end; else the call is to be followed by `resume`.
        """
        import ray  # noqa: PLC0415 (only where it runs)

        sys.path += [path for path in paths if path not in sys.path and os.path.isdir(path)]  # noqa: PTH112 (as they are)
        host = str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
        self._where = ray.get_runtime_context().get_node_id(), host
        self._parent = os.getppid()
        self._unheard: threading.Timer | None = None
        guest = importlib.import_module("headgate.worker").Guest  # by its name: it is above this module
        self._guest = guest(host=host, machine=self._where[0], ports=ports, **terms)
        if ports is False or self._where[0] in walled:
            return self._cry(None)
        return self.resume(None)

    def resume(self, detour: Detour | None) -> Cry | None:
        """Go on, with a way home."""
        if self._unheard is not None:
            self._unheard.cancel()
        why = self._guest.run(detour)
        return None if why is None else self._cry(why)

    def _cry(self, why: str | None) -> Cry:
        """Ask for help. A node that nobody helps must not be left behind."""
        if os.getppid() != self._parent:  # the raylet has died, so nobody can call any more
            os._exit(1)
        self._unheard = threading.Timer(HEARD_SECONDS, os._exit, (1,))
        self._unheard.daemon = True
        self._unheard.start()
        return Cry(*self._where, why)


class Cluster:
    """Ray, as one home uses it. A connection that was made here is ended with the last home that uses it."""

    _lock = threading.Lock()
    _users = 0

    def __init__(self, hub: Hub) -> None:
        """Belong to a home."""
        self._hub = hub
        self._uses = False
        self._doors: dict[bool, Door] = {}  # one for all machines, and one for this one alone
        self._ferries = Ferries(self._ferry)
        self._walls: set[frozenset[str]] = set()  # machines that have no open port for each other
        self._env: dict[str, Any] | None = None
        self.machine = ""

    async def join(self, place: Ray) -> Address:
        """Be connected to the cluster, and let its nodes come in here.

        Returns:
            Where they are to knock.

        Raises:
            OptionError: This program is connected to another cluster.
            Exception: Ray cannot be started, the cluster not be reached, or no port be opened.
        """
        host = await self._hub.loop.run_in_executor(None, self._connect, place)
        self._env = place.runtime_env or self._env
        hidden = place.ports is False
        if hidden not in self._doors:
            self._doors[hidden] = Door(self._hub, host, place.ports)
        return self._doors[hidden].address

    def _connect(self, place: Ray) -> str:
        import ray  # noqa: PLC0415 (it takes a second)

        with self._lock:
            if not ray.is_initialized():
                address = place.address or os.environ.get("RAY_ADDRESS") or "local"
                more: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
                ray.init(address=address, namespace=place.namespace, **more)
                Cluster._users = 0
                self._use()
            elif Cluster._users and not self._uses:
                self._use()
            _compare(place, ray.get_runtime_context().gcs_address)
            self.machine = ray.get_runtime_context().get_node_id()
            return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]

    def _use(self) -> None:
        self._uses = True
        Cluster._users += 1

    async def leave(self) -> None:
        """Let nobody in any more, and end the connection if it was made here and nobody else uses it."""
        await self._hub.loop.run_in_executor(None, self._end, self._shut())
        if self._uses:
            await self._hub.loop.run_in_executor(None, self._leave)

    def _leave(self) -> None:
        import ray  # noqa: PLC0415 (it is loaded)

        with self._lock:
            self._uses = False
            Cluster._users -= 1
            if Cluster._users == 0:
                ray.shutdown()

    def close(self) -> None:
        """Let nobody in any more, and end the ferries."""
        self._end(self._shut())

    def _shut(self) -> list[Any]:
        for door in self._doors.values():
            door.close()
        self._doors = {}
        return self._ferries.close()

    def _end(self, ferries: list[Any]) -> None:
        for ferry in ferries:
            self.kill(ferry.actor)

    # -- ways where ports are closed ----------------------------------------------------------------------------------

    def _machines(self, *workers: Worker | None) -> list[str]:
        return [(each and each.machine) or self.machine for each in workers]

    def walled(self, one: Worker, two: Worker) -> bool:
        """Say whether two nodes need not try to connect."""
        here, there = self._machines(one, two)
        hidden = any(getattr(each.place, "ports", None) is False for each in (one, two))
        return here != there and (hidden or frozenset((here, there)) in self._walls)

    async def bridge(self, one: Worker | None, two: Worker | None, why: str | None) -> Detour | None:
        """Make a way from one node to another (None: home) by Ray's calls.

        Args:
            one: The node that is to connect.
            two: The node that is to be reached.
            why: What is in the way; None: no port is to be open.

        Returns:
            The way; None: they are on the same machine, where there is no other.

        Raises:
            Exception: Whatever Ray raises, or it takes too long.
        """
        here, there = self._machines(one, two)
        if here == there:
            return None
        async with asyncio.timeout(FERRY_START_SECONDS):
            detour = await self._ferries.bridge(here, there)
        pair = frozenset((here, there))
        if why is not None and pair not in self._walls:
            self._walls.add(pair)
            logger.warning(
                "%s cannot reach %s (%s): what goes between these machines is carried by Ray's calls from now on, "
                "which takes some 2 ms more each way and about 100 MB/s at the most; ports= keeps to open ports, "
                "ports=False spares the attempt",
                *("home" if each is None else str(each) for each in (one, two)),
                why,
            )
        return detour

    async def _ferry(self, machine: str) -> Any:
        return await self._hub.loop.run_in_executor(None, start, machine, key_of(self._hub.secret), self._env)

    def launch(self, worker: RayWorker, home: Address) -> tuple[Any, Any]:
        """Let Ray start a node.

        Returns:
            The actor, and the call that is held.
        """
        place = worker.place
        name = None if place.name is None else f"{place.name}-{worker.number}"
        options = {
            "max_restarts": 0,  # supervisors start stages again, and where they like
            "max_task_retries": 0,
            "num_cpus": place.num_cpus,
            "num_gpus": place.num_gpus,
            "memory": place.memory,
            "resources": place.resources,
            "scheduling_strategy": place.scheduling_strategy,
            "runtime_env": place.runtime_env,
            "name": name,
            "namespace": place.namespace if name is not None else None,
        }
        actor = _remote().options(**{key: value for key, value in options.items() if value is not None}).remote()
        terms = {
            "number": worker.number,
            "home": home,
            "secret": self._hub.secret,
            "ports": place.ports,
            "walled": {machine for pair in self._walls for machine in pair if self.machine in pair},
            "max_bytes": place.max_bytes,
            "budget": place.budget,
        }
        return actor, actor.serve.remote([path for path in sys.path if path], **terms)

    def kill(self, actor: Any) -> None:
        """Let Ray end an actor at once."""
        import ray  # noqa: PLC0415 (it is loaded)

        if ray.is_initialized():
            ray.kill(actor, no_restart=True)


class RayWorker(Worker):
    """A node that is an actor on a Ray cluster."""

    distant = True
    at = " on Ray"
    place: Ray

    def __init__(self, hub: Hub, number: int, place: Ray, cluster: Cluster) -> None:
        """Ask for it."""
        super().__init__(hub, number, place)
        self.link = Link(hub, number, local=False, max_bytes=place.max_bytes, budget=place.budget)
        self._line = Line(hub, self.link)
        self._cluster = cluster
        self._actor: Any = None
        self._waiting: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._beginning = hub.node.job(self._begin(), f"start worker {number}")

    async def _begin(self) -> None:
        loop = self.hub.loop
        try:
            home = await self._cluster.join(self.place)
            launched = await asyncio.shield(loop.run_in_executor(None, self._cluster.launch, self, home))
        except Exception as error:  # noqa: BLE001 (whatever Ray raises)
            self._end(f"was not started: {_line_of(error)}", error)
            self._reap()
            return
        self._actor, call = launched
        if self.over:  # meanwhile it is not wanted any more
            self._reap()
            return
        self._timer = loop.call_later(self.place.start_timeout, self._late)
        self._hold(call)

    async def _help(self, cry: Cry) -> None:
        """Make a way home for it."""
        self.machine = cry.machine
        self.at = f" on Ray at {cry.host}"
        if self._timer is not None:  # the cluster has found a place
            self._timer.cancel()
        detour, error = None, None
        try:
            detour = await self._cluster.bridge(self, None, cry.why)
            self._line.detour = await self._cluster.bridge(None, self, cry.why)
        except Exception as wrong:  # noqa: BLE001 (whatever Ray raises)
            error = wrong
        if self.over:
            return
        if cry.why is not None and detour is None:
            also = "" if error is None else f", nor is it by Ray's calls: {_line_of(error)}"
            self._end(f"cannot reach home: {cry.why}{also}", error)
        else:
            self._hold(self._actor.resume.remote(detour))

    def _late(self) -> None:
        wanted = {"num_cpus": self.place.num_cpus, "num_gpus": self.place.num_gpus, "memory": self.place.memory}
        needs = ", ".join(f"{name}={value}" for name, value in (wanted | (self.place.resources or {})).items() if value)
        self._end(
            f"was not started by the cluster within {self.place.start_timeout:g} s (it needs {needs or 'nothing'})"
        )

    def up(self, address: Address, pid: int, machine: str) -> None:
        """Take note that it is there."""
        self.address = self._line.address = address
        if self.machine is None:  # else it has said before where it is
            self.machine = machine
            self.at = f" on Ray at {address[0]}"
        self.pid = pid
        if self._timer is not None:
            self._timer.cancel()
        waiting, self._waiting = self._waiting, []
        for then in waiting:
            then()

    def reached(self, then: Callable[[], None]) -> None:
        """Do something when its address is known."""
        if self.address is not None:
            then()
        else:
            self._waiting.append(then)

    # -- its end ------------------------------------------------------------------------------------------------------

    def _hold(self, call: Any) -> None:
        """Be told by Ray when the actor dies."""
        loop = self.hub.loop

        def over(future: Any) -> None:
            if not loop.is_closed():
                error = future.exception()
                loop.call_soon_threadsafe(self._returned, None if error else future.result(), error)

        call.future().add_done_callback(over)

    def _returned(self, cry: Cry | None, error: BaseException | None) -> None:
        if self.over:
            return
        if cry is not None:
            self.hub.node.job(self._help(cry), f"help worker {self.number}")
            return
        if type(error).__name__ == "ActorUnavailableError":  # Ray has lost sight of it; the link has a sight of its own
            self.hub.loop.call_later(AGAIN_SECONDS, self._again)
            return
        self.link.drain()  # what it has said before it died counts
        self._end("has exited" if error is None else f"has died: {_line_of(error)}", error)

    def _again(self) -> None:
        if not self.over:
            self._hold(self._actor.resume.remote(None))

    def closed(self) -> None:
        """See to its end: its process is gone, or out of reach for too long."""
        if not self._line.leaving:
            self._end(f"is out of reach: {self._line.error}", self._line.error)

    def kill(self) -> None:
        """End it at once."""
        self._end("was ended")

    def exited(self) -> None:
        """Do nothing: it is given up when it is killed."""

    def exit(self) -> None:
        """Let it end in order."""
        if self.address is None:
            self.kill()
        else:
            self._line.leaving = True
            super().exit()

    def rest(self) -> None:
        """Give back what it holds, when no other stage comes soon."""
        self.hub.loop.call_later(REST_SECONDS, self._rested)

    def _rested(self) -> None:
        if not self.over and not self.stages:
            self.hub.retire(self)

    def _end(self, how: str, cause: BaseException | None = None) -> None:
        if self.over:
            return
        self.over = True
        if self._timer is not None:
            self._timer.cancel()
        reason = WorkerLostError(f"worker {self.number}{self.at}", self.pid, how)
        reason.__cause__ = cause
        self.lost(reason, {})
        if self._actor is not None:
            self._reap()

    def _reap(self) -> None:
        """See to it that nothing of it is left."""
        if self._actor is None:
            self._set_gone()
            return
        killing = self.hub.loop.run_in_executor(None, self._cluster.kill, self._actor)
        killing.add_done_callback(lambda _: self._set_gone())

    def _set_gone(self) -> None:
        if not self.gone.done():
            self.gone.set_result(None)


@functools.cache
def _remote() -> Any:
    import ray  # noqa: PLC0415 (it is loaded)

    return ray.remote(Node)


def _compare(place: Ray, connected: str) -> None:
    """Refuse an address that is not the one of the cluster that this program is connected to."""
    wanted = place.address or ""
    if ":" not in wanted:
        return
    if _resolved(wanted) != _resolved(connected):
        expected = f"{connected!r}, as this program is connected to that cluster, or None"
        raise OptionError("Ray", "address", expected, wanted)


def _resolved(address: str) -> tuple[str, str]:
    host, _, port = address.rpartition(":")
    try:
        return socket.gethostbyname(host), port
    except OSError:
        return host, port


def _line_of(error: BaseException) -> str:
    """Return what an error says, in one line."""
    cause = getattr(error, "cause", None)  # what a call on Ray has raised
    shown = cause if isinstance(cause, BaseException) else error
    text = " ".join(str(shown).split())
    return f"{type(shown).__name__}: {text[:300]}"
