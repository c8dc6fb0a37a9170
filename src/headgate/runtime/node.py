"""A node: one place with a scheduler and the stages that it runs, on one event loop.

The scheduler is a queue of stages that have something to do. A turn takes them in order, gives each a bounded number of
steps (a step is one callback), and yields to the event loop when its own bound is reached. All protocol state is
touched on the loop's thread only; handlers in tasks and threads hand their results back to it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import itertools
import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from headgate.errors import HeadgateError, HookError, NameTakenError, short
from headgate.protocol.messages import HANDLE_EVENTS, DeadLetter
from headgate.runtime.express import offer, passes
from headgate.runtime.names import Names

if TYPE_CHECKING:
    from headgate.protocol.messages import Message
    from headgate.runtime.driver import Driver
    from headgate.runtime.hub import Hub
    from headgate.runtime.reference import Ref

logger = logging.getLogger("headgate")

BURST = 32
"""The most callbacks between two looks at the clock; fewer as long as they are slow."""
TURN_BURSTS = 16
"""Bursts of one turn, before other work of the loop comes in between."""
TURN_SECONDS = 0.005
"""A turn that has taken longer than this ends early."""
LETTERS = 1000
"""Dead letters that can be looked at; older ones are only where the hook has put them."""
PLAIN = frozenset({list, tuple, range})
"""Types of values that are surely no awaitables."""


class Node:
    """The scheduler, the names, and what went wrong.

    Args:
        loop: The event loop that everything runs on.
        seed: Seed of the node's random numbers (shuffles); None: unpredictable.
        on_error: Called with each error that does not end a stage. Default: it is logged.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        seed: int | None = None,
        on_error: Callable[[Exception], None] | None = None,
    ) -> None:
        """Start with no stages."""
        self.loop = loop
        self.thread = threading.get_ident()
        self.random = random.Random(seed)  # noqa: S311 (order, not secrets)
        self.on_error = on_error
        self.names: dict[str, Ref] = {}
        self.drivers: dict[int, Driver] = {}  # living stages by number, in the order of their start
        self.ready: deque[Driver] = deque()
        self.owing: list[Driver] = []  # those with acknowledgements that can wait
        self.numbers = itertools.count(1)
        self.subscription_numbers = itertools.count(1)
        self._awake = False
        self._pace = 1  # callbacks until the next look at the clock
        self._changed: list[asyncio.Future[None]] = []
        self.crashes: list[HeadgateError] = []
        self.observed: list[BaseException] = []
        self.awaited = Names(self)
        self.supervisions: dict[int, Any] = {}  # running supervisors by number
        self.starter: Callable[[Any], Coroutine[Any, Any, Any]] = _no_starter
        self.letters: deque[DeadLetter] = deque(maxlen=LETTERS)
        self.on_dead_letter: Callable[[DeadLetter], Any] | None = None
        self.jobs: set[asyncio.Task[Any]] = set()  # of our own; a loop keeps only weak references
        self.exchange: Any = None  # the links to other nodes, when there are any
        self.publish: Callable[..., None] = _to_nobody  # tells them what becomes of names

    def send(self, to: Ref, message: Message) -> None:
        """Put a message into a stage's mailbox, and let the stage run."""
        driver = to.driver
        driver.inbox.append(message)
        driver.mail = True
        if not driver.queued:
            self.enqueue(driver)

    def hand(self, to: Ref, message: Message) -> None:
        """Send events: past the mailbox into the core of an inline stage that is idle.

        The core only takes note; its handler runs in its turn. While a core is at work its driver counts as queued, so
        nothing enters it twice.
        """
        driver = to.driver
        if driver.queued:
            driver.inbox.append(message)
            return
        driver.queued = True
        take = driver.take
        try:
            take(message)
        except Exception as error:  # noqa: BLE001 (a fault of the receiver's dispatcher, and none of the sender's)
            driver.break_down(error)
            return
        if driver.core.callback is None and not driver.inbox:
            driver.queued = False
        else:
            driver.node.put(driver)

    def ask(self, to: Ref, message: Message) -> None:
        """Send an ask: as `hand`, and also into a middle stage whose handler runs (its core code does not)."""
        driver = to.driver
        if not driver.queued:
            self.hand(to, message)
        elif driver.middle and driver.core.callback is not None and not driver.inbox:
            try:
                driver.core.receive(message)
            except Exception as error:  # noqa: BLE001 (as in `hand`)
                driver.break_down(error)
        else:
            driver.inbox.append(message)

    def enqueue(self, driver: Driver) -> None:
        """Let a stage run that has something to do."""
        if not driver.queued:
            driver.queued = True
            driver.node.put(driver)

    def put(self, driver: Driver, *, first: bool = False) -> None:
        """Put one of its own stages into the queue: whoever sends to it may be of another system, and end before it.

        Args:
            driver: The stage, which counts as queued already.
            first: Before all others.
        """
        if first:
            self.ready.appendleft(driver)
        else:
            self.ready.append(driver)
        if not self._awake:
            self._awake = True
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Run stages until nothing is ready or the turn has been long enough."""
        ready = self.ready
        clock = self.loop.time
        stop = clock() + TURN_SECONDS
        try:
            for _ in range(TURN_BURSTS):
                self._burst()
                if not ready:
                    break
                if clock() > stop:
                    self._pace = 1
                    break
                self._pace = min(2 * self._pace, BURST)
            late = bool(ready)  # others are always busy: what can wait must not wait for ever
            while self.owing and (late or not ready):
                late = False
                owing, self.owing = self.owing, []
                for driver in owing:
                    driver.owes = False
                    driver.act(driver.core.flush)
        finally:
            if ready or self.owing:
                self.loop.call_soon(self._turn)
            else:
                self._awake = False

    def _burst(self) -> None:
        """Run the next few stages, each for one callback."""
        ready = self.ready
        popleft = ready.popleft
        for _ in range(self._pace):
            if not ready:
                return
            driver = popleft()
            core = driver.core
            try:
                callback = core.callback
                if callback is None or not driver.inline:
                    driver.step()
                    continue
                name, args = callback
                try:
                    if name is HANDLE_EVENTS:  # spelt out: a call with a tuple of arguments takes the slow way
                        batch, source = args
                        on_events = driver.on_events
                        value = on_events(batch, source)
                    else:
                        value = driver.handlers[name](*args)
                except Exception as error:  # noqa: BLE001 (the user's handler)
                    core.failed(error)
                else:
                    kind = type(value)
                    if passes(value) and offer(self, driver, name, value):
                        pass
                    elif value is None or kind in PLAIN:
                        core.returned(value)
                    else:
                        driver.odd_value(value)
                if core.callback is None and not driver.inbox:
                    driver.queued = False
                else:
                    if driver.mail and core.callback is not None:  # it goes on and on: let it hear a stop
                        driver.mail = False
                        driver.take_in()
                    if core.source:
                        ready.append(driver)
                    else:  # what is under way is finished before there is more of it
                        ready.appendleft(driver)
            except BaseException as error:  # a fault of a dispatcher of the user's, or of ours
                driver.break_down(error)
                if isinstance(error, (KeyboardInterrupt, SystemExit)):
                    raise

    def owe(self, driver: Driver) -> None:
        """Let a stage give its acknowledgements when there is nothing else to do."""
        self.owing.append(driver)
        if not self._awake:
            self._awake = True
            self.loop.call_soon(self._turn)

    def run_there(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a function on the loop's thread and wait for its result (called from another thread)."""
        result: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def run() -> None:
            try:
                result.set_result(function(*args))
            except BaseException as error:  # noqa: BLE001 (it belongs to the caller)
                result.set_exception(error)

        self.loop.call_soon_threadsafe(run)
        return result.result()

    def register(self, name: str, ref: Ref, where: str) -> None:
        """Give a stage its name.

        Raises:
            NameTakenError: A living stage has it.
        """
        if name in self.names:
            raise NameTakenError(where, "name", "a name that no living stage has", name)
        self.names[name] = ref
        self.publish("register", name, ref)
        self.awaited.came(name)

    def unregister(self, name: str) -> None:
        """Take a stage's name back."""
        if self.names.pop(name, None) is not None:
            self.publish("unregister", name)

    def home(self) -> Hub:
        """Return what sees to the worker processes of this node."""
        if self.exchange is None:
            from headgate.runtime.hub import Hub  # noqa: PLC0415 (only for those who use other places)

            self.exchange = Hub(self)
        hub: Hub = self.exchange
        return hub

    def report(self, error: Exception) -> None:
        """Make an error known that does not end a stage."""
        if self.on_error is not None:
            self.on_error(error)
        else:
            logger.error("%s", error, exc_info=error.__cause__)

    def gone(self, driver: Driver, reason: Any) -> None:
        """Forget a stage that has ended."""
        self.drivers.pop(driver.number, None)
        if driver.registered:
            self.unregister(driver.name)
        self.awaited.forget(driver)
        crash = driver.fault
        ours = crash is not None and not driver.supervised and not driver.core.follows  # else its supervisor sees to it
        if crash is not None and ours and all(crash is not each for each in self.crashes):
            self.crashes.append(crash)
            if any(
                reason is each for each in driver.told_to_end
            ):  # by somebody outside, with this reason: no news to them
                self.observed.append(crash)
            else:
                logger.error("%s", crash, exc_info=crash.__cause__ or crash)
        for monitor in driver.monitors:
            monitor(reason)
        self.tell()

    def forget(self, heir: tuple[str, ...]) -> None:
        """Keep nothing any longer for a supervised child, or those below it, that will not be started again."""
        for driver in list(self.drivers.values()):
            if driver.core.out is not None and not driver.far:
                driver.act(driver.core.forget, heir)
        self.publish("forget", heir)

    def tell(self) -> None:
        """Wake whoever waits for a change."""
        changed, self._changed = self._changed, []
        for future in changed:
            if not future.done():
                future.set_result(None)

    def see(self, driver: Driver) -> HeadgateError | None:
        """Note that somebody is told how a stage ended, and return its crash, if it was one."""
        if driver.fault is not None and any(driver.fault is each for each in self.crashes):  # no other is looked for
            self.observed.append(driver.fault)
        return driver.fault

    def unseen(self) -> list[HeadgateError]:
        """Return the crashes that nobody has been told of."""
        return [each for each in self.crashes if not any(each is seen for seen in self.observed)]

    def job(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run something beside the stages."""
        task = self.loop.create_task(coroutine, name=f"headgate: {name}")
        self.jobs.add(task)
        task.add_done_callback(self.jobs.discard)
        return task

    def bury(
        self, letter: DeadLetter, kept: Callable[[], None], hook: Callable[[DeadLetter], Any] | None = None
    ) -> None:
        """Keep a dead letter, and say so when it is kept; a hook that fails leaves it in `letters` and in the log.

        Args:
            letter: The event, and why it is given up.
            kept: Called when the hook is through.
            hook: Default: that of the system.
        """
        self.letters.append(letter)
        logger.error(
            "stage %r: event %s is given up after %d deliveries, %r failed with it\n%s",
            letter.stage,
            short(letter.event),
            letter.deliveries,
            letter.consumer,
            letter.traceback,
        )
        hook = hook or self.on_dead_letter
        if hook is None:
            self.loop.call_soon(kept)
        else:
            self.job(self._run_hook(hook, letter, kept), "dead letter")

    async def _run_hook(self, hook: Callable[[DeadLetter], Any], letter: DeadLetter, kept: Callable[[], None]) -> None:
        try:
            value = hook(letter)
            if inspect.isawaitable(value):
                await value
        except Exception as error:  # noqa: BLE001 (the user's hook)
            self.report(HookError("dead_letter", letter.stage, error))
        finally:
            self.loop.call_soon(kept)  # an eager task is still inside of the core that calls

    def change(self) -> asyncio.Future[None]:
        """Return what resolves when the next stage ends, counted from now on."""
        future: asyncio.Future[None] = self.loop.create_future()
        self._changed.append(future)
        return future

    async def changed(self) -> None:
        """Wait until the next stage ends."""
        await self.change()


def _to_nobody(*what: Any) -> None:
    """Publish nothing: there are no other nodes."""


async def _no_starter(recipe: Any) -> Any:
    raise AssertionError(recipe)
