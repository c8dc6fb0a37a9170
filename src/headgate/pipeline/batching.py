"""The batchers: open batches that live as long as the pipeline, a stage that hands out closed ones, and their handlers.

Processors put messages in by a plain call. What a batcher holds is bounded: when enough complete batches wait, either
nothing more is fetched, or messages for it go back to their source for a while, so that the others are not held up.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from headgate import telemetry
from headgate.errors import HandlerError, Reject, Skip
from headgate.pipeline.elsewhere import Elsewhere
from headgate.pipeline.handling import cancellations, its_own, within, wrong
from headgate.protocol.batches import BATCH_KEY, Batch, Batches
from headgate.protocol.messages import Subscription
from headgate.runtime.places import Process
from headgate.stage import Consumer, Producer
from headgate.types import FLUSH, Joint, Message

if TYPE_CHECKING:
    from headgate.pipeline.options import Batcher
    from headgate.pipeline.pipeline import Pipeline
    from headgate.pipeline.run import Run

_RESULTS: Final = "the messages that it was given, or None for all of them"
_SLOWEST: Final = 30.0
"""The longest that messages for a full batcher stay away, in seconds."""


class BatchInfo(NamedTuple):
    """What a batch handler is told about its batch.

    Attributes:
        batcher: The batcher's name.
        key: What its messages have in common; None unless something else was chosen.
        size: How many there are.
        trigger: Why it is complete: ``"size"``, ``"bytes"``, ``"timeout"``, ``"flush"``, ``"limit"`` (too many were
            open) or ``"end"``.
    """

    batcher: str
    key: Any
    size: int
    trigger: str


class Box:
    """One batcher, as long as the pipeline runs.

    Attributes:
        name: Its name.
        stage: The stage that hands out its batches, as long as it lives.
        machine: The batches.
        requeues: What is too much goes back to its source; else the feeds wait.
        returns: So does what is too much for one serial key: all sources take messages back.
        overflowed: Messages that went back since too many batches waited.
        handled: Batches that are done.
    """

    def __init__(self, run: Run, name: str, options: Batcher, handler: Any, place: str | Process) -> None:
        """Start without messages."""
        self.run = run
        self.name = name
        self.options = options
        self.handler = handler
        self.callback = getattr(handler, "__name__", "handler")
        self.place = place
        self.stage: BatchStage | None = None
        self.requeues = False
        self.returns = False
        self.machine = Batches(
            options.size,
            max_bytes=options.max_bytes,
            sizer=options.sizer if options.max_bytes is not None else None,
            timeout=options.timeout,
            max_open=options.max_open,
            serial=options.serial,
            max_waiting=options.max_waiting,
            key_of=options.key or BATCH_KEY,
            where=f"Batcher({name!r})",
        )
        self._clock = run.loop.time
        self.overflowed = 0
        self.handled = 0
        self.running: dict[Batch, Any] = {}  # those that were handed out, and the stage that is at them
        self._timer: asyncio.TimerHandle | None = None
        self._full_since: float | None = None

    @property
    def blocks(self) -> bool:
        """Whether nothing more may be fetched on its account."""
        return (not self.requeues and self.machine.full) or (bool(self.machine.choked) and not self.returns)

    @property
    def empty(self) -> bool:
        """Whether it holds nothing."""
        machine = self.machine
        return not (machine.open_items or machine.waiting or machine.running)

    @property
    def held(self) -> int:
        """How many messages are in batches that are open."""
        return self.machine.open_items

    def add(self, messages: list[Message]) -> None:
        """Take in messages that were processed."""
        machine = self.machine
        if self.requeues and machine.full and not self.run.ending:
            self._turn_away(messages)
            return
        if machine.choked and self.returns and not self.run.ending:
            messages = self._unchoked(messages)
        span = None
        if telemetry.handlers:
            span = self.run.pipeline.span("pipeline.batcher", batcher=self.name, messages=list(messages))
        ready = machine.add(messages, self._clock())
        if machine.errors:
            errors, machine.errors = machine.errors, []
            for message, error in errors:
                message.reason = error
            self.run.fail([message for message, _ in errors], None, self)
        if span is not None:
            span.stop()
        if ready:
            self.serve()
        if self._timer is None and machine.open_items:
            self._wait()

    def _unchoked(self, messages: list[Message]) -> list[Message]:
        """Turn messages away whose serial key has too many batches waiting: a stuck key holds up no other."""
        key_of, choked = self.options.key or BATCH_KEY, self.machine.choked
        stay: list[Message] = []
        away: list[Message] = []
        for message in messages:
            try:
                (away if key_of(message) in choked else stay).append(message)
            except Exception:  # noqa: BLE001 (the user's function: it will fail again in a moment)
                stay.append(message)
        self._turn_away(away)
        return stay

    def _turn_away(self, messages: list[Message]) -> None:
        """Give messages back to their source until there is room: they did not fail, so it does not count."""
        now = self.run.loop.time()
        if self._full_since is None:
            self._full_since = now
        delay = min(_SLOWEST, max(0.1, now - self._full_since))
        self.overflowed += len(messages)
        for message in messages:
            self.run.give_back(message, delay)

    def serve(self) -> None:
        """Hand out closed batches as far as they are asked for."""
        stage = self.stage
        if stage is not None and not self.run.stuck and stage.stage.ref.alive:  # a killed one leaves without a word
            batches = self.take(stage.owed)
            if batches:
                stage.send(batches)
        if self.run.gated or self.machine.full or self.machine.choked:
            self.run.gate()

    def take(self, count: int) -> list[Batch]:
        """Return closed batches."""
        batches = self.machine.take(count) if count else []
        for batch in batches:
            self.running[batch] = None
        return batches

    def done(self, batch: Batch) -> None:
        """Take note that a batch was handled."""
        if batch not in self.running:
            return
        del self.running[batch]
        self.handled += 1
        self.machine.done(batch)
        if not self.machine.full and not self.machine.choked:
            self._full_since = None
        if self.machine.waiting:
            self.serve()
        elif self.run.gated:
            self.run.gate()
        if self.run.may_end:
            self.run.check_end_soon()

    def recover(self) -> None:
        """Take back batches that were handed out to nobody who still lives."""
        for batch, owner in list(self.running.items()):
            if owner is None or not owner.stage.ref.alive:
                del self.running[batch]
                self.machine.give_back(batch)

    def flush(self, trigger: str) -> None:
        """Close all open batches."""
        if self.machine.flush(trigger):
            self.serve()

    def _wait(self) -> None:
        due = self.machine.due()
        if due is not None and not self.run.closed:
            self._timer = self.run.loop.call_at(due, self._expire)

    def _expire(self) -> None:
        """Close the batches whose time is up: the timer may have been set for one that has closed since."""
        self._timer = None
        if self.machine.expire(self.run.loop.time()):
            self.serve()
        self._wait()

    def close(self) -> list[Message]:
        """Stop, and return the messages that are left."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.machine.flush(FLUSH)
        left: list[Message] = [message for batch in self.running for message in batch.items]
        self.running.clear()
        while batches := self.machine.take(1000):
            left.extend(message for batch in batches for message in batch.items)
            for batch in batches:
                self.machine.done(batch)
        return left


