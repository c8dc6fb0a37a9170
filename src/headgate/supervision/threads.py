"""What children run on: threads for plain functions, and tasks for async ones."""

from __future__ import annotations

import asyncio
import queue
import threading
from asyncio import _enter_task as enter_task  # pyright: ignore[reportPrivateUsage]  # documented for extenders
from asyncio import _leave_task as leave_task  # pyright: ignore[reportPrivateUsage]
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import TYPE_CHECKING, Any

from headgate.errors import HandlerError

if TYPE_CHECKING:
    from headgate.supervision.spawner import Job, Spawner

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

    It is itself what its task waits for while it has no child, and still while one waits for its first future: the
    task's wake-up is then put on that future, and a cancellation is passed on to it. So no future is made for handing a
    child over, and the task does not take a step for it.

    Attributes:
        task: The task.
        job: The child that it has.
        up: The task has taken its first step.
        woken: The task is about to go on, so no child may be begun on its behalf.
    """

    def __init__(self, spawner: Spawner, loop: asyncio.AbstractEventLoop) -> None:
        """Start the task."""
        super().__init__(loop=loop)
        self._spawner = spawner
        self.job: Job | None = None
        self.up = False
        self.woken = False
        self._coroutine: Coroutine[Any, Any, Any] | None = None  # the child that has begun
        self._within: Context | None = None  # what that one runs in
        self._awaited: asyncio.Future[Any] | None = None  # what the wake-up was put on
        self._odd: Any = None  # what the child has yielded, if the task has to look at it itself
        self._wakeup: Callable[[Any], Any] | None = None
        self._outer: Context | None = None
        self.task: asyncio.Task[None] = loop.create_task(self._run(), name=f"headgate: {spawner.stage.name} child")
        self.task.add_done_callback(self._lost)

    @property
    def suspended(self) -> Worker | None:
        """Itself while it has a child, for those who look at stacks."""
        return None if self._coroutine is None else self

    def begin(self, coroutine: Coroutine[Any, Any, Any], context: Context) -> bool:
        """Run a child up to its first suspension; True when that was all.

        Raises:
            BaseException: What the child raised.
        """
        task = self.task
        if not self.up:  # cancelled now, it would do nothing at all: so it begins the child itself
            self._coroutine, self._within = coroutine, context
            return False
        loop = self._loop
        enter_task(loop, task)
        try:
            awaited = context.run(coroutine.send, None)
        except StopIteration:
            return True
        finally:
            leave_task(loop, task)
        self._coroutine, self._within = coroutine, context
        if self.woken:  # the child has cancelled itself
            self._odd = (awaited,)
        elif (
            isinstance(awaited, asyncio.Future)
            and awaited._asyncio_future_blocking  # noqa: SLF001 (what tasks look at)
            and awaited.get_loop() is loop
            and awaited is not task
        ):
            awaited._asyncio_future_blocking = False  # noqa: SLF001
            assert self._wakeup is not None  # noqa: S101 (its task waits)
            awaited.add_done_callback(self._wakeup, context=self._outer)
            self._awaited = awaited
        else:
            if awaited is not None:
                self._odd = (awaited,)
            self._wake()
        return False

    def _wake(self) -> None:
        """Let the task go on in the loop's next turn."""
        assert self._wakeup is not None  # noqa: S101 (its task waits)
        self.woken = True
        self._loop.call_soon(self._wakeup, self, context=self._outer)

    # -- what its task takes for a future -----------------------------------------------------------------------------

    def add_done_callback(self, fn: Callable[[Any], Any], *, context: Context | None = None) -> None:
        """Take note that the task waits: it can be given a child."""
        self._wakeup, self._outer = fn, context
        self.woken = False
        self._spawner.free(self)

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel what the child waits for; False when the task is to see to it when it goes on."""
        if self._awaited is not None:
            return self._awaited.cancel(msg=msg)
        if not self.woken:
            self._wake()
        return False

    def result(self) -> None:
        """Let the task go on."""

    def done(self) -> bool:
        """Say whether what the task waits for is there."""
        return self.woken if self._awaited is None else self._awaited.done()

    # -- its task -----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Go on with children that have suspended, until the supervisor ends."""
        await self

    def __await__(self) -> Generator[Any, Any, None]:
        """Wait for a child, drive it from there to its end as ``yield from`` would, and so on."""
        spawner, task = self._spawner, None
        while not spawner.ended:
            error: BaseException | None = None
            if self._coroutine is None or self.up:
                self.up = True
                self._asyncio_future_blocking = True
                try:
                    yield self
                except BaseException as raised:  # noqa: BLE001 (a cancellation goes to the child)
                    error = raised
            self.up = self.woken = True
            self._awaited = None
            coroutine, context, job = self._coroutine, self._within, self.job
            if coroutine is None or context is None or job is None:  # it was cancelled while idle: that is its end
                return
            task = self.task
            try:
                if self._odd is not None:
                    (awaited,), self._odd = self._odd, None
                    if error is not None:
                        # The child was begun and cancelled before this: so it is for what it waits for. Cancelled now,
                        # this task will cancel that; it counts once.
                        task.cancel()
                        task.uncancel()
                        error = None
                    try:
                        yield awaited
                    except BaseException as raised:  # noqa: BLE001 (as above)
                        error = raised
                while True:
                    if error is None:
                        awaited = context.run(coroutine.send, None)
                    else:
                        awaited = context.run(coroutine.throw, error)
                        error = None
                    try:
                        yield awaited
                    except BaseException as raised:  # noqa: BLE001 (as above)
                        error = raised
            except StopIteration:
                error = None
            except BaseException as raised:  # noqa: BLE001 (the child's, or its cancellation)
                error = raised
            self._coroutine = self._within = self.job = None
            if task.cancelling():  # also when it has swallowed a cancellation
                while task.uncancel():
                    pass
            if error is not None:
                if isinstance(error, (KeyboardInterrupt, SystemExit)):
                    spawner.interrupted(job)
                    raise error
                if isinstance(error, asyncio.CancelledError) and spawner.closing:
                    spawner.interrupted(job)
                    return
            spawner.came(job, error)
            coroutine = context = job = error = awaited = None  # nothing is kept while it waits

    def _lost(self, task: asyncio.Task[None]) -> None:
        """See to a child whose task has ended before it took the child over: it was cancelled before it ever ran."""
        coroutine, context, job = self._coroutine, self._within, self.job
        self._coroutine = self._within = self.job = None
        if not task.cancelled() and task.exception() is not None:
            job = None  # an interrupt, which goes to the loop
        if job is not None and coroutine is not None and context is not None:
            context.run(coroutine.close)
            self._spawner.came(job, asyncio.CancelledError())
