"""Ferries as Ray's actors: one on each machine that needs one, which home starts and ends; they call each other."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final, Protocol

from headgate.runtime.connecting import Address
from headgate.runtime.detour import Detour
from headgate.runtime.ferry import Ferry

CONNECTIONS: Final = 100_000
"""Calls that may be held of one ferry at once: each connection holds one. Ray's own limit is 1000."""


class Ferryman:
    """The actor."""

    def __init__(self, machine: str, key: bytes) -> None:
        """See `Ferry`."""
        self._parent = os.getppid()
        self._ferry = Ferry(machine, key, self._look)

    def _look(self) -> None:
        """End when the raylet has died: Ray counts this actor as dead, and lets it live on."""
        if os.getppid() != self._parent:
            os._exit(1)

    async def listen(self) -> Address:
        """See `Ferry`."""
        return self._ferry.listen()

    async def meet(self, machine: str, actor: Any) -> None:
        """See `Ferry`."""
        self._ferry.meet(machine, Called(actor))

    async def open(self, machine: str, name: str, address: Address) -> int:
        """See `Ferry`."""
        return await self._ferry.open(machine, name, address)

    async def flow(self, name: str) -> AsyncGenerator[bytes, None]:
        """See `Ferry`."""
        async with contextlib.aclosing(self._ferry.flow(name)) as flow:
            async for piece in flow:
                yield piece

    async def got(self, name: str, total: int) -> None:
        """See `Ferry`."""
        self._ferry.got(name, total)

    async def drop(self, name: str) -> None:
        """See `Ferry`."""
        self._ferry.drop(name)


class Called:
    """A ferryman, as it is called."""

    def __init__(self, actor: Any) -> None:
        """Know its handle."""
        self.actor = actor

    async def listen(self) -> Address:
        """Let nodes of its machine come in; return where."""
        address: Address = await self.actor.listen.remote()
        return address

    async def meet(self, machine: str, other: Called) -> None:
        """Let it know another one."""
        await self.actor.meet.remote(machine, other.actor)

    async def open(self, machine: str, name: str, address: Address) -> int:
        """See `Peer`."""
        answer: int = await self.actor.open.remote(machine, name, address)
        return answer

    async def flow(self, name: str) -> AsyncGenerator[bytes, None]:
        """See `Peer`."""
        async for piece in self.actor.flow.options(num_returns="streaming").remote(name):
            yield await piece

    def got(self, name: str, total: int) -> None:
        """See `Peer`."""
        self.actor.got.remote(name, total)

    def drop(self, name: str) -> None:
        """See `Peer`."""
        self.actor.drop.remote(name)


class Stander(Protocol):
    """A ferry, as home calls it."""

    async def listen(self) -> Address:
        """Let nodes of its machine come in; return where."""
        ...

    async def meet(self, machine: str, other: Any) -> None:
        """Let it know another one."""
        ...


class Ferries:
    """The ferries of one home.

    Args:
        start: Starts one on a machine.
    """

    def __init__(self, start: Callable[[str], Awaitable[Stander]]) -> None:
        """Begin without any."""
        self._start = start
        self._standing: dict[str, asyncio.Future[Stander]] = {}

    async def bridge(self, here: str, there: str) -> Detour:
        """Let nodes of one machine reach those of another.

        Raises:
            Exception: Whatever Ray raises: there can be no ferry.
        """
        (one, address), (two, _) = await asyncio.gather(self._ferry(here), self._ferry(there))
        await asyncio.gather(one.meet(there, two), two.meet(here, one))
        return Detour(address, there)

    async def _ferry(self, machine: str) -> tuple[Stander, Address]:
        """Return the ferry of a machine, which lives, and where it listens."""
        found = self._standing.get(machine)
        if found is not None:
            try:
                ferry = await asyncio.shield(found)
                return ferry, await ferry.listen()
            except Exception:  # noqa: BLE001 (it has died, and another one is needed)
                if self._standing.get(machine) is found:
                    del self._standing[machine]
                return await self._ferry(machine)
        found = self._standing[machine] = asyncio.ensure_future(self._start(machine))
        try:
            ferry = await asyncio.shield(found)
            return ferry, await ferry.listen()
        except Exception:
            if self._standing.get(machine) is found:
                del self._standing[machine]
            raise

    def close(self) -> list[Stander]:
        """Forget them all.

        Returns:
            Those that stand, to be ended.
        """
        standing, self._standing = self._standing, {}
        for each in standing.values():
            each.cancel()
        return [
            each.result() for each in standing.values() if each.done() and not each.cancelled() and not each.exception()
        ]


def start(machine: str, key: bytes, runtime_env: dict[str, Any] | None) -> Called:
    """Let Ray start one on a machine. It holds no resources."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415 (Ray is loaded)

    where = NodeAffinitySchedulingStrategy(machine, soft=False)
    options: dict[str, Any] = {"num_cpus": 0, "max_restarts": 0, "max_concurrency": CONNECTIONS}
    if runtime_env is not None:
        options["runtime_env"] = runtime_env
    return Called(_remote().options(scheduling_strategy=where, **options).remote(machine, key))


@functools.cache
def _remote() -> Any:
    import ray  # noqa: PLC0415 (it is loaded)

    return ray.remote(Ferryman)
