"""Messages that are put in by hand, and by tests: where they come from, and who is told how they ended."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from headgate.pipeline.acknowledger import Acknowledger
from headgate.pipeline.link import Link
from headgate.types import OUTCOMES, Message, Source

if TYPE_CHECKING:
    from headgate.pipeline.run import Run


class Nowhere(Source):
    """Where messages come from that are put in by hand: it takes nothing back."""

    name = "by hand"

    def fetch(self, count: int) -> list[Message]:  # noqa: ARG002 (a Source's form)
        """Have nothing."""
        return []


class HandBooks(Acknowledger):
    """The books about messages that are put in by hand: whoever did may wait for their outcome."""

    def __init__(self, run: Run) -> None:
        """Start with empty books."""
        link = Link(Nowhere(), Nowhere.name, run.loop)
        super().__init__(link, run.loop, run.report, run.settled, run.random.random, run.defer)
        self.waiters: dict[Message, asyncio.Future[Message]] = {}

    def acknowledge(self, messages: list[Message]) -> None:
        """Settle messages that were all handled, and tell those who wait."""
        super().acknowledge(messages)
        for message in messages:
            self._inform(message)

    def settle(self, message: Message, outcome: str, delay: float = 0.0, *, counted: bool = True) -> None:
        """Take note of the outcome of one message, and tell whoever waits for it."""
        super().settle(message, outcome, delay, counted=counted)
        self._inform(message)

    def _inform(self, message: Message) -> None:
        future = self.waiters.pop(message, None) if message.outcome in OUTCOMES else None
        if future is not None and not future.done():
            future.set_result(message)
