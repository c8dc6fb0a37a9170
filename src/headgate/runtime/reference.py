"""`Ref`, by which a stage is reached from outside, and `StageContext`, by which it reaches its own runtime."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from headgate.errors import NoStageError, OptionError, SubscriptionError
from headgate.protocol import messages as m
from headgate.protocol.messages import NORMAL, Subscription
from headgate.protocol.stage import refuse
from headgate.protocol.statistics import StageStatistics

if TYPE_CHECKING:
    from headgate.runtime.driver import Driver
    from headgate.runtime.options import To


class Done:
    """What a request that takes effect at once returns: it need not be awaited, and can be."""

    __slots__ = ("value",)

    def __init__(self, value: Any = None) -> None:
        """Keep the result."""
        self.value = value

    def __await__(self) -> Generator[Any, None, Any]:
        """Give the result, at once."""
        yield from ()
        return self.value


class Ref:
    """The reference of a stage. It stays valid, and says so, when the stage has ended."""

    __slots__ = ("__weakref__", "driver")

    def __init__(self, driver: Driver) -> None:
        """Point at a stage."""
        self.driver = driver

    def __repr__(self) -> str:
        """Show the name and whether it lives."""
        return f"<Ref {self.name!r} {self.driver.core.state}>"

    @property
    def name(self) -> str:
        """The stage's name; one was made up if it was given none."""
        return self.driver.name

    @property
    def id(self) -> str:
        """The child's id."""
        return self.driver.child.id

    @property
    def alive(self) -> bool:
        """True until the stage has ended."""
        return not self.driver.done.done()

    @property
    def reason(self) -> Any:
        """Why the stage ended; None while it lives."""
        return self.driver.done.result() if self.driver.done.done() else None

    async def subscribe(self, to: str | Ref | To, *, timeout: float = 5.0, **options: Any) -> Subscription:  # noqa: ASYNC109
        """Subscribe this stage to a producer and wait until that one has accepted.

        Args:
            to: A name, a reference, or a `To` with the options.
            timeout: Seconds to wait for the answer. The subscription stands when it comes later.
            **options: The options of `To`, when ``to`` is not one.

        Returns:
            The subscription, for `ask` and `cancel`.

        Raises:
            SubscriptionError: The producer refused, or there is none. When there is none, a consumer whose cancel mode
                for it is not ``"temporary"`` ends as well.
            OptionError: An option is wrong.
            TimeoutError: No answer came in time.
        """
        subscription = make_subscription(self, to, options)
        future = self.driver.subscribe(subscription)
        async with asyncio.timeout(timeout):
            return await asyncio.shield(future)

    async def resubscribe(
        self,
        old: Subscription,
        to: str | Ref | To,
        *,
        reason: Any = NORMAL,
        timeout: float = 5.0,  # noqa: ASYNC109 (the wait is ours)
        **options: Any,
    ) -> Subscription:
        """Cancel ``old`` (if it is still open) and subscribe anew, at one go. This stage lives on in any case.

        Raises:
            SubscriptionError: As for `subscribe`.
        """
        check_subscription(self.name, old)
        subscription = make_subscription(self, to, options)
        self.driver.act(self.driver.core.cancel, old, reason)
        future = self.driver.subscribe(subscription)
        async with asyncio.timeout(timeout):
            return await asyncio.shield(future)

    def ask(self, subscription: Subscription, count: int) -> Done:
        """Ask for more events on a manual subscription of this stage.

        Args:
            subscription: Which one. On one that has ended this does nothing.
            count: How many more, at least 0.

        Raises:
            OptionError: ``count`` is no such number.
        """
        check_subscription(self.name, subscription)
        check_count(self.name, count)
        return Done(self.driver.act(self.driver.core.ask, subscription, count))

    def cancel(self, subscription: Subscription, reason: Any = NORMAL) -> Done:
        """End a subscription from this stage's side; this stage itself lives on.

        What a consumer has not handled goes back to the producer. Called on the *producer*, the consumer first handles
        what it has, and then follows its cancel mode. On a subscription that has ended this does nothing.
        """
        check_subscription(self.name, subscription)
        return Done(self.driver.act(self.driver.core.cancel, subscription, reason))

    async def call(self, request: Any, *, timeout: float | None = 5.0) -> Any:  # noqa: ASYNC109 (the wait is ours)
        """Ask the stage something: what its ``handle_call`` returns.

        Raises:
            NoStageError: The stage has ended.
            StageCrashed: Its handler raised.
            TimeoutError: No answer came in time.
        """
        token = self.driver.node.loop.create_future()
        self.driver.calls.add(token)
        token.add_done_callback(self.driver.calls.discard)
        self._post((m.CALL, request, token))
        async with asyncio.timeout(timeout):
            return await token

    def cast(self, message: Any) -> Done:
        """Send the stage a message for its ``handle_cast``, without an answer."""
        self._post((m.CAST, message))
        return Done()

    def info(self, message: Any) -> Done:
        """Send the stage a message for its ``handle_info``, to come after everything that it has buffered now."""
        self._post((m.INFO, message))
        return Done()

    def set_demand(self, mode: str) -> Done:
        """Hold demand and events (``"accumulate"``) or let them go (``"forward"``).

        Raises:
            OptionError: It is neither.
        """
        check_mode(self.name, mode)
        self.driver.act(self.driver.core.set_demand, mode)
        return Done()

    def pause(self) -> Done:
        """Give the stage's handler no more events, and ask a source for none; what it is at is finished."""
        self.driver.act(self.driver.core.pause)
        return Done()

    def resume(self) -> Done:
        """Let a paused stage go on."""
        self.driver.act(self.driver.core.resume)
        return Done()

    async def drain(self, *, timeout: float | None = None) -> Any:  # noqa: ASYNC109 (the wait is ours)
        """Let the stage end in order: it gives back what it has not begun, and finishes what it has.

        A source is asked for nothing more, and keeps what it has not sent.

        Args:
            timeout: Seconds; a stage that has not ended by then is killed. Default: the child's ``shutdown``.

        Returns:
            The reason that it ended with.
        """
        self.driver.told_to_end.append("shutdown")
        self.driver.act(self.driver.core.drain, "shutdown")
        await asyncio.wait([self.driver.done], timeout=self.driver.child.shutdown if timeout is None else timeout)
        return await self.stop("shutdown", timeout=0)

    @property
    def demand(self) -> str:
        """The demand mode, ``"forward"`` or ``"accumulate"``."""
        out = self.driver.core.out
        return "accumulate" if out is not None and out.accumulating else "forward"

    def statistics(self) -> StageStatistics:
        """Read the stage's numbers, true at this moment. They can be awaited as well."""
        return self.driver.statistics()

    async def stop(self, reason: Any = NORMAL, *, timeout: float | None = None) -> Any:  # noqa: ASYNC109
        """End the stage after the callback that runs, and wait for it. What it did not handle goes back.

        Args:
            reason: Handed to ``terminate`` and to its peers.
            timeout: Seconds; a stage that has not ended by then is killed. Default: the child's ``shutdown``.

        Returns:
            The reason that it ended with.
        """
        self.driver.told_to_end.append(reason)
        self._post((m.STOP, reason))
        try:
            async with asyncio.timeout(self.driver.child.shutdown if timeout is None else timeout):
                return await asyncio.shield(self.driver.done)
        except TimeoutError:
            self.kill()
            return await asyncio.shield(self.driver.done)

    def kill(self, reason: Any = "killed") -> Done:
        """End the stage at once, without ``terminate``. What it was at counts as not handled."""
        self.driver.told_to_end.append(reason)
        self._post((m.KILL, reason))
        return Done()

    async def wait(self) -> Any:
        """Wait until the stage has ended.

        Returns:
            The reason, when it is a normal one.

        Raises:
            StageCrashed: It ended abnormally; ``__cause__`` is what its handler raised.
        """
        reason = await asyncio.shield(self.driver.done)
        fault = self.driver.node.see(self.driver)
        if fault is not None:
            raise fault
        return reason

    def _post(self, message: tuple[Any, ...]) -> None:
        driver = self.driver
        if driver.done.done():
            refuse(driver, message)
        else:
            driver.node.send(self, message)


