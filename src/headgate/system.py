"""`System`: stages that run together on one event loop, without a supervisor."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, overload

from headgate.draining import Drained, drain
from headgate.errors import HeadgateError, Ignore, NoStageError, OptionError, StageCrashed
from headgate.observe.stall import Diagnosis, diagnose
from headgate.protocol.messages import PRODUCER, SHUTDOWN, DeadLetter, Subscription, is_normal
from headgate.protocol.statistics import StageStatistics
from headgate.runtime.driver import DRIVERS
from headgate.runtime.node import Node
from headgate.runtime.options import Child, To
from headgate.runtime.places import Place
from headgate.runtime.reference import Ref, make_subscription

HOOK_SECONDS = 5.0
"""How long a hook (``dead_letter``) may take that runs when everything else has ended."""


R_co = TypeVar("R_co", bound=Ref, covariant=True)


class Recipe(Protocol[R_co]):
    """A `Child`, seen as what its stage is reached by: some kinds have references with more to them than `Ref` has."""

    @property
    def ref_class(self) -> type[R_co]:
        """The class of the reference."""
        ...


class Startable:
    """The recipe of something that is no single stage: a supervisor."""

    async def start_in(self, system: System, *, hold: list[Any] | None = None, path: tuple[str, ...] = ()) -> Any:
        """Start it.

        Args:
            system: What its stages run in.
            hold: Where producers are put whose demand is held back until all are there. None: nobody else is to come.
            path: The ids of the supervisors above it, from the top; empty: there is none.
        """
        raise NotImplementedError


class System:
    """Owns stages. Use it as ``async with System() as system:``; what still runs at the end is stopped.

    A stage that crashes is logged at once and raised where somebody waits for it (`Ref.wait`, `Ref.call`, `wait`), or
    else at the end of the ``async with``: one crash as its `StageCrashed`, several as an ``ExceptionGroup``.

    Args:
        seed: Seed for what is random (a shuffling dispatcher). Default: unpredictable.
        on_error: Called with every error that does not end a stage: an event that cannot be routed, a surplus that was
            refused, ... Default: they are logged.
        on_dead_letter: Called with each `DeadLetter`, plain or async; the event is only done with when it has returned.
            Default: they are logged, and kept in `letters`.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        on_error: Callable[[Exception], None] | None = None,
        on_dead_letter: Callable[[DeadLetter], Any] | None = None,
    ) -> None:
        """Keep the options; the event loop is taken on entering."""
        if on_error is not None and not callable(on_error):
            raise OptionError("System", "on_error", "a function of an exception, or None", on_error)
        if on_dead_letter is not None and not callable(on_dead_letter):
            raise OptionError("System", "on_dead_letter", "a function of a DeadLetter, or None", on_dead_letter)
        self._seed = seed
        self._on_error = on_error
        self._on_dead_letter = on_dead_letter
        self._node: Node | None = None

    async def __aenter__(self) -> Self:
        """Begin on the running event loop."""
        self._node = Node(asyncio.get_running_loop(), seed=self._seed, on_error=self._on_error)
        self._node.on_dead_letter = self._on_dead_letter
        self._node.starter = functools.partial(self._start, path=())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop what still runs, and raise the crashes that nobody has seen."""
        node = self.node
        try:
            await self.stop()
        except BaseException:  # cancelled once more: nobody will ever stop what is left
            for ref in reversed(self.stages()):
                ref.kill(SHUTDOWN)
            if node.exchange is not None:
                node.exchange.reap()
            raise
        if node.exchange is not None:
            await node.exchange.close()
        unseen = node.unseen()
        if error is not None or not unseen:
            return
        if len(unseen) == 1:
            raise unseen[0]
        raise ExceptionGroup("several stages crashed", unseen)

    @property
    def node(self) -> Node:
        """The scheduler underneath."""
        if self._node is None:
            raise NoStageError("expected the system to be entered by 'async with', it is not")
        return self._node

    @overload
    async def start(self, child: Recipe[R_co]) -> R_co: ...

    @overload
    async def start(self, child: Startable) -> Any: ...

    async def start(self, child: Child | Recipe[Any] | Startable) -> Any:
        """Start a stage and its subscriptions, or a supervisor with all that is below it.

        Args:
            child: The recipe.

        Returns:
            Its reference, when ``started`` has returned and every producer of ``subscribe_to`` has accepted, in that
            order. Of a supervisor: the running one. A producer that is to come later (``retry``, or a supervisor is
            about to start it) is not waited for.

        Raises:
            NameTakenError: A living stage has its name.
            StageCrashed: ``__init__`` or ``started`` raised.
            Ignore: They raised `Ignore`: the stage is not to run.
            SubscriptionError: A producer refused or does not exist. The stage does not run; but a missing one is no
                reason to stop a consumer whose cancel mode for it is ``"temporary"``.
        """
        if isinstance(child, Startable):
            return await child.start_in(self)
        if not isinstance(child, Child):
            raise OptionError("System.start", "child", "a Child(...) or a Supervisor(...)", child)
        if child.count > 1:
            raise OptionError(child.where, "count", "1, as only a Supervisor starts groups", child.count)
        return await self._start(child)

    async def start_supervised(
        self, child: Child | Startable, hold: list[Any] | None, path: tuple[str, ...] = (), *, wait: bool = True
    ) -> Any:
        """Start a child of a supervisor, which sees to its crashes.

        Args:
            child: The recipe.
            hold: Where a producer is put whose demand is held back until all are there. None: it is not.
            path: The ids of the supervisors above it, from the top.
            wait: Wait for the answers of its producers. Else it ends when one refuses.
        """
        if isinstance(child, Startable):
            return await child.start_in(self, hold=hold, path=path)
        holds = hold is not None and child.role == PRODUCER and child.demand == "forward"
        ref = await self._start(child, hold=holds, path=path, wait=wait)
        if hold is not None and holds:
            hold.append(ref)
        return ref

    async def _start(
        self, child: Child, *, hold: bool = False, path: tuple[str, ...] | None = None, wait: bool = True
    ) -> Ref:
        node = self.node
        driver: Any = node.home().driver(child) if isinstance(child.place, Place) else DRIVERS[child.place](node, child)
        driver.supervised = path is not None
        subscriptions = child.subscribe_to
        if path:  # its successor, if it is started again, gets what is kept for it
            subscriptions = [to.with_heir((*path, child.id)) for to in subscriptions]
        if hold and driver.core.out is not None:
            driver.core.out.accumulate(hold)
        if child.name is not None:
            node.register(child.name, driver.ref, child.where)
        try:
            await driver.start()
        except BaseException as error:
            driver.abandon()
            if isinstance(error, (asyncio.CancelledError, Ignore, HeadgateError)) or not isinstance(error, Exception):
                raise
            raise StageCrashed(driver.name, error) from error
        reason = driver.ref.reason
        if isinstance(reason, Ignore):
            raise reason
        if reason is not None and not is_normal(reason):
            await driver.ref.wait()
        # All are begun before one is waited for: a producer that ends at once is then not taken for the last one.
        begun: list[tuple[To, asyncio.Future[Subscription]]] = []
        for to in subscriptions:
            name = to.producer
            if path and name in node.awaited.over:  # its stream is over: nothing more comes from there
                continue
            if isinstance(name, str) and name not in node.names and node.awaited.will_come(name, to.terms.retry):
                driver.wait(name, to.terms)
            else:
                begun.append((to, driver.subscribe(make_subscription(driver.ref, to, {}), hasty=True)))
        if subscriptions and not begun and not driver.core.awaited:  # all of their streams are over by now
            driver.act(driver.core.unawaited)
        try:
            for to, future in begun:
                if wait:
                    await self._subscribed(driver.ref, to, future)
                else:
                    future.add_done_callback(functools.partial(self._answered, driver.ref, to))
        except asyncio.CancelledError:
            driver.ref.kill(SHUTDOWN)  # nobody has its reference
            raise
        ref: Ref = driver.ref
        return ref

    async def start_all(self, children: Iterable[Child]) -> list[Ref]:
        """Start several stages, and let events flow only when all of them are there.

        Without that, the first consumer of a finite source may have taken everything before the second is started.

        Args:
            children: The recipes, producers before those who subscribe to them.

        Returns:
            Their references, in the same order.

        Raises:
            HeadgateError: As for `start`, from the first that fails; those before it go on.
        """
        refs: list[Ref] = []
        held: list[Ref] = []
        try:
            for child in children:
                if isinstance(child, Child) and child.role == PRODUCER and child.demand == "forward":
                    refs.append(await self._start(child, hold=True))
                    held.append(refs[-1])
                else:
                    refs.append(await self.start(child))
        finally:
            for ref in held:
                ref.set_demand("forward")
        return refs

    async def _subscribed(self, ref: Ref, to: To, future: asyncio.Future[Subscription]) -> None:
        """Wait until a producer has accepted; stop the stage if it does not."""
        try:
            await future
        except HeadgateError as error:
            if ref.driver.supervised and not ref.alive and isinstance(error, NoStageError):
                return  # it has ended by itself since: that is for its supervisor to see
            if getattr(error, "missing", False) and to.terms.cancel == "temporary":
                self.node.report(error)
                return
            await ref.stop(error)
            self.node.see(ref.driver)  # it is raised here
            raise

    def _answered(self, ref: Ref, to: To, future: asyncio.Future[Subscription]) -> None:
        """End a stage whose producer has refused it."""
        error = None if future.cancelled() else future.exception()
        if not isinstance(error, HeadgateError):
            return
        if getattr(error, "missing", False) and to.terms.cancel == "temporary":
            self.node.report(error)
        elif ref.alive:
            ref.driver.act(ref.driver.core.stop, error)

    def ref(self, name: str) -> Ref:
        """Return the living stage of this name.

        Raises:
            NoStageError: There is none.
        """
        found = self.node.names.get(name)
        if found is None:
            raise NoStageError(
                f"there is no stage named {name!r}; there are: {', '.join(map(repr, self.node.names)) or 'none'}"
            )
        return found

    def stages(self) -> list[Ref]:
        """Return the living stages in the order of their start."""
        return [driver.ref for driver in self.node.drivers.values()]

    def statistics(self) -> dict[str, StageStatistics]:
        """Read the numbers of every living stage, by name."""
        return {ref.name: ref.statistics() for ref in self.stages()}

    def diagnose(self) -> Diagnosis:
        """Explain why a pipeline stalls: what every stage is at, since when, and for whom it waits.

        Since when is known from earlier looks: of this, or those that `headgate.run` takes once a second.

        Returns:
            One `StageDiagnosis` for each stage. ``print`` it, or look at its ``culprits``.
        """
        return diagnose(self.node)

    @property
    def letters(self) -> list[DeadLetter]:
        """The newest dead letters, up to 1,000, oldest first."""
        return list(self.node.letters)

    async def wait(self) -> None:
        """Wait until every stage and every supervisor has ended.

        Raises:
            StageCrashed: One has crashed; the others may still run.
        """
        node = self.node
        while True:
            unseen = node.unseen()
            if unseen:
                node.observed.append(unseen[0])
                raise unseen[0]
            if not node.drivers and not node.supervisions:
                return
            await node.changed()

    def pause(self, *names: str) -> None:
        """Pause stages: no handler is given events, and no source is asked for any; what runs is finished.

        Args:
            *names: Which. None: all of them. To let everything flow out and take in nothing new, pause the sources.

        Raises:
            NoStageError: There is none of that name.
        """
        for ref in self._named(names):
            ref.pause()

    def resume(self, *names: str) -> None:
        """Let paused stages go on.

        Raises:
            NoStageError: There is none of that name.
        """
        for ref in self._named(names):
            ref.resume()

    def _named(self, names: Iterable[str]) -> list[Ref]:
        return [self.ref(name) for name in names] or self.stages()

    async def drain(self, *, timeout: float = 30.0) -> Drained:  # noqa: ASYNC109 (the wait is ours)
        """Bring everything to its end in order: what was begun is finished, what was not goes back to its source.

        Sources are asked for nothing more, those that get events from them give back what they have not begun, and all
        that was emitted is handled to the end. Supervisors start nobody again.

        Args:
            timeout: Seconds for all of it; what has not ended by then is killed, and not acknowledged.

        Returns:
            How it came out.
        """
        return await drain(self.node, timeout)

    async def stop(self, reason: Any = SHUTDOWN) -> None:
        """Stop everything, the last started first. What was not handled goes back to its producer."""
        for supervision in reversed(list(self.node.supervisions.values())):
            if not supervision.supervised:
                await supervision.stop(reason)
        for ref in reversed(self.stages()):
            if ref.alive:
                await ref.stop(reason)
        jobs = self.node.jobs - {asyncio.current_task()}
        if jobs:  # hooks that are not through
            _, late = await asyncio.wait(jobs, timeout=HOOK_SECONDS)
            for job in late:
                job.cancel()
