"""The stage that calls async functions: it waits for many answers at a time, on the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from headgate.flow.exchange import End, Spread
from headgate.flow.fusing import as_rows
from headgate.flow.graph import AsyncNode
from headgate.flow.operators import Element, failed
from headgate.flow.program import Origin, Program, ProgramSpec, unpack
from headgate.flow.workers import MISS, WORK, Inputs, now
from headgate.protocol.messages import NORMAL, Subscription, is_normal
from headgate.protocol.messages import End as Ended


class Caller(Inputs):
    """Calls an async function for each event, so many at a time; then runs a program on what comes of it."""

    def __init__(self, node: AsyncNode, spec: ProgramSpec) -> None:
        """Wait for `started`."""
        super().__init__()
        self._node = node
        self._spec = spec
        self._program = spec.begin(0)
        self._line: deque[asyncio.Task[Any]] = deque()
        self._next = 0.0  # when the next call may begin
        self._wake = asyncio.Event()
        self._error: BaseException | None = None

    async def handle_events(self, events: Any, source: Subscription) -> None:
        """Begin a call for each event, as soon as there is room for it."""
        key = self._inputs.get(source) or source.terms.key
        batches = [events] if key[0] == WORK else [each.events for packet in events for each in unpack(packet)]
        for batch in batches:
            if type(batch) is list and batch and type(batch[-1]) is End:
                batch = batch[:-1]  # noqa: PLW2901
            for event in as_rows(batch):
                while len(self._line) >= self._node.concurrency:
                    await self._some()
                await self._pace()
                self._begin(event)
        if self._error is not None:
            raise self._error

    async def _pace(self) -> None:
        if self._node.rate is None:
            return
        loop = asyncio.get_running_loop()
        wait = self._next - loop.time()
        self._next = max(self._next, loop.time()) + 1 / self._node.rate
        if wait > 0:
            await asyncio.sleep(wait)

    def _begin(self, event: Any) -> None:
        element = self._node.element
        assert element is not None  # noqa: S101 (checked when it was built)
        task = asyncio.get_running_loop().create_task(_call(element, event, self._program))
        self._line.append(task)
        task.add_done_callback(self._done)

    def _done(self, _: asyncio.Task[Any]) -> None:
        self._wake.set()

    async def _some(self) -> None:
        """Wait until a call is through, and send on what can be sent."""
        if not self._collect():
            self._wake.clear()
            await self._wake.wait()
            self._collect()
        if self._error is not None:
            raise self._error

    def _collect(self) -> int:
        """Send on what calls have given; return how many were through."""
        line = self._line
        through: list[asyncio.Task[Any]] = []
        if self._node.ordered:
            while line and line[0].done():
                through.append(line.popleft())
        else:
            through = [task for task in line if task.done()]
            self._line = deque(task for task in line if not task.done())
        results: list[Any] = []
        for task in through:
            if task.cancelled():
                continue
            error = task.exception()
            if error is not None:
                self._error = self._error or error
            else:
                results.extend(task.result())
        at = now()
        if results:
            self._program.feed(results, Origin(now=at), at)
        spreads = self._program.take(at)
        if spreads:
            self.stage.emit(spreads)
        return len(through)

    async def handle_cancel(self, reason: Ended, peer: Subscription) -> Any:
        """Wait for all calls when the last input has ended."""
        last = peer in self._inputs and len(self._inputs) == 1 and is_normal(reason.reason)
        while last and self._line:
            await self._some()
        return super().handle_cancel(reason, peer)

    async def handle_cast(self, message: Any) -> Any:
        """Take what the flow has to say; as `Inputs.miss`."""
        if message[0] != MISS:
            return None
        there = self.stage.subscriptions
        events: list[Any] = []
        for peer in [each for each in self._inputs if each not in there]:
            events += await self.handle_cancel(Ended("cancel", NORMAL), peer) or ()
        return events

    def done(self) -> list[Spread]:
        """Give what reduces have."""
        at = now()
        self._program.done(at)
        return self._program.take(at, last=True)

    async def terminate(self, reason: Any) -> None:  # noqa: ARG002 (a callback's form)
        """End the calls that are under way."""
        for task in self._line:
            task.cancel()
        await asyncio.gather(*self._line, return_exceptions=True)


async def _call(element: Element, event: Any, program: Program) -> list[Any]:
    """Call the function, as often as its policy says; return its result, or nothing."""
    for attempt in range(element.retries + 1):
        try:
            return [await element.function(event)]
        except Exception as error:
            if attempt < element.retries:
                continue
            if element.fails == "raise":
                raise failed(element.where, event, error) from error
            program.skipped(element, event, error)
    return []
