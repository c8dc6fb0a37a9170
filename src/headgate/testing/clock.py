"""An event loop with a virtual clock: tests that wait for nothing and run the same way every time.

::

    import asyncio, headgate
    from headgate import testing

    async def main():
        await asyncio.sleep(3600)                      # takes no time at all
        return asyncio.get_running_loop().time()

    def test_an_hour():
        assert testing.run(main(), seed=7, tick=0) == 3600

Time jumps to the next timer when nothing is ready, and moves on a little, by chance, with every callback: code whose
timers race with its work meets both orders. Which of the ready callbacks runs next is chosen by the seed. A run that
can go on no more fails and says who waits, and so does one that leaves tasks behind. Threads of stages
(``place="thread"``), ``asyncio.to_thread`` and executors run in the loop's own thread, at a later virtual time.

What the loop does not have (sockets, subprocesses, signals) raises ``NotImplementedError``; threads that a program
starts by itself and ``time.sleep`` are real.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import heapq
import itertools
import math
import random
import sys
import types
import weakref
from asyncio import _set_running_loop as set_running_loop  # pyright: ignore[reportPrivateUsage]  # for loops like this
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, TypeVarTuple

from headgate import sources
from headgate.errors import OptionError
from headgate.runtime import driver as drivers
from headgate.supervision import spawner
from headgate.supervision.threads import Threads

if TYPE_CHECKING:  # whose unused methods are not abstract to a type checker
    from asyncio import BaseEventLoop as Loop
else:
    Loop = asyncio.AbstractEventLoop

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

POLICIES: Final = ("fifo", "shuffle", "tasks")
_TICK: Final = 20e-6
_LATENCY: Final = 0.002
_LIMIT: Final = 10_000_000


class LoopError(AssertionError):
    """A run on the virtual loop did not end as it should."""


class DeadlockError(LoopError):
    """Nothing is ready and no timer runs, but the main coroutine is not done. It lists the tasks that wait."""


class RunawayError(LoopError):
    """More callbacks ran than were allowed: somebody keeps the loop busy for ever."""


class LeftoverError(LoopError):
    """The main coroutine returned, and tasks are left that nobody has cancelled or awaited. It lists them."""


class CallbackError(LoopError):
    """A callback raised, or an exception was never looked at: asyncio would only log it. ``__cause__`` has it."""


class VirtualLoop(Loop):
    """An event loop whose clock and whose order come from a seed.

    Args:
        seed: Chooses the order, the ticks and the latencies; each has random numbers of its own.
        policy: What runs next: ``"fifo"`` (as on asyncio's own loop), ``"shuffle"`` (any ready callback), or
            ``"tasks"`` (default: as ``"fifo"``, but steps of tasks change places with each other).
        tick: Seconds by which each callback may advance the clock, at the most. 0: the clock moves only when idle.
        grid: Timers go off at multiples of so many seconds, so that many coincide. 0 (default): when they are due.
        latency: Seconds that a job of a thread may wait for its turn, and its result too, at the most.
        limit: Callbacks after which the run counts as endless.

    Attributes:
        steps: Callbacks that ran.
        problems: What callbacks raised, and other things that asyncio would log.

    Raises:
        OptionError: An option is out of range.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        policy: str = "tasks",
        tick: float = _TICK,
        grid: float = 0.0,
        latency: float = _LATENCY,
        limit: int = _LIMIT,
    ) -> None:
        """Begin at time 0 with nothing to do."""
        if policy not in POLICIES:
            raise OptionError("VirtualLoop", "policy", f"one of {', '.join(map(repr, POLICIES))}", policy)
        for name, value in (("tick", tick), ("grid", grid), ("latency", latency)):
            if not value >= 0:
                raise OptionError("VirtualLoop", name, "seconds of at least 0", value)
        self.steps = 0
        self.problems: list[dict[str, Any]] = []
        self.worker: Worker | None = None  # the simulated thread that runs right now
        self._order, self._ticks, self._latencies = (random.Random(seed * 3 + n) for n in range(3))  # noqa: S311
        self._policy = policy
        self._tick = tick
        self._grid = grid
        self._latency = latency
        self._limit = limit
        self._now = 0.0
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = itertools.count(1)
        self._stopping = self._running = self._closed = self._debug = False
        self._tasks: weakref.WeakValueDictionary[int, asyncio.Future[Any]] = weakref.WeakValueDictionary()
        self._generators: weakref.WeakValueDictionary[int, AsyncGenerator[Any, Any]] = weakref.WeakValueDictionary()
        self._workers: weakref.WeakKeyDictionary[Any, Worker] = weakref.WeakKeyDictionary()
        self._factory: Any = None
        self._handler: Any = None

    # -- time and order -----------------------------------------------------------------------------------------------

    def time(self) -> float:
        """Return the virtual time in seconds since the loop was made."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass in the midst of a callback, as one does that blocks."""
        self._now += seconds

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Let a callback be ready."""
        if self._closed:
            raise RuntimeError("Event loop is closed")
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Let a callback be ready; from a simulated thread: after a latency, in the order of its calls."""
        worker = self.worker
        if worker is None:
            return self.call_soon(callback, *args, context=context)
        worker.time = max(worker.time, self._now) + self.delay()
        return self.call_at(worker.time, callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Let a callback be ready after so many virtual seconds."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Let a callback be ready at a virtual time."""
        if self._closed:
            raise RuntimeError("Event loop is closed")
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        due = max(when, math.ceil(when / self._grid) * self._grid) if self._grid else when  # never early
        heapq.heappush(self._timers, (due, next(self._numbers), handle))
        return handle

    def delay(self) -> float:
        """Draw a latency in seconds."""
        return self._latencies.random() * self._latency

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Do nothing: a cancelled timer is skipped when it is due."""

    def timers(self) -> list[asyncio.TimerHandle]:
        """Return the timers that wait and are not cancelled, the next one first."""
        return [handle for _, _, handle in sorted(self._timers) if not handle.cancelled()]

    def _next(self) -> bool:
        """Run the next callback; False when there is none and no timer."""
        ready, timers = self._ready, self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        if not ready:
            if not timers:
                return False
            self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            ready.append(heapq.heappop(timers)[2])
        if self._policy != "fifo" and len(ready) > 1:
            self._choose(ready)
        handle = ready.popleft()
        if handle.cancelled():
            return True
        self.steps += 1
        if self.steps > self._limit:
            raise RunawayError(f"expected at most {self._limit} callbacks, and it goes on\n{self._pending()}")
        if self._tick:
            self._now += self._ticks.random() * self._tick
        handle._run()  # noqa: SLF001 (what every event loop calls)
        return True

    def _choose(self, ready: deque[asyncio.Handle]) -> None:
        """Put the one that is to be next in front."""
        if self._policy == "shuffle":
            at = int(self._order.random() * len(ready))
        elif _is_task_step(ready[0]):
            steps = [index for index, handle in enumerate(ready) if _is_task_step(handle)]
            at = steps[int(self._order.random() * len(steps))]
        else:
            return
        ready[0], ready[at] = ready[at], ready[0]

    # -- running ------------------------------------------------------------------------------------------------------

    def run_until_complete(self, future: Generator[Any, None, T] | Awaitable[T]) -> T:
        """Run until it is done, and return its result.

        Raises:
            DeadlockError: It will never be.
            RunawayError: It takes too many callbacks.
        """
        main: asyncio.Future[T] = asyncio.ensure_future(future, loop=self)  # type: ignore[arg-type]  # what asyncio takes
        self._drive(main.done)
        return main.result()

    def run_forever(self) -> None:
        """Run until `stop`."""
        self._stopping = False
        self._drive(lambda: self._stopping)

    def run_ready(self) -> None:
        """Run what is ready, and what that makes ready, until only timers are left."""
        self._drive(lambda: not self._ready)

    def run_a_while(self, steps: int) -> None:
        """Run until no task is left, or so many callbacks."""
        limit = self.steps + steps
        self._limit = max(self._limit, limit + 1)
        self._drive(lambda: self.steps >= limit or not self.tasks())

    def stop(self) -> None:
        """End `run_forever` after the callback that runs now."""
        self._stopping = True

    def _drive(self, done: Callable[[], bool]) -> None:
        if self._running or self._closed:
            raise RuntimeError("This event loop is already running" if self._running else "Event loop is closed")
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=self._generator_begins, finalizer=self._generator_ends)
        self._running = True
        set_running_loop(self)
        try:
            while not done():
                if not self._next():
                    raise DeadlockError(f"nothing is ready and no timer runs at {self._now:.6f} s\n{self._pending()}")
        finally:
            set_running_loop(None)
            self._running = False
            sys.set_asyncgen_hooks(*hooks)

    def tasks(self) -> list[asyncio.Future[Any]]:
        """Return the tasks that are not done, in the order in which they were made."""
        return [task for task in self._tasks.values() if not task.done()]

    def _pending(self) -> str:
        return "\n".join(describe(task) for task in self.tasks()) or "(no task waits)"

    def is_running(self) -> bool:
        """Say whether it runs."""
        return self._running

    def is_closed(self) -> bool:
        """Say whether it is closed."""
        return self._closed

    def close(self) -> None:
        """Drop what is ready and what waits."""
        self._closed = True
        self._ready.clear()
        self._timers.clear()

    def get_debug(self) -> bool:
        """Say whether asyncio's debug mode is on."""
        return self._debug

    def set_debug(self, enabled: bool) -> None:  # noqa: FBT001 (asyncio's form)
        """Switch asyncio's debug mode."""
        self._debug = enabled

    # -- tasks, futures, executors ------------------------------------------------------------------------------------

    def create_future(self) -> asyncio.Future[Any]:
        """Make a future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Any, *, name: object = None, context: Context | None = None, **options: Any
    ) -> asyncio.Task[Any]:
        """Make a task; without a name it gets one that is the same in every run."""
        if context is not None:
            options["context"] = context
        task: asyncio.Task[Any]
        task = (
            asyncio.Task(coro, loop=self, **options) if self._factory is None else self._factory(self, coro, **options)
        )
        number = next(self._numbers)
        self._tasks[number] = task
        task.set_name(f"Task-{number}" if name is None else str(name))
        return task

    def set_task_factory(self, factory: Any) -> None:
        """Let another function make the tasks (``asyncio.eager_task_factory``, from Python 3.12 on)."""
        self._factory = factory

    def get_task_factory(self) -> Any:
        """Return that function, if there is one."""
        return self._factory

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Run a function in this thread, at a later virtual time, as one of the executor's threads would."""
        future: asyncio.Future[T] = self.create_future()
        worker = None
        if getattr(executor, "_max_workers", 0) == 1:  # one thread: one job after the other
            worker = self._workers.get(executor)
            if worker is None:
                worker = self._workers[executor] = Worker(self)
        (worker or Worker(self)).put(lambda: _run_for(future, func, args))
        return future

    def set_default_executor(self, executor: Any) -> None:
        """Do nothing: no executor is used."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 (asyncio's form)
        """Do nothing: there is no executor."""

    async def shutdown_asyncgens(self) -> None:
        """Close the async generators that were begun and not ended."""
        for generator in list(self._generators.values()):
            await generator.aclose()

    def _generator_begins(self, generator: AsyncGenerator[Any, Any]) -> None:
        self._generators[next(self._numbers)] = generator

    def _generator_ends(self, generator: AsyncGenerator[Any, Any]) -> None:
        if not self._closed:
            self.create_task(generator.aclose(), name="close an async generator")

    # -- what went wrong ----------------------------------------------------------------------------------------------

    def set_exception_handler(self, handler: Any) -> None:
        """Let a function of the loop and a context hear of problems; `problems` then stays empty."""
        self._handler = handler

    def get_exception_handler(self) -> Any:
        """Return that function, if there is one."""
        return self._handler

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Note what asyncio would log."""
        if self._handler is not None:
            self._handler(self, context)
        else:
            self.default_exception_handler(context)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep it among the `problems`."""
        self.problems.append(context)


class Worker:
    """Stands in for a thread and its queue: jobs run one after the other, each at a later virtual time.

    Attributes:
        time: When the loop hears of the last thing that a job had called in the loop.
    """

    def __init__(self, loop: VirtualLoop) -> None:
        """Begin with nothing to do."""
        self.time = 0.0
        self._loop = loop
        self._jobs: deque[Callable[[], Any]] = deque()

    def put(self, job: Callable[[], Any]) -> None:
        """Let a job run after those before it."""
        self._jobs.append(job)
        if len(self._jobs) == 1:
            self._loop.call_later(self._loop.delay(), self._work)

    def _work(self) -> None:
        loop = self._loop
        outer, loop.worker = loop.worker, self
        try:
            self._jobs[0]()
        finally:
            loop.worker = outer
            self._jobs.popleft()
            if self._jobs:
                loop.call_later(loop.delay(), self._work)


class SimulatedThreadDriver(drivers.ThreadDriver):
    """A stage in a thread that is a `Worker` when the loop is a virtual one: same code, no thread."""

    def __init__(self, node: Any, child: Any) -> None:
        """Put the worker in the place of the thread and of its queue."""
        super().__init__(node, child)
        if isinstance(node.loop, VirtualLoop):
            self._jobs = self._thread = _Jobs(Worker(node.loop), self._work)  # type: ignore[assignment]


class _Jobs:
    """A queue that lets `ThreadDriver._work` run once for each job, on a worker."""

    def __init__(self, worker: Worker, work: Callable[[], None]) -> None:
        self._worker = worker
        self._work = work
        self._job: Any = None
        self._open = True

    def start(self) -> None:
        """Begin (a thread's form): there is nothing to start."""

    def put(self, job: Any) -> None:
        """Take a job, or None to let no more run."""
        if job is None:
            self._open = False
        elif self._open:
            self._worker.put(lambda: self._run(job))

    def get(self) -> Any:
        """Give the job that is due, then None."""
        job, self._job = self._job, None
        return job

    def _run(self, job: Any) -> None:
        self._job = job
        self._work()


class SimulatedThreads(Threads):
    """The threads of a `ConsumerSupervisor`: each child has a `Worker` of its own when the loop is a virtual one."""

    def run(self, call: Callable[[], Any], came: Callable[[BaseException | None], None]) -> None:
        """Let a function run on a worker."""
        if isinstance(self._loop, VirtualLoop):
            Worker(self._loop).put(functools.partial(self._run_one, (call, came)))
        else:
            super().run(call, came)

    def _run_one(self, job: Any) -> None:
        self._jobs.put(job)
        self._jobs.put(None)
        self._work()


@contextlib.contextmanager
def simulated_threads(loop: VirtualLoop) -> Generator[None, None, None]:
    """Let stages in threads, and the clock by which plain iterables linger, be virtual within the block."""
    before = drivers.DRIVERS["thread"]
    names: dict[str, Any] = sources.__dict__
    clock = names["time"]
    children: dict[str, Any] = spawner.__dict__
    drivers.DRIVERS["thread"] = SimulatedThreadDriver
    children["Threads"] = SimulatedThreads
    names["time"] = types.SimpleNamespace(monotonic=loop.time)
    try:
        yield
    finally:
        drivers.DRIVERS["thread"] = before
        children["Threads"] = Threads
        names["time"] = clock


def run(
    main: Coroutine[Any, Any, T],
    *,
    seed: int = 0,
    policy: str = "tasks",
    tick: float = _TICK,
    grid: float = 0.0,
    limit: int = _LIMIT,
) -> T:
    """Run a coroutine in virtual time, as ``asyncio.run`` does in real time. A seed gives the same run again.

    Args:
        main: The coroutine.
        seed: Chooses the order of what is ready, the ticks of the clock, and how long threads take.
        policy: ``"tasks"`` (default), ``"shuffle"`` or ``"fifo"``; see `VirtualLoop`.
        tick: Seconds by which each callback may advance the clock, at the most. Default 20 microseconds; give 0 to
            compare times exactly.
        grid: Timers go off at multiples of so many seconds. Default 0: when they are due.
        limit: Callbacks after which the run counts as endless. Default ten million.

    Returns:
        What it returns.

    Raises:
        DeadlockError: It waits for something that can never come.
        RunawayError: It takes more callbacks than ``limit``.
        LeftoverError: It returned and left tasks behind.
        CallbackError: A callback raised, or a task's exception was never looked at.
        OptionError: An option is out of range.
    """
    try:
        loop = VirtualLoop(seed, policy=policy, tick=tick, grid=grid, limit=limit)
    except BaseException:
        main.close()
        raise
    return run_on(loop, main)


def run_on(loop: VirtualLoop, main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a virtual loop, check that it leaves nothing behind, and close the loop."""
    with simulated_threads(loop):
        try:
            result = loop.run_until_complete(main)
            loop.run_ready()  # tasks that are cancelled already, generators that close
            left = [describe(task) for task in loop.tasks()]
            if left:
                raise LeftoverError("\n".join(("expected no task to be left at the end", *left)))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            _clean_up(loop)
    if loop.problems:
        _raise(loop.problems[0])
    return result


def _clean_up(loop: VirtualLoop) -> None:
    """Cancel what is left, so that nothing warns when it is collected; then close the loop."""
    for _ in range(10):  # a task may swallow a cancellation, but hardly ten
        left = loop.tasks()
        if not left:
            break
        for task in left:
            task.cancel()
        with contextlib.suppress(LoopError):
            loop.run_a_while(1000)
    for task in loop.tasks():
        _close(task)
    loop.close()


def _close(task: asyncio.Future[Any]) -> None:
    """Close the coroutine of a task that goes on and on."""
    coroutine: Any = task.get_coro() if isinstance(task, asyncio.Task) else None
    for _ in range(100):  # once for each time that it awaits something more
        try:
            if coroutine is not None:
                coroutine.close()
        except BaseException:  # noqa: BLE001, S112 (the run has failed already, with something else)
            continue
        return


def _raise(problem: dict[str, Any]) -> NoReturn:
    error = problem.get("exception")
    text = problem.get("message", "a problem")
    raise CallbackError(text if error is None else f"{text}: {type(error).__name__}: {error}") from error


def _run_for(future: asyncio.Future[T], function: Callable[..., T], args: tuple[Any, ...]) -> None:
    """Run an executor's job, unless it was cancelled in time, and tell the loop."""
    if future.cancelled():
        return
    loop = future.get_loop()
    try:
        result = function(*args)
    except BaseException as error:  # noqa: BLE001 (it belongs to whoever waits)
        loop.call_soon_threadsafe(_set, future, None, error)
    else:
        loop.call_soon_threadsafe(_set, future, result, None)


def _set(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _is_task_step(handle: asyncio.Handle) -> bool:
    """Say whether it is a step of a task: a method of it, whatever the method's type."""
    return isinstance(getattr(handle._callback, "__self__", None), asyncio.Task)  # type: ignore[attr-defined]  # noqa: SLF001


def describe(task: asyncio.Future[Any]) -> str:
    """Show a task and where it waits, in one line."""
    if not isinstance(task, asyncio.Task):
        return repr(task)
    stack = task.get_stack(limit=1)
    where = f" at {stack[0].f_code.co_qualname}, line {stack[0].f_lineno}" if stack else ""
    return f"  {task.get_name()}: {getattr(task.get_coro(), '__qualname__', task.get_coro())}{where}"
