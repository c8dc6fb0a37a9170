"""How a supervisor carries on: who is started, who is stopped, and what happens when a child ends.

One task carries out everything that happens to the children, one thing after the other: the end of a child, a restart
whose time has come, what somebody asks for. It waits for nothing without a limit: a child that is being started is
given up when the supervisor is to stop, one that is being stopped is killed when its time is over.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from headgate.errors import HeadgateError, Ignore, NoStageError, RestartLimitError
from headgate.protocol.children import ONE_FOR_ALL, REST_FOR_ONE, Ending, Restarts, is_done
from headgate.protocol.messages import NORMAL, PRODUCER, SHUTDOWN, is_normal
from headgate.runtime.driver import look_at
from headgate.runtime.options import Child
from headgate.runtime.reference import Ref
from headgate.supervision.members import Member

if TYPE_CHECKING:
    from headgate.supervision.running import Supervision
    from headgate.supervision.supervisor import Supervisor
    from headgate.system import System

logger = logging.getLogger("headgate")

LOG_SECONDS = 1.0
"""Restarts of one child are logged at most this often."""

_T = TypeVar("_T")


class Engine:
    """The inside of a `Supervision`.

    Attributes:
        system: What its stages run in.
        recipe: What it was started from.
    """

    def __init__(self, recipe: Supervisor, system: System, path: tuple[str, ...] = ()) -> None:
        """Prepare it; `start` starts it."""
        self.recipe = recipe
        self.system = system
        self.node = system.node
        self.id = recipe.id
        self.name = recipe.name or recipe.id
        self.number = next(self.node.numbers)
        self.monitors: list[Callable[[Any], None]] = []
        self.supervised = bool(path)
        self._path = (*path, recipe.id) if path else (f"{recipe.id}-{self.number}",)
        self.completed = False
        self._members: list[Member] = []
        self._restarts = Restarts(recipe.max_restarts, recipe.max_seconds, recipe.backoff)
        self._mail: deque[Callable[[], Coroutine[Any, Any, None]]] = deque()
        self._wake = asyncio.Event()
        self._timers: dict[asyncio.TimerHandle, list[Member]] = {}
        self._stopping: asyncio.Future[Any] = self.node.loop.create_future()
        self._deadline: float | None = None  # by when all of it is to be over
        self._last_call: asyncio.TimerHandle | None = None
        self._starting: tuple[Member, asyncio.Task[Any]] | None = None
        self._leaving: Ref | Supervision | None = None  # the child that is being stopped
        self._draining = False
        self.done: asyncio.Future[Any] = self.node.loop.create_future()

    @property
    def alive(self) -> bool:
        """True until it has ended."""
        return not self.done.done()

    @property
    def reason(self) -> Any:
        """Why it ended; None while it lives."""
        return self.done.result() if self.done.done() else None

    def kill(self, reason: Any = "killed") -> None:
        """End all stages below at once, without ``terminate``."""
        if self.alive:
            if not self._stopping.done():
                self._stopping.set_result(reason)
            self._end_within(0.0)
            self._kill_all()
            self._wake.set()

    def drain(self) -> None:
        """Start nobody again: everything below is to come to its end, and then the supervisor too."""
        self._draining = True
        if self._starting is not None:
            self._starting[1].cancel()
        for timer in self._timers:
            timer.cancel()
        for members in self._timers.values():
            for member in members:
                self._done(member)
        self._timers.clear()
        self._wake.set()

    async def conclude(self, seconds: float) -> bool:  # noqa: ARG002 (for those that have something to do)
        """Bring what is under way to its end, before the stages are drained.

        Args:
            seconds: How long that may take.

        Returns:
            Whether everything was finished.
        """
        return True

    # -- the task -----------------------------------------------------------------------------------------------------

    async def start(self, hold: list[Any] | None = None) -> None:
        """Start the children in order.

        Args:
            hold: Where producers are collected whose demand is held back until everything is there. None: this is the
                top, which lets them go.

        Raises:
            HeadgateError: A child could not be started; those before it are stopped again.
        """
        held = [] if hold is None else hold
        self.node.supervisions[self.number] = self
        for child in self.recipe.children:
            self._enlist(child)
        try:
            for member in list(self._members):
                if not self._stopping.done() and not self._draining:
                    await self._start(member, held)
        except BaseException:  # a task of its own: who cancels this once more does not cut it short
            await asyncio.shield(self.node.job(self._take_back(), f"supervisor {self.name}"))
            raise
        finally:
            if hold is None:
                for ref in held:
                    ref.set_demand("forward")
        task = self.node.job(self._run(), f"supervisor {self.name}")
        task.add_done_callback(self._lost)

    def _lost(self, task: asyncio.Task[None]) -> None:  # noqa: ARG002 (a callback's form)
        """End when the task was cancelled by others before its first step, so that `stop` does not wait for ever."""
        if self.alive:
            self._kill_all()
            self._end(SHUTDOWN)

    async def _take_back(self) -> None:
        """Stop what was started before the start failed."""
        self._end_within(self.recipe.shutdown)
        if not self._stopping.done():
            self._stopping.set_result(SHUTDOWN)
        try:
            await self._give_up_start()
            await self._stop_children(SHUTDOWN)
        finally:
            self._end(SHUTDOWN)

    async def _run(self) -> None:
        """Carry out what comes, one thing after the other."""
        reason: Any = SHUTDOWN
        try:
            while not self._stopping.done():
                if self._mail:
                    await self._mail.popleft()()
                elif self._is_over():
                    self.completed = True
                    self._stopping.set_result(NORMAL)
                else:
                    self._wake.clear()
                    await self._wake.wait()
            reason = self._stopping.result()
        except BaseException as error:  # a fault of ours, or the loop is being closed
            reason = error
            raise
        finally:
            if self._deadline is None:
                self._end_within(self.recipe.shutdown)
            await self._stop_children(reason if is_normal(reason) else SHUTDOWN)
            self._end(reason)

    def _end_within(self, seconds: float) -> None:
        """Let everything be over in time: whoever is left then is killed, also one that is being stopped."""
        if not self.alive:
            return
        deadline = self.node.loop.time() + seconds
        if self._deadline is None or deadline < self._deadline:
            self._deadline = deadline
            if self._last_call is not None:
                self._last_call.cancel()
            self._last_call = self.node.loop.call_at(deadline, self._kill_all)

    def _is_over(self) -> bool:
        if self._draining:
            return all(each.handle is None for each in self._members)
        return self.recipe.auto_shutdown and bool(self._members) and all(each.state == "done" for each in self._members)

    def _post(self, what: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        self._mail.append(lambda: what(*args))
        self._wake.set()

    async def _ask(self, what: Callable[..., Awaitable[_T]], *args: Any) -> _T:
        """Let the task do something, and wait for what comes of it."""
        if not self.alive:
            raise NoStageError(f"supervisor {self.name!r} has ended")
        answer: asyncio.Future[_T] = self.node.loop.create_future()
        answer.add_done_callback(look_at)  # who asked may have been cancelled

        async def run() -> None:
            try:
                value = await what(*args)
            except Exception as error:  # noqa: BLE001 (it belongs to the caller)
                if not answer.done():
                    answer.set_exception(error)
            else:
                if not answer.done():
                    answer.set_result(value)

        self._post(run)
        await asyncio.wait([answer, self.done], return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise NoStageError(f"supervisor {self.name!r} has ended")
        return answer.result()

    def _end(self, reason: Any) -> None:
        """Be gone, and let everybody know."""
        if self._last_call is not None:
            self._last_call.cancel()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        for member in self._members:
            if member.state != "done":
                member.state = "stopped"
                self._unexpect(member)
        for group in {each.followed for each in self._members if each.followed is not None}:
            self.node.awaited.disband(group, over=False)
        self.node.supervisions.pop(self.number, None)
        if not self.done.done():
            self.done.set_result(reason)
        if isinstance(reason, HeadgateError) and not self.supervised:
            self.node.crashes.append(reason)
        for monitor in self.monitors:
            monitor(reason)
        self.node.tell()

    # -- starting and stopping ----------------------------------------------------------------------------------------

    def _enlist(self, recipe: Child | Supervisor) -> list[Member]:
        """Take a child in, or each of a group, and say that its names will come."""
        recipes = recipe.members() if isinstance(recipe, Child) else [recipe]
        members = [Member(each) for each in recipes]
        if members[0].followed is not None:
            self.node.awaited.form(members[0].followed, list(recipe.names()))
        self._members.extend(members)
        for member in members:
            self._expect(member)
        return members

    def _expect(self, member: Member) -> None:
        member.names = [*member.recipe.names(), *member.recipe.groups()]
        for name in member.names:
            self.node.awaited.expect(name)

    def _unexpect(self, member: Member) -> None:
        names, member.names = member.names, []
        for name in names:
            self.node.awaited.unexpect(name)

    async def _start(self, member: Member, hold: list[Any] | None = None, *, wait: bool = True) -> None:
        """Start a child; give up when the supervisor is to stop.

        Args:
            member: Which.
            hold: Where producers are collected whose demand is held back.
            wait: Wait for the answers of its producers. Else one that is refused ends like any other.

        Raises:
            HeadgateError: It could not be started.
        """
        over = self.node.awaited.over
        wanted = member.recipe.subscribe_to if isinstance(member.recipe, Child) else []
        if wanted and all(to.producer in over for to in wanted):  # it has nothing more to do
            self._done(member, completed=True)
            return
        member.state = "starting"
        if not member.names:
            self._expect(member)
        starting = self.node.loop.create_task(self.system.start_supervised(member.recipe, hold, self._path, wait=wait))
        self._starting = (member, starting)
        await asyncio.wait([starting, self._stopping], return_when=asyncio.FIRST_COMPLETED)
        await self._give_up_start()
        if starting.cancelled():
            member.state = "stopped"
            return
        try:
            handle = starting.result()
        except Ignore as ignore:  # it is not to run
            member.reason = ignore
            self._done(member)
            return
        member.handle = handle
        member.handled = 0
        member.state = "running"
        if handle.alive:
            monitors = handle.driver.monitors if isinstance(handle, Ref) else handle.monitors
            monitors.append(functools.partial(self._post, self._ended, member, handle))
        else:
            self._post(self._ended, member, handle, handle.reason)

    async def _give_up_start(self) -> None:
        """End what is being started, if it is. A child that has come up all the same is one like the others."""
        if self._starting is None:
            return
        member, starting = self._starting
        if not starting.done():
            starting.cancel()
            await asyncio.wait([starting])
        self._starting = None
        if not starting.cancelled() and starting.exception() is None:
            member.handle = starting.result()

    async def _stop(self, member: Member, reason: Any) -> None:
        """Stop a child within its time, which is cut short when the supervisor is to stop."""
        handle, member.handle = member.handle, None
        if handle is None or not handle.alive:
            return
        self._leaving = handle
        try:
            member.reason = await handle.stop(reason, timeout=self._limit(member))
        finally:
            self._leaving = None

    def _limit(self, member: Member) -> float:
        """Return the seconds that a child has to end by itself."""
        limit = member.recipe.shutdown
        return limit if self._deadline is None else max(0.0, min(limit, self._deadline - self.node.loop.time()))

    async def _stop_children(self, reason: Any) -> None:
        """Stop all, the last started first."""
        for member in reversed(self._members):
            await self._stop(member, reason)

    def _kill_all(self) -> None:
        """Kill whoever lives below, also those that are being stopped or have not come up yet."""
        for handle in (self._leaving, *(each.handle for each in reversed(self._members))):
            if handle is not None and handle.alive:
                handle.kill()
        for each in list(self.node.supervisions.values()):
            if each is not self and each._path[: len(self._path)] == self._path:  # noqa: SLF001 (one of ours)
                each.kill()

    def _done(self, member: Member, *, completed: bool = False) -> None:
        """Leave a child alone for good."""
        member.state = "done"
        member.handle = None
        self.node.forget((*self._path, member.recipe.id))
        if completed:
            self.node.awaited.end(member.names)
        self._unexpect(member)
        group = member.followed
        if group is not None and all(each.state == "done" for each in self._members if each.followed == group):
            self.node.awaited.disband(group, over=completed)

    # -- the end of a child -------------------------------------------------------------------------------------------

    async def _ended(self, member: Member, handle: Ref | Supervision, reason: Any) -> None:
        """See to a child that has ended by itself."""
        if member.handle is handle:  # else it was stopped, or started again since
            await self._see_to(member, _ending(handle, reason))

    async def _see_to(self, member: Member, ending: Ending) -> None:
        member.handle = None
        member.reason = ending.reason
        if isinstance(getattr(ending.reason, "__cause__", None), (KeyboardInterrupt, SystemExit)):
            self._done(member)  # it ends the program, not only the stage
            return
        if self._draining or self._stopping.done() or is_done(member.recipe.restart, ending):
            if not is_normal(ending.reason) and not ending.follows:
                self._log(member, "it is not started again")
            self._done(member, completed=ending.completed)
            return
        affected = self._affected(member)
        if any(each is not member and _is_source(each.recipe) for each in affected):
            ending = ending._replace(failure=None)  # what was delivered how often is forgotten with the source
        loop = self.node.loop
        moved = self._has_moved()
        delay = self._restarts.decide(member.life, ending, loop.time(), self.node.random.random(), moved=moved)
        if delay is None:
            assert self.recipe.max_restarts is not None  # noqa: S101 (else there is no limit)
            error = RestartLimitError(
                self.name, member.recipe.id, self.recipe.max_restarts, self.recipe.max_seconds, ending.reason
            )
            logger.error("%s", error, exc_info=error.__cause__)
            self._end_within(self.recipe.shutdown)
            self._stopping.set_result(error)
            return
        self._log(member, f"it is started again in {delay:.2f} s" if delay else "it is started again")
        for other in reversed(affected):
            if other is not member:
                await self._stop(other, SHUTDOWN)
        for each in affected:
            each.state = "waiting"
        self._later(affected, delay)

    def _has_moved(self) -> bool:
        """Say whether a living child has handled events since this was asked the last time."""
        moved = False
        for each in self._members:
            into = each.handle.driver.core.into if isinstance(each.handle, Ref) else None
            handled = 0 if into is None else into.handled
            moved = moved or handled > each.handled
            each.handled = handled
        return moved

    def _affected(self, member: Member) -> list[Member]:
        """Return who is started again with a child, in order."""
        members = self._members
        if self.recipe.strategy == ONE_FOR_ALL:
            wanted = members
        elif self.recipe.strategy == REST_FOR_ONE:
            wanted = members[members.index(member) :]
        else:
            wanted = [member]
        return [each for each in wanted if each is member or each.state in ("running", "waiting", "starting")]

    def _later(self, affected: list[Member], delay: float) -> None:
        """Start children again after a while, together with those among them that wait already."""
        loop = self.node.loop
        for timer, others in list(self._timers.items()):
            if any(each in affected for each in others):
                timer.cancel()
                del self._timers[timer]
                affected = [each for each in self._members if each in affected or each in others]
                delay = max(delay, timer.when() - loop.time())
        timer = loop.call_later(max(0.0, delay), lambda: self._due(timer))
        self._timers[timer] = affected

    def _due(self, timer: asyncio.TimerHandle) -> None:
        affected = self._timers.pop(timer, None)
        if affected is not None:
            self._post(self._restart, affected)

    async def _restart(self, members: list[Member]) -> None:
        """Start children again, in order; the first that cannot be started ends like any other."""
        for index, member in enumerate(members):
            if member.state != "waiting" or self._stopping.done():
                continue
            if self._draining:
                self._done(member)
                continue
            try:  # a producer may be busy for long: the other children must not wait for its answer
                await self._start(member, wait=False)
            except Exception as error:  # noqa: BLE001 (whatever its start raises)
                member.state = "waiting"
                await self._see_to(member, Ending(error))
                rest = [each for each in members[index + 1 :] if each.state == "waiting"]
                if rest and not self._stopping.done() and not any(rest[0] in each for each in self._timers.values()):
                    await self._restart(rest)
                return

    def _log(self, member: Member, what: str) -> None:
        """Log the end of a child, at most once a second for each."""
        now = self.node.loop.time()
        if member.logged is not None and now - member.logged < LOG_SECONDS:
            member.unlogged += 1
            return
        more = f" ({member.unlogged} more ends since the last line)" if member.unlogged else ""
        member.logged, member.unlogged = now, 0
        reason = member.reason
        error = reason if isinstance(reason, BaseException) else None
        logger.error(
            "supervisor %r: child %r has ended: %s; %s%s",
            self.name,
            member.recipe.id,
            reason,
            what,
            more,
            exc_info=error if error is None or error.__cause__ is None else error.__cause__,
        )


def _ending(handle: Ref | Supervision, reason: Any) -> Ending:
    """Describe how a child has ended."""
    if not isinstance(handle, Ref):
        return Ending(reason, handle.completed)
    core = handle.driver.core
    progressed = core.into is not None and core.into.handled > 0
    return Ending(reason, core.completed, core.follows, core.failure, progressed)


def _is_source(recipe: Child | Supervisor) -> bool:
    return not isinstance(recipe, Child) or recipe.role == PRODUCER
