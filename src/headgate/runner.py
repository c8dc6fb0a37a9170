"""`run`: an app as a program, which ends in order when it is told to, and says by its exit status what happened."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any, Final

from headgate.draining import Drained
from headgate.errors import HeadgateError, OptionError, RestartLimitError, RunError
from headgate.observe.blocked import Watchdog, frame_of, locate
from headgate.observe.guard import Guard, leave_now
from headgate.observe.lines import logging_to_stderr
from headgate.observe.stall import join, look
from headgate.runtime.options import Child, check_seconds
from headgate.system import System

logger = logging.getLogger("headgate")

FAILED: Final = 1
"""Exit status: the app has failed."""
KILLED: Final = 3
"""Exit status: the deadline has passed, and what was not finished was killed."""
SIGNALLED: Final = 128
"""Exit status, plus the signal's number: told to end at once."""
CANCEL_SECONDS: Final = 5.0
"""Seconds that a second signal leaves."""
GRACE: Final = 1.0
"""Seconds that cancelled handlers have for their ``finally``, and the loop to notice that the deadline has passed."""
LOOK_SECONDS: Final = 1.0
"""Seconds between two looks at what moves."""
LEVELS: Final = ("debug", "info", "warning", "error", "critical")


def run(
    app: Any,
    *,
    shutdown: float = 30.0,
    watch_blocked: float | None = 0.25,
    log_level: str | None = "warning",
) -> None:
    """Run an app until it is done, as a program of its own.

    Signals: the first SIGTERM or SIGINT drains (`System.drain`: what was begun is finished, what was not stays with its
    source). The second cancels: async handlers have 5 seconds for their ``finally``, and nothing that is not finished
    is acknowledged. The third ends the process on the spot. They also work while a handler blocks the event loop.
    SIGUSR1 prints `System.diagnose` to stderr, where there is such a signal.

    Args:
        app: A `Supervisor`; or anything with its protocol: ``async with app as running``, where ``running.wait()``
            returns when all is done and ``running.system`` is the `System` that it runs in.
        shutdown: Seconds for draining after the first signal, and for stopping after a failure. What has not ended by
            then is killed, and not acknowledged. Default 30.
        watch_blocked: A handler that keeps the event loop from running for so many seconds is named in the log, with
            its stack. Default 0.25; None: nobody looks.
        log_level: From which level on lines are logged to stderr, if the program has not configured logging itself:
            ``"debug"``, ``"info"``, ``"warning"`` (default), ``"error"`` or ``"critical"``. None: logging is left
            alone.

    Returns:
        None when the app was done or was drained (exit status 0).

    Raises:
        SystemExit: With the status 1: the app has failed (a supervisor gave up, a stage could not be started). 3: the
            deadline has passed and something was killed. 128 + the signal's number: a second signal came. If a handler
            called ``sys.exit``, its status. When a handler still blocks a thread then, the process ends right there.
        RunError: It was called in a thread other than the main one, or where an event loop runs already.
        OptionError: ``app`` is no app, or an option is wrong.
    """
    shutdown = check_seconds("run", "shutdown", shutdown)
    if watch_blocked is not None and not check_seconds("run", "watch_blocked", watch_blocked):
        raise OptionError("run", "watch_blocked", "a number of seconds above 0, or None", watch_blocked)
    if log_level is not None and (not isinstance(log_level, str) or log_level.lower() not in LEVELS):
        raise OptionError("run", "log_level", f"one of {', '.join(map(repr, LEVELS))}, or None", log_level)
    _check_app(app)
    _check_place()
    with logging_to_stderr(log_level):
        code = _Run(app, shutdown, watch_blocked).run()
    if code:
        raise SystemExit(code)


def _check_app(app: Any) -> None:
    """Refuse what is no app, and say what to do with what it is."""
    if isinstance(app, (Child, list, tuple)):
        hint = f"a Supervisor; put {'it' if isinstance(app, Child) else 'them'} into one: Supervisor([...])"
    elif isinstance(app, System):
        hint = "a Supervisor, as a System has no stages before it runs"
    elif inspect.iscoroutinefunction(app) or asyncio.iscoroutine(app):
        hint = "a Supervisor; a coroutine is run by asyncio.run(...)"
        if asyncio.iscoroutine(app):
            app.close()
    elif not (hasattr(type(app), "__aenter__") and hasattr(type(app), "__aexit__")):
        hint = "a Supervisor (or another app for 'async with')"
    else:
        return
    raise OptionError("run", "app", hint, app)


