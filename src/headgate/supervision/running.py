"""`Supervision`: a supervisor that runs.

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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from headgate.errors import HeadgateError, Ignore, NoStageError, OptionError, RestartLimitError
from headgate.protocol.children import ONE_FOR_ALL, REST_FOR_ONE, Ending, Life, Restarts, is_done
from headgate.protocol.messages import NORMAL, PRODUCER, SHUTDOWN, is_normal
from headgate.runtime.options import Child
from headgate.runtime.reference import Ref

if TYPE_CHECKING:
    from headgate.supervision.supervisor import Supervisor
    from headgate.system import System

logger = logging.getLogger("headgate")

LOG_SECONDS = 1.0
"""Restarts of one child are logged at most this often."""

_T = TypeVar("_T")


class Member:
    """One child: its recipe, and what has become of it.

    Attributes:
        recipe: What it is started from; for one of a group, that one's own.
        group: The id of its group, or its own.
        followed: The name of its group, to which others may subscribe; None for a single child.
        handle: Its reference while it lives.
        state: ``"starting"``, ``"running"``, ``"waiting"`` (to be started again), ``"done"`` or ``"stopped"``.
        reason: Why it ended last.
        life: Its restarts.
        handled: Events that it had handled in this life when that was looked at.
    """

    __slots__ = (
        "followed",
        "group",
        "handle",
        "handled",
        "life",
        "logged",
        "names",
        "reason",
        "recipe",
        "state",
        "unlogged",
    )

    def __init__(self, recipe: Child | Supervisor) -> None:
        """Begin before its start."""
        self.recipe = recipe
        template = recipe.template if isinstance(recipe, Child) else None
        self.group = recipe.id if template is None else template.id
        self.followed = None if template is None else template.name
        self.handle: Ref | Supervision | None = None
        self.state = "starting"
        self.reason: Any = None
        self.life = Life()
        self.handled = 0
        self.names: list[str] = []  # those that are said to come
        self.logged: float | None = None
        self.unlogged = 0


@dataclass(frozen=True, slots=True)
class ChildInfo:
    """What `Supervision.children` says of a child.

    Attributes:
        id: Its id; one of a group has a number behind it.
        kind: ``"stage"`` or ``"supervisor"``.
        state: ``"starting"``, ``"running"``, ``"waiting"`` (to be started again), ``"done"`` (its stream is over, or it
            is not to be started again) or ``"stopped"`` (by hand).
        ref: Its reference, or None when it does not run.
        restarts: How often it was started again.
        reason: Why it ended last; None if it has not.
    """

    id: str
    kind: str
    state: str
    ref: Ref | Supervision | None
    restarts: int
    reason: Any


class Counts(NamedTuple):
    """How many children a supervisor has.

    Attributes:
        specs: Recipes.
        active: Those that run.
        supervisors: Those that are supervisors, running or not.
        workers: Those that are not.
    """

    specs: int
    active: int
    supervisors: int
    workers: int


class Supervision:
    """A running supervisor. It is reached from inside by its name's logs, and from outside by this.

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

    def __repr__(self) -> str:
        """Show the id and whether it lives."""
        return f"<Supervision {self.id!r} {'running' if self.alive else 'ended'}>"

    # -- what it looks like from outside ------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """True until it has ended."""
        return not self.done.done()

    @property
    def reason(self) -> Any:
        """Why it ended; None while it lives."""
        return self.done.result() if self.done.done() else None

    def children(self) -> list[ChildInfo]:
        """List the children in the order of their start."""
        return [
            ChildInfo(
                each.recipe.id,
                "stage" if isinstance(each.recipe, Child) else "supervisor",
                each.state,
                each.handle,
                each.life.restarts,
                each.reason,
            )
            for each in self._members
        ]

    def count(self) -> Counts:
        """Count the children."""
        stages = sum(isinstance(each.recipe, Child) for each in self._members)
        active = sum(each.handle is not None and each.handle.alive for each in self._members)
        return Counts(len(self._members), active, len(self._members) - stages, stages)

    def child(self, id: str) -> Ref | Supervision:  # noqa: A002 (the field's word)
        """Return the reference of a child that runs.

        Raises:
            NoStageError: There is none of this id, or it does not run.
        """
        handle = self._find(id).handle
        if handle is None:
            raise NoStageError(f"supervisor {self.name!r}: child {id!r} does not run")
        return handle

    async def wait(self) -> Any:
        """Wait until it has ended.

        Returns:
            The reason, when it is a normal one.

        Raises:
            RestartLimitError: It gave up.
        """
        reason = await asyncio.shield(self.done)
        if isinstance(reason, HeadgateError):
            self.node.observed.append(reason)
            raise reason
        return reason

    async def stop(self, reason: Any = SHUTDOWN, *, timeout: float | None = None) -> Any:  # noqa: ASYNC109 (ours)
        """Stop the children, the last started first, and end.

        Args:
            reason: Why; they are told.
            timeout: Seconds for all of it; who has not ended by then is killed. Default: the ``shutdown`` option.

        Returns:
            The reason that it ended with.
        """
        self._end_within(self.recipe.shutdown if timeout is None else timeout)
        if not self._stopping.done():
            self._stopping.set_result(reason)
            self._wake.set()
        return await asyncio.shield(self.done)

    def kill(self, reason: Any = "killed") -> None:
        """End all stages below at once, without ``terminate``."""
        if self.alive:
            if not self._stopping.done():
                self._stopping.set_result(reason)
            self._end_within(0.0)
            self._kill_all()
            self._wake.set()

    async def start_child(self, recipe: Child | Supervisor) -> Ref | Supervision:
        """Add a child behind the others and start it.

        Raises:
            OptionError: Its id or a name of it is taken.
            HeadgateError: It could not be started; then it is not added either.
        """
        return await self._ask(self._add, recipe)

    async def stop_child(self, id: str, *, remove: bool = False) -> None:  # noqa: A002 (the field's word)
        """Stop a child, or a whole group; it stays known, and `restart_child` starts it again.

        Args:
            id: Of a child or a group.
            remove: Forget it as well.

        Raises:
            NoStageError: There is none of this id.
        """
        await self._ask(self._take_out, id, remove)

    async def restart_child(self, id: str) -> Ref | Supervision:  # noqa: A002 (the field's word)
        """Stop a child if it runs, and start it. This does not count as a restart.

        Raises:
            NoStageError: There is none of this id.
            HeadgateError: It could not be started.
        """
        return await self._ask(self._start_again, id)

    async def resize(self, id: str, count: int) -> list[Ref]:  # noqa: A002 (the field's word)
        """Change how many stages a group (a ``Child`` with ``count=``) has, while it works. Nothing is lost.

        New ones are subscribed as the others, and subscribed to by those that follow the group. Those that go give back
        what they have not begun, and finish what they have.

        Args:
            id: Of the group.
            count: How many it is to have, at least 1.

        Returns:
            The references of all that run now.

        Raises:
            NoStageError: There is no such group.
            OptionError: ``count`` is no such number, or the members have partitions of their own.
        """
        return await self._ask(self._resize, id, count)

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
        answer.add_done_callback(_look_at)  # who asked may have been cancelled

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
            self.node.awaited.over.update(member.names)
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

    # -- requests -----------------------------------------------------------------------------------------------------

    async def _start_for(self, member: Member) -> None:
        """Start a child for somebody who asked for it.

        Raises:
            NoStageError: The supervisor ends, or is being drained.
            HeadgateError: It could not be started.
        """
        if not self._draining:
            await self._start(member)
        if self._draining or member.state == "stopped":
            raise NoStageError(f"supervisor {self.name!r} has ended")

    def _find(self, id: str) -> Member:  # noqa: A002 (the field's word)
        for member in self._members:
            if member.recipe.id == id:
                return member
        known = ", ".join(repr(each.recipe.id) for each in self._members) or "none"
        raise NoStageError(f"supervisor {self.name!r}: there is no child {id!r}; there are: {known}")

    def _find_all(self, id: str) -> list[Member]:  # noqa: A002 (the field's word)
        """Return a child, or all of a group."""
        group = [each for each in self._members if each.group == id]
        return group or [self._find(id)]

    async def _add(self, recipe: Child | Supervisor) -> Any:
        from headgate.supervision.supervisor import check_siblings  # noqa: PLC0415 (recipes know what runs)

        check_siblings(f"supervisor {self.name!r}", [*(each.recipe for each in self._members), recipe])
        members = self._enlist(recipe)
        try:
            for member in members:
                await self._start_for(member)
        except BaseException:
            for member in reversed(members):
                await self._forget(member)
            raise
        return members[0].handle

    async def _take_out(self, id: str, remove: bool) -> None:  # noqa: A002, FBT001 (the caller's options)
        for member in reversed(self._find_all(id)):
            if remove:
                await self._forget(member)
            else:
                await self._stop(member, SHUTDOWN)
                member.state = "stopped"  # its names are waited for: `restart_child` may start it again

    async def _forget(self, member: Member) -> None:
        await self._stop(member, SHUTDOWN)
        self._done(member)
        self._members.remove(member)

    async def _start_again(self, id: str) -> Any:  # noqa: A002 (the field's word)
        member = self._find(id)
        await self._stop(member, SHUTDOWN)
        try:
            await self._start_for(member)
        except BaseException as error:
            member.state, member.reason = "stopped", error
            raise
        return member.handle

    async def _resize(self, id: str, count: int) -> list[Ref]:  # noqa: A002 (the field's word)
        where = f"supervisor {self.name!r}"
        members = [each for each in self._members if each.group == id and isinstance(each.recipe, Child)]
        template = members[0].recipe if members else None
        if not isinstance(template, Child) or template.template is None:
            raise NoStageError(f"{where}: there is no group {id!r} (a Child with count= of at least 2)")
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise OptionError(where, "count", "an integer of at least 1", count)
        if template.template.partitioned:
            raise OptionError(where, "count", "left as it is, as each of the group has a partition of its own", count)
        names = self.node.awaited.groups.get(template.template.name or "", [])
        for member in members[count:][::-1]:
            await self._let_go(member)
            self._members.remove(member)
            names[:] = [name for name in names if name != member.recipe.name]
        at = self._members.index(members[0]) + len(members)
        known = {each.recipe.id for each in members}
        possible = [each for each in template.template.members(count + len(members)) if each.id not in known]
        for recipe in possible[: max(0, count - len(members))]:
            member = Member(recipe)
            self._members.insert(at, member)
            at += 1
            names.extend(recipe.names())
            try:
                await self._start_for(member)
            except BaseException:
                await self._forget(member)
                names[:] = [name for name in names if name != recipe.name]
                raise
        return [each.handle for each in self._members if each.group == id and isinstance(each.handle, Ref)]

    async def _let_go(self, member: Member) -> None:
        """End one of a group: it gives back what it has not begun, and finishes the rest."""
        handle, member.handle = member.handle, None
        member.state = "done"
        self._unexpect(member)
        if isinstance(handle, Ref) and handle.alive:
            self._leaving = handle
            try:
                await handle.drain(timeout=self._limit(member))
            finally:
                self._leaving = None

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


def _look_at(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()


def _ending(handle: Ref | Supervision, reason: Any) -> Ending:
    """Describe how a child has ended."""
    if isinstance(handle, Supervision):
        return Ending(reason, handle.completed)
    core = handle.driver.core
    progressed = core.into is not None and core.into.handled > 0
    return Ending(reason, core.completed, core.follows, core.failure, progressed)


def _is_source(recipe: Child | Supervisor) -> bool:
    return not isinstance(recipe, Child) or recipe.role == PRODUCER
