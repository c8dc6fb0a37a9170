"""The stage behind a `ConsumerSupervisor`: it turns events into children, and their ends into demand.

Async children are begun right in the handler, each in a context of its own and on behalf of a task from a pool
(`asyncio._enter_task` is documented for that, under "Extending asyncio"): a child that never waits for anything costs
no task and no wake-up, and one that does goes on in that task. The events of a batch whose children are all done by
then are acknowledged as by any consumer; else each event is acknowledged by itself (`ConsumerSide.defer`).
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
from asyncio import _enter_task as enter_task  # pyright: ignore[reportPrivateUsage]  # documented for extenders
from asyncio import _leave_task as leave_task  # pyright: ignore[reportPrivateUsage]
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from headgate.errors import HeadgateError, Ignore, NoStageError, RestartLimitError, StageCrashed, Stop
from headgate.protocol.batching import rows
from headgate.protocol.children import TEMPORARY, Backoff, Ending, Life, Restarts
from headgate.protocol.messages import NORMAL, SHUTDOWN, DeadLetter, Subscription, Terms, is_normal
from headgate.runtime.options import Child
from headgate.runtime.reference import Ref
from headgate.stage import Consumer
from headgate.supervision.members import ChildInfo, Counts
from headgate.supervision.threads import Threads, Worker

if TYPE_CHECKING:
    from headgate.protocol.ledger import Origin
    from headgate.runtime.driver import Driver

logger = logging.getLogger("headgate")

ASYNC: Final = "task"
THREAD: Final = "thread"
STAGE: Final = "stage"


class Plan(NamedTuple):
    """The options, checked; see `ConsumerSupervisor`."""

    kind: str
    child: Callable[..., Any] | Child
    args: tuple[Any, ...]
    restart: str
    shutdown: float
    retries: int
    backoff: Backoff
    dead_letter: Callable[[DeadLetter], Any] | None
    max_restarts: int | None
    max_seconds: float


class Job:
    """One event and its child.

    Attributes:
        number: Of this child, in the order of the starts.
        source: The subscription that the event came by; None: started by hand.
        origin: What acknowledges the event; None: nothing has to.
        state: ``"running"``, ``"waiting"`` (to be started again), ``"given up"`` (its dead letter is being kept) or
            ``"done"``.
        life: Its restarts; None: there were none.
        cancel: Ends what runs; None when it cannot be ended.
        over: Resolves when nothing of it runs any more, if somebody waits for that.
    """

    __slots__ = ("cancel", "event", "life", "number", "origin", "over", "ref", "source", "state", "stopped", "timer")

    def __init__(self, number: int, event: Any, source: Subscription | None) -> None:
        """Begin before its first start."""
        self.number = number
        self.event = event
        self.source = source
        self.origin: Origin | None = None
        self.life: Life | None = None
        self.state = "running"
        self.stopped = False
        self.ref: Ref | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.cancel: Callable[[], Any] | None = None
        self.over: asyncio.Future[None] | None = None

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return 0 if self.life is None else self.life.restarts


class Spawner(Consumer):
    """Starts a child for each event.

    Args:
        plan: The options.
    """

    __headgate_plain__ = True

    def __init__(self, plan: Plan) -> None:
        """Start with no children."""
        self._plan = plan
        self._jobs: dict[int, Job] = {}
        self._starts = 0
        self._freed: dict[Subscription, int] = {}
        self._workers: list[Worker] = []
        self.idle: list[Worker] = []
        self._driver: Driver  # from `started` on
        self._threads: Threads | None = None
        self._context = contextvars.copy_context()  # what every child's own is a copy of
        self._restarts = Restarts(plan.max_restarts, plan.max_seconds, plan.backoff)
        self.ended = False
        self._asking = False
        self._begin: Callable[[Job], bool] = {
            ASYNC: self._begin_coroutine,
            THREAD: self._begin_thread,
            STAGE: self._begin_stage,
        }[plan.kind]

    @property
    def closing(self) -> bool:
        """Whether the loop is being closed, which cancels every child, through no fault of its event."""
        return self._driver.closing

    # -- callbacks ----------------------------------------------------------------------------------------------------

    def started(self) -> None:
        """See to it that no child outlives this, also when it is killed, which leaves no time for `terminate`."""
        self._driver = self.stage.ref.driver
        self._driver.monitors.append(self._gone)

    def handle_subscribe(self, role: str, options: Terms, peer: Subscription) -> str:  # noqa: ARG002 (a callback's form)
        """Ask for as many events as there may be children."""
        if not options.manual:
            self.stage.ask(peer, options.max_demand)
        return "manual"

    def handle_cancel(self, reason: Any, peer: Subscription) -> None:  # noqa: ARG002 (a callback's form)
        """Ask that producer for nothing more; the children go on."""
        self._freed.pop(peer, None)

    def handle_events(self, events: Any, source: Subscription) -> None:
        """Start a child for each event."""
        begin, number = self._begin, self._starts
        first = self._first_step if self._plan.kind == ASYNC else None
        running: list[tuple[int, Job]] = []
        try:
            for index, event in enumerate(rows(events), 1):
                if first is None:
                    job = Job(number + index, event, source)
                    if not begin(job):
                        running.append((index - 1, job))
                    continue
                worker = first(event)
                if worker is not None:  # a child that never waits costs no job
                    job = Job(number + index, event, source)
                    if not self._goes_on(job, worker):
                        running.append((index - 1, job))
        except BaseException:  # an interrupt: this ends, and those that run end with it
            self._jobs.update((job.number, job) for _, job in running)
            raise
        size = len(events)
        self._starts = number + size
        into = self._driver.core.into
        assert into is not None and into.window is not None  # noqa: S101, PT018 (these are its events)
        if running or into.window.origins:
            origins = into.defer()
            for origin in origins:
                origin.left = 0
            for index, job in running:
                if job.state == "done":  # meanwhile: its dead letter was kept at once
                    continue
                origins[index].left = 1
                job.origin = origins[index]
                self._jobs[job.number] = job
        if into.window.open:  # a subscription is known from its first events on: it may be refused
            self._freed[source] = self._freed.get(source, 0) + size - len(running)
            self._ask()

    async def terminate(self, reason: Any) -> None:  # noqa: ARG002 (a callback's form)
        """End all children at the same time, and wait for them as long as they may take.

        Those that end as they should meanwhile (threads cannot be told to) are done; the other events go back.
        """
        self.ended = True
        jobs = list(self._jobs.values())
        waiting = {over: job for job in jobs if (over := self._end(job)) is not None}
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=self._plan.shutdown)
            self._leave_behind([waiting[over] for over in late])

    def _leave_behind(self, late: list[Job]) -> None:
        """Say which children have not ended in their time; nobody waits for them any longer."""
        if late:
            logger.warning(
                "stage %r: %d children have not ended within %g s: %s",
                self.stage.name,
                len(late),
                self._plan.shutdown,
                ", ".join(str(job.number) for job in late[:10]) + (", ..." if len(late) > 10 else ""),  # noqa: PLR2004
            )

    def _gone(self, reason: Any) -> None:  # noqa: ARG002 (a monitor's form)
        """End what still runs."""
        self.ended = True
        for job in self._jobs.values():
            if job.timer is not None:
                job.timer.cancel()
            if job.ref is not None and job.ref.alive:
                job.ref.kill()
        self._jobs.clear()
        for worker in self._workers:
            worker.task.cancel()
        if self._threads is not None:
            self._threads.close()

    # -- what users see -----------------------------------------------------------------------------------------------

    def children(self) -> list[ChildInfo]:
        """List the children that are not done."""
        return [
            ChildInfo(str(job.number), self._plan.kind, job.state, job.ref, job.restarts, None)
            for job in self._jobs.values()
        ]

    def count(self) -> Counts:
        """Count them."""
        return Counts(1, sum(job.state == "running" for job in self._jobs.values()), 0, len(self._jobs))

    async def start_child(self, event: Any) -> str:
        """Start a child by hand."""
        if self.ended:
            raise NoStageError(f"stage {self.stage.name!r} has ended")
        self._starts += 1
        job = Job(self._starts, event, None)
        self._jobs[job.number] = job
        if self._plan.kind == STAGE:
            await self._start_stage(job, by_hand=True)
            return str(job.number)
        loop, task = self._driver.node.loop, asyncio.current_task()
        if task is not None:  # the child runs on behalf of another one
            leave_task(loop, task)
        try:
            if self._begin(job):
                self._done(job)
        finally:
            if task is not None:
                enter_task(loop, task)
        return str(job.number)

    async def stop_child(self, id: str) -> None:  # noqa: A002 (the field's word)
        """Stop a child; its event is done with."""
        job = self._jobs.get(int(id)) if isinstance(id, str) and id.isdecimal() else None
        if job is None or job.stopped:
            raise NoStageError(f"stage {self.stage.name!r}: there is no child {id!r}")
        job.stopped = True
        # A job of its own: the slot gets free also when nobody waits for that any longer.
        await asyncio.shield(self._driver.node.job(self._stop_job(job), f"stop {self._name(job)}"))

    async def _stop_job(self, job: Job) -> None:
        over = self._end(job)
        if over is not None:
            _, late = await asyncio.wait([over], timeout=self._plan.shutdown)
            if late and not self.ended:
                self._leave_behind([job])
        if job.ref is not None and job.ref.alive:
            job.ref.kill()
        self._done(job)

    # -- beginning ----------------------------------------------------------------------------------------------------

    def _begin_coroutine(self, job: Job) -> bool:
        """Run an async function up to its first suspension; True when that was all."""
        worker = self._first_step(job.event)
        return worker is None or self._goes_on(job, worker)

    def _goes_on(self, job: Job, worker: Worker | BaseException) -> bool:
        """See to an async child that has suspended or raised in its first step; True when its event is done with."""
        if isinstance(worker, BaseException):
            if isinstance(worker, (KeyboardInterrupt, SystemExit)):
                self.interrupted(job)
                raise worker
            return self._failed(job, worker)
        worker.job = job
        job.cancel = worker.task.cancel
        return False

    def _first_step(self, event: Any) -> Worker | BaseException | None:
        """Begin a child; return the worker that has it from there, or what it raised, or None when it has ended."""
        plan, loop = self._plan, self._driver.node.loop
        worker = self._worker(loop)
        context = self._context.copy()
        task = worker.task
        enter_task(loop, task)
        try:
            coroutine: Coroutine[Any, Any, Any] = plan.child(*plan.args, event)  # type: ignore[operator]  # async
            # a task that has not begun could be cancelled unseen: the child begins when it has
            awaited = context.run(coroutine.send, None) if worker.up else None
        except StopIteration:
            self.idle.append(worker)
            return None
        except BaseException as error:  # noqa: BLE001 (the child's)
            self.idle.append(worker)
            return error
        finally:
            leave_task(loop, task)
        worker.take(coroutine, context, awaited)
        return worker

    def _worker(self, loop: asyncio.AbstractEventLoop) -> Worker:
        """Return a worker that is idle."""
        while self.idle:
            worker = self.idle.pop()
            if not (worker.unfit or worker.task.cancelling() or worker.task.done()):
                return worker
            self._workers.remove(worker)
            worker.retire()
        worker = Worker(self, loop)
        self._workers.append(worker)
        return worker

    def interrupted(self, job: Job) -> None:
        """Take note that the program is told to end from within a child: its event is not done, and nobody's fault."""
        job.state, job.cancel = "waiting", None
        self._jobs[job.number] = job

    def _begin_thread(self, job: Job) -> bool:
        """Run a plain function in a thread."""
        plan = self._plan
        if self._threads is None:
            self._threads = Threads(self._driver.node.loop, self.stage.name)
        run: Callable[..., Any] = self._context.copy().run
        call = functools.partial(run, plan.child, *plan.args, job.event)
        self._threads.run(call, functools.partial(self.came, job))
        return False

    def _begin_stage(self, job: Job) -> bool:
        """Start a stage."""
        self._driver.node.job(self._start_stage(job), f"{self.stage.name} child")
        return False

    async def _start_stage(self, job: Job, *, by_hand: bool = False) -> None:
        recipe = self._plan.child
        assert isinstance(recipe, Child)  # noqa: S101 (so says the plan)
        try:
            ref: Ref = await self._driver.node.starter(recipe.with_event(job.event))
        except BaseException as error:
            if by_hand or not isinstance(error, Exception):
                self._jobs.pop(job.number, None)
                raise
            if self.ended or job.stopped or job.restarts or isinstance(error, Ignore):
                self.came(job, error)
            else:
                self._give_up(job, error)  # what cannot be started at all is not tried again
            return
        job.ref = ref
        job.cancel = functools.partial(_stop, ref)
        driver = ref.driver
        driver.monitors.append(functools.partial(self._stage_ended, job))
        if not ref.alive:
            self._stage_ended(job, ref.reason)
        elif self.ended or job.stopped:
            _stop(ref)

    def _stage_ended(self, job: Job, reason: Any) -> None:
        if not is_normal(reason):
            self.came(job, reason if isinstance(reason, BaseException) else StageCrashed(self._name(job), reason))
        elif self.ended and reason != NORMAL:  # it was told to end, and had not come to its own end
            self.came(job, asyncio.CancelledError())
        else:
            self.came(job, None)

    # -- ending -------------------------------------------------------------------------------------------------------

    def came(self, job: Job, error: BaseException | None) -> None:
        """Take note that a child has ended."""
        if job.over is not None and not job.over.done():
            job.over.set_result(None)
        if job.stopped:
            return
        if self.ended:  # an event whose child has come to its end all the same does not go back
            if error is None or isinstance(error, Ignore) or (isinstance(error, Stop) and is_normal(error.reason)):
                self._done(job)
            return
        if error is None or self._failed(job, error):
            self._done(job)

    def _failed(self, job: Job, error: BaseException) -> bool:
        """See to a child that has failed; True when its event is done with."""
        plan = self._plan
        if isinstance(error, Stop):
            if is_normal(error.reason):
                return True
            error = StageCrashed(self._name(job), error.reason)
        elif isinstance(error, Ignore):
            return True
        if plan.restart == TEMPORARY or job.restarts >= plan.retries:
            self._give_up(job, error)
            return False
        node = self._driver.node
        reason = error if isinstance(error, HeadgateError) else StageCrashed(self._name(job), error)
        job.life = job.life or Life()
        delay = self._restarts.decide(job.life, Ending(reason), node.loop.time(), node.random.random())
        if delay is None:
            assert plan.max_restarts is not None  # noqa: S101 (else there is no limit)
            limit = RestartLimitError(self.stage.name, self._name(job), plan.max_restarts, plan.max_seconds, reason)
            self.stage.stop(limit)
        else:
            job.timer = node.loop.call_later(delay, self._again, job)
        job.state = "waiting"
        job.cancel, job.ref = None, None
        self._jobs[job.number] = job
        return False

    def _again(self, job: Job) -> None:
        job.timer = None
        if self.ended or job.stopped:
            return
        job.state = "running"
        if self._begin(job):
            self._done(job)

    def _give_up(self, job: Job, error: BaseException) -> None:
        """Make an event a dead letter; its slot gets free when that is kept."""
        self._jobs[job.number] = job
        job.state, job.cancel, job.ref = "given up", None, None  # its worker may have another child by now
        reason = error if isinstance(error, HeadgateError) else StageCrashed(self._name(job), error)
        letter = DeadLetter(job.event, self.stage.name, self._name(job), job.restarts + 1, reason)
        self._driver.node.bury(letter, functools.partial(self._kept, job), self._plan.dead_letter)

    def _kept(self, job: Job) -> None:
        """Take note that the dead letter of an event is kept."""
        if job.over is not None and not job.over.done():
            job.over.set_result(None)
        self._done(job)

    def _done(self, job: Job) -> None:
        """Acknowledge an event, and free its slot."""
        known = self._jobs.pop(job.number, None) is not None
        job.state = "done"
        if not known:
            return
        source, freed, driver = job.source, self._freed, self._driver
        if source is not None and source in freed and not self.ended:
            freed[source] += 1
            # Several children that end at the same time are replaced at one go. This is before the event is settled:
            # the ask is then before the scheduler's turn, takes the acknowledgements along, and is answered in it.
            if not self._asking:
                self._asking = True
                driver.node.loop.call_soon(self._ask)
        origin, job.origin = job.origin, None
        if origin is None:
            return
        if driver.queued or driver.core.state != "running" or not origin.window.open:
            driver.act(driver.core.settled, origin)
        else:  # it is idle, and this sends nothing
            origin.settle(1)

    def _ask(self) -> None:
        """Ask for more, where enough slots are free."""
        self._asking = False
        if not self.ended:
            for source, freed in list(self._freed.items()):
                if freed and freed >= source.terms.min_demand and not source.terms.manual:
                    self._freed[source] = 0
                    self.stage.ask(source, freed)

    def _end(self, job: Job) -> asyncio.Future[None] | None:
        """Begin to end a child; return what resolves when it has ended, or None when there is nothing to wait for."""
        if job.timer is not None:
            job.timer.cancel()
            return None
        if job.state == "waiting":
            return None
        job.over = self._driver.node.loop.create_future()
        if job.cancel is not None:
            job.cancel()
        return job.over

    def _name(self, job: Job) -> str:
        return f"{self.stage.name} child {job.number}"


def _stop(ref: Ref) -> None:
    """Ask a stage to end."""
    ref.driver.node.job(ref.stop(SHUTDOWN), f"stop {ref.name}")