class BatchStage(Producer):
    """The stage that hands out the closed batches of one batcher.

    Args:
        pipeline: Whose.
        name: The batcher's name.
    """

    def __init__(self, pipeline: Pipeline, name: str) -> None:
        """Belong to a batcher."""
        self.pipeline = pipeline
        self.name = name

    def started(self) -> None:
        """Take over what a predecessor has left behind."""
        self.box = self.pipeline.current.boxes[self.name]
        self.box.stage = self
        self.box.recover()
        if self.box.run.closed:  # it was away when the others were told
            self.stage.finish()

    def handle_demand(self, demand: int) -> list[Batch] | None:
        """Hand out what there is; the rest follows."""
        if self.box.run.stuck:
            return None
        batches = self.box.take(demand)
        if batches:
            self.box.run.gate()
        return batches

    def terminate(self, reason: Any) -> None:  # noqa: ARG002 (a callback's form)
        """Leave the batcher to a successor."""
        if self.box.stage is self:
            self.box.stage = None

    @property
    def owed(self) -> int:
        """How many batches are asked for."""
        return self.stage.demand

    def send(self, batches: list[Batch]) -> None:
        """Send batches."""
        self.stage.emit(batches)


class _BatchProcessor(Consumer):
    """What both kinds have in common.

    Args:
        pipeline: Whose.
        name: The batcher's name.
    """

    def __init__(self, pipeline: Pipeline, name: str) -> None:
        """Belong to a batcher."""
        self.pipeline = pipeline
        self.batcher = name

    def started(self) -> None:
        """Take part in the run."""
        self.run = self.pipeline.current
        self.box = self.run.boxes[self.batcher]
        if self.box.running:  # perhaps those of a predecessor that fell after the stage which had handed them out
            self.box.recover()
            self.box.serve()

    def begin(self, batch: Batch) -> tuple[list[Message], BatchInfo] | None:
        """Take a batch on; None when somebody else has done so."""
        running = self.box.running
        owner = running.get(batch, self)
        if batch not in running or (owner is not None and owner is not self and owner.stage.ref.alive):
            return None
        running[batch] = self
        messages: list[Message] = batch.items
        if self.run.unusual:  # some may have been settled since
            messages = [message for message in messages if message.outcome is None]
            if not messages:
                self.box.done(batch)
                return None
        return messages, BatchInfo(self.batcher, batch.key, len(messages), batch.trigger)

    def span(self, messages: list[Message], info: BatchInfo) -> telemetry.Span | None:
        """Begin to tell of a batch, if anybody listens."""
        if not telemetry.handlers:
            return None
        about = {"pipeline": self.pipeline.id, "stage": self.stage.name, "context": self.pipeline.context}
        return telemetry.Span("pipeline.batch_processor", **about, batch=info, messages=messages)

    def judge(self, messages: list[Message], result: Any) -> tuple[list[Message], list[Message]]:
        """Take in what the handler returned.

        Returns:
            Those that were handled, and those that have failed.
        """
        if result is None or result is messages:
            return self._sorted(messages)
        if not isinstance(result, (list, tuple)) or not all(isinstance(each, Message) for each in result):
            return [], self._blamed(messages, result)
        given = set(messages)
        returned: set[Message] = set()
        for each in result:
            if each in given:
                returned.add(each)
            elif isinstance(each.keeper, Joint):  # made of several of them
                for parent in each.keeper.parents:
                    if parent in given:
                        returned.add(parent)
                        parent.reason = parent.reason if each.reason is None else each.reason
        missing = [each for each in messages if each not in returned and each.outcome is None]
        if missing:
            expected = f"{_RESULTS} ({len(messages)}); {len(missing)} are missing, and fail"
            error = HandlerError(self.stage.name, self.box.callback, expected, result)
            self.run.report(error)
            for message in missing:
                message.reason = message.reason or error
        return self._sorted(messages)

    def _blamed(self, messages: list[Message], result: Any) -> list[Message]:
        error = wrong(self.stage.name, self.box.callback, _RESULTS, result)
        self.run.report(error)
        for message in messages:
            message.reason = error
        return messages

    @staticmethod
    def _sorted(messages: list[Message]) -> tuple[list[Message], list[Message]]:
        for message in messages:
            if message.reason is not None:
                break
        else:
            return messages, []
        return (
            [each for each in messages if each.reason is None],
            [each for each in messages if each.reason is not None],
        )

    def conclude(self, batch: Batch, done: list[Message], failed: list[Message], span: telemetry.Span | None) -> None:
        """Settle a batch."""
        if span is not None:
            span.stop(successful=list(done), failed=list(failed))
        if done:
            self.run.acknowledge(done)
        if failed:
            self.run.give_up(failed, self.box)
        self.box.done(batch)


