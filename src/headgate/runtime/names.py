"""Names that are awaited: a stage that is to be there (again), and those who will subscribe to it then."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from headgate.errors import SubscriptionError
from headgate.protocol.messages import Subscription, Terms

if TYPE_CHECKING:
    from headgate.runtime.driver import Driver
    from headgate.runtime.node import Node


class Awaited:
    """One subscription that is made when there is a stage of that name.

    Attributes:
        driver: The consumer.
        name: Whom it waits for: a stage, or a group of stages.
        terms: The terms.
        future: Whom to tell, or None.
        standing: It is for a group: every member that comes is subscribed to, not only the first.
        timer: When it gives up.
    """

    __slots__ = ("driver", "future", "name", "standing", "terms", "timer")

    def __init__(
        self, driver: Driver, name: str, terms: Terms, future: asyncio.Future[Subscription] | None, *, standing: bool
    ) -> None:
        """Note who waits for whom."""
        self.driver = driver
        self.name = name
        self.terms = terms
        self.future = future
        self.standing = standing
        self.timer: asyncio.TimerHandle | None = None


class Names:
    """Who waits for which name. Nothing polls: whoever registers a name wakes those who wait for it.

    Attributes:
        expected: How many supervisors are about to start (again) a stage of this name.
        groups: The names of groups, each with the names of its members.
        over: The names of stages that have ended as their stream was over.
        left: Groups whose supervisor has ended, and is to be started again.
    """

    def __init__(self, node: Node) -> None:
        """Start with nobody waiting."""
        self._node = node
        self._waiting: dict[str, list[Awaited]] = {}
        self.expected: Counter[str] = Counter()
        self.groups: dict[str, list[str]] = {}
        self.over: set[str] = set()
        self.left: set[str] = set()

    def will_come(self, name: str, retry: float | None) -> bool:
        """Say whether it makes sense to wait for a stage of this name that is not there."""
        return retry is not None or self.expected[name] > 0 or name in self.groups

    def wait(self, driver: Driver, name: str, terms: Terms, future: asyncio.Future[Subscription] | None = None) -> None:
        """Subscribe a stage as soon as there is one of this name.

        Args:
            driver: The consumer.
            name: The producer, or a group of them.
            terms: On which terms; ``retry`` is the limit in seconds.
            future: Whom to tell, or None.
        """
        awaited = Awaited(driver, name, terms, future, standing=name in self.groups)
        self._waiting.setdefault(name, []).append(awaited)
        driver.core.awaited += 1
        if awaited.standing:
            for member in list(self.groups[name]):
                if member in self._node.names:
                    self._subscribe(awaited, member)
        elif not self.expected[name]:
            self._limit(awaited)

    def _limit(self, awaited: Awaited) -> None:
        """Let its time run, if it has one."""
        retry = awaited.terms.retry
        if retry is not None and awaited.timer is None:
            awaited.timer = self._node.loop.call_later(min(retry, 86_400.0 * 365), self._give_up, awaited)

    def expect(self, name: str) -> None:
        """Note that a supervisor is about to start a stage, or a group, of this name."""
        self.expected[name] += 1
        self.over.discard(name)
        self._node.publish("expect", name)

    def form(self, group: str, members: list[str]) -> None:
        """Note the stages of a group, and subscribe those who wait for it to each that is there and that comes."""
        self.groups[group] = members
        self.over.discard(group)
        self.left.discard(group)
        self._node.publish("form", group, members)
        for awaited in list(self._waiting.get(group, ())):
            if not awaited.standing:
                awaited.standing = True
                if awaited.timer is not None:
                    awaited.timer.cancel()

    def unexpect(self, name: str) -> None:
        """Note that it will not be started (again) after all: nobody need wait for it any longer."""
        self._node.publish("unexpect", name)
        self.expected[name] -= 1
        if self.expected[name] <= 0:
            del self.expected[name]
        if name in self.over or name not in self.expected:  # a supervisor above may expect it still
            for awaited in list(self._waiting.get(name, ())):
                if name in self.over:
                    self._remove(awaited)
                    awaited.driver.act(awaited.driver.core.unawaited)
                elif awaited.standing:
                    continue
                elif awaited.terms.retry is None:
                    self._give_up(awaited)
                else:
                    self._limit(awaited)
            if name in self.left:
                self._disband(name, over=False)

    def came(self, name: str) -> None:
        """Subscribe those who wait for a name that is registered now."""
        self.over.discard(name)
        for awaited in list(self._waiting.get(name, ())):
            self._remove(awaited)
            self._subscribe(awaited, name)
        for group, members in self.groups.items():
            if name in members:
                for awaited in list(self._waiting.get(group, ())):
                    self._subscribe(awaited, name)

    def follows(self, driver: Driver, name: str) -> bool:
        """Say whether a stage is subscribed to all members of a group that this one belongs to."""
        return any(
            awaited.driver is driver and name in self.groups.get(group, ())
            for group, waiting in self._waiting.items()
            for awaited in waiting
            if awaited.standing
        )

    def end(self, names: Iterable[str]) -> None:
        """Note that the streams of these stages are over; not where a stage that lives has taken the name since."""
        names = [name for name in names if name not in self._node.names]
        self.over.update(names)
        self._node.publish("end", names)

    def change(self, group: str, members: list[str]) -> None:
        """Note that a group has other members now; who comes is registered later."""
        if group in self.groups:
            self.groups[group] = members
            self._node.publish("change", group, members)

    def disband(self, group: str, *, over: bool) -> None:
        """Forget a group: no more members will come; ``over``: since their streams are over.

        While a supervisor is about to start it again, it is kept, and so are those who wait for it.
        """
        self._node.publish("disband", group, over)
        self._disband(group, over=over)

    def _disband(self, group: str, *, over: bool) -> None:
        if not over and self.expected[group] > 0:
            self.left.add(group)
            return
        self.left.discard(group)
        self.groups.pop(group, None)
        if over:
            self.over.add(group)
        for awaited in list(self._waiting.get(group, ())):
            self._remove(awaited)
            awaited.driver.act(awaited.driver.core.unawaited)

    def forget(self, driver: Driver) -> None:
        """Forget what a stage was waiting for: it has ended."""
        if driver.core.awaited:
            for waiting in list(self._waiting.values()):
                for awaited in [each for each in waiting if each.driver is driver]:
                    self._remove(awaited)
                    if awaited.future is not None and not awaited.future.done():
                        awaited.future.set_exception(self._error(awaited))

    def _subscribe(self, awaited: Awaited, name: str) -> None:
        self.subscribe(awaited.driver, name, awaited.terms, awaited.future)

    def subscribe(self, driver: Driver, name: str, terms: Terms, future: asyncio.Future[Subscription] | None) -> None:
        """Subscribe a stage to the one of this name, which is there."""
        node = self._node
        subscription = Subscription(next(node.subscription_numbers), node.names[name], driver.ref, terms)
        driver.subscribe(subscription, future)

    def _give_up(self, awaited: Awaited) -> None:
        self._remove(awaited)
        error = self._error(awaited)
        driver = awaited.driver
        nobody: Any = None
        subscription = Subscription(next(self._node.subscription_numbers), nobody, driver.ref, awaited.terms)
        if awaited.future is not None and not awaited.future.done():
            awaited.future.set_exception(error)
        driver.act(driver.core.miss, subscription, error)

    def _remove(self, awaited: Awaited) -> None:
        waiting = self._waiting[awaited.name]
        waiting.remove(awaited)
        if not waiting:
            del self._waiting[awaited.name]
        awaited.driver.core.awaited -= 1
        if awaited.timer is not None:
            awaited.timer.cancel()

    @staticmethod
    def _error(awaited: Awaited) -> SubscriptionError:
        why = f"there is no stage named {awaited.name!r}, and none will come"
        if awaited.terms.retry is not None:
            why = f"there was no stage named {awaited.name!r} for {awaited.terms.retry:g} s"
        return SubscriptionError(awaited.driver.name, awaited.name, why, missing=True)
