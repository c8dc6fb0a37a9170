"""Who failed with what: the counts that the world keeps of deliveries, to compare with those that the protocol says.

They are kept for each producer (one incarnation) and event, and raised when a consumer's handler fails, or is killed,
with a batch that has the event. A producer that delivers at most once, broadcasts, or gives its own event twice (it got
an input again) is not judged.
"""

# ruff: noqa: SLF001 (a white-box test kit)
# pyright: reportPrivateUsage=false
from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from headgate.protocol import messages as m
from headgate.protocol.messages import DeadLetter, is_normal
from headgate.testing.simulation.oracles import Violation

if TYPE_CHECKING:
    from headgate.testing.simulation.world import Edge, Site


class Blame:
    """What handlers failed with, and what was given up.

    Attributes:
        tries: How many handlers have failed with an event, by producer and event.
        last: The batch that the last of them had.
        letters: All dead letters, with the site that wrote them.
        unsafe: Those that are not kept yet: site, event and token.
    """

    def __init__(self) -> None:
        """Start with nothing."""
        self.tries: Counter[tuple[Site, Any]] = Counter()
        self.last: dict[tuple[Site, Any], tuple[int, list[Any]]] = {}
        self.letters: list[tuple[Site, DeadLetter]] = []
        self.unsafe: list[tuple[Site, Any, Any]] = []
        self._number = 0

    def failed(self, site: Site, reason: Any) -> None:
        """Take note that a handler is about to fail, or to be killed for this reason."""
        if site.callback is None or site.callback[0] != m.HANDLE_EVENTS or is_normal(reason):
            return
        batch, edge = site.callback[1]
        self._number += 1
        group = (self._number, list(batch))
        for event in batch:
            self.tries[edge.producer, event] += 1
            self.last[edge.producer, event] = group

    def sent(self, site: Site, message: m.Message) -> None:
        """Compare what is sent with what has failed: apart from others, with the right count, in one piece or less."""
        if not self._judged(site):
            return
        tag, edge, batch = message[:3]
        if tag == m.EVENTS:
            mixed = [event for event in batch if self.tries[site, event]]
            if mixed:
                raise Violation("suspect-joined", f"{edge} was sent {mixed} among others: {list(batch)}")
            return
        counts = {self.tries[site, event] + 1 for event in batch}
        if counts != {message[3]}:
            raise Violation("deliveries", f"{edge} was sent {list(batch)} for the {message[3]}. time, it is {counts}")
        if len({self.last[site, event][0] for event in batch}) > 1:
            raise Violation("suspect-joined", f"{edge} was sent {list(batch)}, which have not failed together")

    def begun(self, site: Site, edge: Edge, batch: Any, deliveries: int) -> None:
        """Compare what the consumer takes the number of a delivery for."""
        producer = edge.producer
        if not self._judged(producer):
            return
        for event in batch:
            count = self.tries[producer, event] + 1
            if count != deliveries:
                raise Violation(
                    "deliveries", f"{site} takes {event} for the {deliveries}. delivery, it is the {count}."
                )

    def buried(self, site: Site, letter: DeadLetter, token: Any) -> None:
        """Check a dead letter: it failed alone, often enough, and is counted right."""
        event = letter.event
        self.unsafe.append((site, event, token))
        if self._judged(site):
            count, most = self.tries[site, event], site.core.out._most
            if letter.deliveries != count or count < most:
                raise Violation("dead-letter", f"{letter} was delivered {count} times, {most} would have been enough")
            handled = site.world.history.handled  # others may have been deferred, and done
            others = [other for other in self.last[site, event][1] if other != event and not handled[other]]
            if others:
                raise Violation("dead-letter", f"{letter} failed with others: {others}")
            if any(site is other and event == before.event for other, before in self.letters):
                raise Violation("dead-letter", f"{letter} came twice")
        self.letters.append((site, letter))

    def dead(self) -> set[Any]:
        """Return the events that were given up."""
        return {letter.event for _, letter in self.letters}

    @staticmethod
    def _judged(site: Site) -> bool:
        out = site.core.out
        return out is not None and out.keeps and out._most is not None and site.orderly and not site.slot.copies
