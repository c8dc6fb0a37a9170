"""`System`: stages that run together on one event loop, without a supervisor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

from headgate.errors import HeadgateError, Ignore, NoStageError, OptionError, StageCrashed
from headgate.protocol.messages import PRODUCER, SHUTDOWN, Subscription, is_normal
from headgate.protocol.statistics import StageStatistics
from headgate.runtime.driver import DRIVERS
from headgate.runtime.node import Node
from headgate.runtime.options import Child, To
from headgate.runtime.reference import Ref, make_subscription


class System:
    """Owns stages. Use it as ``async with System() as system:``; what still runs at the end is stopped.

    A stage that crashes is logged at once and raised where somebody waits for it (`Ref.wait`, `Ref.call`, `wait`), or
    else at the end of the ``async with``: one crash as its `StageCrashed`, several as an ``ExceptionGroup``.

    Args:
        seed: Seed for what is random (a shuffling dispatcher). Default: unpredictable.
        on_error: Called with every error that does not end a stage: an event that cannot be routed, a surplus that was
            refused, ... Default: they are logged.
    """

    def __init__(self, *, seed: int | None = None, on_error: Callable[[Exception], None] | None = None) -> None:
        """Keep the options; the event loop is taken on entering."""
        if on_error is not None and not callable(on_error):
            raise OptionError("System", "on_error", "a function of an exception, or None", on_error)
        self._seed = seed
        self._on_error = on_error
        self._node: Node | None = None

    async def __aenter__(self) -> Self:
        """Begin on the running event loop."""
        self._node = Node(asyncio.get_running_loop(), seed=self._seed, on_error=self._on_error)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop what still runs, and raise the crashes that nobody has seen."""
        node = self.node
        await self.stop()
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

    async def start(self, child: Child, *, hold: bool = False) -> Ref:
        """Start a stage and its subscriptions.

        Args:
            child: The recipe.
            hold: Begin with the demand held back, as ``demand="accumulate"`` does.

        Returns:
            Its reference, when ``started`` has returned and every producer of ``subscribe_to`` has accepted, in that
            order.

        Raises:
            NameTakenError: A living stage has its name.
            StageCrashed: ``__init__`` or ``started`` raised.
            Ignore: They raised `Ignore`: the stage is not to run.
            SubscriptionError: A producer refused or does not exist. The stage does not run; but a missing one is no
                reason to stop a consumer whose cancel mode for it is ``"temporary"``.
        """
        if not isinstance(child, Child):
            raise OptionError("System.start", "child", "a Child(...)", child)
        node = self.node
        driver = DRIVERS[child.place](node, child)
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
        begun = [driver.subscribe(make_subscription(driver.ref, to, {})) for to in child.subscribe_to]
        for to, future in zip(child.subscribe_to, begun, strict=True):
            await self._subscribed(driver.ref, to, future)
        return driver.ref

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
                ref = await self.start(child, hold=isinstance(child, Child) and child.role == PRODUCER)
                refs.append(ref)
                if child.role == PRODUCER and child.demand == "forward":
                    held.append(ref)
        finally:
            for ref in held:
                ref.set_demand("forward")
        return refs

    async def _subscribed(self, ref: Ref, to: To, future: asyncio.Future[Subscription]) -> None:
        """Wait until a producer has accepted; stop the stage if it does not."""
        try:
            await future
        except HeadgateError as error:
            if getattr(error, "missing", False) and to.terms.cancel == "temporary":
                self.node.report(error)
                return
            await ref.stop(error)
            self.node.see(ref.driver)  # it is raised here
            raise

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

    async def wait(self) -> None:
        """Wait until every stage has ended.

        Raises:
            StageCrashed: One has crashed; the others may still run.
        """
        node = self.node
        while True:
            unseen = node.unseen()
            if unseen:
                node.observed.append(unseen[0])
                raise unseen[0]
            if not node.drivers:
                return
            await node.changed()

    async def stop(self, reason: Any = SHUTDOWN) -> None:
        """Stop every stage, the last started first. What was not handled goes back to its producer."""
        for ref in reversed(self.stages()):
            if ref.alive:
                await ref.stop(reason)
