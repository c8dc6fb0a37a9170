"""One run of a pipeline: what its stages share, and the decisions about messages that have failed.

Messages are counted where they are: fetched and waiting (feeds), in the processors (`Run.in_steps`), waiting to be
tried again, in batches, deferred. When the sources have nothing more and none is left in the processors, open batches
are closed; when none is left at all, the run is over.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from headgate.errors import (
    HandlerError,
    HandlerTimeoutError,
    HookError,
    NoStageError,
    OptionError,
    Reject,
    Retry,
    SourceError,
)
from headgate.pipeline.acknowledger import Acknowledger
from headgate.pipeline.augment import Augment
from headgate.pipeline.batching import Box
from headgate.pipeline.feed import Feed
from headgate.pipeline.link import Link
from headgate.pipeline.options import DEAD_LETTER, DISCARD, REQUEUE
from headgate.pipeline.processing import THROUGH, Step, same
from headgate.protocol.children import Backoff
from headgate.protocol.intake import Intake
from headgate.protocol.messages import DeadLetter
from headgate.protocol.retries import Retries
from headgate.types import (
    ACKNOWLEDGED,
    DEAD_LETTERED,
    DEFERRED,
    FAILED,
    FLUSH,
    OUTCOMES,
    REQUEUED,
    Joint,
    Message,
    Source,
)

if TYPE_CHECKING:
    from headgate.pipeline.pipeline import Pipeline
    from headgate.runtime.node import Node

logger = logging.getLogger("headgate")

SIGNAL_TRIES: Final = 10
"""How often a handler may ask for a retry by `Retry` where no policy says how often."""
_SIGNALLED: Final = Backoff(first=0.05, most=10.0)
_LOG_SECONDS: Final = 1.0


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


class Run:
    """What the stages of a running pipeline share.

    Attributes:
        feeds: One for each source.
        steps: The processing steps.
        boxes: The batchers by name.
        outlets: Where messages go from the last step, by name: batchers and routes.
        in_steps: Messages that were handed to the processors and have not left them.
        waiting: Messages that wait to be tried again, with their timers.
        deferred: Handles that are not used yet.
        draining: What nobody has begun goes back to its source.
        ending: Nothing waits any more: no retry, no batch.
        paused: Nothing is handed out.
        stuck: Batches are not handed out either.
        gated: No feed hands out anything now.
        unusual: Processors have to look at each message, whether it is theirs.
        abandoned: Threads that were left to themselves, since a handler took too long.
        over: It has ended, or is about to.
    """

    def __init__(self, pipeline: Pipeline, node: Node) -> None:
        """Set everything up; nothing runs yet."""
        self.pipeline = pipeline
        self.node = node
        self.loop = node.loop
        self.random = node.random
        self.wall: Callable[[], float] = pipeline.clock or time.time
        self.serial = pipeline.partition_key
        self.lookahead = pipeline.lookahead
        self.lookahead_by_source = pipeline.lookahead_by_source
        self.rate_limit = pipeline.shared_limit
        self.key_limit = pipeline.key_limit
        self.in_steps = 0
        self.failing = 0
        self.waiting: dict[Message, asyncio.TimerHandle] = {}
        self.deferred: set[Handle] = set()
        self.draining = self.ending = self.paused = self.stuck = self.gated = self.unusual = False
        self.abandoned = 0
        self.retried = 0
        self.over = False
        self.wide: list[Any] = []
        self.letters = 0
        self.closed = False
        self.drifted = False  # stages were started again: `in_steps` need not be true any more
        self.failure: SourceError | None = None  # with which all of it ends
        self.may_end = False  # somebody wants to know when the processors are empty
        self.finished: asyncio.Future[None] = self.loop.create_future()
        self._quiet: asyncio.Future[None] | None = None  # wakes whoever waits for quiet
        self._thread = threading.get_ident()
        self._sleepers: set[asyncio.Future[None]] = set()
        self._checking = False
        self._deadline: float | None = None
        self._logged = -_LOG_SECONDS
        self._unlogged = 0
        self.boxes = {
            name: Box(self, name, options, *pipeline.batch_handlers[name])
            for name, options in pipeline.batcher_options.items()
        }
        self.routes = pipeline.open_routes(self)
        self.outlets: dict[str, Any] = {**self.boxes, **self.routes}
        self.steps = [
            Step(pipeline, name, number, options, *pipeline.handlers[name])
            for number, (name, options) in enumerate(pipeline.step_options.items())
        ]
        self.unusual = len(self.steps) > 1
        for step in self.steps:
            step.connect(self, last=step is self.steps[-1])
        self.feeds = [Feed(self, source, index) for index, source in enumerate(pipeline.sources)]
        self.by_hand = HandBooks(self)
        self.all_books: list[Acknowledger] = [*(feed.books for feed in self.feeds), self.by_hand]
        many = len(self.outlets) > 1
        for box in self.boxes.values():
            takes_back = box.returns = all(feed.source.redelivers for feed in self.feeds)
            wanted = box.options.overflow
            box.requeues = takes_back and (wanted == "requeue" or (wanted is None and many))  # else they would be lost

    def push(self, messages: list[Message]) -> None:
        """Take in messages that do not come from a source.

        Raises:
            NoStageError: The pipeline has ended.
            OptionError: They are no messages, or were handed out already.
        """
        if self.over or self.closed:
            raise NoStageError(f"pipeline {self.pipeline.id!r} has ended: it takes no messages")
        for message in messages:
            if not isinstance(message, Message) or message.keeper is not None:
                expected = "new ones: Message(...) that no pipeline has had"
                raise OptionError(self.pipeline.where, "messages", expected, message)
        self.by_hand.take_in(messages)
        self.feeds[0].inject(messages)

    async def test(
        self, payloads: list[Any], *, metadata: dict[str, Any] | None = None, key: Any = None, flush: bool = False
    ) -> list[Message]:
        """Put messages in and wait for their outcomes."""
        messages = [Message(data, None if metadata is None else dict(metadata), key) for data in payloads]
        waiters = self.by_hand.waiters
        futures = [waiters.setdefault(message, self.loop.create_future()) for message in messages]
        if flush:
            for message in messages:
                message.batch_mode = FLUSH
        try:
            self.push(messages)
            return list(await asyncio.gather(*futures))
        finally:
            for message in messages:
                waiters.pop(message, None)

    async def quiet(self, seconds: float) -> bool:
        """Wait until nothing is under way but what waits for a processor."""
        deadline = self.loop.time() + seconds
        while self._busy or self.waiting or self.failing or not all(box.empty for box in self.boxes.values()):
            for box in self.boxes.values() if self.drifted or not self.in_steps else ():
                box.flush(FLUSH)
            left = deadline - self.loop.time()
            if left <= 0:
                return False
            self._quiet = self.loop.create_future()
            self.may_end = True
            await asyncio.wait([self._quiet], timeout=left)
            self._quiet = None
        return True

    @property
    def _busy(self) -> bool:
        """Whether anything is in the processors, for whoever waits until nothing is."""
        if not self.drifted:
            return self.in_steps != 0
        return self.in_flight > sum(feed.waiting for feed in self.feeds) + len(self.deferred)

    def make_intake(self) -> Intake | None:
        """Make what chooses the next message, if there is anything to choose by."""
        pipeline = self.pipeline
        if not (pipeline.partition_key or pipeline.fair_key or pipeline.priority_of):
            return None
        return Intake(
            fair=pipeline.fair_key,
            serial=pipeline.partition_key,
            priority=pipeline.priority_of,
            limit=pipeline.max_waiting,
            key_limit=max(1, pipeline.max_waiting // 10) if pipeline.partition_key else None,
            where=f"Pipeline({pipeline.id!r})",
        )

    # -- small services -----------------------------------------------------------------------------------------------

    def report(self, error: Exception) -> None:
        """Make an error known that ends nothing."""
        self.node.report(error)

    def here(self) -> bool:
        """Say whether this is the event loop's thread."""
        return threading.get_ident() == self._thread

    async def sleep(self, seconds: float) -> None:
        """Wait, but no longer than until nothing waits any more."""
        if not self.ending:
            sleeper: asyncio.Future[None] = self.loop.create_future()
            self._sleepers.add(sleeper)
            try:
                await asyncio.wait([sleeper], timeout=seconds)
            finally:
                self._sleepers.discard(sleeper)

    def _wake_all(self) -> None:
        for sleeper in self._sleepers:
            if not sleeper.done():
                sleeper.set_result(None)

    def left(self, count: int) -> None:
        """Take note that messages have left the processors."""
        self.in_steps -= count
        if self.may_end and not self.in_steps:
            self.check_end_soon()

    def remaining(self) -> float | None:
        """Return the seconds until the deadline; None: there is none."""
        return None if self._deadline is None else max(0.0, self._deadline - self.loop.time())

    def gate(self) -> None:
        """See whether the feeds may hand out anything."""
        gated = self.paused or any(outlet.blocks for outlet in self.outlets.values())
        if gated != self.gated:
            self.gated = gated
            if not gated:
                for feed in self.feeds:
                    feed.serve_soon()

    def books(self, message: Message) -> Acknowledger | None:
        """Return who keeps the books of the source that a message comes from."""
        keeper: Any = message.keeper
        while isinstance(keeper, Joint):
            keeper = keeper.parents[0].keeper
        return keeper  # type: ignore[no-any-return]

    def _feed_of(self, message: Message) -> Feed:
        keeper: Any = message.keeper
        for feed in self.feeds:
            if keeper is feed.books:
                return feed
        return self.feeds[0]

    # -- what processors say ------------------------------------------------------------------------------------------

    def acknowledge(self, messages: list[Message]) -> None:
        """Settle messages that were handled; those that were settled or deferred are left as they are."""
        if not messages:
            return
        first = messages[0].keeper
        for message in messages:
            if message.keeper is not first:
                break
        else:
            if isinstance(first, Acknowledger):
                first.acknowledge(messages)
                return
        for message in messages:
            if message.outcome is None and message.keeper is not None:
                message.keeper.settle(message, ACKNOWLEDGED, 0.0)

    def acknowledge_all(self, messages: list[Message]) -> bool:
        """Settle messages if all of them are of one source, and none has failed or is settled: the hot path.

        Returns:
            Whether it was so; else nothing has changed.
        """
        books: Any = messages[0].keeper if messages else None
        if type(books) is not Acknowledger:
            return False
        in_flight = books.in_flight
        for at, message in enumerate(messages):  # noqa: B007 (how far it came)
            if message.outcome is not None or message.reason is not None or message.keeper is not books:
                break
            message.outcome = ACKNOWLEDGED
            del in_flight[message]
        else:
            books.acknowledged(messages)
            return True
        for settled in messages[:at]:
            settled.outcome = None
            in_flight[settled] = None
        return False

    def give_back(self, message: Message, delay: float = 0.0, *, counted: bool = False) -> None:
        """Let the source hand a message out again; that it was handed out does not count unless said."""
        if message.outcome is not None and message.outcome != DEFERRED:
            return
        keeper: Any = message.keeper
        if keeper is not None:
            keeper.settle(message, REQUEUED, delay, counted=counted)

    def leave(self, messages: list[Message]) -> None:
        """Take note that messages have left the processors: the next ones of their keys may go."""
        for feed in self.feeds:
            feed.leave(messages)

    def sift(self, messages: list[Message], step: Step, through: dict[str, list[Message]]) -> list[Message]:
        """Return those messages that are to be handled in this step.

        Args:
            messages: What a stage was given.
            step: Its step.
            through: Where those are put that go on with a later step.
        """
        found: list[Message] = []
        for message in messages:
            if message.outcome is not None or message.owner is THROUGH:
                if self.serial is not None and message.outcome != DEFERRED:
                    self.leave([message])  # it may have been taken once more for this
                continue
            if message.step > step.number:
                through.setdefault("", []).append(message)
            elif self.draining and message.owner is None and step.number == 0:
                self.give_back(message)
            else:
                found.append(message)
        return found

    def interrupted(self, step: Step, current: Message, kept: dict[str, list[Message]], failed: list[Message]) -> None:
        """Save what a stage was through with that ends in the middle of a delivery: the rest is sent again.

        Args:
            step: Its step. What is done in one that is not the last is done again.
            current: The message that it is at.
            kept: What goes on, by the name of the batcher.
            failed: What has failed.
        """
        self.unusual = True
        current.owner = None
        if not step.last:
            return
        for message in (*(each for box in kept.values() for each in box), *failed):
            message.owner = THROUGH
            _origin(message).owner = THROUGH
        for name, each in kept.items():
            if not self.outlets:
                self.acknowledge(each)
            elif name in self.outlets and each:
                self.outlets[name].add(each)
        self.fail(failed, step.retries, step)

    def fallen(self) -> None:
        """Take note that a stage of a source was killed: from now on it counts what is through."""
        self.drifted = self.unusual = True
        for box in self.boxes.values():
            for message in (*box.machine.held(), *(each for batch in box.running for each in batch.items)):
                message.owner = THROUGH

    def lost(self, messages: Iterable[Message]) -> None:
        """Begin anew with messages whose stage has ended."""
        for message in messages:
            self.left(1)
            if message.outcome is None:
                self._feed_of(message).put_back([message])

    @staticmethod
    def shared(message: Message, made: list[Message]) -> Message:
        """Return what goes on in place of a message that others were made of besides: it ends when all of them have."""
        going = Message(message.data)
        going.__dict__.update(message.__dict__)
        Joint([message], [each for each in (going, *made) if each.outcome not in OUTCOMES])
        return going

    # -- failures -----------------------------------------------------------------------------------------------------

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
        if isinstance(reason, Reject) or (isinstance(reason, HandlerTimeoutError) and reason.callback == "deadline"):
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
            self._feed_of(message).put_back([message])
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
        config = books.configured.get(_origin(message), {})
        wish = config.get("on_failure", DISCARD if books is self.by_hand else pipeline.on_failure)
        expired = isinstance(message.reason, HandlerTimeoutError) and message.reason.callback == "deadline"
        source = books.link.source
        if (isinstance(message.reason, Reject) and wish != DISCARD) or (
            wish == REQUEUE and (expired or not source.redelivers)  # late it would be every time
        ):
            wish = DEAD_LETTER
        elif wish not in (DISCARD, DEAD_LETTER, REQUEUE):
            most = source.max_deliveries or pipeline.max_deliveries
            given_up = not source.redelivers or message.deliveries >= most or expired
            wish = DEAD_LETTER if given_up else REQUEUE
            if not given_up:
                config = {"delay": pipeline.redelivery.delay(message.deliveries, self.random.random()), **config}
        if wish == DISCARD:
            self._note_failure(message, where, "it is discarded")
            message.keeper.settle(message, FAILED, 0.0)
        elif wish == REQUEUE:
            self._note_failure(message, where, "it is handed out again")
            self.give_back(message, float(config.get("delay", 0.0)), counted=True)
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

    # -- deferred messages --------------------------------------------------------------------------------------------

    def defer(self, message: Message, timeout: float) -> Handle:
        """Let a message be settled later."""
        return Handle(self, message, timeout)

    # -- the end ------------------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Messages that were fetched, or put in by hand, and have no outcome."""
        return sum(len(books.in_flight) for books in self.all_books)

    def settled(self) -> None:
        """Take note that messages were settled; of deferred ones perhaps by what was made of them."""
        for handle in [each for each in self.deferred if not each.open]:
            handle.forget()
        self.check_end_soon()

    def check_end_soon(self) -> None:
        """Look, once in a turn, whether this is the end."""
        if self._quiet is not None and not self._quiet.done():
            self._quiet.set_result(None)
        self.may_end = self._quiet is not None or self.draining or self._exhausted()
        if self.may_end and not self._checking and not self.over:
            self._checking = True
            self.loop.call_soon(self._check_end)

    def _exhausted(self) -> bool:
        return all(feed.exhausted or feed.stopped for feed in self.feeds)

    def _check_end(self) -> None:
        self._checking = False
        if self.over or not all(feed.over for feed in self.feeds):
            return
        if self.waiting or self.failing or (self.in_steps and (self.in_flight or not self.drifted)):
            return
        for box in self.boxes.values():
            box.flush("end" if not self.draining else "flush")
        if self.deferred or not all(box.empty for box in self.boxes.values()):
            return
        if not all(books.idle for books in self.all_books):
            return
        if self.drifted and any(each.owner is not THROUGH for books in self.all_books for each in books.in_flight):
            return  # perhaps it is not there yet
        for outlet in self.outlets.values():  # what is in flight is there, by now
            outlet_over = getattr(outlet, "upstream_over", None)
            if outlet_over is not None:
                outlet_over()
        if self.in_flight:
            return
        if self.draining or self._exhausted():
            self.over = True
            if not self.finished.done():
                self.finished.set_result(None)

    async def open(self) -> None:
        """Open the sources, one after the other, and what steps need.

        Raises:
            SourceError: One of them raised; those before it are closed again.
        """
        for step in self.steps:
            if isinstance(step.handler, Augment):
                await step.handler.open()
        for index, feed in enumerate(self.feeds):
            try:
                await feed.open()
            except BaseException:
                for other in self.feeds[:index]:
                    await other.close()
                raise

    def begin_drain(self, seconds: float) -> None:
        """Hand back what nobody has begun, and wait for nothing that can wait."""
        if self._deadline is None:
            self._deadline = self.loop.time() + seconds
        self.draining = self.unusual = self.may_end = True

    async def drain(self, seconds: float) -> bool:
        """Bring everything that was begun to its end, within so many seconds.

        Returns:
            Whether everything was finished.
        """
        self.begin_drain(seconds)
        await asyncio.gather(*(feed.quiet() for feed in self.feeds))
        for route in self.routes.values():
            route.hand_back()
        unbegun = dict.fromkeys(message for feed in self.feeds for message in feed.clear())
        if self.steps[0].kind != "plain":  # these say whom they have begun with; plain ones have none between turns
            for books in self.all_books:
                kept = self._kept
                unbegun.update((each, None) for each in books.in_flight if each.owner is None and not kept(each))
        for books in self.all_books:  # in the order in which they were fetched
            for message in [each for each in books.in_flight if each in unbegun]:
                self.give_back(message)
        for message in unbegun:  # and those that were made of others
            self.give_back(message)
        for message, timer in list(self.waiting.items()):
            timer.cancel()
            del self.waiting[message]
            self.give_up([message])
        self.ending = True
        self._wake_all()
        self.paused = self.stuck = False
        for box in self.boxes.values():
            box.serve()
        self.check_end_soon()
        if not self.finished.done():
            await asyncio.wait([self.finished], timeout=self.remaining())
        return self.finished.done()

    def _kept(self, message: Message) -> bool:
        return message in self.waiting or message.outcome is not None

    async def close(self) -> None:
        """Give back what was not finished, tell the sources everything, and close them."""
        if self.closed:
            return
        self.closed = True
        self.over = self.draining = self.ending = True
        self._wake_all()
        for timer in self.waiting.values():
            timer.cancel()
        self.waiting.clear()
        for box in self.boxes.values():
            box.close()
        for handle in list(self.deferred):
            handle.cancel()
        for feed in self.feeds:
            feed.stopped = True
            feed.clear()
        self.in_steps = 0
        for books in self.all_books:
            for message in list(books.in_flight):
                begun = self.steps[0].kind == "plain" or message.owner is not None or message.outcome is not None
                message.outcome = None
                books.settle(message, REQUEUED, counted=begun)
        for feed in self.feeds:
            await feed.close()
        await self.by_hand.close()
        for step in self.steps:
            if isinstance(step.handler, Augment):
                await step.handler.close()
        if not self.finished.done():
            self.finished.set_result(None)


def _origin(message: Message) -> Message:
    """Return the message of a source that a derived one was made of; of several, the first."""
    while isinstance(message.keeper, Joint):
        message = message.keeper.parents[0]
    return message


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

        def fail(_: Any, message: Message) -> None:
            message.reason = "failed" if reason is None else reason
            self._run.give_up([message])

        self._on_loop(fail, FAILED)

    def requeue(self, delay: float = 0.0) -> None:
        """Let its source hand it out again, after so many seconds."""
        self._on_loop(lambda _, message: self._run.give_back(message, delay, counted=True), REQUEUED)

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
