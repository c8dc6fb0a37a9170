"""Routes: where the messages of one pipeline become those of another, and are acknowledged by that one."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headgate.types import ACKNOWLEDGED, FAILED, Message, Source

if TYPE_CHECKING:
    from headgate.pipeline.run import Run

WAITING = 1000
"""Messages that may wait in a route before the pipeline above fetches no more."""


class Route(Source):
    """The source of a pipeline that goes on with the messages of another one.

    A message of the upper pipeline ends as the one that the lower pipeline gets for it does.

    Args:
        pipeline: The id of the upper pipeline.
        name: The route's name there: `Message.put_batcher` chooses it.
    """

    redelivers = True
    keeps_letters = True

    def __init__(self, pipeline: str, name: str) -> None:
        """Begin with nothing; the upper pipeline may start before or after the lower one."""
        self.name = f"{pipeline}.{name}"
        self._run: Run | None = None
        self._line: deque[Message] = deque()
        self._over = False
        self._open = False  # there is somebody below

    # -- the upper side -----------------------------------------------------------------------------------------------

    def connect(self, run: Run) -> Route:
        """Belong to a run of the upper pipeline; what an earlier run has left was given back by that."""
        self._run = run
        self._line.clear()
        self._over = False
        return self

    @property
    def blocks(self) -> bool:
        """Whether the upper pipeline is to fetch no more."""
        return len(self._line) >= WAITING

    def add(self, messages: list[Message]) -> None:
        """Take in messages that the upper pipeline has processed."""
        self._over = False
        self._line.extend(messages)
        self.hand_back()
        if self.blocks and self._run is not None:
            self._run.gate()
        self.wake()

    def hand_back(self) -> None:
        """Give back what waits, if the upper pipeline comes to its end and nobody below will ever fetch it."""
        if self._run is not None and self._run.draining and not self._open:
            while self._line:
                self._run.give_back(self._line.popleft())

    def upstream_over(self) -> None:
        """Take note that nothing more comes, unless something goes back."""
        if not self._over:
            self._over = True
            self.wake()

    # -- the lower side -----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Take note that there is somebody below."""
        self._open = True

    def close(self) -> None:
        """Take note that there is nobody below any more."""
        self._open = False
        self.hand_back()

    def fetch(self, count: int) -> list[Message] | None:
        """Hand out messages."""
        line = self._line
        if not line:
            return None if self._over else []
        taken: list[Message] = []
        while line and len(taken) < count:
            above = line.popleft()
            if above.outcome is not None:
                continue
            made = Message(above.data, above.metadata, above.key, receipt=above, deliveries=above.deliveries)
            made.deadline = above.deadline
            taken.append(made)
        if self._run is not None:
            self._run.gate()
        return taken

    def ack(self, messages: Sequence[Message]) -> None:
        """Let them be acknowledged above."""
        for message in messages:
            self._settle(message, ACKNOWLEDGED)

    def nack(self, messages: Sequence[Message], delay: float = 0.0, *, counted: bool = True) -> None:
        """Let their source have them again."""
        self._over = False  # they will come again
        if self._run is not None:
            for message in messages:
                self._run.give_back(message.receipt, delay, counted=counted)

    def discard(self, messages: Sequence[Message]) -> None:
        """Let them have failed above."""
        for message in messages:
            message.receipt.reason = message.reason
            self._settle(message, FAILED)

    def dead_letter(self, messages: Sequence[Message]) -> None:
        """Let them be dead letters above."""
        for message in messages:
            above: Message = message.receipt
            above.reason = message.reason
            if self._run is not None and above.outcome is None:
                self._run.bury(above)

    def configure(self, message: Message, options: dict[str, Any]) -> None:
        """Pass it on: the source above may know it."""
        above: Message = message.receipt
        if above.keeper is not None:
            above.keeper.configure(above, options)

    @staticmethod
    def _settle(message: Message, outcome: str) -> None:
        above: Message = message.receipt
        if above.outcome is None and above.keeper is not None:
            above.keeper.settle(above, outcome, 0.0)
