"""Drivers: what runs a stage's core and its handlers somewhere. This is the port of the core.

All drivers share the mailbox and the way messages get into the core; they differ only in where a handler runs:

* `InlineDriver`: right here, in the scheduler's turn (plain handlers; no task, nothing is created per batch);
* `TaskDriver`: in one asyncio task that belongs to the stage (async handlers);
* `ThreadDriver`: in one thread that belongs to the stage (blocking handlers).
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import queue
import threading
from asyncio import _enter_task as enter_task  # pyright: ignore[reportPrivateUsage]  # documented for extenders
from asyncio import _leave_task as leave_task  # pyright: ignore[reportPrivateUsage]
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from headgate.errors import HandlerError, HeadgateError, Ignore, NoStageError, StageCrashed, Stop
from headgate.protocol import messages as m
from headgate.protocol.lane import LANES
from headgate.protocol.messages import CALLBACKS, DeadLetter, Down, Message, Subscription, crash
from headgate.protocol.stage import StageCore, refuse
from headgate.protocol.statistics import StageStatistics, statistics
from headgate.runtime.express import SUSPENDED, offer, passes
from headgate.runtime.node import PLAIN, logger
from headgate.runtime.reference import Ref, StageContext
from headgate.runtime.spill import SpillFile

if TYPE_CHECKING:
    from headgate.protocol.messages import Terms
    from headgate.runtime.node import Node
    from headgate.runtime.options import Child

STEP_LIMIT = 64
"""Callbacks of one stage in one go, before the next stage has its turn."""


class Endpoint:
    """What a reference points at: a stage here (`Driver`) or elsewhere.

    Attributes:
        node: The node that it is looked at from.
        number: No other stage of the system has it.
        name: The stage's name.
        ref: Its reference.
        registered: Others can find it by its name.
        supervised: A supervisor sees to its crashes.
        told_to_end: The reasons with which somebody outside has asked for the end: such a reason is no crash.
        calls: Those who wait for an answer.
        fault: The crash as which its end surfaces, if it is one.
        far: It runs elsewhere.
    """

    far = False
    core: Any

    def __init__(self, node: Node, number: int, name: str, ref_class: type[Ref]) -> None:
        """Begin before the start."""
        self.node = node
        self.number = number
        self.name = name
        self.ref = ref_class(self)  # type: ignore[arg-type]  # it is one of the two
        self.registered = False
        self.supervised = False
        self.told_to_end: list[Any] = []
        self.fault: HeadgateError | None = None
        self.calls: set[asyncio.Future[Any]] = set()

    def reply(self, token: Any, value: Any, error: BaseException | None) -> None:
        """Answer a call."""
        if token.done():
            return
        if error is None:
            token.set_result(value)
        else:
            token.set_exception(error)


class Driver(Endpoint):
    """One running stage: its mailbox, its core, and the port between them.

    Attributes:
        inbox: Messages that the core has not seen.
        receive: Takes in a message: the core, or the refusal of a stage that has ended.
        take: Takes in events and asks while nothing is queued: the core's `receive`, or the mailbox.
        queued: The scheduler knows that there is something to do.
        mail: There may be other messages than events and asks in the mailbox.
        stirred: The core was changed from outside of its messages while a callback was outstanding.
        owes: The core is to be flushed when there is nothing else to do.
        done: Resolves with the reason when the stage has ended.
    """

    place = ""
    middle = False
    """Its core takes asks while a handler runs."""
    express = False
    """Its handler may be called right when a batch is handed down (`runtime.express`)."""
    inline = False
    """Its handlers run in the scheduler's turn, so its core may be fed without the mailbox."""

    def __init__(self, node: Node, child: Child) -> None:
        """Prepare a stage that is not started yet."""
        number = next(node.numbers)
        super().__init__(node, number, child.name or f"{child.id}-{number}", child.ref_class)
        self.child = child
        self.registered = child.name is not None
        self.inbox: deque[Message] = deque()
        self.queued = True  # until there is an instance: what comes before is kept
        self.stirred = False
        self.owes = False
        self.mail = False
        self.send = node.send
        self.hand = node.hand
        self.ask = node.ask
        self.done: asyncio.Future[Any] = node.loop.create_future()
        self.monitors: list[Callable[[Any], None]] = []
        self.instance: Any = None
        self.handlers: dict[str, Callable[..., Any]] = {}
        self.on_events: Callable[..., Any] = _no_handler
        self._files: list[SpillFile] = []
        self._started: asyncio.Future[None] = node.loop.create_future()
        self._subscribing: dict[Subscription, asyncio.Future[Subscription]] = {}
        self._hasty: set[Subscription] = set()  # made at the start, which does not wait for a producer that is to come
        self.core: StageCore = child.core_class(LANES)(
            self,
            child.role,
            child.defined,
            child.fresh_dispatcher(),
            buffer_size=child.buffer_size,
            buffer_keep=child.buffer_keep,
            accumulate=child.demand == "accumulate",
            delivery=child.delivery,
            max_deliveries=child.max_deliveries,
        )
        self.receive: Callable[[Message], Any] = self.core.receive
        self.take: Callable[[Message], Any] = self.inbox.append
        self.starting = True
        self.bound: Callable[[Driver], None] | None = None  # told when there is an instance
        self.middle = child.role == m.PRODUCER_CONSUMER
        self.context = StageContext(self)

    @property
    def closing(self) -> bool:
        """Whether the loop is being closed, which cancels all tasks."""
        return False

    # -- starting -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Build the instance and run ``started``.

        Raises:
            Exception: What ``__init__`` raised. What ``started`` raised is the reason that the stage ended with.
        """
        try:
            await self.build()
            if self.bound is not None:
                self.bound(self)
            self.queued = False
        except Stop as stop:  # as in `started`, but there is nothing to terminate
            self.queued = False
            self.core.receive((m.KILL, stop.reason))
            return
        self.node.drivers[self.number] = self
        self.act(self.core.start)
        self.node.enqueue(self)
        await self._started

    async def build(self) -> None:
        """Make the stage's instance where its handlers run."""
        self.bind(self.child.build())

    def bind(self, instance: Any) -> None:
        """Connect an instance to this driver."""
        instance.stage = self.context
        self.instance = instance
        defined = self.child.defined
        self.handlers = {name: getattr(instance, name) for name in CALLBACKS if name in defined}
        self.on_events = self.handlers.get(m.HANDLE_EVENTS, _no_handler)

    def wrap(self, handler: Callable[..., Any]) -> None:
        """Put something in the way of the handler of events, which calls it."""
        before = self.handlers[m.HANDLE_EVENTS]
        self.handlers[m.HANDLE_EVENTS] = handler
        if self.on_events == before:  # else it looks there
            self.on_events = handler

    # -- the port -----------------------------------------------------------------------------------------------------

    def subscribed(self, subscription: Subscription, error: BaseException | None) -> None:
        """Resolve what waits for a subscription."""
        future = self._subscribing.pop(subscription, None)
        if future is not None and not future.done():
            if error is None:
                future.set_result(subscription)
            else:
                future.set_exception(error)
        elif error is not None:
            self.node.report(error)  # type: ignore[arg-type]  # a SubscriptionError

    def owe(self) -> None:
        """Remember that the core wants to be flushed."""
        if not self.owes:
            self.owes = True
            self.node.owe(self)

    def report(self, error: Exception) -> None:
        """Make an error known that does not end the stage."""
        self.node.report(error)

    def warn(self, text: str) -> None:
        """Log a warning."""
        logger.warning("%s", text)

    def shuffle(self, items: list[Any]) -> None:
        """Shuffle with the node's random numbers."""
        self.node.random.shuffle(items)

    def lost(self, subscription: Subscription, error: BaseException | None) -> bool:
        """Wait for another stage of the producer's name, if that was declared or a supervisor will start one."""
        names = self.node.awaited
        name, terms = subscription.producer.name, subscription.terms
        if names.follows(self, name):
            return True
        if error is not None and name in names.over:  # the stream of that one is over: as if it had just ended
            future = self._subscribing.pop(subscription, None)
            if future is not None and not future.done():
                future.set_result(subscription)
            self.node.loop.call_soon(self.act, self.core.unawaited)
            return True
        if terms.retry is None and (error is None or not names.will_come(name, None)):
            return False
        future = self._subscribing.pop(subscription, None)
        if future is not None and subscription in self._hasty:  # whoever starts this stage may have to start that one
            if not future.done():
                future.set_result(subscription)
            future = None
        if self.node.names.get(name) not in (None, subscription.producer):  # it is there already
            names.subscribe(self, name, terms, future)
        else:
            names.wait(self, name, terms, future)
        return True

    def bury(self, letter: DeadLetter, token: Any) -> None:
        """Keep a dead letter."""
        self.node.bury(letter, functools.partial(self.act, self.core.safe, token))

    def spill(self, name: str) -> SpillFile:
        """Open a temporary file for what does not fit in memory."""
        file = SpillFile(name)
        self._files.append(file)
        return file

    def ended(self, reason: Any) -> None:
        """Let everybody know that the stage has ended."""
        self.fault = None if isinstance(reason, Ignore) else crash(self.name, reason)
        for subscription, future in self._subscribing.items():
            if not future.done():
                future.set_exception(NoStageError(f"stage {self.name!r} ended before {subscription!r} was confirmed"))
        self._subscribing.clear()
        for token in list(self.calls):  # those that were to be answered later, and now are not
            self.reply(token, None, NoStageError(f"stage {self.name!r} has ended"))
        self.receive = self.take = functools.partial(refuse, self)
        if not self._started.done():
            self._started.set_result(None)
        if not self.done.done():
            self.done.set_result(reason)
        self.close()
        for file in self._files:
            file.close()
        self.node.gone(self, reason)

    def abandon(self) -> None:
        """Forget a stage that could not be started."""
        self.close()
        self.node.drivers.pop(self.number, None)
        if self.registered:
            self.node.unregister(self.name)
        self.queued = False
        self.core.abandon()  # the scheduler may have it in its queue
        self.receive = self.take = functools.partial(refuse, self)
        self.take_in()  # somebody may have found it by its name

    def close(self) -> None:
        """Give back what the driver holds (its task, its thread)."""

    # -- requests from outside ----------------------------------------------------------------------------------------

    def subscribe(
        self, subscription: Subscription, future: asyncio.Future[Subscription] | None = None, *, hasty: bool = False
    ) -> asyncio.Future[Subscription]:
        """Begin a subscription; the future resolves when the producer has accepted it.

        Args:
            subscription: To whom.
            future: Whom to tell.
            hasty: The future resolves as well when the producer is not there, and is waited for.
        """
        if future is None:
            future = self.node.loop.create_future()
            future.add_done_callback(look_at)
        self._subscribing[subscription] = future
        if hasty:
            self._hasty.add(subscription)
            future.add_done_callback(lambda _: self._hasty.discard(subscription))
        self.act(self.core.subscribe, subscription)
        return future

    def act(self, change: Callable[..., Any], *args: Any) -> Any:
        """Change the core from outside of its messages, and run what comes of it."""
        if self.queued:
            self.stirred = True
            return change(*args)
        self.queued = True  # what it sends may come back: it waits in the mailbox
        try:
            return change(*args)
        finally:
            self.queued = False
            if self.core.callback is not None or self.inbox:
                self.node.enqueue(self)

    def wait(self, name: str, terms: Terms) -> None:
        """Subscribe as soon as there is a stage, or a member of a group, of this name."""
        self.node.awaited.wait(self, name, terms)

    def statistics(self) -> StageStatistics:
        """Read the stage's numbers."""
        return statistics(self.core)

    def monitor(self, ref: Ref) -> None:
        """Tell this stage when another ends: ``handle_info(Down(ref, reason))``."""

        def tell(reason: Any) -> None:
            self.send(self.ref, (m.TELL, Down(ref, reason)))

        if ref.driver.done.done():
            tell(ref.driver.done.result())
        else:
            ref.driver.monitors.append(tell)

    # -- running ------------------------------------------------------------------------------------------------------

    def step(self) -> int:
        """Do what there is to do, up to a bound; return how many steps it took."""
        raise NotImplementedError

    def odd_value(self, value: Any) -> None:
        """Take in a value that may be an awaitable."""
        raise NotImplementedError

    def outcome(self, value: Any, error: BaseException | None) -> None:
        """Tell the core how a callback came out that ran elsewhere."""
        try:
            if error is None:
                self.act(self.core.returned, value)
            else:
                self.act(self.core.failed, error)
        except Exception as fault:  # noqa: BLE001 (a dispatcher of the user's, or a fault of ours)
            self.break_down(fault)

    def break_down(self, error: BaseException) -> None:
        """End a stage whose core has raised: its state cannot be trusted, so it goes at once, and everybody is told."""
        self.inbox.appendleft((m.KILL, StageCrashed(self.name, error)))
        self.queued = False
        self.act(self.take_in)

    def take_in(self) -> None:
        """Let the core see the mailbox; it holds back what has to wait."""
        inbox = self.inbox
        while inbox:
            self.receive(inbox.popleft())

    def took(self) -> None:
        """Note after a callback that ``started`` is over."""
        if self.starting and self.core.state != "starting":
            self.starting = False
            if self.core.state != "ending" and not self._started.done():  # else `ended` says so, with the reason
                self._started.set_result(None)


