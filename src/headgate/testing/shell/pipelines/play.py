"""The lives of a pipeline: it is started, disturbed, ended in many ways, and made anew, until everything is settled."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator
from typing import Any, Final

from headgate import HeadgateError, Message, Pipeline, RestartLimitError, StageCrashed, Supervisor, System, telemetry
from headgate.pipeline.run import Run
from headgate.pipeline.running import CLOSE_SECONDS
from headgate.testing import clock
from headgate.testing.shell.pipelines.broker import Item
from headgate.testing.shell.pipelines.handlers import Functions
from headgate.testing.shell.pipelines.plan import Plan, batcher, processors
from headgate.testing.shell.pipelines.sources import make_source
from headgate.testing.shell.pipelines.world import PipelineWorld
from headgate.testing.shell.world import Violation

CALM: Final = 1.0
"""Virtual seconds of a life after which there are no more faults."""
PATIENCE: Final = 600.0
"""Virtual seconds within which everything must be settled when there are no more faults."""
ENDS: Final = ("drain", "stop", "hasty stop", "leave", "kill")
SLACK: Final = 1.0
OUTSIDE: Final = ("kill source", "kill processor", "kill batcher", "kill batch", "pause", "quiesce", "resize", "rate")


def make_pipeline(world: PipelineWorld, plan: Plan, source: Any) -> Pipeline:
    """Make the pipeline of a plan."""
    functions = plan.functions = Functions(world, plan)
    body: dict[str, Any] = {}
    if plan.prepare is not None:
        slow = plan.prepare == "async" and plan.steps[0].kind != "plain"
        function: Any = functions.prepare_slowly if slow else functions.prepare
        body["prepare_messages"] = staticmethod(function)
        if plan.steps[0].kind.startswith("wide"):
            del body["prepare_messages"]
    if plan.failed_hook is not None:
        body["handle_failed"] = staticmethod(
            functions.failed_slowly if plan.failed_hook == "async" else functions.failed
        )
    cls = type("Sim", (Pipeline,), body)
    options = dict(plan.options)
    if plan.letters_hook is not None:
        options["dead_letters"] = functions.letter_slowly if plan.letters_hook == "async" else functions.letter
    if plan.partitioned:
        options["partition_by"] = functions.key
    if plan.fair:
        options["fair_by"] = functions.key
    if plan.prioritised:
        options["priority_by"] = functions.priority
    if plan.above is None:
        limits = [each for each in (world.limiter, world.key_limiter) if each is not None]
        options["rate_limit"] = limits or None
    plan.grown = False
    plan.widest = [step.concurrency for step in plan.steps]
    for each in plan.batchers.values():
        each.most = each.concurrency
    plan.pipeline = cls(
        source=source,
        name=plan.tag,
        processors={f"s{number}": processors(step, functions.step(number)) for number, step in enumerate(plan.steps)},
        batchers={name: batcher(each, functions.batch(each), functions) for name, each in plan.batchers.items()},
        clock=world.loop.time,
        **options,
    )
    return plan.pipeline  # type: ignore[no-any-return]


def make_app(world: PipelineWorld) -> tuple[Any, list[Pipeline]]:
    """Make what runs in one life: one pipeline, or several of which each goes on with what the one above has."""
    top = world.plans[0]
    sources = [make_source(world, broker, form) for broker, form in zip(top.brokers, top.forms, strict=True)]
    first = make_pipeline(world, top, sources if len(sources) > 1 else sources[0])
    pipelines = [first]
    for plan, above in zip(world.plans[1:], world.plans, strict=False):
        pipelines.append(make_pipeline(world, plan, pipelines[-1].route(above.route or "default")))
    if len(pipelines) == 1:
        return first, pipelines
    return Supervisor(pipelines, auto_shutdown=True, max_restarts=0), pipelines


# -- disturbing --------------------------------------------------------------------------------------------------------


async def disturb(world: PipelineWorld, system: System) -> None:
    """Let faults come from outside."""
    while not world.calm:
        await world.sleep(0.1)
        kinds = [kind for kind in world.kinds if kind in OUTSIDE]
        if world.calm or world.budget <= 0 or not kinds:
            return
        kind = kinds[int(world.chance.random() * len(kinds))]
        plan = world.plans[int(world.chance.random() * len(world.plans))]
        if kind.startswith("kill"):
            _kill(world, system, plan, kind)
        elif kind == "rate":
            _change_rate(world)
        else:
            await _steer(world, plan, kind)


def _kill(world: PipelineWorld, system: System, plan: Plan, kind: str) -> None:
    base = plan.tag
    prefixes = {
        "kill source": (f"{base}.source-",),
        "kill processor": tuple(f"{base}.s{number}" for number in range(len(plan.steps))),
        "kill batcher": (f"{base}.batcher.",),
        "kill batch": (f"{base}.batch.",),
    }[kind]
    refs = [
        ref
        for ref in system.stages()
        if ref.name.startswith(prefixes) and (kind == "kill source" or ".source" not in ref.name)
    ]
    if kind == "kill source" and plan.steps[0].kind.startswith("wide"):
        return
    if kind == "kill processor":
        number = int(world.chance.random() * len(plan.steps))
        refs = [ref for ref in refs if ref.name.startswith(f"{base}.s{number}")]
        if not world.may_fall(plan, number):
            return
    if refs:
        ref = refs[int(world.chance.random() * len(refs))]
        world.count(kind)
        world.note("kill", ref.name)
        world.fatal += 1
        if kind == "kill batch":  # its handler may take a moment to end
            plan.functions.serial.clear()
            for each in plan.batchers.values():
                each.most += 1
        for number, step in enumerate(plan.steps):
            if step.kind.startswith("wide") and ref.name.startswith(f"{base}.s{number}"):
                plan.widest[number] += step.concurrency  # what such a stage has begun goes on
        ref.kill()


def _change_rate(world: PipelineWorld) -> None:
    limiters = [each for each in (world.limiter, world.key_limiter) if each is not None]
    if limiters:
        world.count("rate")
        limiter = world.chance.choice(limiters)
        limiter.update(rate=world.chance.choice((0, 5, 50, 1000)), burst=world.chance.choice((None, None, 1, 5, 50)))


async def _steer(world: PipelineWorld, plan: Plan, kind: str) -> None:
    run = running_of(world, plan)
    if run is None:
        return
    world.count(kind)
    try:
        if kind == "pause":
            run.pause()
            await world.sleep(0.1)
            run.resume()
        elif kind == "quiesce":
            quiet = await run.quiesce(timeout=world.chance.choice((0.01, 1.0)))
            busy = run.run.in_steps and not run.run.drifted
            if quiet and (busy or any(not box.empty for box in run.run.boxes.values())):
                raise world.break_rule("quiesce", f"{run.statistics()} though all is said to be quiet")
            run.resume()
        else:
            await _resize(world, plan, run)
    except HeadgateError as error:
        world.note("no", kind, type(error).__name__, str(error))


async def _resize(world: PipelineWorld, plan: Plan, run: Any) -> None:
    ids = [f"s{number}" for number, step in enumerate(plan.steps) if not step.kind.startswith("wide")]
    ids += list(plan.batchers)
    if not ids:
        return
    name = world.chance.choice(ids)
    count = world.chance.choice((1, 2, 4))
    plan.grown = True
    if name in plan.batchers:
        plan.batchers[name].most = max(plan.batchers[name].most, count)
    else:
        plan.widest[int(name[1:])] = max(plan.widest[int(name[1:])], count)
    await run.resize(name, count)


def running_of(world: PipelineWorld, plan: Plan) -> Any:
    """Return what runs a pipeline, if it does."""
    for each in world.system.node.supervisions.values():
        if each.recipe is plan.pipeline:
            return each
    return None


async def feed(world: PipelineWorld, items: list[Item], pace: float) -> None:
    """Put items into their brokers, then say that there are no more."""
    for item in items:
        if pace:
            await world.sleep(pace)
        item.broker.put(item)
    for broker in world.brokers:
        broker.finish()


async def push(world: PipelineWorld, number: int) -> None:
    """Put messages in by hand, and wait for what becomes of them."""
    await world.sleep(0.3)
    plan = world.plans[0]
    run = running_of(world, plan)
    if run is None or not run.alive or plan.current is None or plan.current.draining or plan.current.over:
        return
    world.count_event("by hand")
    message: Message = await run.test_message(("hand", number), key=world.user.choice((None, "x")))
    world.note("by hand", number, message.outcome)


async def audit(world: PipelineWorld) -> None:
    """Read the numbers at random moments."""
    while True:
        await world.sleep(0.3)
        check_books(world)


def check_books(world: PipelineWorld) -> None:
    """Check that the numbers add up.

    Raises:
        Violation: They do not.
    """
    for plan in world.plans:
        run = running_of(world, plan)
        if run is None:
            continue
        seen = run.statistics()
        wrong = seen.unbalanced or seen.processing < 0 or min(seen.outcomes.values()) < 0
        if wrong or seen.fetched != seen.in_flight + sum(seen.outcomes.values()):
            raise world.break_rule("balance", f"{plan.tag}: {seen}")


# -- one life ----------------------------------------------------------------------------------------------------------


async def live(world: PipelineWorld, ending: str, items: list[Item], *, pushes: int = 0) -> None:
    """Let the pipelines live once, and end in this way; check what is left.

    Raises:
        Violation: A rule is broken.
    """
    world.life += 1
    world.forced = world.at_risk = False
    world.inside.clear()
    world.active.clear()
    app, pipelines = make_app(world)
    spawn = world.loop.create_task
    others: list[asyncio.Task[Any]] = []
    calming = None
    system = System(seed=world.seed, on_error=world.reported, on_dead_letter=world.bury)
    budget, world.budget = world.budget, 0  # an app whose start fails is not started again
    runs: list[Run] = []
    try:
        async with system:
            world.system = system
            running = await system.start(app)
            world.budget = budget
            runs = [each._current for each in pipelines if each._current is not None]  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            others = [
                spawn(disturb(world, system), name="disturb"),
                spawn(audit(world), name="audit"),
                spawn(feed(world, items, world.draw.choice((0.0, 0.01, 0.05))), name="feed"),
                *(spawn(push(world, number), name="push") for number in range(pushes)),
            ]
            if ending == "end":
                calming = world.loop.call_later(CALM, _calm, world)
            try:
                await _end(world, system, running, ending, others)
            except TimeoutError:
                raise world.break_rule("stalled", explain(world)) from None
            finally:
                check_books(world)
    except (RestartLimitError, StageCrashed) as error:
        world.note("given up", type(error).__name__)
        world.count_event("given up")
    finally:
        if calming is not None:
            calming.cancel()
        await _settle(others)
    if world.broken is not None:
        raise world.broken
    rest = [item for item in items if item not in item.broker.items]
    for item in rest:
        item.broker.put(item)
    await _aftermath(world)
    check_life(world, runs)


async def _end(
    world: PipelineWorld, system: System, running: Any, ending: str, others: list[asyncio.Task[Any]]
) -> None:
    user = world.user
    if ending == "end":
        waiting = world.loop.create_task(running.wait(), name="wait")
        async with asyncio.timeout(PATIENCE):
            await _first(world, waiting, others)
        return
    done = world.loop.create_task(_pause_of(world), name="until the end")
    await _first(world, done, others)
    world.note("end", ending)
    world.faults[ending] += 1
    began = world.loop.time()
    limit = user.choice((0.0, 0.05, 0.5)) if ending == "hasty stop" else user.choice((5.0, 30.0))
    world.forced = ending in ("hasty stop", "kill") or min(plan.options["shutdown"] for plan in world.plans) < 1.0
    async with asyncio.timeout(PATIENCE):
        if ending == "drain":
            drained = await system.drain(timeout=limit)
            world.note("drained", drained.complete)
            world.faults["drained in time" if drained.complete else "deadline"] += 1
        elif ending in ("stop", "hasty stop"):
            await running.stop(timeout=limit)
        elif ending == "kill":
            running.kill()
        else:
            limit = 60.0
    took = world.loop.time() - began
    if ending != "leave" and took > limit + CLOSE_SECONDS + SLACK:
        raise world.break_rule("slow", f"{ending} within {limit} s took {took:.3f} s")


async def _pause_of(world: PipelineWorld) -> None:
    await world.sleep(world.draw.choice((0.05, 0.5, 2.0)))


async def _first(world: PipelineWorld, wanted: asyncio.Task[Any], helpers: list[asyncio.Task[Any]]) -> None:
    """Wait for a task; raise what a helper raises, or what was found."""
    waiting: set[asyncio.Future[Any]] = {wanted, *helpers, world.failure}
    try:
        while wanted in waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if world.broken is not None:
                raise world.broken
    finally:
        wanted.cancel()


async def _settle(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        if task.get_name() != "push":
            task.cancel()
    pushes = [task for task in tasks if task.get_name() == "push"]
    if pushes:  # whoever waits for an outcome hears of the end
        await asyncio.wait(pushes, timeout=1.0)
    for task in tasks:
        late = not task.done() and task in pushes
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Violation, HeadgateError):
            await task
        if late:
            raise AssertionError(f"{task.get_name()} was told of no outcome")


def _calm(world: PipelineWorld) -> None:
    world.calm = True
    _open_up(world)
    world.note("calm")


def _open_up(world: PipelineWorld) -> None:
    """Let rates be high from now on, so that there is an end."""
    for limiter in (world.limiter, world.key_limiter):
        if limiter is not None:
            limiter.update(rate=1000, burst=50)


async def _aftermath(world: PipelineWorld) -> None:
    """Let the user's own timers go off: they are not the pipeline's."""
    for _ in range(100):
        if not world.timers:
            break
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.01)


def check_life(world: PipelineWorld, runs: list[Run]) -> None:
    """Check that a life that has ended leaves nothing behind, and that every delivery was told of.

    Raises:
        Violation: It does, or one was not.
    """
    unknown = 0
    for run in runs:
        if not run.closed:
            raise world.break_rule("left behind", f"{run.pipeline.id} has ended and is not closed")
        for books in run.all_books:
            unknown += books.unacknowledged
            if books.unbalanced() or books.in_flight or sum(books.outcomes.values()) != books.fetched:
                raise world.break_rule(
                    "balance", f"{books.name}: {books.outcomes} of {books.fetched}, {books.in_flight}"
                )
    for delivery in world.deliveries:
        if delivery.life == world.life and delivery.told is None and not delivery.expired:
            if unknown or world.forced:
                continue
            raise world.break_rule("untold", f"nobody was told what became of {delivery}")
    for timer in world.loop.timers():
        if getattr(timer._callback, "__module__", "") == clock.__name__:  # type: ignore[attr-defined]  # noqa: SLF001
            continue  # a thread that nobody waits for
        raise world.break_rule("left behind", f"a timer: {timer!r}")
    left = [task for task in world.loop.tasks() if task is not asyncio.current_task()]
    if left:
        raise world.break_rule("left behind", f"tasks: {left}")
    for broker in world.brokers:
        if broker.source is not None and broker.source.state not in ("closed", "new"):
            raise world.break_rule("left behind", f"{broker.name} was not closed")


def explain(world: PipelineWorld) -> str:
    """Say how things stand."""
    lines = [f"not done after {world.loop.time():.0f} s"]
    for broker in world.brokers:
        unsettled = [(item.number, item.state, item.delivery) for item in broker.unsettled]
        lines.append(f"{broker.name}: {unsettled[:8]}")
    for plan in world.plans:
        run = running_of(world, plan)
        if run is not None:
            lines.append(f"{plan.tag}: {run.statistics()}")
            lines += [f"  {vars_of(feed)}" for feed in run.run.feeds]
            lines += [f"  {box.name}: {box.machine}, full {box.machine.full}" for box in run.run.boxes.values()]
            lines.append(f"  {[(ref.name, ref.driver.core.callback, ref.demand) for ref in world.system.stages()]}")
    return "\n".join(lines)


def vars_of(thing: Any) -> dict[str, Any]:
    """Return the small attributes of something, for people."""
    return {name: value for name, value in vars(thing).items() if isinstance(value, (int, float, str, type(None)))}


# -- all of them -------------------------------------------------------------------------------------------------------


async def play(world: PipelineWorld, items: list[Item], *, endings: list[str], pushes: int = 0) -> None:
    """Let the pipelines live and end in these ways, then once more without faults, and check that all is settled.

    Raises:
        Violation: A rule is broken.
    """
    with _listening(world):
        for ending in endings:
            await live(world, ending, items, pushes=pushes)
            items = []
        world.calm = True
        _open_up(world)
        for broker in world.brokers:
            broker.finish()
        await live(world, "end", [])
    check_settled(world)


@contextlib.contextmanager
def _listening(world: PipelineWorld) -> Generator[None, None, None]:
    """Let simulated threads be other threads, lost messages be known, and in some runs telemetry be listened to."""
    here, lost = Run.here, Run.lost
    loop = world.loop
    detach: Callable[[], None] | None = None
    if world.draw.random() < 0.25:  # noqa: PLR2004 (some)
        detach = telemetry.attach("", lambda _name, _measurements, _metadata: None)

    def listen(self: Run, messages: Any) -> None:
        messages = list(messages)
        world.fatal += 1
        world.excuse(messages)
        lost(self, messages)

    Run.here = lambda self: loop.worker is None and here(self)  # type: ignore[method-assign]
    Run.lost = listen  # type: ignore[method-assign]
    try:
        yield
    finally:
        Run.here, Run.lost = here, lost  # type: ignore[method-assign]
        if detach is not None:
            detach()


def check_settled(world: PipelineWorld) -> None:
    """Check that nothing is lost.

    Raises:
        Violation: Something is.
    """
    lost = [f"{broker.name}-{item.number} {item.state}" for broker in world.brokers for item in broker.unsettled]
    if lost:
        raise world.break_rule("lost", f"{len(lost)}: {lost[:8]}")
