"""What children run on: threads for plain functions, and tasks for async ones."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sys
import threading
from asyncio import _enter_task as enter_task  # pyright: ignore[reportPrivateUsage]  # documented for extenders
from asyncio import _leave_task as leave_task  # pyright: ignore[reportPrivateUsage]
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final

from headgate.errors import HandlerError

if TYPE_CHECKING:
    from headgate.supervision.spawner import Job, Spawner

_REVOKES: Final = sys.version_info >= (3, 13)
"""A cancellation that the task has not been told of yet is revoked by its ``uncancel``."""

_Job = tuple[Callable[[], Any], Callable[[BaseException | None], None]]


class Threads:
    """As many threads as there are functions to run; one that has nothing to run waits for the next.

    An executor of the standard library waits for its threads when the interpreter ends, so that one child that never
    ends keeps the whole program; and it has a bound of its own, which a child like that would use up.

    Args:
        loop: Where outcomes are told; everything but the functions runs there.
        name: Of the stage.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        """Start with none."""
        self._loop = loop
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._count = 0
        self._idle = 0

    def run(self, call: Callable[[], Any], came: Callable[[BaseException | None], None]) -> None:
        """Run a function, then tell on the loop how it came out."""
        self._jobs.put((call, came))
        if self._idle:
            self._idle -= 1
            return
        self._count += 1
        name = f"headgate: {self._name} child {self._count}"
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def close(self) -> None:
        """Let every thread end, those that are busy after what they are at."""
        for _ in range(self._count):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            call, came = job
            error: BaseException | None = None
            try:
                value = call()
                if hasattr(type(value), "__await__"):
                    if hasattr(value, "close"):  # a coroutine that nobody awaits warns unless it is closed
                        value.close()
                    hint = "a value, not an awaitable (a plain function runs in a thread; declare it with 'async def')"
                    error = HandlerError(self._name, "the child", hint, value)
                value = None
            except BaseException as raised:  # noqa: BLE001 (the user's function)
                error = raised
            try:
                self._loop.call_soon_threadsafe(self._over, came, error)
            except RuntimeError:  # the loop is closed: there is nobody left to tell
                return
            job = call = came = error = None  # type: ignore[assignment]  # nothing is kept while it waits

    def _over(self, came: Callable[[BaseException | None], None], error: BaseException | None) -> None:
        self._idle += 1
        came(error)


