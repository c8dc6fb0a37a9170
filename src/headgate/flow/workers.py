"""The stages of a flow: what runs a `Program` somewhere, what collects results, and what counts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from headgate.errors import FlowError, short
from headgate.flow.exchange import End, Packet, Spread
from headgate.flow.fusing import as_rows
from headgate.flow.program import Origin, Program, ProgramSpec, Report, unpack
from headgate.flow.reading import FileRange, read
from headgate.protocol.messages import NORMAL, PRODUCER, Subscription, is_normal
from headgate.protocol.messages import End as Ended
from headgate.stage import Consumer, ProducerConsumer

WORK: Final = "work"
HELD: Final = 200_000
"""Events that a worker may have taken into its own accumulator before it passes that on: their source keeps them."""

OUTSIDE: Final = "transient"
"""How workers subscribe to stages that are not the flow's: it ends with them, unless they have come to their end."""

TICK: Final = "tick"
FIRE: Final = "fire"
MISS: Final = "miss"


def now() -> float:
    """Return the time: the loop's, where there is one, so that tests can have their own."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()


class Inputs(ProducerConsumer):
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
        if not is_normal(reason.reason) and peer.terms.cancel == OUTSIDE:
            raise FlowError(
                f"{peer.producer.name!r}, which the flow takes events of, has ended: {short(reason.reason)}"
            )
        if self._inputs:
            return self.ended(key)
        if not is_normal(reason.reason):
            return None  # what there is may not be all, and nobody is left to make up for it: the flow ends
        self.stage.finish()
        return [*self.ended(key), *self.done()]

    def miss(self) -> list[Any]:
        """Take note of inputs that are not there after all, since their stages did not want to run."""
        there = self.stage.subscriptions
        events: list[Any] = []
        for peer in [each for each in self._inputs if each not in there]:
            events += self.handle_cancel(Ended("cancel", NORMAL), peer) or ()
        return events

    def handle_cast(self, message: Any) -> Any:
        """Take what the flow has to say."""
        return self.miss() if message[0] == MISS else None

    def opened(self, key: Any) -> None:
        """Take note of an input."""

    def ended(self, key: Any) -> list[Any]:  # noqa: ARG002 (a hook)
        """Return what the end of one input leads to."""
        return []

    def done(self) -> list[Any]:
        """Return what the end of all inputs leads to."""
        return []


class Worker(Inputs):
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
        if not self._spec.recovers:  # nobody will do it again, so nobody has to keep it
            return program.flush(at, self._taken) if program.holding.full() else program.take(at) or None
        if len(events):
            self.stage.keep()
            self._held += len(events)
        if self._held and (not self._work or self._held >= HELD or program.holding.full()):
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
        if message[0] == MISS:
            return self.miss()
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


class Outlet(Inputs):
    """Gives the events of packets one by one to whoever subscribes.

    Args:
        left: Called with a reason when the last consumer has left, and there is more to come; None: others will come.
    """

    def __init__(self, left: Callable[[Any], None] | None = None) -> None:
        """Begin with nobody."""
        super().__init__()
        self._left = left
        self._consumers = 0

    def handle_subscribe(self, role: str, options: Any, peer: Subscription) -> None:
        """Count consumers."""
        super().handle_subscribe(role, options, peer)
        self._consumers += role != PRODUCER

    def handle_cancel(self, reason: Ended, peer: Subscription) -> Any:
        """See whether that was the last consumer."""
        if peer in self._inputs:
            return super().handle_cancel(reason, peer)
        self._consumers -= 1
        if self._left is not None and self._inputs and not self._consumers:
            self._left(reason.reason)
        return None

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
