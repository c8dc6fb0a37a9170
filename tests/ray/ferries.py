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
        self.tasks = set()  # calls under way
        self.pieces = []  # sizes of what was carried
        self.kept = self.most = 0  # bytes that were given by a generator and not taken yet

    def ferry(self, machine, secret, behind=lambda address: address):
        """Start a ferry; ``behind`` gives the port behind one that is known to others."""
        ferry = Standing(machine, key_of(secret), behind)
        called = self.ferries[machine] = Called(self, ferry)
        return called

    async def close(self):
        """Let all of them die, and calls with them."""
        for machine in list(self.ferries):
            await self.kill(machine)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def kill(self, machine):
        """Let a ferry die."""
        called = self.ferries.pop(machine)
        called.died.set()
        await called.ferry.die()


class Standing(Ferry):
    """A ferry that can die, as a process does: all that it has open is closed."""

    def __init__(self, machine, key, behind):
        super().__init__(machine, key)
        self.behind = behind

    async def die(self):
        for passage in list(self._passages.values()):
            passage.drop()
        for job in list(self._jobs):
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        while self._passages:
            await asyncio.sleep(0)
        if self._listener is not None:
            self._listener.close()

    async def open(self, machine, name, address):
        return await super().open(machine, name, self.behind(tuple(address)))


class Called:
    """A ferry, as it is called: see `headgate.runtime.ray_ferry.Called`."""

    def __init__(self, wires, ferry):
        self.wires = wires
        self.ferry = ferry
        self.died = asyncio.Event()

    async def _there(self):
        await asyncio.sleep(self.wires.random.random() * self.wires.delay)
        if self.died.is_set():
            raise DeadError("it has died")

    def _send(self, method, *args):
        async def call():
            await self._there()
            method(*args)

        task = asyncio.ensure_future(call())
        self.wires.tasks.add(task)
        task.add_done_callback(self._sent)

    def _sent(self, task):
        self.wires.tasks.discard(task)
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
                if piece:
                    self.wires.pieces.append(len(piece))
                self.wires.kept += len(piece)
                self.wires.most = max(self.wires.most, self.wires.kept)
                given.put_nowait(bytes(piece))
            given.put_nowait(None)

        giving = asyncio.ensure_future(give())
        dying = asyncio.ensure_future(self.died.wait())
        self.wires.tasks.add(giving)
        giving.add_done_callback(self._sent)
        try:
            while True:
                getting = asyncio.ensure_future(given.get())
                await asyncio.wait([getting, dying], return_when=asyncio.FIRST_COMPLETED)
                if self.died.is_set():
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
