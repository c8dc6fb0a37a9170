"""The books about one source's messages, and the way back to it: each message is settled once, many at a time.

Outcomes are collected and handed to the source once in a turn of the event loop; while the source is at it (it may be
slow), those of the next turns wait and go together. So acknowledgements come in batches whose size follows from how
fast the source is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from headgate.errors import (
    DuplicateSettlementError,
    LeaseExpiredError,
    OptionError,
    SourceError,
)
from headgate.pipeline.options import ON_FAILURE
from headgate.protocol.children import Backoff
from headgate.runtime.options import check_choice, check_seconds
from headgate.types import ACKNOWLEDGED, DEAD_LETTERED, FAILED, OUTCOMES, REQUEUED, Deferred, Message

if TYPE_CHECKING:
    from headgate.pipeline.link import Link

logger = logging.getLogger("headgate")

TRIES: Final = 5
"""How often a source is told the same outcomes when it raises; then it hands those messages out again by itself."""
MANY: Final = 32
"""So many messages that are acknowledged together do not wait for others."""
EXTEND: Final = 3
"""A lease is extended this often before it would be over."""


class Acknowledger:
    """Keeps the books about the messages of one source.

    Args:
        link: The way to the source.
        loop: The event loop.
        report: Called with each error that does not end anything.
        settled: Called when messages have got their outcome and the source was told, or did not need to be.
        chance: Gives random numbers, 0 to 1.
        defer: Makes the handle of a message that is settled later.

    Attributes:
        fetched: Messages that came, in total.
        outcomes: How many of them ended how.
        in_flight: Those that have no outcome yet.
        duplicates: How often somebody wanted to settle a message that had its outcome.
        expired: Messages whose lease was over when they were settled; they count as requeued.
        failures: How often the source has raised.
        unacknowledged: Messages whose outcome the source could not be told.
    """

    def __init__(
        self,
        link: Link,
        loop: asyncio.AbstractEventLoop,
        report: Callable[[Exception], None],
        settled: Callable[[], None],
        chance: Callable[[], float],
        defer: Callable[[Message, float], Deferred],
    ) -> None:
        """Start with empty books."""
        self._defer = defer
        self.link = link
        self.name = link.name
        self.fetched = 0
        self.outcomes: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
        self.in_flight: dict[Message, None] = {}  # in the order in which they were fetched
        self.duplicates = 0
        self.expired = 0
        self.failures = 0
        self.unacknowledged = 0
        self.release: Callable[[list[Message]], None] | None = None  # lets the next of their keys go
        self.requeued: Callable[[Message], None] | None = None  # what is behind one that goes back, goes back too
        self.returned: Callable[[Sequence[Message]], None] | None = None  # they went back to the source
        self.configured: dict[Message, dict[str, Any]] = {}
        self._loop = loop
        self._report = report
        self._settled = settled
        self._chance = chance
        self._acks: list[Message] = []
        self._others: dict[tuple[str, float, bool], list[Message]] = {}
        self._due = False
        self._job: asyncio.Task[None] | None = None
        self._renewal: asyncio.TimerHandle | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._backoff = Backoff(first=0.1, most=5.0)

    # -- the books ----------------------------------------------------------------------------------------------------

    def take_in(self, messages: list[Message]) -> None:
        """Open the books about messages that were fetched."""
        in_flight = self.in_flight
        for message in messages:
            message.keeper = self
            in_flight[message] = None
        self.fetched += len(messages)
        if self.link.lease is not None and self._renewal is None:
            self._renew_later()

    def acknowledge(self, messages: list[Message]) -> None:
        """Settle messages of this source that were all handled; those that have their outcome are left as they are."""
        in_flight = self.in_flight
        for at, message in enumerate(messages):  # noqa: B007 (how far it came)
            if message.outcome is not None:
                break
            message.outcome = ACKNOWLEDGED
            del in_flight[message]
        else:
            self.acknowledged(messages)
            return
        if at:
            self.acknowledged(messages[:at])
        for message in messages[at:]:
            if message.outcome is None:
                self.settle(message, ACKNOWLEDGED)

    def acknowledged(self, messages: list[Message]) -> None:
        """Take note that messages of this source have just got this outcome; a batch of many is told on at once."""
        self.outcomes[ACKNOWLEDGED] += len(messages)
        if self.link.direct and not self._due and len(messages) >= MANY:
            try:
                lost = self.link.source.ack(messages)
            except Exception as error:  # noqa: BLE001 (the user's source)
                self._due = True
                self._job = self._loop.create_task(self._run([("ack", messages, {})], error, 1))
                return
            if lost:
                self._told("ack", messages, lost)
            if not self.in_flight:
                self._settled()
            return
        self._acks += messages
        if not self._due:
            self._flush_soon()

    def settle(self, message: Message, outcome: str, delay: float = 0.0, *, counted: bool = True) -> None:
        """Take note of the outcome of one message.

        Args:
            message: One of this source's.
            outcome: One of the four.
            delay: Seconds, of a message that is requeued.
            counted: Whether that delivery counts, of a message that is requeued.
        """
        if message.outcome in OUTCOMES:
            self.duplicate(message, outcome)
            return
        message.outcome = outcome
        self.in_flight.pop(message, None)
        self.configured.pop(message, None)
        self.outcomes[outcome] += 1
        if self.release is not None:
            if outcome == REQUEUED and self.requeued is not None:
                self.requeued(message)
            self.release([message])
        if outcome == ACKNOWLEDGED:
            self._acks.append(message)
        else:
            self._others.setdefault((outcome, delay, counted), []).append(message)
        if not self._due:
            self._flush_soon()

    def duplicate(self, message: Message, outcome: str) -> None:
        """Count, and report, that a message was to be settled twice."""
        self.duplicates += 1
        why = f"expected a message without outcome, it was {message.outcome} already and was to be {outcome}"
        self._report(DuplicateSettlementError(self.name, message, why))

    def defer(self, message: Message, timeout: float) -> Deferred:
        """Let a message be settled later."""
        return self._defer(message, timeout)

    def configure(self, message: Message, options: dict[str, Any]) -> None:
        """Take options for one message.

        Raises:
            OptionError: One of them is unknown, or has a wrong value.
        """
        ours: dict[str, Any] = {name: options[name] for name in ("on_failure", "delay") if name in options}
        if "on_failure" in ours:
            check_choice("configure_ack", "on_failure", ours["on_failure"], ON_FAILURE)
        if "delay" in ours:
            check_seconds("configure_ack", "delay", ours["delay"])
        theirs = {name: value for name, value in options.items() if name not in ours}
        if theirs:
            try:
                self.link.source.configure(message, theirs)
            except TypeError as error:
                option, value = next(iter(theirs.items()))
                expected = f"one of on_failure, delay, and those of source {self.name!r} ({error})"
                raise OptionError("configure_ack", option, expected, value) from error
        if ours:
            self.configured.setdefault(message, {}).update(ours)

    def unbalanced(self) -> int:
        """Return by how many the books are out: what came in, less what is in flight and what has ended."""
        return self.fetched - len(self.in_flight) - sum(self.outcomes.values())

    # -- the way back -------------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether the source knows everything."""
        return not self._due and self._job is None

    def _flush_soon(self) -> None:
        self._due = True
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Tell the source; one that answers at once needs no task."""
        if self._job is not None:  # it is still at the last ones: these go when it is through
            return
        if not self.link.direct:
            self._job = self._loop.create_task(self._run(), name=f"headgate: source {self.name}")
            return
        self._due = False
        for method, messages, args in self._take_pending():
            try:
                lost = self.link.call(method, messages, **args)
            except Exception as error:  # noqa: BLE001 (the user's source)
                self._due = True
                self._job = self._loop.create_task(self._run([(method, messages, args)], error, 1))
                continue
            self._told(method, messages, lost)
        self._settled()

    def _take_pending(self) -> Iterable[tuple[str, list[Message], dict[str, Any]]]:
        acks, self._acks = self._acks, []
        others, self._others = self._others, {}
        if acks:
            yield "ack", acks, {}
        for (outcome, delay, counted), messages in others.items():
            if outcome == REQUEUED:
                yield "nack", messages, {"delay": delay, "counted": counted}
            elif outcome == FAILED:
                yield "discard", messages, {}
            elif self.link.source.keeps_letters:
                yield "dead_letter", messages, {}
            else:  # whoever has decided this keeps it; the source is to forget it
                yield "discard", messages, {}

    async def _run(
        self,
        calls: list[tuple[str, list[Message], dict[str, Any]]] | None = None,
        error: Exception | None = None,
        tries: int = 0,
    ) -> None:
        """Tell the source, call by call, until nothing is pending."""
        try:
            while True:
                for method, messages, args in calls or self._take_pending():
                    await self._tell(method, messages, args, error, tries)
                    error, tries = None, 0
                calls = None
                self._settled()
                if not self._acks and not self._others:
                    break
        finally:
            self._job = None
            self._due = False
            if self._acks or self._others:
                self._flush_soon()
        self._settled()

    async def _tell(
        self, method: str, messages: list[Message], args: dict[str, Any], error: Exception | None, tries: int
    ) -> None:
        while True:
            if error is None:
                try:
                    lost = await self.link.acall(method, messages, **args)
                except Exception as raised:  # noqa: BLE001 (the user's source)
                    error = raised
                    tries += 1
                else:
                    self._told(method, messages, lost)
                    return
            self.failures += 1
            self._report(SourceError(self.name, method, error, len(messages)))
            if tries >= TRIES:
                self.unacknowledged += len(messages)
                if self.returned is not None:
                    self.returned(messages)  # when their leases are over
                return
            error = None
            await asyncio.sleep(self._backoff.delay(tries, self._chance()))

    def _told(self, method: str, messages: list[Message], lost: Any) -> None:
        """Take note of those that the source did not know any more, and of what it has again."""
        for message in lost or ():
            self.expired += 1
            if message.outcome in (ACKNOWLEDGED, FAILED, DEAD_LETTERED):
                self.outcomes[message.outcome] -= 1
                self.outcomes[REQUEUED] += 1
                message.outcome = REQUEUED
            why = f"expected {method} before its lease was over; it is handed out again"
            self._report(LeaseExpiredError(self.name, message, why))
        if (lost or (method == "nack" and messages)) and self.returned is not None:
            self.returned(messages)

    # -- leases -------------------------------------------------------------------------------------------------------

    def _renew_later(self) -> None:
        assert self.link.lease is not None  # noqa: S101 (else there is nothing to extend)
        self._renewal = self._loop.call_later(self.link.lease / EXTEND, self._renew)

    def _renew(self) -> None:
        self._renewal = None
        if not self.in_flight:
            return
        self._renew_later()
        if self._renewing is None:
            self._renewing = self._loop.create_task(self._extend(), name=f"headgate: leases of {self.name}")

    async def _extend(self) -> None:
        try:
            await self.link.acall("extend", list(self.in_flight), seconds=self.link.lease)
        except Exception as error:  # noqa: BLE001 (the user's source)
            self.failures += 1
            self._report(SourceError(self.name, "extend", error, len(self.in_flight)))
        finally:
            self._renewing = None

    async def close(self) -> None:
        """Tell the source everything, and extend nothing any more."""
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None
        if self._renewing is not None:
            await asyncio.wait([self._renewing])
        while not self.idle:
            if self._job is not None:
                await asyncio.wait([self._job])
            else:
                await asyncio.sleep(0)
