"""One run of a pipeline: what its stages share.

Messages are counted where they are: fetched and waiting (feeds), in the processors (`Run.in_steps`), waiting to be
tried again, in batches, deferred. When the sources have nothing more and none is left in the processors, open batches
are closed; when none is left at all, the run is over.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from headgate.errors import NoStageError, OptionError, SourceError
from headgate.pipeline.acknowledger import Acknowledger
from headgate.pipeline.augment import Augment
from headgate.pipeline.batching import Box
from headgate.pipeline.by_hand import HandBooks
from headgate.pipeline.deferring import Handle
from headgate.pipeline.failing import Failures, origin
from headgate.pipeline.feed import Feed
from headgate.pipeline.processing import THROUGH, Step
from headgate.protocol.intake import Intake
from headgate.types import ACKNOWLEDGED, DEFERRED, FLUSH, OUTCOMES, REQUEUED, Joint, Message

if TYPE_CHECKING:
    from headgate.pipeline.pipeline import Pipeline
    from headgate.runtime.node import Node


class Run(Failures):
    """What the stages of a running pipeline share.

    Attributes:
        feeds: One for each source.
        steps: The processing steps.
        boxes: The batchers by name.
        outlets: Where messages go from the last step, by name: batchers and routes.
        in_steps: Messages that were handed to the processors and have not left them.
        deferred: Handles that are not used yet.
        draining: What nobody has begun goes back to its source.
        ending: Nothing waits any more: no retry, no batch.
        paused: Nothing is handed out.
        stuck: Batches are not handed out either.
        gated: No feed hands out anything now.
        unusual: Processors have to look at each message, whether it is theirs.
        abandoned: Threads that were left to themselves, since a handler took too long.
        replaced: Worker processes that died, or were killed as a handler took too long.
        over: It has ended, or is about to.
    """

    def __init__(self, pipeline: Pipeline, node: Node) -> None:
        """Set everything up; nothing runs yet."""
        super().__init__()
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
        self.deferred: set[Handle] = set()
        self.draining = self.ending = self.paused = self.stuck = self.gated = self.unusual = False
        self.abandoned = self.replaced = 0
        self.over = False
        self.wide: list[Any] = []
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

    def feed_of(self, message: Message) -> Feed:
        """Return the feed that a message comes by."""
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
            origin(message).owner = THROUGH
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
                self.feed_of(message).put_back([message])

    @staticmethod
    def shared(message: Message, made: list[Message]) -> Message:
        """Return what goes on in place of a message that others were made of besides: it ends when all of them have."""
        going = Message(message.data)
        going.__dict__.update(message.__dict__)
        Joint([message], [each for each in (going, *made) if each.outcome not in OUTCOMES])
        return going

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
