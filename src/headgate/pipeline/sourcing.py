"""The stage that hands out what a feed has: all that it holds is the feed's, so that it may crash and come again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headgate.stage import Producer
from headgate.types import Message

if TYPE_CHECKING:
    from headgate.pipeline.pipeline import Pipeline


class SourceStage(Producer):
    """The stage that hands out what a feed has.

    Args:
        pipeline: Whose.
        index: The number of the feed.
    """

    def __init__(self, pipeline: Pipeline, index: int) -> None:
        """Belong to a feed."""
        self.pipeline = pipeline
        self.index = index
        self.given = 0  # messages that it was to send, in total
        self.latest: list[Message] = []  # those that it was given last
        self.handle_demand = pipeline.current.feeds[index].take  # type: ignore[method-assign]  # one call less

    def started(self) -> None:
        """Take over what a predecessor has left behind."""
        self.run = self.pipeline.current
        self.feed = self.run.feeds[self.index]
        self.feed.take_over(self)
        if self.run.closed:  # it was away when the others were told
            self.stage.finish()

    def handle_demand(self, demand: int) -> list[Message] | None:
        """Hand out messages, at once or later."""
        return self.feed.take(demand)

    def terminate(self, reason: Any) -> None:  # noqa: ARG002 (a callback's form)
        """Leave the feed to a successor."""
        if self.feed.stage is self:
            self.feed.stage = None

    @property
    def owed(self) -> int:
        """How many messages are still owed."""
        return self.stage.demand

    def send(self, messages: list[Message] | None) -> None:
        """Send messages."""
        if messages:
            self.feed.sent = True
            self.given += len(messages)
            self.latest = messages
            self.stage.emit(messages)

    def unsent(self) -> list[Message]:
        """Return what it has not sent, now that it has ended: what waited, and what it was about to send."""
        waited = self.stage.recall()
        missing = self.given - self.stage.statistics().emitted
        fallen = self.latest[-missing:] if missing > 0 else []
        return [message for message in (*waited, *fallen) if message.outcome is None]


def left_behind(stage: SourceStage) -> list[Message]:
    """Take out what a stage that has ended had sent to processors that have ended as well before they were done."""
    out = stage.stage.ref.driver.core.out
    found: list[Message] = []
    for subscriber in () if out is None else (*out.subscribers.values(), *out.closing.values()):
        if not subscriber.address.alive:
            for batch, _, _ in subscriber.unacked():
                found.extend(batch or ())
    return found