class PlainBatchProcessor(_BatchProcessor):
    """Calls a plain handler, in the scheduler's turn. What has to wait goes on in a job of its own."""

    def handle_events(self, events: Any, source: Subscription) -> None:  # noqa: ARG002 (a callback's form)
        """Handle batches."""
        for batch in events:
            taken = self.begin(batch)
            if taken is None:
                continue
            messages, info = taken
            span = self.span(messages, info)
            try:
                result = self.box.handler(messages, info)
                if (result is None or result is messages) and span is None and self.run.acknowledge_all(messages):
                    self.box.done(batch)
                    continue
                done, failed = self.judge(messages, result)
            except (Skip, Reject) as signal:
                done, failed = signalled(messages, signal)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 (the user's handler)
                done, failed, delay = [], messages, self.run.retry_batch(messages, error, self.box.options.retry)
                if delay is not None or (self.box.options.isolate and len(messages) > 1):
                    self.run.node.job(self._later(batch, messages, info, error, delay, span), f"retry {self.box.name}")
                    continue
                for message in messages:
                    message.reason = error
            self.conclude(batch, done, failed, span)

    async def _later(
        self,
        batch: Batch,
        messages: list[Message],
        info: BatchInfo,
        error: BaseException,
        delay: float | None,
        span: telemetry.Span | None,
    ) -> None:
        done, failed = await attempts(self, messages, info, (error, delay))
        self.conclude(batch, done, failed, span)


class AsyncBatchProcessor(_BatchProcessor):
    """Awaits an async handler, or a plain one in a thread or a worker process."""

    _executor: ThreadPoolExecutor | None = None
    _elsewhere: Elsewhere | None = None

    def started(self) -> None:
        """Take part in the run; a worker begins to start."""
        box = self.pipeline.current.boxes[self.batcher]
        if isinstance(box.place, Process):
            self._elsewhere = Elsewhere(box.run, self.stage, box.handler, box.callback, box.place)
        super().started()

    async def handle_events(self, events: Any, source: Subscription) -> None:  # noqa: ARG002 (a callback's form)
        """Handle batches."""
        for batch in events:
            taken = self.begin(batch)
            if taken is None:
                continue
            messages, info = taken
            span = self.span(messages, info)
            done, failed = await attempts(self, messages, info, None)
            self.conclude(batch, done, failed, span)

    async def call(self, messages: list[Message], info: BatchInfo) -> Any:
        """Run the handler."""
        box = self.box
        if self._elsewhere is not None:
            return await self._elsewhere.handle(messages, info, box.options.run_timeout)
        if box.place == "thread":
            if self._executor is None:
                self._executor = ThreadPoolExecutor(1, f"headgate: {self.stage.name}")
            work = self.run.loop.run_in_executor(self._executor, functools.partial(box.handler, messages, info))
        else:
            work = box.handler(messages, info)
        if box.options.run_timeout is None:
            return await work if inspect.isawaitable(work) else work
        try:
            return await within(work, box.options.run_timeout, self.stage.name, box.callback)
        except TimeoutError:
            if self._executor is not None:  # the thread is left to itself
                self._executor.shutdown(wait=False)
                self._executor = None
                self.run.abandoned += 1
            raise

    def terminate(self, reason: Any) -> None:  # noqa: ARG002 (a callback's form)
        """Give the thread back."""
        if self._executor is not None:
            self._executor.shutdown(wait=False)


def signalled(messages: list[Message], signal: Skip | Reject) -> tuple[list[Message], list[Message]]:
    """Return which messages were handled and which have failed, by a signal about all of them."""
    if isinstance(signal, Skip):
        return messages, []
    for message in messages:
        message.reason = signal
    return [], messages


async def attempts(
    processor: Any, messages: list[Message], info: BatchInfo, failure: tuple[BaseException, float | None] | None
) -> tuple[list[Message], list[Message]]:
    """Handle messages together; when that fails for good, in halves, until it is known who is to blame.

    Args:
        processor: Who handles them.
        messages: The messages.
        info: About their batch.
        failure: What the handler has raised for them already, and the wait before it is tried again.

    Returns:
        Those that were handled, and those that have failed.
    """
    options, run = processor.box.options, processor.run
    while True:
        if failure is None:
            before = cancellations()
            try:
                call = processor.call(messages, info) if hasattr(processor, "call") else None
                result = await call if call is not None else processor.box.handler(messages, info)
                return processor.judge(messages, result)  # type: ignore[no-any-return]
            except (Skip, Reject) as signal:
                return signalled(messages, signal)
            except BaseException as error:
                if not its_own(error, before):
                    raise
                failure = error, run.retry_batch(messages, error, options.retry)
        reason, delay = failure
        if delay is None or run.ending:
            break
        await run.sleep(delay)
        failure = None
        messages = [each for each in messages if each.outcome is None]
        if not messages:  # they were settled meanwhile: the pipeline has ended
            return [], []
    if len(messages) == 1 or not options.isolate:
        for message in messages:
            message.reason = reason
        return [], messages
    done: list[Message] = []
    failed: list[Message] = []
    middle = len(messages) // 2
    for half in (messages[:middle], messages[middle:]):
        for message in half:
            message.reason = None
        handled, blamed = await attempts(processor, half, info._replace(size=len(half)), None)
        done += handled
        failed += blamed
    return done, failed


KINDS: Final = {"plain": PlainBatchProcessor, "async": AsyncBatchProcessor}
