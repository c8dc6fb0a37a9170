"""The port: what a driver lets a core do."""

from __future__ import annotations

from typing import Any, Protocol

from headgate.protocol.messages import DeadLetter, Message, Subscription


class Port(Protocol):
    """What a driver lets the protocol do. Nothing here waits, and nothing calls back into the core."""

    name: str

    def send(self, to: Any, message: Message) -> None:
        """Put a message into somebody's mailbox."""

    def hand(self, to: Any, message: Message) -> None:
        """Send events: `send`, where a driver may take a shorter way into a core that is idle."""

    def ask(self, to: Any, message: Message) -> None:
        """Send an ask: `send`, where a driver may take a shorter way into a core that takes it."""

    def reply(self, token: Any, value: Any, error: BaseException | None) -> None:
        """Answer a call."""

    def subscribed(self, subscription: Subscription, error: BaseException | None) -> None:
        """Say how a subscription that this stage asked for came out."""

    def owe(self) -> None:
        """Call the core's ``flush`` when there is nothing else to do. It may be said twice."""

    def report(self, error: Exception) -> None:
        """Make an error known that does not end the stage."""

    def warn(self, text: str) -> None:
        """Make a doubtful thing known."""

    def shuffle(self, items: list[Any]) -> None:
        """Shuffle in place with seeded random numbers."""

    def spill(self, name: str) -> Any:
        """Open a store outside of memory: ``append(batch)``, ``popleft()``."""

    def lost(self, subscription: Subscription, error: BaseException | None) -> bool:
        """Say whether a subscription comes back by itself, whose producer has ended or (with an error) is missing."""
        ...

    def bury(self, letter: DeadLetter, token: Any) -> None:
        """Keep a dead letter; call the core's ``safe(token)``, later, when it is kept."""

    def ended(self, reason: Any) -> None:
        """Take note that the stage has ended."""
