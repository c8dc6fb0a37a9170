"""Handles of messages that are settled later, by whoever holds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from headgate.errors import HandlerTimeoutError
from headgate.pipeline.processing import THROUGH
from headgate.types import ACKNOWLEDGED, DEFERRED, FAILED, REQUEUED, Message

if TYPE_CHECKING:
    from headgate.pipeline.run import Run


class Handle:
    """Settles a deferred message, once. May be used from any thread."""

    __slots__ = ("_message", "_run", "_timer")

    def __init__(self, run: Run, message: Message, timeout: float) -> None:
        """Take the message out of the run's hands."""
        if message.outcome is not None:
            raise RuntimeError(f"Message.defer: expected a message without outcome, it is {message.outcome}")
        self._run = run
        self._message = message
        message.outcome = DEFERRED
        run.deferred.add(self)
        self._timer = run.loop.call_later(timeout, self._expired, timeout)

    def ack(self) -> None:
        """It was handled."""
        self._on_loop(lambda keeper, message: keeper.settle(message, ACKNOWLEDGED, 0.0), ACKNOWLEDGED)

    def fail(self, reason: Any) -> None:
        """It has failed; the source decides what becomes of it."""
        self._on_loop(lambda _, message: self._give_up(message, reason), FAILED)

    def requeue(self, delay: float = 0.0) -> None:
        """Let its source hand it out again, after so many seconds; if that takes nothing back, it has failed."""

        def requeue(_: Any, message: Message) -> None:
            books = self._run.books(message)
            if books is not None and books.link.source.redelivers:
                self._run.give_back(message, delay, counted=True)
            else:
                self._give_up(message, "it was to be requeued, and its source takes nothing back")

        self._on_loop(requeue, REQUEUED)

    def _give_up(self, message: Message, reason: Any) -> None:
        message.reason = "failed" if reason is None else reason
        message.owner = THROUGH  # its handler may not have returned yet: what that says comes too late
        self._run.give_up([message])

    @property
    def open(self) -> bool:
        """Whether the message has no outcome yet."""
        return self._message.outcome == DEFERRED

    def forget(self) -> None:
        """Have nothing to settle any more."""
        self._timer.cancel()
        self._run.deferred.discard(self)

    def cancel(self) -> None:
        """Leave it to others."""
        self.forget()
        if self.open:
            self._message.outcome = None

    def _expired(self, timeout: float) -> None:
        if self in self._run.deferred and self.open:
            self.fail(HandlerTimeoutError(self._run.pipeline.id, "the deferred acknowledgement", timeout))

    def _on_loop(self, change: Callable[[Any, Message], None], outcome: str) -> None:
        if not self._run.here():
            self._run.loop.call_soon_threadsafe(self._on_loop, change, outcome)
            return
        message = self._message
        keeper = message.keeper
        assert keeper is not None  # noqa: S101 (it could be deferred)
        if self not in self._run.deferred or not self.open:
            keeper.duplicate(message, outcome)
            return
        self.cancel()
        change(keeper, message)
        self._run.check_end_soon()