class Worker(asyncio.Future[None]):
    """A task that async children run on behalf of, one after the other.

    The task itself only waits, for this, which it takes for a future. A child is driven right by what it waits for,
    with the task as the current one; a cancellation of the task comes here, and is passed on. So a child costs no step
    of the task, and no future that hands it over.

    Attributes:
        task: The task.
        job: The child that it has.
        woken: The task is about to end.
        unfit: It is, or a child that has ended in its first step has left a cancellation behind: no child may be begun.
    """

    def __init__(self, spawner: Spawner, loop: asyncio.AbstractEventLoop) -> None:
        """Start the task."""
        super().__init__(loop=loop)
        self.spawner = spawner
        self.job: Job | None = None
        self.woken = self.unfit = False
        self._coroutine: Coroutine[Any, Any, Any] | None = None  # the child
        self._within: Context | None = None  # what that one runs in
        self._awaited: asyncio.Future[Any] | None = None  # what that one waits for
        self._cancelled: asyncio.CancelledError | None = None  # what it is to be told when it goes on
        self._wakeup: Callable[[Any], Any] | None = None  # of the task; None: it has not taken its first step
        self._outer: Context | None = None  # of the task
        self.task: asyncio.Task[None] = loop.create_task(self._run(), name=f"headgate: {spawner.stage.name} child")
        self.task.add_done_callback(self._lost)

    @property
    def up(self) -> bool:
        """Whether the task has taken its first step; before that it could be cancelled unseen."""
        return self._wakeup is not None

    @property
    def suspended(self) -> Worker | None:
        """Itself while it has a child, for those who look at stacks."""
        return None if self._coroutine is None else self

    def take(self, coroutine: Coroutine[Any, Any, Any], context: Context, awaited: Any) -> None:
        """Take over a child that has begun and suspended, or that is to begin as soon as the task is `up`."""
        self._coroutine, self._within = coroutine, context
        if self._wakeup is not None:
            self.unfit = self.woken
            self._suspend(awaited)

    def _suspend(self, awaited: Any) -> None:
        """Let the child go on when what it waits for is there: as a task does with what its coroutine yields."""
        if getattr(awaited, "_asyncio_future_blocking", None) and awaited is not self.task:
            awaited._asyncio_future_blocking = False  # noqa: SLF001 (what tasks do)
            awaited.add_done_callback(self._go_on, context=self._outer)
            self._awaited = awaited
            if self._cancelled is not None and awaited.cancel():
                self._cancelled = None
        else:
            error = None if awaited is None else RuntimeError(f"expected a child to await a future, got: {awaited!r}")
            self._loop.call_soon(self._go_on, error, context=self._outer)

    def _go_on(self, outcome: Any) -> None:
        """Run the child up to its next suspension.

        Args:
            outcome: The future that it has waited for; or an error, or None.
        """
        coroutine, context, loop, task = self._coroutine, self._within, self._loop, self.task
        assert coroutine is not None and context is not None  # noqa: S101, PT018 (it has suspended)
        error: BaseException | None = None
        self._awaited = None
        if isinstance(outcome, BaseException):
            error = outcome
        elif outcome is not None:
            try:
                outcome.result()
            except BaseException as raised:  # noqa: BLE001 (whatever it is)
                error = raised
        if self._cancelled is not None:
            if not isinstance(error, asyncio.CancelledError) and (task.cancelling() or not _REVOKES):
                error = self._cancelled
            self._cancelled = None
        enter_task(loop, task)
        try:
            awaited = context.run(coroutine.send, None) if error is None else context.run(coroutine.throw, error)
        except StopIteration:
            error = None
        except BaseException as raised:  # noqa: BLE001 (the child's, or its cancellation)
            error = raised
        else:
            error = None
            self._suspend(awaited)
            return
        finally:
            leave_task(loop, task)
        job = self.job
        assert job is not None  # noqa: S101 (as above)
        self._coroutine = self._within = self.job = self._cancelled = None
        self.unfit = self.woken
        if task.cancelling():  # also when it has swallowed a cancellation
            while task.uncancel():
                pass
        self._ended(job, error)

    def _ended(self, job: Job, error: BaseException | None) -> None:
        """Tell how a child has ended, and be free for the next one."""
        spawner = self.spawner
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            spawner.interrupted(job)
            raise error
        if spawner.ended or (isinstance(error, asyncio.CancelledError) and spawner.closing):
            self.retire()
            if spawner.closing and isinstance(error, asyncio.CancelledError):
                spawner.interrupted(job)
                return
        else:
            spawner.idle.append(self)
        spawner.came(job, error)

    def retire(self) -> None:
        """Let the task end."""
        if not self.woken and self._wakeup is not None:
            self.woken = self.unfit = True
            self._loop.call_soon(self._wakeup, self, context=self._outer)

    # -- what its task takes for a future -----------------------------------------------------------------------------

    def add_done_callback(self, fn: Callable[[Any], Any], *, context: Context | None = None) -> None:
        """Take note that the task waits, and begin the child that it was given meanwhile."""
        self._wakeup, self._outer = fn, context
        if self._coroutine is not None:
            self._loop.call_soon(self._go_on, None, context=context)

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the child; without one, let the task end."""
        if self._coroutine is None and asyncio.current_task(self._loop) is not self.task:
            self.retire()
            return False  # the task sees to it when it goes on
        self.unfit = True  # unless it is taken over
        if self._awaited is None or not self._awaited.cancel(msg=msg):
            self._cancelled = asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg)
        return True

    def result(self) -> None:
        """Give the task nothing."""

    def done(self) -> bool:
        """Say whether what the child waits for is there."""
        return self.woken if self._awaited is None else self._awaited.done()

    # -- its task -----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Wait until there are no more children."""
        with contextlib.suppress(asyncio.CancelledError):
            await self

    def __await__(self) -> Generator[Any, Any, None]:
        """Wait until it is woken."""
        self._asyncio_future_blocking = True
        yield self

    def _lost(self, _task: asyncio.Task[None]) -> None:
        """See to a child whose task was cancelled before it ever ran."""
        coroutine, context, job = self._coroutine, self._within, self.job
        self._coroutine = self._within = self.job = None
        if job is None or coroutine is None or context is None:
            return
        context.run(coroutine.close)
        if self.spawner.closing:
            self.spawner.interrupted(job)
        else:
            self.spawner.came(job, asyncio.CancelledError())
