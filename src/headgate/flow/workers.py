"""The stages of a flow: what runs a `Program` somewhere, what collects results, and what counts."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from headgate.flow.exchange import End, Packet, Spread
from headgate.flow.fusing import as_rows
from headgate.flow.graph import AsyncNode
from headgate.flow.operators import Element, failed
from headgate.flow.program import Origin, Program, ProgramSpec, Report, unpack
from headgate.flow.reading import FileRange, read
from headgate.protocol.messages import PRODUCER, Subscription, is_normal
from headgate.protocol.messages import End as Ended
from headgate.stage import Consumer, ProducerConsumer

WORK: Final = "work"
HELD: Final = 200_000
"""Events that a worker may have taken into its own accumulator before it passes that on: their source keeps them."""
LARGEST: Final = 4_000_000
"""About how many keys an accumulator may have before it is passed on."""

TICK: Final = "tick"
FIRE: Final = "fire"


def now() -> float:
    """Return the time: the loop's, where there is one, so that tests can have their own."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()


class _Inputs(ProducerConsumer):
    """What all stages with several inputs have in common: they end when the last of these has."""

    def __init__(self) -> None:
        self._inputs: dict[Subscription, Any] = {}
        self._work: set[int] = set()  # the sources that have not said their last word

    def handle_subscribe(self, role: str, options: Any, peer: Subscription) -> None:
        """Take note of an input."""
        if role == PRODUCER:
            self._inputs[peer] = options.key
            if options.key[0] == WORK:
                self._work.add(options.key[1])
            self.opened(options.key)

    def handle_cancel(self, reason: Ended, peer: Subscription) -> Any:
        """Take note that an input has ended; with the last one, give what is left, and end."""
        key = self._inputs.pop(peer, None)
        if key is None:
            return None
        if self._inputs:
            return self.ended(key)
        if not is_normal(reason.reason):
            return None  # what there is may not be all, and nobody is left to make up for it: the flow ends
        self.stage.finish()
        return [*self.ended(key), *self.done()]

    def opened(self, key: Any) -> None:
        """Take note of an input."""

    def ended(self, key: Any) -> list[Any]:  # noqa: ARG002 (a hook)
        """Return what the end of one input leads to."""
        return []

    def done(self) -> list[Any]:
        """Return what the end of all inputs leads to."""
        return []


class Worker(_Inputs):
    """Runs a program."""

    def __init__(self, spec: ProgramSpec, index: int) -> None:
        """Wait for `started`."""
        super().__init__()
        self._spec = spec
        self._index = index
        self._held = 0
        self._taken: dict[int, int] = {}  # by source: how much of its work is done
        self._readers: dict[FileRange, Iterator[Any]] = {}  # of files that are read bit by bit
        self._program: Program = None  # type: ignore[assignment]  # until it is started

    def started(self) -> None:
        """Make the program where it runs."""
        self._program = self._spec.begin(self._index)

    def opened(self, key: Any) -> None:
        """Let windows know whom to wait for."""
        self._program.opened(_origin(key, now()), now())

    def handle_events(self, events: Any, source: Subscription) -> Any:
        """Do what is to be done with a batch."""
        at = now()
        program = self._program
        key = self._inputs.get(source) or source.terms.key
        if key[0] != WORK:
            for packet in events:
                for each in unpack(packet):
                    program.feed(each.events, Origin(key[0], key[1], each.watermark, each.about, at), at)
            return program.take(at) or None
        size = len(events)
        if type(events) is list and type(events[-1]) is End:
            self._work.discard(events[-1].source)
            events = events[:-1]
        origin = Origin("in", key[1:], None, None, at)
        if len(events):
            if type(events) is list and type(events[0]) is FileRange:
                if not self._read(events, origin, at):
                    return program.take(at) or None
            else:
                program.report.read += len(events)
                program.feed(events, origin, at)
        self._taken[key[1]] = self._taken.get(key[1], 0) + size
        if program.holding is None:
            return program.take(at, done=self._taken) or None
        if len(events):
            self.stage.keep()
            self._held += len(events)
        if self._held and (not self._work or self._held >= HELD or program.holding.size() >= LARGEST):
            self._held = 0
            self.stage.emit(program.flush(at, self._taken), settles=True)
            return None
        return program.take(at) or None

    def _read(self, parts: list[FileRange], origin: Origin, at: float) -> bool:
        """Read ranges; False: there is more of the first, to be read when more is wanted."""
        program = self._program
        for number, part in enumerate(parts):
            bit_by_bit = program.holding is None and part.files.in_pieces(part.path)
            reader = self._readers.pop(part, None) or read(part)
            for batch in reader:
                program.report.read += len(batch)
                program.feed(batch, origin, at)
                if bit_by_bit:
                    self._readers[part] = reader
                    self.stage.again(parts[number:])
                    return False
            program.report.volume += part.stop - part.start
        return True

    def handle_cast(self, message: Any) -> Any:
        """Take note of the time, or fire a trigger by hand."""
        at = now()
        if message[0] == TICK:
            self._program.tick(at)
        else:
            self._program.call(message[1], at)
        return self._program.take(at) or None

    def ended(self, key: Any) -> list[Spread]:
        """Do not wait for that input any more."""
        at = now()
        self._program.ended(_origin(key, at), at)
        return self._program.take(at)

    def done(self) -> list[Spread]:
        """Give what reduces have."""
        at = now()
        self._program.done(at)
        return [*self._program.flush(at, self._taken), *self._program.take(at, last=True)]


def _origin(key: Any, at: float) -> Origin:
    return Origin("in", key[1:], None, None, at) if key[0] == WORK else Origin(key[0], key[1], None, None, at)


class Caller(_Inputs):
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

    def _done(self, task: asyncio.Task[Any]) -> None:
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

    async def handle_cancel(self, reason: Ended, peer: Subscription) -> Any:  # type: ignore[override]
        """Wait for all calls when the last input has ended."""
        last = peer in self._inputs and len(self._inputs) == 1 and is_normal(reason.reason)
        while last and self._line:
            await self._some()
        return super().handle_cancel(reason, peer)

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


class Outlet(_Inputs):
    """Gives the events of packets one by one to whoever subscribes."""

    def handle_events(self, events: list[Packet], source: Subscription) -> list[Any]:  # noqa: ARG002
        """Unpack."""
        if len(events) == 1 and type(events[0].events) is list:
            return events[0].events
        return [event for packet in events for each in unpack(packet) for event in as_rows(each.events)]


class Collector(Consumer):
    """Gives whole batches to a function of the one who runs the flow."""

    def __init__(self, take: Callable[[Any], Any]) -> None:
        """Keep the function."""
        self._take = take

    def handle_events(self, events: list[Packet], source: Subscription) -> None:  # noqa: ARG002
        """Hand over."""
        for packet in events:
            for each in unpack(packet):
                self._take(as_rows(each.events))


class Clerk(Consumer):
    """Takes what workers report."""

    def __init__(self, take: Callable[[Report], Any]) -> None:
        """Keep the function."""
        self._take = take

    def handle_events(self, events: list[Packet], source: Subscription) -> None:  # noqa: ARG002
        """Hand over."""
        for packet in events:
            for report in packet.events:
                self._take(report)
