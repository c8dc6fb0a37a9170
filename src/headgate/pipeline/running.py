"""`PipelineRun`: a pipeline that runs, as it is reached from outside."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from headgate import telemetry
from headgate.errors import OptionError
from headgate.pipeline.crossing import check_crossing
from headgate.protocol.messages import SHUTDOWN
from headgate.runtime.reference import Ref
from headgate.supervision.running import Supervision
from headgate.types import Message

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headgate.pipeline.pipeline import Pipeline
    from headgate.pipeline.run import Run
    from headgate.system import System

CLOSE_SECONDS: Final = 5.0
"""How long telling the sources may take when everything else has ended."""


@dataclass(frozen=True, slots=True)
class BatcherStatistics:
    """The numbers of one batcher.

    Attributes:
        open: Messages in batches that are not complete.
        waiting: Complete batches that wait.
        running: Batches that are being handled.
        handled: Batches that are done, in total.
        overflowed: Messages that went back to their source since too many batches waited, in total.
    """

    open: int
    waiting: int
    running: int
    handled: int
    overflowed: int


@dataclass(frozen=True, slots=True)
class PipelineStatistics:
    """The numbers of a pipeline, true at one moment.

    Attributes:
        fetched: Messages that came, in total, also those put in by hand.
        outcomes: How many of them were ``"acknowledged"``, ``"failed"``, ``"requeued"`` and ``"dead_lettered"``.
        in_flight: Those that have no outcome yet,
        waiting: of which so many wait for a processor,
        processing: so many are in the processors,
        retrying: so many wait to be tried again,
        deferred: and so many are in the hands of somebody else.
        retried: How often a message was tried again, in total.
        duplicates: How often one was to be settled that had its outcome, in total.
        expired: Messages whose lease was over when they were settled; they count as requeued.
        unacknowledged: Messages whose outcome their source could not be told.
        source_errors: How often a source has raised.
        abandoned: Threads left to themselves, since a handler took too long.
        replaced: Worker processes of handlers that died, or were killed as a handler took too long.
        batchers: By name.
        unbalanced: ``fetched`` less what is in flight and what has ended; 0 unless the library has lost count.
    """

    fetched: int
    outcomes: dict[str, int]
    in_flight: int
    waiting: int
    processing: int
    retrying: int
    deferred: int
    retried: int
    duplicates: int
    expired: int
    unacknowledged: int
    source_errors: int
    abandoned: int
    replaced: int
    batchers: dict[str, BatcherStatistics]
    unbalanced: int


class PipelineRun(Supervision):
    """A running `Pipeline`: all of `Supervision`, and what its messages are at."""

    def __init__(self, recipe: Pipeline, system: System, path: tuple[str, ...], run: Run) -> None:
        """Prepare it; `start` starts it."""
        super().__init__(recipe, system, path)
        self.pipeline = recipe
        self.run = run
        self._concluding: asyncio.Task[bool] | None = None
        self._watching: asyncio.Task[None] | None = None

    async def start(self, hold: list[Any] | None = None) -> None:
        """Open the sources and start the stages.

        Raises:
            CrossingError: A handler is to run in worker processes, and something of it cannot go there.
            SourceError: A source could not be opened.
            HeadgateError: A stage could not be started.
        """
        try:
            check_crossing(self.pipeline, self.node)
            await self.run.open()
        except BaseException:
            self.run.closed = self.run.over = True
            raise
        try:
            await super().start(hold)
        except BaseException:
            await asyncio.shield(self.node.job(self._close(), f"close {self.name}"))
            raise
        self._watching = self.node.job(self._watch(), f"end of {self.name}")
        if telemetry.handlers:
            pipeline = self.pipeline
            metadata = {"pipeline": pipeline.id, "config": pipeline, "supervisor": self, "context": pipeline.context}
            telemetry.emit("pipeline.init", {"time": self.run.wall()}, metadata)

    async def _watch(self) -> None:
        """Let the stages end when all messages have."""
        await self.run.finished
        await self._close()
        if self.run.failure is not None and not self._stopping.done():
            self._stopping.set_result(self.run.failure)
            self._wake.set()
            return
        for feed in self.run.feeds:
            if feed.stage is not None:
                feed.stage.stage.finish()
        for box in self.run.boxes.values():
            if box.stage is not None:
                box.stage.stage.finish()

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.run.close()
        except TimeoutError:
            self.run.report(TimeoutError(f"pipeline {self.name!r}: its sources do not answer; they are left"))

    async def _stop_children(self, reason: Any) -> None:
        """Stop the stages, then the rest."""
        await super()._stop_children(reason)
        await self._close()

    async def conclude(self, seconds: float) -> bool:
        """Finish what was begun, and give back what was not; the stages go on until that is done."""
        if self._concluding is None:
            self.run.begin_drain(seconds)
            self._concluding = self.node.job(self.run.drain(seconds), f"drain {self.name}")
        await asyncio.wait([self._concluding])
        return not self._concluding.cancelled() and self._concluding.result()

    async def stop(self, reason: Any = SHUTDOWN, *, timeout: float | None = None) -> Any:  # noqa: ASYNC109 (ours)
        """Drain, and end: what was begun is finished and acknowledged, what was not goes back to its source.

        Args:
            reason: Why; the stages are told.
            timeout: Seconds for all of it; what is not finished by then is not acknowledged. Default: the ``shutdown``
                option.

        Returns:
            The reason that it ended with.
        """
        seconds = self.recipe.shutdown if timeout is None else timeout
        deadline = self.node.loop.time() + seconds
        if self.alive and not self._stopping.done():
            await self.conclude(seconds)
        return await super().stop(reason, timeout=max(0.0, deadline - self.node.loop.time()))

    # -- what users do with it ----------------------------------------------------------------------------------------

    def statistics(self) -> PipelineStatistics:
        """Read its numbers, true at this moment."""
        run = self.run
        outcomes: dict[str, int] = {}
        for books in run.all_books:
            for outcome, count in books.outcomes.items():
                outcomes[outcome] = outcomes.get(outcome, 0) + count
        return PipelineStatistics(
            fetched=sum(books.fetched for books in run.all_books),
            outcomes=outcomes,
            in_flight=run.in_flight,
            waiting=sum(feed.waiting for feed in run.feeds),
            processing=max(0, run.in_steps),
            retrying=len(run.waiting),
            deferred=len(run.deferred),
            retried=run.retried,
            duplicates=sum(books.duplicates for books in run.all_books),
            expired=sum(books.expired for books in run.all_books),
            unacknowledged=sum(books.unacknowledged for books in run.all_books),
            source_errors=sum(feed.errors for feed in run.feeds) + sum(books.failures for books in run.all_books),
            abandoned=run.abandoned,
            replaced=run.replaced,
            batchers={
                name: BatcherStatistics(
                    box.machine.open_items, box.machine.waiting, box.machine.running, box.handled, box.overflowed
                )
                for name, box in run.boxes.items()
            },
            unbalanced=sum(books.unbalanced() for books in run.all_books),
        )

    def topology(self) -> dict[str, list[dict[str, Any]]]:
        """List the stages by what they do: their names, and how many there are of each."""
        counts: dict[str, int] = {}
        for member in self._members:
            counts[member.group] = counts.get(member.group, 0) + 1
        base = self.pipeline.name
        return {
            "sources": [
                {"name": f"{base}.source-{index + 1}", "source": feed.name} for index, feed in enumerate(self.run.feeds)
            ],
            "processors": [
                {"name": f"{base}.{name}", "step": name, "concurrency": counts.get(f"processors.{name}", 0)}
                for name in self.pipeline.step_options
            ],
            "batchers": [
                {
                    "name": f"{base}.batcher.{name}",
                    "batcher": name,
                    "handlers": f"{base}.batch.{name}",
                    "concurrency": counts.get(f"batch.{name}", 0),
                }
                for name in self.pipeline.batcher_options
            ],
        }

    def pause(self) -> None:
        """Fetch and hand out nothing more; what the processors have is finished."""
        self.run.paused = True
        self.run.gate()

    def resume(self) -> None:
        """Go on after `pause`."""
        self.run.paused = False
        self.run.gate()

    async def quiesce(self, *, timeout: float = 30.0) -> bool:  # noqa: ASYNC109 (the wait is ours)
        """Pause, and wait until everything that the processors and batchers had is done with; `resume` goes on.

        Returns:
            Whether it was within ``timeout`` seconds.
        """
        self.pause()
        return await self.run.quiet(timeout)

    async def resize(self, id: str, count: int) -> list[Ref]:  # noqa: A002 (the field's word)
        """Change how many stages a step or a batcher's handlers have, while it works. Nothing is lost.

        Args:
            id: The name of a processing step or of a batcher.
            count: How many there are to be, at least 1.

        Raises:
            OptionError: It is neither, or not such a number.
        """
        if id in self.pipeline.step_options:
            return await super().resize(f"processors.{id}", count)
        if id in self.pipeline.batcher_options:
            return await super().resize(f"batch.{id}", count)
        known = ", ".join(map(repr, (*self.pipeline.step_options, *self.pipeline.batcher_options)))
        raise OptionError(self.pipeline.where, "id", f"a step or a batcher: {known}", id)

    def push(self, messages: Iterable[Message]) -> None:
        """Put messages in by hand. They go the way of all others, rate limits included; nobody takes them back.

        Raises:
            NoStageError: The pipeline has ended.
            OptionError: They are no messages, or were handed out already.
        """
        self.run.push(list(messages))

    async def test_message(self, data: Any, *, metadata: dict[str, Any] | None = None, key: Any = None) -> Message:
        """Put a message in, closing its batch at once, and wait for its outcome.

        Args:
            data: The payload.
            metadata: As a source would give it. Default: empty.
            key: As well.

        Returns:
            The message; its ``outcome`` is ``"acknowledged"``, or ``"failed"`` with a ``reason``.
        """
        return (await self.run.test([data], metadata=metadata, key=key, flush=True))[0]

    async def test_batch(
        self,
        payloads: Iterable[Any],
        *,
        metadata: dict[str, Any] | None = None,
        key: Any = None,
        flush: bool = False,
    ) -> list[Message]:
        """Put messages in and wait for the outcomes of all.

        Args:
            payloads: The data of each.
            metadata: Of all of them. Default: empty.
            key: Of all of them.
            flush: Close their batches at once. Default False: they wait for more, as always.

        Returns:
            The messages.
        """
        return await self.run.test(list(payloads), metadata=metadata, key=key, flush=flush)
