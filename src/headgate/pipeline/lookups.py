"""Calls of an outside system: never more of them at once than it stands, nor more often, whatever becomes of them."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import math
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, Final

from headgate.errors import AugmentError, CircuitOpenError, LookupTimeoutError
from headgate.pipeline.rates import RateLimiter
from headgate.protocol.circuits import Circuit, CircuitBreaker

_GRACE: Final = 1.0
"""Seconds that `Calls.close` gives calls to end that were cancelled."""


class Calls:
    """Calls an outside system.

    A call holds one of the places until it has really ended: also one that was given up, and that ignores its
    cancellation, or that is a thread, which cannot be cancelled.

    Args:
        lookup: What to call, with one argument; plain functions run in threads.
        name: For errors and threads.
        concurrency: How many places there are.
        rate: How often calls may begin; None: as often as there is a place.
        timeout: After how many seconds a call is given up; None: never.
        breaker: When not to call at all; None: never.

    Attributes:
        circuit: The circuit breaker at work.
        made: How many calls have begun.
        timeouts: How many were given up.
        rejected: How often nobody called, since the circuit was open.
        most: How many were under way at once so far.
    """

    def __init__(
        self,
        lookup: Callable[[Any], Any],
        name: str,
        *,
        concurrency: int,
        rate: RateLimiter | None,
        timeout: float | None,
        breaker: CircuitBreaker | None,
    ) -> None:
        """Begin with none."""
        self.lookup = lookup
        self.name = name
        self.rate = rate
        self.timeout = timeout
        self.cancels = is_async(lookup)
        self.circuit = None if breaker is None else Circuit(breaker)
        self.made = self.timeouts = self.rejected = self.most = 0
        self._concurrency = concurrency
        self._threads: Executor | None = None
        self.begin()

    def begin(self) -> None:
        """Forget what was under way on an event loop that is closed."""
        self.slots = asyncio.Semaphore(self._concurrency)
        self.alive: set[_Call] = set()
        self.running: set[_Call] = set()
        self._held: dict[asyncio.Future[None], None] = {}  # in order

    @property
    def under_way(self) -> int:
        """How many are under way now."""
        return len(self.running)

    async def call(self, argument: Any, about: Any, key: Any = None) -> Any:
        """Make one call, when it may be made.

        Args:
            argument: What to call it with.
            about: What is looked up, for errors.
            key: Of a rate limiter with keys.

        Returns:
            What it returned.

        Raises:
            LookupTimeoutError: It took too long.
            CircuitOpenError: It was not made.
        """
        loop = asyncio.get_running_loop()
        while True:
            await self._pass_circuit(loop, about)
            await self.slots.acquire()
            if self.circuit is not None and self.circuit.wait(loop.time()):  # it has opened meanwhile
                self.slots.release()
                continue
            call = _Call(self, loop, argument, key)
            try:
                return await call.outcome(about)
            except _OpenedError:  # while it waited for the rate
                continue

    async def close(self) -> None:
        """Cancel what is under way, and let go of the threads."""
        calls = list(self.alive)
        for call in calls:
            call.drop()
        if calls:
            await asyncio.wait([call.task for call in calls], timeout=_GRACE)
        if self._threads is not None:
            self._threads.shutdown(wait=False)
            self._threads = None

    async def invoke(self, loop: asyncio.AbstractEventLoop, argument: Any) -> Any:
        """Call it, in a thread unless it is async."""
        if self.cancels:
            return await self.lookup(argument)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._concurrency, thread_name_prefix=f"headgate-{self.name}")
        context = contextvars.copy_context()
        result = await loop.run_in_executor(self._threads, lambda: context.run(_plainly, self.lookup, argument))
        return await result if inspect.isawaitable(result) else result  # of a plain function around an async one

    def tell(self, ticket: int | None, error: BaseException | None, now: float, *, unknown: bool = False) -> None:
        """Tell the circuit how a call has ended, and those who wait for it to close."""
        circuit = self.circuit
        if circuit is None or ticket is None:
            return
        if unknown:
            circuit.abandoned(ticket)
        elif error is None or not isinstance(error, (LookupTimeoutError, circuit.options.errors)):
            circuit.succeeded(ticket)
        else:
            circuit.failed(ticket, now)
        for held in self._held:
            _ring(held)

    async def _pass_circuit(self, loop: asyncio.AbstractEventLoop, about: Any) -> None:
        """Wait as long as the circuit is open, or fail."""
        circuit = self.circuit
        while circuit is not None and (wait := circuit.wait(loop.time())):
            if not circuit.options.waits:
                self.rejected += 1
                raise CircuitOpenError(self.name, about, wait)
            held = loop.create_future()
            self._held[held] = None
            timer = None if wait == math.inf else loop.call_later(wait, _ring, held)
            try:
                await held
            finally:
                self._held.pop(held, None)
                if timer is not None:
                    timer.cancel()


class _OpenedError(Exception):
    """The circuit has opened while a call waited for its turn."""


class _Call:
    """One call. It has a place already, and gives it back when it has really ended, not before."""

    def __init__(self, calls: Calls, loop: asyncio.AbstractEventLoop, argument: Any, key: Any) -> None:
        self._calls = calls
        self._loop = loop
        self._over: asyncio.Future[None] = loop.create_future()  # for whoever waits for the outcome
        self._begun = self._expired = self._dropped = False
        self._ticket: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.task = loop.create_task(self._run(argument, key), name=f"headgate: {calls.name}")
        calls.alive.add(self)
        self.task.add_done_callback(self._ended)

    async def outcome(self, about: Any) -> Any:
        """Wait until it has ended or is given up."""
        try:
            await self._over
        except asyncio.CancelledError:
            self.drop()
            raise
        if self._expired:
            raise LookupTimeoutError(self._calls.name, about, self._calls.timeout)
        if self.task.cancelled():  # not by us: a cancellation of its own is no cancellation of who waits here
            raise AugmentError(self._calls.name, about, "the look-up was cancelled")
        return self.task.result()

    async def _run(self, argument: Any, key: Any) -> Any:
        calls = self._calls
        if calls.rate is not None:
            await calls.rate.acquire(1, key)
        # No await from here to the lookup's first line: it is called at the moment at which it may be.
        if calls.circuit is not None:
            self._ticket = calls.circuit.admit(self._loop.time())
            if self._ticket is None:
                raise _OpenedError
        if calls.timeout is not None:
            self._timer = self._loop.call_later(calls.timeout, self._expire)
        self._begun = True
        calls.made += 1
        running = calls.running
        running.add(self)
        calls.most = max(calls.most, len(running))
        try:
            return await calls.invoke(self._loop, argument)
        finally:
            running.discard(self)

    def _expire(self) -> None:
        """Give it up: whoever waits goes on, and it keeps its place until it has ended."""
        if self.task.done() or self._over.done():
            return
        calls = self._calls
        self._expired = True
        calls.timeouts += 1
        error = LookupTimeoutError(calls.name, None, calls.timeout)
        calls.tell(self._ticket, error, self._loop.time())
        self._ticket = None
        if calls.cancels:
            self.task.cancel()
        _ring(self._over)

    def drop(self) -> None:
        """Nobody wants it any more."""
        self._dropped = True
        if self._calls.cancels or not self._begun:  # a thread cannot be cancelled, and is not to be forgotten
            self.task.cancel()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        calls = self._calls
        calls.alive.discard(self)
        calls.slots.release()
        if self._timer is not None:
            self._timer.cancel()
        error = None if task.cancelled() else task.exception()
        unknown = self._dropped or task.cancelled() or not isinstance(error, Exception | None)
        calls.tell(self._ticket, error, self._loop.time(), unknown=unknown)
        _ring(self._over)


def is_async(function: Any) -> bool:
    """Say whether calling it gives a coroutine."""
    call = getattr(function, "__call__", None)  # noqa: B004 (of an object that can be called)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _plainly(lookup: Callable[[Any], Any], argument: Any) -> Any:
    try:
        return lookup(argument)
    except StopIteration as error:  # no future takes it
        raise RuntimeError("the look-up raised StopIteration") from error


def _ring(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
