"""The processors: stages that hand messages to a handler one by one, and see to what comes of it.

Whatever the handler does, a message that comes in leaves in exactly one way: to the next step, to a batcher, settled,
deferred, or failed. Only an exception that ends the stage itself (a kill, ``SystemExit``) leaves messages to those that
come after it: the stage that sent them sends them again, and those that were through are passed over.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from headgate import telemetry
from headgate.errors import HandlerTimeoutError, Skip, UnknownBatcherError
from headgate.pipeline.elsewhere import Elsewhere
from headgate.pipeline.handling import cancellations, its_own, limit_of, parts_of, same, within, wrong
from headgate.protocol.messages import Subscription
from headgate.protocol.retries import Retries
from headgate.runtime.places import Process
from headgate.types import DEFERRED, Joint, Message

if TYPE_CHECKING:
    from headgate.pipeline.pipeline import Pipeline
    from headgate.pipeline.run import Run
    from headgate.pipeline.wide import WideProcessor

THROUGH: Final = "through"
"""The owner of a message that has left the processors."""
_RESULTS: Final = "the message, None for it, or a list of messages"


class Step:
    """What the stages of one processing step share.

    Attributes:
        name: Its name.
        number: Its place among the steps.
        handler: The user's function.
        callback: Its name, for errors.
        prepare: The user's ``prepare_messages``, of the first step; or None.
        timeout: Seconds for one message, or None.
        retries: What is tried again here, or None.
        place: Where the handler runs.
        kind: ``"plain"``, ``"async"`` or ``"wide"``.
        last: Nothing comes after it but the batchers.
        simple: There is no order, no preparation and one way out, so a plain handler needs no more care.
        started: How many stages have begun so far, of ``stages``.
        only: The name of the only batcher; empty when there is none.
        pass_on: Takes what leaves by that way.
    """

    def __init__(
        self, pipeline: Pipeline, name: str, number: int, options: Any, handler: Any, place: str | Process, kind: str
    ) -> None:
        """Keep what is the same for all of its stages."""
        self.kind = kind
        self.pipeline = pipeline
        self.name = name
        self.number = number
        self.options = options
        self.handler = handler
        self.callback = getattr(handler, "__name__", "handler")
        self.prepare = pipeline.prepare_messages if number == 0 and pipeline.prepares else None
        self.timeout: float | None = options.timeout
        self.retries: Retries | None = options.retry
        self.place = place
        self.last = False
        self.simple = False
        self.started = 0
        self.wide: WideProcessor | None = None  # the one that was started last
        self.stages = 1 if kind == "wide" else options.concurrency
        self.only = ""
        self.pass_on: Callable[[list[Message]], None] = _nothing

    def connect(self, run: Run, *, last: bool) -> None:
        """Learn where messages go from here."""
        self.last = last
        alone = last and len(run.steps) == 1
        self.simple = alone and self.prepare is None and run.serial is None and len(run.outlets) <= 1
        self.only = next(iter(run.outlets), "")
        self.pass_on = run.outlets[self.only].add if self.only else run.acknowledge

    def settle(self, messages: list[Message], kept: dict[str, list[Message]], failed: list[Message]) -> list[Message]:
        """Send on what a stage has handled.

        Args:
            messages: What the stage was given.
            kept: What goes on, by the name of the batcher; of a step that is not the last, all under one name.
            failed: What has failed.

        Returns:
            What goes to the next step.
        """
        run = self.pipeline.current
        onward: list[Message] = []
        if run.unusual and self.last:  # what comes once more, since a stage was killed that had sent it on, is known
            kept = {name: [each for each in box if each.owner is not THROUGH] for name, box in kept.items()}
            failed = [each for each in failed if each.owner is not THROUGH]
            for each in kept.values():
                for message in each:
                    message.owner = THROUGH
        if not self.last:
            for each in kept.values():
                onward = each
        elif not run.outlets:
            for each in kept.values():
                run.acknowledge(each)
        else:
            for name, each in kept.items():
                if each:
                    run.outlets[name].add(each)
        if run.serial is not None:
            self.leave(messages)
        if failed:
            run.fail(failed, self.retries, self)
        run.left(len(messages) - len(onward))
        return onward

    def leave(self, messages: list[Message]) -> None:
        """Let the next ones of their keys go, of messages that leave the processors here."""
        last = self.last
        run = self.pipeline.current
        run.leave(
            [
                each
                for each in messages
                if each.reason is None and (last if each.outcome is None else each.outcome != DEFERRED)
            ]
        )

    def boxes(self) -> dict[str, list[Message]]:
        """Return an empty list for each batcher that messages may go to."""
        outlets = self.pipeline.current.outlets
        return {name: [] for name in outlets} if outlets and self.last else {}

    def route(self, message: Message, kept: dict[str, list[Message]], failed: list[Message]) -> None:
        """Put a message where it wants to go."""
        if message.owner is THROUGH:  # its handle was used before its handler returned
            return
        if message.reason is not None:
            failed.append(message)
        elif message.outcome is not None:
            return
        elif not self.last or not self.pipeline.current.outlets:
            kept.setdefault("", []).append(message)
        else:
            box = kept.get(message.batcher)
            if box is not None:
                box.append(message)
            else:
                known = tuple(kept)
                message.reason = UnknownBatcherError(self.pipeline.id, message.batcher, known)
                failed.append(message)

    def take(
        self, message: Message, result: Any, stage: str, kept: dict[str, list[Message]], failed: list[Message]
    ) -> None:
        """Take in what a handler returned for a message, when it is not the message itself."""
        parts = parts_of(message, result)
        if parts is None:
            message.reason = wrong(stage, self.callback, _RESULTS, result)
            failed.append(message)
            return
        others = [each for each in parts if each is not message]
        if others and len(others) < len(parts):
            going = self.pipeline.current.shared(message, others)
            for each in parts:
                self.route(going if each is message else each, kept, failed)
            return
        if others:  # whoever makes a message by hand means that it comes from this one
            made = [each for each in others if each.keeper is None]
            if made:
                Joint([message], made)
        if not parts and message.outcome is None and message.reason is None:
            Joint([message], [])
        if message.reason is not None and message not in parts:
            parts = [message]
        for each in parts:
            self.route(each, kept, failed)

    def check_deadline(self, message: Message) -> None:
        """Refuse a message that has one.

        Raises:
            HandlerTimeoutError: It is over.
        """
        run = self.pipeline.current
        if (limit_of(message, None, run) or 0.0) <= 0:
            raise HandlerTimeoutError(f"{self.pipeline.name}.{self.name}", "deadline", 0.0)

    def raised(self, message: Message, error: BaseException, failed: list[Message]) -> None:
        """Take in what a handler raised for a message."""
        if isinstance(error, Skip):
            self.pipeline.current.acknowledge([message])
            return
        message.reason = error
        failed.append(message)

    def prepared(self, messages: list[Message], stage: str, failed: list[Message]) -> list[Message]:
        """Run ``prepare_messages``, a plain one; when it fails, so do all of them."""
        assert self.prepare is not None  # noqa: S101 (the callers see to it)
        try:
            return self.checked(messages, self.prepare(messages), stage)
        except Exception as error:  # noqa: BLE001 (the user's function)
            return self.unprepared(messages, error, failed)

    def checked(self, messages: list[Message], result: Any, stage: str) -> list[Message]:
        """Refuse what ``prepare_messages`` must not return."""
        if result is None:
            return messages
        if not same(messages, result):
            expected = f"the {len(messages)} messages that it was given, or None"
            raise wrong(stage, "prepare_messages", expected, result)
        return result  # type: ignore[no-any-return]  # it is the same messages

    @staticmethod
    def unprepared(messages: list[Message], error: Exception, failed: list[Message]) -> list[Message]:
        """Let all of them fail."""
        for message in messages:
            message.reason = error
        failed.extend(messages)
        return []


class Processor:
    """What all kinds of processors share."""

    run: Run
    stage: Any

    def __init__(self, pipeline: Pipeline, number: int) -> None:
        """Belong to a step."""
        self.pipeline = pipeline
        self.number = number

    def started(self) -> None:
        """Take part in the run."""
        self.run = self.pipeline.current
        self.step = self.run.steps[self.number]
        self.name = self.stage.name
        self.step.started += 1
        if self.step.started > self.step.stages:  # what was sent on by one that has ended is sent once more
            self.run.drifted = self.run.unusual = True
            if not self.number:
                for feed in self.run.feeds:
                    feed.rescue()

    def span(self, messages: list[Message]) -> telemetry.Span | None:
        """Begin to tell of a delivery, if anybody listens."""
        if not telemetry.handlers:
            return None
        return telemetry.Span("pipeline.processor", **self.about(), messages=messages)

    def about(self) -> dict[str, Any]:
        """Return what all events of this stage say."""
        step, pipeline = self.step, self.pipeline
        return {"pipeline": pipeline.id, "stage": self.name, "step": step.name, "context": pipeline.context}

    def told(
        self, span: telemetry.Span | None, kept: dict[str, list[Message]], onward: list[Message], failed: list[Message]
    ) -> None:
        """Say how a delivery came out."""
        if span is not None:
            done = [each for box in kept.values() for each in box]
            forwards = bool(self.run.outlets) or bool(onward)
            span.stop(
                successful_to_ack=[] if forwards else done,
                successful_to_forward=done if forwards else [],
                failed=list(failed),
            )

    def handle_one(self, message: Message) -> Any:
        """Call a plain handler, and tell of it if anybody listens."""
        if not telemetry.handlers:
            return self.step.handler(message)
        span = telemetry.Span("pipeline.processor.message", **self.about(), message=message)
        try:
            result = self.step.handler(message)
        except BaseException as error:
            span.fail(error)
            raise
        span.stop()
        return result


class PlainProcessor(Processor):
    """Calls a plain handler, in the scheduler's turn."""

    def handle_events(self, events: Any, source: Subscription) -> list[Message] | None:  # noqa: ARG002 (a callback's form)
        """Handle messages: the usual case right here, all others with more care."""
        run, step = self.run, self.step
        if run.unusual or not step.simple or telemetry.handlers:
            return self._carefully(events)
        handler, name = step.handler, step.only
        done: list[Message] = []
        failed: list[Message] = []
        others: dict[str, list[Message]] | None = None
        add = done.append
        for message in events:
            try:
                if message.deadline is not None:
                    step.check_deadline(message)
                result = handler(message)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 (the user's handler)
                step.raised(message, error, failed)
                continue
            except BaseException:  # it ends this stage: what was done stays done
                kept = others or {}
                kept.setdefault(name, []).extend(done)
                run.interrupted(step, message, kept, failed)
                raise
            if (
                (result is message or result is None)
                and message.reason is None
                and message.outcome is None
                and (message.batcher is name or not name or message.batcher == name)
            ):
                add(message)
            else:
                if others is None:
                    others = step.boxes()
                step.take(message, result, self.name, others, failed)
        if others is not None or failed:
            kept = others or {}
            kept.setdefault(name, []).extend(done)
            return step.settle(events, kept, failed) or None
        if done:
            step.pass_on(done)
        run.in_steps -= len(events)
        if run.may_end and not run.in_steps:
            run.check_end_soon()
        return None

    def _carefully(self, events: list[Message]) -> list[Message] | None:
        """Handle messages of which some may be another's, or that are told of, or go to one of several places."""
        run, step = self.run, self.step
        messages = events
        failed: list[Message] = []
        kept: dict[str, list[Message]] = step.boxes()
        if run.unusual:
            messages = run.sift(events, step, kept)
        if step.prepare is not None:
            messages = step.prepared(messages, self.name, failed)
        span = self.span(messages)
        handler = step.handler if span is None else self.handle_one
        self._routed(messages, handler, kept, failed)
        onward = step.settle(events, kept, failed)
        self.told(span, kept, onward, failed)
        return onward or None

    def _routed(
        self, messages: list[Message], handler: Any, kept: dict[str, list[Message]], failed: list[Message]
    ) -> None:
        """Handle messages that go to one of several batchers."""
        step = self.step
        for message in messages:
            try:
                if message.deadline is not None:
                    step.check_deadline(message)
                result = handler(message)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 (the user's handler)
                step.raised(message, error, failed)
                continue
            except BaseException:
                self.run.interrupted(step, message, kept, failed)
                raise
            if (result is message or result is None) and message.reason is None and message.outcome is None:
                box = kept.get(message.batcher)
                if box is not None:
                    box.append(message)
                    continue
            step.take(message, result, self.name, kept, failed)


class AsyncProcessor(Processor):
    """Awaits an async handler, or a plain one in a thread or a worker process, one message after the other."""

    _executor: ThreadPoolExecutor | None = None
    _elsewhere: Elsewhere | None = None

    def started(self) -> None:
        """Take part in the run; a worker begins to start."""
        super().started()
        step = self.step
        if isinstance(step.place, Process):
            self._elsewhere = Elsewhere(self.run, self.stage, step.handler, step.callback, step.place)

    async def handle_events(self, events: Any, source: Subscription) -> list[Message] | None:  # noqa: ARG002 (a callback's form)
        """Handle messages."""
        run, step = self.run, self.step
        failed: list[Message] = []
        kept: dict[str, list[Message]] = step.boxes()
        messages = run.sift(events, step, kept)
        if step.prepare is not None and messages:
            messages = await self._prepare(messages, failed)
        span = self.span(messages)
        for message in messages:
            if run.draining and message.owner is None and not step.number:  # nobody has begun it
                run.give_back(message)
                continue
            if message.outcome is not None or message.owner is THROUGH:  # it was settled, or sent on, meanwhile
                continue
            message.owner = self
            before = cancellations()
            try:
                result = await self._handle(message)
            except BaseException as error:
                if its_own(error, before):
                    step.raised(message, error, failed)
                    continue
                run.interrupted(step, message, kept, failed)  # what was done stays done
                raise
            else:
                step.take(message, result, self.name, kept, failed)
        onward = step.settle(events, kept, failed)
        self.told(span, kept, onward, failed)
        return onward or None

    async def _prepare(self, messages: list[Message], failed: list[Message]) -> list[Message]:
        step = self.step
        assert step.prepare is not None  # noqa: S101 (the caller sees to it)
        try:
            result = step.prepare(messages)
            if inspect.isawaitable(result):
                result = await result
            return step.checked(messages, result, self.name)
        except Exception as error:  # noqa: BLE001 (the user's function)
            return step.unprepared(messages, error, failed)

    async def _handle(self, message: Message) -> Any:
        step = self.step
        if message.deadline is not None:
            step.check_deadline(message)
        timeout = limit_of(message, step.timeout, self.run)
        span = None
        if telemetry.handlers:
            span = telemetry.Span("pipeline.processor.message", **self.about(), message=message)
        try:
            if self._elsewhere is not None:
                result = await self._elsewhere.handle([message], None, timeout)
            elif timeout is None:
                result = await self._call(message)
            else:
                result = await within(self._call(message), timeout, self.name, step.callback)
        except BaseException as error:
            if span is not None:
                span.fail(error)
            raise
        if span is not None:
            span.stop()
        return result

    async def _call(self, message: Message) -> Any:
        if self.step.place != "thread":
            result = self.step.handler(message)
            return await result if inspect.isawaitable(result) else result
        loop = self.run.loop
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, f"headgate: {self.name}")
        try:
            return await loop.run_in_executor(self._executor, self.step.handler, message)
        except asyncio.CancelledError:  # the thread is left to itself, and what comes next gets another one
            self._executor.shutdown(wait=False)
            self._executor = None
            self.run.abandoned += 1
            raise

    def terminate(self, reason: Any) -> None:  # noqa: ARG002 (a callback's form)
        """Give the thread back."""
        if self._executor is not None:
            self._executor.shutdown(wait=False)


def _nothing(_: list[Message]) -> None:
    raise AssertionError