class InlineDriver(Driver):
    """Plain handlers, called in the scheduler's turn (`Node._turn` runs them; here is the rest)."""

    place = "inline"
    inline = True

    def __init__(self, node: Node, child: Child) -> None:
        """Let events and asks go straight into the core."""
        super().__init__(node, child)
        self.take = self.core.receive
        self.inline = False  # until it has started: the scheduler's short way does not look for that

    def step(self) -> int:
        """Take in messages until there is a callback to run; while the stage starts, run that too."""
        inbox, core = self.inbox, self.core
        while inbox and core.callback is None:
            self.receive(inbox.popleft())
        if core.callback is not None and not self.inline:
            name, args = core.callback
            try:
                value = self.handlers[name](*args)
            except Exception as error:  # noqa: BLE001 (the user's handler)
                core.failed(error)
            else:
                self.odd_value(value)
        if self.starting:
            self.took()
            self.inline = self.express = not self.starting
        if core.callback is None and not inbox:
            self.queued = False
        else:  # what is under way is finished before there is more of it
            self.node.put(self, first=not core.source)
        return 1

    def odd_value(self, value: Any) -> None:
        """Take in a value that may be an awaitable."""
        core = self.core
        if hasattr(type(value), "__await__"):
            assert core.callback is not None  # noqa: S101 (it returned this)
            hint = "declare it with 'async def', or give place='task'"
            core.failed(_unawaited(self.name, core.callback[0], value, hint))
        else:
            core.returned(value)


