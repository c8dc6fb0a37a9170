# mypy: disable-error-code="var-annotated"
"""Ferries of one process, and calls between them that behave as Ray's do: they take their time, do not keep the order
(but for the pieces of a generator), hand on copies of what they are given, and fail when the other one has died.
"""

import asyncio
import random

from headgate.runtime.detour import key_of
from headgate.runtime.ferry import Ferry


class DeadError(Exception):
    """What calls of the dead raise."""


class Wires:
    """All ferries, by machine, and what is known of the calls between them."""

    def __init__(self, seed=0, delay=0.001):
        self.random = random.Random(seed)
        self.delay = delay
        self.ferries = {}
        self.pieces = []  # sizes of what was carried
        self.kept = self.most = 0  # bytes that were given by a generator and not taken yet

    def ferry(self, machine, secret, real=None):
        """Start a ferry; ``real``: the ports behind those that are known to others."""
        ferry = Standing(machine, key_of(secret))
        ferry.real = real or {}
        called = self.ferries[machine] = Called(self, ferry)
        return called

    async def kill(self, machine):
        """Let a ferry die, as a process does."""
        called = self.ferries.pop(machine)
        called.died.set()
        await called.ferry.close()


class Standing(Ferry):
    real = {}  # noqa: RUF012 (none)

    async def open(self, machine, name, address):
        return await super().open(machine, name, self.real.get(tuple(address), address))


class Called:
    """A ferry, as it is called: see `headgate.runtime.ray_ferry.Called`."""

    def __init__(self, wires, ferry):
        self.wires = wires
        self.ferry = ferry
        self.died = asyncio.Event()
        self.tasks = set()

    async def _there(self):
        await asyncio.sleep(self.wires.random.random() * self.wires.delay)
        if self.died.is_set():
            raise DeadError("it has died")

    def _send(self, method, *args):
        async def call():
            await self._there()
            method(*args)

        task = asyncio.ensure_future(call())
        self.tasks.add(task)
        task.add_done_callback(self._sent)

    def _sent(self, task):
        self.tasks.discard(task)
        if not task.cancelled():
            task.exception()  # nobody looks at it

    async def listen(self):
        await self._there()
        return self.ferry.listen()

    async def meet(self, machine, other):
        await self._there()
        self.ferry.meet(machine, other)

    async def open(self, machine, name, address):
        await self._there()
        answer = await self.ferry.open(machine, name, address)
        await self._there()
        return answer

    async def flow(self, name):
        """Run the generator by itself, as far ahead as it likes: nobody but the ferries holds it back."""
        given = asyncio.Queue()

        async def give():
            async for piece in self.ferry.flow(name):
                self.wires.pieces.append(len(piece))
                self.wires.kept += len(piece)
                self.wires.most = max(self.wires.most, self.wires.kept)
                given.put_nowait(bytes(piece))
            given.put_nowait(None)

        giving = asyncio.ensure_future(give())
        dying = asyncio.ensure_future(self.died.wait())
        self.tasks |= {giving}
        giving.add_done_callback(self._sent)
        try:
            while True:
                getting = asyncio.ensure_future(given.get())
                await asyncio.wait([getting, dying], return_when=asyncio.FIRST_COMPLETED)
                if not getting.done():
                    getting.cancel()
                    raise DeadError("it has died")
                piece = getting.result()
                if piece is None:
                    return
                await asyncio.sleep(self.wires.random.random() * self.wires.delay)
                yield piece
                self.wires.kept -= len(piece)
        finally:
            dying.cancel()

    def got(self, name, total):
        self._send(self.ferry.got, name, total)

    def drop(self, name):
        self._send(self.ferry.drop, name)
