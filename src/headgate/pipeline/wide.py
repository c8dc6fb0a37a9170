"""A step that handles many messages at a time in one stage, and the classes of all kinds of processors."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

from headgate.pipeline.handling import its_own, limit_of, within
from headgate.pipeline.processing import THROUGH, AsyncProcessor, PlainProcessor, Processor
from headgate.protocol.messages import Subscription
from headgate.stage import Consumer, ProducerConsumer
from headgate.types import Message


class WideProcessor(Processor):
    """Handles many messages at a time in one stage; what is done goes on in order, or as it comes.

    It keeps what is under way itself: a handler that is slow holds up nothing but, in order, those behind it.
    """

    def started(self) -> None:
        """Begin with nothing under way."""
        super().started()
        self.width: int = self.step.options.concurrency
        self.ordered: bool = bool(self.step.options.ordered)
        self.under_way: deque[tuple[Message, asyncio.Task[None], list[Message], list[Message]]] = deque()
        self.room = asyncio.Event()
        self.run.wide.append(self)
        self.stage.ref.driver.monitors.append(self._gone)  # also when it is killed
        before, self.step.wide = self.step.wide, self
        unsent = [] if before is None else before.stage.recall()
        if unsent:  # nobody else has them: what it was given it has acknowledged
            self.stage.emit(unsent)

    async def handle_events(self, events: Any, source: Subscription) -> None:  # noqa: ARG002 (a callback's form)
        """Begin with each message as soon as there is room."""
        through: dict[str, list[Message]] = {}
        messages = self.run.sift(events, self.step, through)
        self.run.left(len(events) - len(messages) - sum(map(len, through.values())))
        for message in messages:
            while len(self.under_way) >= self.width:
                self.room.clear()
                await self.room.wait()
            if message.outcome is not None or message.owner is THROUGH:  # it was settled, or sent on, meanwhile
                self.run.left(1)
                continue
            if self.run.draining and message.owner is None and not self.number:
                self.run.give_back(message)
                self.run.left(1)
                continue
            message.owner = self
            kept: list[Message] = []
            failed: list[Message] = []
            task = self.run.node.job(self._one(message, kept, failed), f"{self.name} {self.step.callback}")
            self.under_way.append((message, task, kept, failed))
            task.add_done_callback(self._done)
        for each in through.values():
            self.stage.emit(each)

    async def _one(self, message: Message, kept: list[Message], failed: list[Message]) -> None:
        step = self.step
        try:
            if message.deadline is not None:
                step.check_deadline(message)
            timeout = limit_of(message, step.timeout, self.run)
            coroutine = step.handler(message)
            if timeout is not None:
                coroutine = within(coroutine, timeout, self.name, step.callback)
            result = await coroutine
        except BaseException as error:
            if not its_own(error, 0):
                raise
            step.raised(message, error, failed)
            return
        if result is None or result is message:
            if message.reason is not None:
                failed.append(message)
            elif message.outcome is None:
                kept.append(message)
            return
        collected = step.boxes()
        step.take(message, result, self.name, collected, failed)
        for each in collected.values():
            kept.extend(each)

    def _done(self, _: asyncio.Task[None]) -> None:
        """Send on what is done."""
        if self.ordered:
            while self.under_way and self.under_way[0][1].done():
                self._send(*self.under_way.popleft())
        else:
            for entry in [each for each in self.under_way if each[1].done()]:
                self.under_way.remove(entry)
                self._send(*entry)
        self.room.set()

    def _send(self, message: Message, task: asyncio.Task[None], kept: list[Message], failed: list[Message]) -> None:
        if task.cancelled() or not (self.step.last or self.stage.ref.alive):
            message.owner = None
            self.run.lost([message])
            return
        step, error = self.step, task.exception()
        if error is not None:  # it ends the program, or is no Exception; this stage goes on
            step.raised(message, error, failed)
        if not step.last:
            if kept:
                self.stage.emit(kept)
            if self.run.serial is not None:
                step.leave([message])
            if failed:
                self.run.fail(failed, step.retries, step)
            self.run.left(1 - len(kept))
            return
        boxes = step.boxes()
        rest: list[Message] = []
        for each in kept:
            step.route(each, boxes, rest)
        step.settle([message], boxes, [*failed, *rest])

    def _gone(self, reason: Any) -> None:  # noqa: ARG002 (a monitor's form)
        """Leave nothing under way: it is begun anew by a successor."""
        for _, task, _, _ in list(self.under_way):
            task.cancel()


def _as(kind: type[Any], base: type[Any]) -> type[Any]:
    return type(kind.__name__, (kind, base), {"__doc__": kind.__doc__})


KINDS: Final = {
    (each, last): _as(kind, Consumer if last else ProducerConsumer)
    for each, kind in (("plain", PlainProcessor), ("async", AsyncProcessor), ("wide", WideProcessor))
    for last in (True, False)
}
"""The stages' classes: by kind, and whether nothing but batchers comes after them."""