class TaskDriver(Driver):
    """Async handlers (and plain ones beside them), run on behalf of one task of the stage's own.

    A handler's coroutine is begun right in the scheduler's turn, with the stage's task as the current one and in its
    context (`asyncio._enter_task` is documented for this, under "Extending asyncio"). If it does not suspend, that was
    all, and it cost no wake-up; if it does, the task takes over from there.
    """

    place = "task"

    def __init__(self, node: Node, child: Child) -> None:
        """Let events and asks go straight into the core, and prepare the task."""
        super().__init__(node, child)
        self.take = self.core.receive
        self._context = contextvars.copy_context()
        self._task: asyncio.Task[None] | None = None
        self._wake: asyncio.Future[None] | None = None
        self._suspended: Suspended | None = None
        self._up = False

    @property
    def closing(self) -> bool:
        """Whether the loop is being closed: nobody else cancels the stage's task while it lives."""
        return self._task is not None and self._task.cancelling() > 0

    async def start(self) -> None:
        """Start the task, then as everywhere."""
        self._task = self.node.loop.create_task(self._run(), name=f"headgate: {self.name}", context=self._context)
        self._task.add_done_callback(self._over)
        await super().start()

    def _over(self, task: asyncio.Task[None]) -> None:
        """End with the task: it was cancelled from outside while no handler was suspended."""
        if task is self._task and self.core.state != "ended":
            self.break_down(asyncio.CancelledError() if task.cancelled() else task.exception() or RuntimeError())

    def step(self) -> int:
        """Run messages and handlers, at most `STEP_LIMIT` of them, until one suspends."""
        if not self._up:  # its task has not begun: cancelled now, it would never go on with a handler
            self.queued = False
            return 0
        if self._task is None:  # it has ended, or was abandoned: whoever writes to it is refused
            self.take_in()
            self.queued = False
            return 0
        core, inbox, handlers = self.core, self.inbox, self.handlers
        steps = 0
        while steps < STEP_LIMIT:
            callback = core.callback
            if callback is None or self._suspended is not None:
                if not inbox:
                    break
                self.receive(inbox.popleft())
                continue
            steps += 1
            name, args = callback
            try:
                value = handlers[name](*args)
                if type(value) is CoroutineType:
                    value = self._begin(value)
                    if value is SUSPENDED:
                        continue
                elif value is not None and type(value) not in PLAIN and hasattr(type(value), "__await__"):
                    value = self._begin(_await(value))
                    if value is SUSPENDED:
                        continue
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001 (the user's handler)
                core.failed(error)
            else:
                if not passes(value) or not offer(self.node, self, name, value):
                    core.returned(value)
        if self.starting:
            self.took()
            self.express = not self.starting
        if inbox or (core.callback is not None and self._suspended is None):
            self.node.put(self)
        else:
            self.queued = False
        return steps

    def close(self) -> None:
        """End the task; when it is the one that runs, it ends by itself."""
        task, self._task = self._task, None
        if task is not None and task is not _current_task():
            task.cancel()

    def bind(self, instance: Any) -> None:
        """Connect an instance; batches that are handed down to it are begun like all others."""
        super().bind(instance)
        if inspect.iscoroutinefunction(self.on_events):
            self.on_events = self._begin_events

    def _begin_events(self, batch: Any, source: Subscription) -> Any:
        return self._begin(self.handlers[m.HANDLE_EVENTS](batch, source))

    def odd_value(self, value: Any) -> None:
        """Take in what a plain handler gave when a batch was handed down to it."""
        if value is not None and type(value) not in PLAIN and hasattr(type(value), "__await__"):
            value = self._begin(_await(value))
            if value is SUSPENDED:
                return
        self.core.returned(value)

    def _begin(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine up to its first suspension; return its value, or `SUSPENDED`."""
        loop, task = self.node.loop, self._task
        assert task is not None  # noqa: S101 (it lives as long as the stage)
        enter_task(loop, task)
        try:
            awaited = self._context.run(coroutine.send, None)
        except StopIteration as result:
            return result.value
        finally:
            leave_task(loop, task)
        self._suspended = Suspended(coroutine, awaited)
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
        return SUSPENDED

    async def _run(self) -> None:
        """Go on with handlers that have suspended."""
        core, loop = self.core, self.node.loop
        self._up = True
        self.node.enqueue(self)
        while core.state != "ended":
            if self._suspended is None:
                self._wake = loop.create_future()
                try:
                    await self._wake
                except asyncio.CancelledError:
                    task = self._task
                    if self._suspended is None or task is None:
                        if self._suspended is not None:  # begun, and killed before this took it over
                            self._suspended.close()
                        raise
                    # The handler was begun and cancelled before this took it over (a timeout of 0): so it is for the
                    # handler. Cancelled now, this task will cancel what the handler waits for; it counts once.
                    task.cancel()
                    task.uncancel()
                finally:
                    self._wake = None
                if self._suspended is None:
                    continue
            value, error = None, None
            try:
                value = await self._suspended
            except BaseException as raised:  # noqa: BLE001 (the user's handler, or a kill)
                error = raised
            self._suspended = None
            if core.state == "ended":
                return
            self.outcome(value, error)
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise error
            if self.starting:
                self.took()


class Suspended:
    """A coroutine that was begun elsewhere, to be awaited to its end.

    Args:
        coroutine: It has suspended.
        awaited: What it waits for.
        context: What it goes on in. Default: that of the task that awaits it.
    """

    __slots__ = ("_awaited", "_context", "_coroutine")

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], awaited: Any, context: contextvars.Context | None = None
    ) -> None:
        """Take it over."""
        self._coroutine = coroutine
        self._awaited = awaited
        self._context = context

    def close(self) -> None:
        """End the coroutine: nobody will await it."""
        if self._context is None:
            self._coroutine.close()
        else:
            run: Callable[..., Any] = self._context.run
            run(self._coroutine.close)

    def __await__(self) -> Generator[Any, Any, Any]:
        """Yield what it waits for, and drive it from there, as ``yield from`` would."""
        coroutine, awaited = self._coroutine, self._awaited
        while True:
            try:
                sent = yield awaited
            except BaseException as error:  # noqa: BLE001 (a cancellation goes to the coroutine)
                step = functools.partial(coroutine.throw, error)
            else:
                step = functools.partial(coroutine.send, sent)
            try:
                awaited = step() if self._context is None else self._context.run(step)
            except StopIteration as result:
                return result.value


async def _await(awaitable: Any) -> Any:
    return await awaitable


class ThreadDriver(Driver):
    """Blocking handlers, run in one thread of the stage's own; everything else stays on the loop."""

    place = "thread"
    _busy = False

    def __init__(self, node: Node, child: Child) -> None:
        """Prepare the thread."""
        super().__init__(node, child)
        self._jobs: queue.SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"headgate: {self.name}", daemon=True)

    async def build(self) -> None:
        """Make the instance in the thread: what it opens (a database connection) may be bound to it."""
        self._thread.start()
        self._built: asyncio.Future[Any] = self.node.loop.create_future()
        self._jobs.put((self._build, ()))
        try:
            self.bind(await self._built)
        except BaseException:
            self._jobs.put(None)
            raise

    def step(self) -> int:
        """Take in messages, and hand a new callback to the thread."""
        self.take_in()
        self.queued = False
        self.took()
        callback = self.core.callback
        if callback is not None and not self._busy:
            self._busy = True
            self._jobs.put((self.handlers[callback[0]], callback[1]))
        return 1

    def close(self) -> None:
        """Let the thread end after what it is doing."""
        self._jobs.put(None)

    def _build(self) -> Any:
        return self.child.build()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            handler, args = job
            value, error = None, None
            try:
                value = handler(*args)
            except BaseException as raised:  # noqa: BLE001 (the user's handler)
                error = raised
            came = self._came_built if handler == self._build else self._came
            try:
                self.node.loop.call_soon_threadsafe(came, value, error)
            except RuntimeError:  # the loop is closed: there is nobody left to tell
                return

    def _came_built(self, value: Any, error: BaseException | None) -> None:
        if self._built.done():
            return
        if error is None:
            self._built.set_result(value)
        else:
            self._built.set_exception(error)

    def _came(self, value: Any, error: BaseException | None) -> None:
        self._busy = False
        core = self.core
        if core.state == "ended":
            return
        if error is None and value is not None and type(value) not in PLAIN and hasattr(type(value), "__await__"):
            name = core.callback[0] if core.callback is not None else ""
            error = _unawaited(self.name, name, value, "a thread runs plain functions")
        self.outcome(value, error)
        self.took()
        if core.callback is not None or self.inbox:
            self.node.enqueue(self)


def look_at(future: asyncio.Future[Any]) -> None:
    """Take note of an exception: whoever waits for it gets it, and nobody else has to."""
    if not future.cancelled():
        future.exception()


def _no_handler(*args: Any) -> Any:
    raise AssertionError(args)


def _unawaited(stage: str, name: str, value: Any, hint: str) -> HandlerError:
    """Return the error for a plain handler that gave an awaitable."""
    if hasattr(value, "close"):  # a coroutine that nobody awaits warns unless it is closed
        value.close()
    return HandlerError(stage, name, f"a value, not an awaitable ({hint})", value)


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


DRIVERS: dict[str, type[Driver]] = {each.place: each for each in (InlineDriver, TaskDriver, ThreadDriver)}