class StageContext:
    """``self.stage`` of a stage: its own runtime. Everything here can be used in handlers at every place."""

    __slots__ = ("_driver",)

    def __init__(self, driver: Driver) -> None:
        """Belong to a driver."""
        self._driver = driver

    @property
    def name(self) -> str:
        """The stage's name."""
        return self._driver.name

    @property
    def ref(self) -> Ref:
        """The stage's own reference."""
        return self._driver.ref

    @property
    def role(self) -> str:
        """``"producer"``, ``"producer_consumer"`` or ``"consumer"``."""
        return self._driver.core.role

    @property
    def demand(self) -> int:
        """How many events are still owed, asked of ``handle_demand`` and not given yet. A short answer is enough."""
        out = self._driver.core.out
        return 0 if out is None else out.requested

    @property
    def buffered(self) -> int:
        """How many events wait in the stage's buffer."""
        out = self._driver.core.out
        return 0 if out is None else out.queue.size

    @property
    def deliveries(self) -> int:
        """How often a handler was given the batch that is being handled; more than 1 after one has failed with it."""
        into = self._driver.core.into
        return 1 if into is None or into.window is None else into.window.deliveries

    @property
    def subscriptions(self) -> list[Subscription]:
        """The open subscriptions to producers."""
        into = self._driver.core.into
        return [] if into is None else [each.subscription for each in into.windows.values() if each.open]

    @property
    def consumers(self) -> list[Subscription]:
        """The subscriptions of consumers."""
        out = self._driver.core.out
        return [] if out is None else list(out.subscribers)

    def keep(self) -> None:
        """In ``handle_events`` of a middle stage: do not acknowledge this batch before ``emit(..., settles=True)``.

        For a stage that adds up what it gets: what it has not emitted yet goes to another one when this one dies.

        Raises:
            HandlerError: There is no batch, or this is no middle stage.
        """
        self._on_loop(self._driver.core.keep)

    def again(self, rest: Any) -> None:
        """In ``handle_events``: this end of the batch is not done with; give it to the handler again.

        It is the next that it gets; in a middle stage when more output is wanted. So an event that leads to many can be
        handled bit by bit.

        Raises:
            HandlerError: There is no batch.
        """
        self._on_loop(self._driver.core.again, rest)

    def emit(self, events: Any, *, settles: bool = False) -> None:
        """Send events now: to consumers as far as they asked, the rest to the buffer.

        May be called at any time from the event loop or from the stage's thread.

        Args:
            events: Any sequence of events.
            settles: They are what was made of all batches that were kept (`keep`), which are acknowledged when these
                events are.

        Raises:
            BufferOverflowError: The buffer is full; ``refused`` has what was not taken.
            HandlerError: It is no sequence of events, or the stage is a consumer.
        """
        if settles:
            self._on_loop(functools.partial(self._driver.core.emit, events, settles=True))
        else:
            self._on_loop(self._driver.core.emit, events)

    def recall(self) -> list[Any]:
        """Take back what was emitted and not sent yet; also when the stage has ended. It counts as discarded."""
        out = self._driver.core.out
        return [] if out is None else list(self._on_loop(out.recall))

    def in_flight(self) -> list[Any] | None:
        """Return the batches that were sent and are not acknowledged; None: others wait to be sent."""
        out = self._driver.core.out
        return [] if out is None else self._on_loop(out.flying)

    def ask(self, subscription: Subscription, count: int) -> bool:
        """Ask for more on a manual subscription; False when it has ended."""
        check_subscription(self.name, subscription)
        check_count(self.name, count)
        return bool(self._on_loop(self._driver.core.ask, subscription, count))

    def cancel(self, subscription: Subscription, reason: Any = NORMAL) -> bool:
        """End a subscription from this side; see `Ref.cancel`. False when it has ended already."""
        check_subscription(self.name, subscription)
        return bool(self._on_loop(self._driver.core.cancel, subscription, reason))

    def subscribe(self, to: str | Ref | To, **options: Any) -> Subscription:
        """Begin a subscription without waiting for the answer; a refusal is reported as an error of the system."""
        subscription = make_subscription(self._driver.ref, to, options)
        self._on_loop(self._driver.core.subscribe, subscription)
        return subscription

    def set_demand(self, mode: str) -> None:
        """Hold (``"accumulate"``) or let go (``"forward"``) demand and events."""
        check_mode(self.name, mode)
        self._on_loop(self._driver.core.set_demand, mode)

    def finish(self, reason: Any = NORMAL) -> None:
        """Say that there are no more events: the stage ends when all it emitted is handled."""
        self._on_loop(self._driver.core.finish, reason)

    def stop(self, reason: Any = NORMAL) -> None:
        """End after the callback that runs now."""
        self._on_loop(self._driver.core.stop, reason)

    def info(self, message: Any) -> None:
        """Get a message in ``handle_info`` after everything that is buffered now."""
        self._on_loop(self._driver.core.info, message)

    def cast(self, message: Any) -> None:
        """Get a message in ``handle_cast``, after what lies in the mailbox."""
        self._on_loop(self._driver.node.send, self._driver.ref, (m.CAST, message))

    def reply(self, value: Any) -> None:
        """Answer the call that ``handle_call`` is at, before it returns; what it returns is then not sent."""
        self.reply_to(self.caller(), value)

    def caller(self) -> Any:
        """Return a token for the call that ``handle_call`` is at, to answer it later by `reply_to`.

        What ``handle_call`` returns is then not sent.

        Raises:
            NoStageError: No call is being handled.
        """
        callback = self._driver.core.callback
        if callback is None or callback[0] != m.HANDLE_CALL:
            raise NoStageError(f"stage {self.name!r}: expected a call to be handled, there is none to reply to")
        core = self._driver.core
        caller, core.caller = core.caller, None
        if caller is None:
            raise NoStageError(f"stage {self.name!r}: the call that is being handled was answered or taken already")
        return caller

    def reply_to(self, caller: Any, value: Any) -> None:
        """Answer a call whose token was taken by `caller`."""
        self._on_loop(self._driver.reply, caller, value, None)

    def monitor(self, ref: Ref) -> None:
        """Get ``Down(ref, reason)`` in ``handle_info`` when that stage ends, or at once if it has."""
        self._on_loop(self._driver.monitor, ref)

    def statistics(self) -> StageStatistics:
        """Read this stage's numbers."""
        return self._driver.statistics()

    def _on_loop(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run it on the loop's thread, here or there, and let the stage act on what came of it."""
        driver = self._driver
        node = driver.node
        if threading.get_ident() == node.thread:
            return driver.act(function, *args)
        return node.run_there(driver.act, function, *args)


def make_subscription(consumer: Ref, to: str | Ref | To, options: dict[str, Any]) -> Subscription:
    """Make a subscription of this consumer; its producer is looked up by name here."""
    from headgate.runtime.options import To, as_to  # noqa: PLC0415 (options know references)

    if options and isinstance(to, To):
        raise OptionError(repr(to), next(iter(options)), "given inside of To(...)", options)
    wanted = To(to, **options) if options else as_to(to)  # type: ignore[arg-type]  # no To with options
    node = consumer.driver.node
    producer: Any = wanted.producer
    if isinstance(producer, str):
        producer = node.names.get(producer) or Nobody(producer, consumer)
    return Subscription(next(node.subscription_numbers), producer, consumer, wanted.terms)


class Nobody:
    """The address of a stage that does not exist: whoever subscribes to it is refused."""

    __slots__ = ("_consumer", "mail", "name")
    middle = False

    def __init__(self, name: str, consumer: Ref) -> None:
        """Remember who wanted whom."""
        self.name = name
        self._consumer = consumer

    @property
    def driver(self) -> Nobody:
        """Itself: it takes messages."""
        return self

    @property
    def queued(self) -> bool:
        """True: the scheduler has nothing to do for it."""
        return True

    @property
    def inbox(self) -> Nobody:
        """Itself: it takes messages."""
        return self

    def append(self, message: tuple[Any, ...]) -> None:
        """Refuse a subscription; ignore all else."""
        if message[0] == m.SUBSCRIBE:
            consumer = self._consumer
            error = SubscriptionError(consumer.name, self.name, f"there is no stage named {self.name!r}", missing=True)
            consumer.driver.node.send(consumer, (m.REFUSED, message[1], error))


def check_count(stage: str, count: Any) -> None:
    """Refuse what is no number of events."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise OptionError(f"stage {stage!r}", "count", "an integer of at least 0", count)


def check_subscription(stage: str, subscription: Any) -> None:
    """Refuse what is no subscription."""
    if not isinstance(subscription, Subscription):
        raise OptionError(f"stage {stage!r}", "subscription", "a Subscription", subscription)


def check_mode(stage: str, mode: Any) -> None:
    """Refuse what is no demand mode."""
    if not isinstance(mode, str) or mode not in ("forward", "accumulate"):
        raise OptionError(f"stage {stage!r}", "demand", "'forward' or 'accumulate'", mode)