def _check_place() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RunError(
            "headgate.run: an event loop runs here already; start the app in it: "
            "'await app', or 'async with app as running'"
        )
    if threading.current_thread() is not threading.main_thread():
        raise RunError(
            "headgate.run: expected to be called in the main thread, since only that one gets signals; "
            "elsewhere use asyncio.run with 'await app' inside"
        )


class _Run:
    """One run: what was asked of it, and what came of it."""

    def __init__(self, app: Any, shutdown: float, watch_blocked: float | None) -> None:
        self._app = app
        self._shutdown = shutdown
        self._watch_blocked = watch_blocked
        self._loop = asyncio.new_event_loop()
        self._entering: asyncio.Future[Any] | None = None
        self._code = 0
        self._signals: list[int] = []  # that have come
        self._noticed = 0  # by the loop
        self._deadline = 0.0  # of the drain, on the monotonic clock
        self._ended = False  # everything is over but for what the handlers leave behind
        self._stop: asyncio.Future[None] = self._loop.create_future()
        self._cancel: asyncio.Future[None] = self._loop.create_future()
        self._guard = Guard(self)
        self._threads = set(threading.enumerate())
        # Ours, so that nobody waits without a limit for what runs in it.
        self._executor = ThreadPoolExecutor(thread_name_prefix="headgate: executor")
        self._loop.set_default_executor(self._executor)

    def run(self) -> int:
        """Run, and return the exit status."""
        asyncio.set_event_loop(self._loop)
        watchdog = None
        self._guard.start()
        try:
            with self._handlers():
                if self._watch_blocked is not None:
                    watchdog = Watchdog(self._loop, self._watch_blocked)
                    watchdog.start()
                try:
                    self._until_done(self._main())
                    self._until_done(self._leave())
                    self._until_done(self._settle())
                finally:
                    if watchdog is not None:
                        watchdog.stop()
                self._wait_for_threads()
        finally:
            self._guard.stop()
            self._executor.shutdown(wait=False, cancel_futures=True)
            asyncio.set_event_loop(None)
            with contextlib.suppress(RuntimeError):  # it runs still: something beyond us has gone wrong
                self._loop.close()
        return self._code

    def _until_done(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a part of it, also when a handler calls ``sys.exit``."""
        task = self._loop.create_task(coroutine)
        while not task.done():
            try:
                self._loop.run_until_complete(task)
            except SystemExit as exit_:
                if not self._ended:
                    said = "" if exit_.code is None else exit_.code
                    logger.warning("a handler has called sys.exit(%s): stopping", said)
                    self._code = exit_.code if isinstance(exit_.code, int) else 0 if exit_.code is None else FAILED
                self._end()
            except KeyboardInterrupt:  # raised by a handler: signals do not come this way
                self._code = SIGNALLED + signal.SIGINT
                self._end()
            except asyncio.CancelledError:
                self._end()  # a handler has cancelled whatever task there is
            except RuntimeError:
                pass  # somebody has called loop.stop, which is nothing to us; or it is the task's own, as below
            except Exception:  # noqa: BLE001 (the task's own: below)
                break
        if not task.cancelled() and task.exception() is not None:
            self._fail(task.exception())

    def _end(self) -> None:
        """Let everything come to its end without a drain."""
        self._ended = True
        self._wish(self._stop)

    @property
    def _running(self) -> Any:
        """What entering the app has given; None before that."""
        entering = self._entering
        if entering is None or not entering.done() or entering.cancelled() or entering.exception() is not None:
            return None
        return entering.result()

    @property
    def _system(self) -> System | None:
        """What it runs in, if it says so."""
        return getattr(self._running, "system", None)

    # -- signals ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _handlers(self) -> Generator[None]:
        """Take the signals over.

        The handlers are those of the interpreter, since those of the loop do not run while a stage blocks it.
        """
        wanted: dict[int, Callable[[int, FrameType | None], None]] = {
            getattr(signal, name): self._signalled
            for name in ("SIGTERM", "SIGINT", "SIGBREAK")
            if hasattr(signal, name)
        }
        if hasattr(signal, "SIGUSR1"):
            wanted[signal.SIGUSR1] = self._asked
        before: dict[int, Any] = {}
        for number, handler in wanted.items():
            if number == signal.SIGINT and signal.getsignal(number) is signal.SIG_IGN:
                continue  # started in the background of a shell: Ctrl-C is meant for others
            before[number] = signal.signal(number, handler)
        try:
            with self._waking():
                yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    @contextlib.contextmanager
    def _waking(self) -> Generator[None]:
        """Let a signal wake the loop, whichever thread the system gives it to."""
        reader, writer = socket.socketpair()
        reader.settimeout(0)
        writer.settimeout(0)
        with reader, writer:
            try:
                self._loop.add_reader(reader, reader.recv, 4096)
            except NotImplementedError:  # Windows: its loop sees to that itself
                yield
                return
            before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            try:
                yield
            finally:
                signal.set_wakeup_fd(before)
                self._loop.remove_reader(reader)

    def _signalled(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (a handler's form)
        """Take note of a signal to end. Python runs this between two instructions of whatever it is at."""
        signals = self._signals
        signals.append(number)
        if len(signals) == 1:
            self._deadline = time.monotonic() + self._shutdown
            self._guard.expect(self._deadline + GRACE, KILLED)
        elif len(signals) == 2:  # noqa: PLR2004 (the second)
            self._guard.expect(time.monotonic() + CANCEL_SECONDS, SIGNALLED + number)
        else:
            os._exit(SIGNALLED + number)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._notice)

    def _asked(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (a handler's form)
        self._guard.tell()

    def _notice(self) -> None:
        """Do in the loop what a signal asks for."""
        while self._noticed < min(2, len(self._signals)):
            name = signal.Signals(self._signals[self._noticed]).name
            self._noticed += 1
            if self._ended:
                logger.info("%s: it ends already", name)
            elif self._noticed == 1:
                logger.warning("%s: finishing what was begun, for at most %g s (again: cancel)", name, self._shutdown)
                self._wish(self._stop)
            else:
                logger.warning("%s again: cancelling, for at most %g s (again: exit)", name, CANCEL_SECONDS)
                self._code = SIGNALLED + self._signals[1]
                self._wish(self._stop)
                self._wish(self._cancel)

    @staticmethod
    def _wish(future: asyncio.Future[None]) -> None:
        if not future.done():
            future.set_result(None)

    # -- in the loop --------------------------------------------------------------------------------------------------

    async def _main(self) -> None:
        """Start the app, and wait until it is done or is to end."""
        begun = time.monotonic()
        logger.info("%s starts, process %d", self._name(), os.getpid())
        entering = self._entering = asyncio.ensure_future(self._app.__aenter__())
        await self._first(entering, self._stop)
        if not entering.done():  # told to end before it has begun
            entering.cancel()
            await self._first(entering, self._cancel)
            return
        running = entering.result()
        if not hasattr(running, "wait"):
            raise OptionError("run", "app", "a Supervisor: what 'async with app' gives has no wait()", self._app)
        self._loop.call_later(LOOK_SECONDS, self._look)
        waiting = asyncio.ensure_future(running.wait())
        await self._first(waiting, self._stop)
        if waiting.done():
            waiting.result()
            if not self._signals and not self._code:
                logger.info("done after %.1f s", time.monotonic() - begun)
        elif not self._ended:
            await self._drain()
            if waiting.done():  # it has given up meanwhile
                waiting.result()
        waiting.cancel()

    async def _drain(self) -> None:
        """End in order, for as long as there is time."""
        system = self._system
        if system is None:
            return
        draining = asyncio.ensure_future(system.drain(timeout=max(0.0, self._deadline - time.monotonic())))
        await self._first(draining, self._cancel)
        if not draining.done():
            self._kill(system)
            draining.cancel()
            return
        drained: Drained = draining.result()
        if self._cancel.done():
            return
        counts = f"{drained.handled:,} events are handled, {drained.returned:,} go back to where they came from"
        if drained.complete:
            logger.info("drained: %s", counts)
        else:
            self._code = KILLED
            logger.error("%g s are over, and %s had to be killed: %s", self._shutdown, join(drained.unfinished), counts)

    def _kill(self, system: System) -> None:
        if hasattr(self._running, "kill"):
            self._running.kill("cancelled")
        for ref in reversed(system.stages()):
            ref.kill("cancelled")

    async def _leave(self) -> None:
        """Leave the app, which stops what still runs."""
        self._ended = True
        if self._running is None:
            return
        limit = self._shutdown + GRACE
        if self._signals:
            limit = max(0.0, self._deadline - time.monotonic()) + GRACE
        leaving = asyncio.ensure_future(self._app.__aexit__(None, None, None))
        await self._first(leaving, self._cancel, seconds=limit)
        if not leaving.done() and self._system is not None:
            self._kill(self._system)
            await self._first(leaving, seconds=GRACE)
        if leaving.done():
            leaving.result()
        else:
            leaving.cancel()
            self._code = self._code or KILLED

    async def _settle(self) -> None:
        """Cancel what is left, and let it have its ``finally``."""
        limit = CANCEL_SECONDS if self._cancel.done() else GRACE
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=limit)
            for task in left:
                logger.warning("%s does not end", task.get_name())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._loop.shutdown_asyncgens()

    def _look(self) -> None:
        """Note from time to time what moves, for a diagnosis."""
        system = self._system
        if system is not None and not self._ended:
            look(system.node)
            self._loop.call_later(LOOK_SECONDS, self._look)

    @staticmethod
    async def _first(*futures: asyncio.Future[Any], seconds: float | None = None) -> None:
        await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED, timeout=seconds)

    def _name(self) -> str:
        return repr(getattr(self._app, "name", None) or getattr(self._app, "id", None) or type(self._app).__name__)

    # -- the end ------------------------------------------------------------------------------------------------------

    def _fail(self, error: BaseException | None) -> None:
        """Say why the app has failed."""
        if isinstance(error, asyncio.CancelledError) or error is None:
            return
        self._code = self._code or FAILED
        cause = error.__cause__
        if cause is None and not isinstance(error, HeadgateError):
            cause = error
        if isinstance(error, RestartLimitError):  # the supervisor has logged it with its traceback
            logger.error("failed: supervisor %r gave up on child %r", error.supervisor, error.child)
        else:
            logger.error("failed: %s", error, exc_info=cause)

    def _wait_for_threads(self) -> None:
        """Wait for threads that handlers have left behind, as long as there is time; then end without them."""
        deadline = self._deadline + GRACE if self._signals else time.monotonic() + self._shutdown
        if self._cancel.done() or self._code == KILLED:
            deadline = 0.0
        for thread in self._left_behind():
            thread.join(max(0.0, min(deadline - time.monotonic(), threading.TIMEOUT_MAX)))
        left = self._left_behind()
        if left:
            logger.warning("the process ends without waiting for %s", join(each.name for each in left))
            leave_now(self._code)

    def _left_behind(self) -> list[threading.Thread]:
        """Return threads that would keep the process from ending."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        return [
            each
            for each in threading.enumerate()
            if each not in self._threads
            and not each.daemon
            and (self._signals or self._code or each.name.startswith("headgate: "))
        ]

    # -- what the guard needs -----------------------------------------------------------------------------------------

    def too_late(self) -> None:
        """Say that the process ends now, as the loop has not managed to in time."""
        where = locate(frame_of(threading.main_thread().ident))
        by = "" if where is None else f"; the event loop is blocked by {where}\n{where.stack.rstrip()}"
        system = self._system
        stages = [] if system is None else [each.name for each in system.stages()]
        open_ = 0 if system is None else _unfinished(system)
        logger.error(
            "the time is over: the process ends without %s; %s events are not acknowledged%s",
            join(stages) if stages else "waiting for what is left",
            f"{open_:,}",
            by,
        )

    def print_diagnosis(self) -> None:
        """Print what everybody waits for; also when the loop is blocked."""
        system = self._system
        text = "No stage runs yet." if system is None else system.diagnose().render(stacks=True)
        where = locate(frame_of(threading.main_thread().ident))
        if where is not None and threading.current_thread() is not threading.main_thread():
            text = f"The event loop is blocked by {where}:\n{where.stack.rstrip()}\n{text}"
        print(text, file=sys.stderr, flush=True)  # noqa: T201 (it was asked for by hand)

    def print_soon(self, printed: threading.Event) -> None:
        """Print it in the loop, if that runs."""

        def show() -> None:
            if not printed.is_set():
                printed.set()
                self.print_diagnosis()

        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(show)


def _unfinished(system: System) -> int:
    """Return how many events sources have given that nobody has acknowledged."""
    try:
        numbers = [each for each in system.statistics().values() if each.role == "producer"]
    except RuntimeError:  # the loop's thread has changed what was looked at
        return 0
    return sum(each.buffered + each.in_flight + sum(each.queued.values()) for each in numbers)
