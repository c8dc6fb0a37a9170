"""What becomes of messages that have failed: tried again right here, back to their source, or a dead letter."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from headgate.errors import HandlerError, HandlerTimeoutError, HookError, Reject, Retry, WorkerLostError
from headgate.pipeline.handling import same
from headgate.pipeline.options import DEAD_LETTER, DISCARD, REQUEUE
from headgate.pipeline.processing import THROUGH
from headgate.protocol.children import Backoff
from headgate.protocol.messages import DeadLetter
from headgate.protocol.retries import Retries
from headgate.types import DEAD_LETTERED, FAILED, Joint, Message

if TYPE_CHECKING:
    from headgate.pipeline.acknowledger import Acknowledger
    from headgate.pipeline.by_hand import HandBooks
    from headgate.pipeline.feed import Feed
    from headgate.pipeline.pipeline import Pipeline
    from headgate.runtime.node import Node

logger = logging.getLogger("headgate")

SIGNAL_TRIES: Final = 10
"""How often a handler may ask for a retry by `Retry` where no policy says how often."""
_SIGNALLED: Final = Backoff(first=0.05, most=10.0)
_LOG_SECONDS: Final = 1.0
_FINAL: Final = (Reject, WorkerLostError)
"""Who is not to be tried again: a message under which several workers have died would kill more of them."""


class Failures:
    """The part of a `Run` that decides about messages that have failed.

    Attributes:
        failing: Messages that are given up, about which nothing is decided yet.
        waiting: Messages that wait to be tried again, with their timers.
        retried: How often one was tried again, in total.
        letters: Dead letters, in total.
    """

    pipeline: Pipeline
    node: Node
    loop: asyncio.AbstractEventLoop
    random: Any
    serial: Callable[[Message], Any] | None
    outlets: dict[str, Any]
    ending: bool
    unusual: bool
    by_hand: HandBooks

    def __init__(self) -> None:
        """Start without any."""
        self.failing = 0
        self.waiting: dict[Message, asyncio.TimerHandle] = {}
        self.retried = 0
        self.letters = 0
        self._logged = -_LOG_SECONDS
        self._unlogged = 0

    if TYPE_CHECKING:  # of the rest of the run

        def report(self, error: Exception) -> None: ...  # noqa: D102
        def leave(self, messages: list[Message]) -> None: ...  # noqa: D102
        def acknowledge(self, messages: list[Message]) -> None: ...  # noqa: D102
        def give_back(self, message: Message, delay: float = 0.0, *, counted: bool = False) -> None: ...  # noqa: D102
        def books(self, message: Message) -> Acknowledger | None: ...  # noqa: D102
        def feed_of(self, message: Message) -> Feed: ...  # noqa: D102
        def check_end_soon(self) -> None: ...  # noqa: D102

    def fail(self, messages: list[Message], retries: Retries | None, where: Any = None) -> None:
        """See to messages that a handler has failed with: they are tried again, or given up.

        Args:
            messages: Their ``reason`` says why.
            retries: What is tried again.
            where: The step or batcher.
        """
        final: list[Message] = []
        for message in messages:
            if message.outcome is not None or message in self.waiting:  # it was sent twice, and has failed twice
                continue
            message.attempts += 1
            delay = self._delay(message, retries)
            if delay is None or self.ending:
                final.append(message)
            else:
                self._try_again(message, delay, retries, getattr(where, "number", 0))
        if final:
            self.give_up(final, where)

    def _delay(self, message: Message, retries: Retries | None) -> float | None:
        """Return the seconds to wait before a message is tried again; None: it is given up."""
        reason = message.reason
        if isinstance(reason, _FINAL) or (isinstance(reason, HandlerTimeoutError) and reason.callback == "deadline"):
            return None
        error = reason if isinstance(reason, Exception) else RuntimeError(reason)
        delay = None if retries is None else retries.decide(error, message.attempts, self.random.random())
        if isinstance(reason, Retry):
            policy = None if retries is None else retries.policy(error)
            tries = SIGNAL_TRIES if policy is None else policy.attempts
            if tries is not None and message.attempts >= tries:
                return None
            if reason.after is not None:
                return max(0.0, reason.after)
            return _SIGNALLED.delay(message.attempts, self.random.random()) if delay is None else delay
        return delay

    def retry_batch(self, messages: list[Message], error: BaseException, retries: Retries | None) -> float | None:
        """Return the seconds to wait before a batch is tried again; None: it is not."""
        attempts = 0
        for message in messages:
            message.attempts += 1
            attempts = max(attempts, message.attempts)
        probe = Message(None)
        probe.reason, probe.attempts = error, attempts
        return None if self.ending else self._delay(probe, retries)

    def _try_again(self, message: Message, delay: float, retries: Retries | None, step: int) -> None:
        self.retried += 1
        if step:
            message.step = step
            self.unusual = True
        error = message.reason if isinstance(message.reason, Exception) else RuntimeError(message.reason)
        policy = None if retries is None else retries.policy(error)
        if self.serial is not None and policy is not None and not policy.ordered:
            self.leave([message])
        self.waiting[message] = self.loop.call_later(delay, self._go, message)

    def _go(self, message: Message) -> None:
        del self.waiting[message]
        if message.outcome is None:
            message.reason = None
            message.owner = None
            self.feed_of(message).put_back([message])
        self.check_end_soon()

    def give_up(self, messages: list[Message], where: Any = None) -> None:
        """Ask ``handle_failed`` about messages that have failed for good, and settle them."""
        hook = self.pipeline.failure_hook
        self.failing += len(messages)
        if hook is None:
            self._dispose(messages, where)
            return
        span = self.pipeline.span("pipeline.handle_failed", messages=list(messages))
        try:
            value = hook(messages)
            if asyncio.iscoroutine(value):
                self.node.job(self._await_hook(value, messages, where, span), "handle_failed")
                return
        except Exception as error:  # noqa: BLE001 (the user's hook)
            self._hook_raised(error, span)
        else:
            self._hook_returned(messages, value, span)
        self._dispose(messages, where)

    async def _await_hook(self, coroutine: Any, messages: list[Message], where: Any, span: Any) -> None:
        try:
            value = await coroutine
        except Exception as error:  # noqa: BLE001 (the user's hook)
            self._hook_raised(error, span)
        else:
            self._hook_returned(messages, value, span)
        self._dispose(messages, where)

    def _hook_raised(self, error: Exception, span: Any) -> None:
        if span is not None:
            span.fail(error)
        self.report(HookError("handle_failed", self.pipeline.id, error))

    def _hook_returned(self, messages: list[Message], value: Any, span: Any) -> None:
        if span is not None:
            span.stop()
        if value is None:
            return
        if not same(messages, value):
            expected = f"the {len(messages)} messages that it was given, or None"
            self.report(HandlerError(self.pipeline.id, "handle_failed", expected, value))

    def _dispose(self, messages: list[Message], where: Any) -> None:
        self.failing -= len(messages)
        for message in messages:
            if message.outcome is not None:  # somebody has settled it
                continue
            if message.reason is None:  # the hook has taken the failure back
                self._recovered(message, where)
            else:
                self._settle_failed(message, where)
        if self.serial is not None:
            self.leave(messages)
        self.check_end_soon()

    def _recovered(self, message: Message, where: Any) -> None:
        if self.serial is not None:
            self.leave([message])
        outlet = self.outlets.get(message.batcher)
        if outlet is None or outlet is where:
            self.acknowledge([message])
        else:
            outlet.add([message])

    def _settle_failed(self, message: Message, where: Any) -> None:
        """Decide what becomes of one message."""
        books, pipeline = self.books(message), self.pipeline
        if books is None or message.keeper is None:
            return
        config = books.configured.get(origin(message), {})
        wish = config.get("on_failure", DISCARD if books is self.by_hand else pipeline.on_failure)
        expired = isinstance(message.reason, HandlerTimeoutError) and message.reason.callback == "deadline"
        source = books.link.source
        if (isinstance(message.reason, _FINAL) and wish != DISCARD) or (
            wish == REQUEUE and (expired or not source.redelivers)  # late it would be every time
        ):
            wish = DEAD_LETTER
        elif wish not in (DISCARD, DEAD_LETTER, REQUEUE):
            most = source.max_deliveries or pipeline.max_deliveries
            given_up = not source.redelivers or message.deliveries >= most or expired
            wish = DEAD_LETTER if given_up else REQUEUE
        if wish == DISCARD:
            self._note_failure(message, where, "it is discarded")
            message.keeper.settle(message, FAILED, 0.0)
        elif wish == REQUEUE:
            self._note_failure(message, where, "it is handed out again")
            delay = config.get("delay")  # without one it waits, longer each time: else it might come round and round
            if delay is None:
                delay = pipeline.redelivery.delay(message.deliveries, self.random.random())
            self.give_back(message, float(delay), counted=True)
        else:
            self._bury(message, books, where)

    def bury(self, message: Message) -> None:
        """Keep a message as a dead letter that a pipeline behind this one has given up."""
        books = self.books(message)
        if books is not None:
            self._bury(message, books, None)

    def _bury(self, message: Message, books: Acknowledger, where: Any) -> None:
        """Keep a dead letter: at its source if that has a place for it, and by the pipeline's hook."""
        self.letters += 1
        pipeline = self.pipeline
        consumer = getattr(where, "callback", "handle_message")
        hook = pipeline.dead_letters
        if hook is None and books.link.source.keeps_letters:
            self._note_failure(message, where, "it is a dead letter")
            assert message.keeper is not None  # noqa: S101 (it has books)
            message.keeper.settle(message, DEAD_LETTERED, 0.0)
            return
        letter = DeadLetter(message, pipeline.id, consumer, message.deliveries, message.reason)
        self.failing += 1
        message.owner = THROUGH
        self.node.bury(letter, lambda: self._buried(message), hook)

    def _buried(self, message: Message) -> None:
        self.failing -= 1
        if message.outcome is None and message.keeper is not None:
            message.keeper.settle(message, DEAD_LETTERED, 0.0)
        self.check_end_soon()

    def _note_failure(self, message: Message, where: Any, what: str) -> None:
        """Log a failure, at most one a second: the others are counted."""
        now = self.loop.time()
        if now - self._logged < _LOG_SECONDS:
            self._unlogged += 1
            return
        more = f" ({self._unlogged} more since the last line)" if self._unlogged else ""
        self._logged, self._unlogged = now, 0
        reason = message.reason
        callback = getattr(where, "callback", "handler")
        trace = reason if isinstance(reason, BaseException) else None
        text = "pipeline %r: %s has failed with %r: %s; %s%s"
        logger.warning(text, self.pipeline.id, callback, message, reason, what, more, exc_info=trace)


def origin(message: Message) -> Message:
    """Return the message of a source that a derived one was made of; of several, the first."""
    while isinstance(message.keeper, Joint):
        message = message.keeper.parents[0]
    return message
