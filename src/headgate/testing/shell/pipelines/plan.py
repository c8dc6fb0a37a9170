"""What a simulated pipeline is like: drawn by the seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from headgate import Backoff, Batcher, Processors, RetryPolicy
from headgate.testing.shell.pipelines.broker import Broker, Item
from headgate.testing.shell.pipelines.sources import FORMS

if TYPE_CHECKING:
    from random import Random

    from headgate.pipeline.run import Run
    from headgate.testing.shell.pipelines.world import PipelineWorld

KINDS: Final = ("plain", "plain", "async", "async", "thread", "wide", "wide in order")
MANY: Final = 30
"""Items of a source, at the most."""


@dataclass
class StepPlan:
    """One processing step."""

    kind: str
    concurrency: int
    max_demand: int | None
    timeout: float | None
    retry: Any
    pace: float

    @property
    def capacity(self) -> int:
        """How many messages its stages hold."""
        most = self.max_demand
        if self.kind.startswith("wide"):
            return self.concurrency + (most or self.concurrency)
        return self.concurrency * (most or (10 if self.kind == "plain" else 1))


@dataclass
class BatchPlan:
    """One batcher."""

    name: str
    kind: str
    size: int
    splits: bool
    max_bytes: int | None
    timeout: float
    keyed: bool
    serial: bool
    concurrency: int
    overflow: str | None
    run_timeout: float | None
    retry: Any
    isolate: bool
    max_open: int
    max_waiting: int | None
    pace: float
    most: int = 0


@dataclass
class Plan:
    """One pipeline.

    Attributes:
        tag: Its name.
        features: What else its handlers do: ``"split"``, ``"defer"``, ``"ack"``, ``"new"``, ``"beside"``, ``"merge"``.
        ahead: How many messages may be fetched ahead of demand.
        widest: How many handlers of each step may run at a time; resizing makes it larger.
        route: It hands its messages on to the next pipeline.
    """

    tag: str
    brokers: list[Broker]
    steps: list[StepPlan]
    batchers: dict[str, BatchPlan]
    partitioned: bool
    fair: bool
    prioritised: bool
    options: dict[str, Any]
    features: set[str]
    failed_hook: str | None
    letters_hook: str | None
    prepare: str | None
    route: str | None = None
    above: Plan | None = None
    forms: list[str] = field(default_factory=list)
    widest: list[int] = field(default_factory=list)
    grown: bool = False
    pipeline: Any = None
    functions: Any = None

    @property
    def current(self) -> Run | None:
        """Its run, if it has begun."""
        return None if self.pipeline is None else self.pipeline._current  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

    @property
    def capacity(self) -> int:
        """How many messages the stages of the first step hold."""
        return self.steps[0].capacity

    @property
    def ahead(self) -> int:
        """How many messages may be fetched ahead of demand."""
        if not (self.partitioned or self.fair or self.prioritised):
            return 0
        return int(max(self.options.get("lookahead") or 100, self.options.get("max_waiting") or 1000))

    @property
    def outlets(self) -> list[str]:
        """Where messages go from the last step, by name."""
        return [*self.batchers, *([self.route] if self.route else [])]

    @property
    def exits(self) -> bool:
        """Whether messages are acknowledged when they leave the last step."""
        return not self.outlets

    @property
    def may_overflow(self) -> bool:
        """Whether batchers may turn messages away."""
        return bool(self.batchers) and any(broker.redelivers for broker in self.brokers)

    def in_order(self, item: Item) -> bool:
        """Say whether items of a key are handled in order, whatever fails."""
        broker = item.broker
        policies = [each for step in self.steps for each in (step.retry or {}).values()]
        if not all(each is None or each.ordered for each in policies):
            return False
        if self.above is not None and not self.above.in_order(item):
            return False
        return broker.ordered or (self.partitioned and item.key not in broker.requeues)


def draw_retry(draw: Random) -> Any:
    """Draw a retry policy, or none."""
    policy = RetryPolicy(
        attempts=draw.choice((2, 3, 5)),
        first=draw.choice((0.0, 0.01, 0.2)),
        most=1.0,
        ordered=draw.random() < 0.8,  # noqa: PLR2004 (most)
    )
    return draw.choice((None, {Exception: policy}, {Exception: policy}, {OSError: policy, ValueError: None}))


def draw_step(draw: Random, kinds: tuple[str, ...]) -> StepPlan:
    """Draw a step."""
    kind = draw.choice(kinds)
    return StepPlan(
        kind,
        draw.choice((1, 1, 2, 3)),
        draw.choice((None, None, 1, 2, 5)),
        draw.choice((None, 0.05, 0.3)) if kind != "plain" else None,
        draw_retry(draw),
        draw.choice((0.0, 0.001, 0.01, 0.05)),
    )


def draw_batcher(draw: Random, name: str) -> BatchPlan:
    """Draw a batcher."""
    kind = draw.choice(("plain", "async", "async", "thread"))
    keyed = draw.random() < 0.4  # noqa: PLR2004 (some)
    return BatchPlan(
        name=name,
        kind=kind,
        size=draw.choice((1, 2, 3, 5, 100)),
        splits=draw.random() < 0.15,  # noqa: PLR2004 (some)
        max_bytes=draw.choice((None, None, 10, 30)),
        timeout=draw.choice((0.01, 0.1, 1.0)),
        keyed=keyed,
        serial=draw.random() < 0.4,  # noqa: PLR2004 (some)
        concurrency=draw.choice((1, 1, 2, 3)),
        overflow=draw.choice((None, None, "block", "requeue")),
        run_timeout=draw.choice((None, 0.1, 0.5)) if kind != "plain" else None,
        retry=draw_retry(draw),
        isolate=draw.random() < 0.7,  # noqa: PLR2004 (most)
        max_open=draw.choice((1, 2, 100)),
        max_waiting=draw.choice((None, None, 1, 3)),
        pace=draw.choice((0.0, 0.01, 0.1)),
    )


def draw_plan(world: PipelineWorld, tag: str, brokers: list[Broker], emphasis: dict[str, Any]) -> Plan:
    """Draw a pipeline; a family says by ``emphasis`` what it wants to see."""
    draw = world.draw
    kinds = emphasis.get("kinds", KINDS)
    steps = [draw_step(draw, kinds) for _ in range(draw.choice(emphasis.get("steps", (1, 1, 1, 2, 3))))]
    many = draw.choice(emphasis.get("batchers", (0, 0, 1, 1, 2, 3)))
    names = ["default", "b", "c"][:many]
    chooses = draw.random() < emphasis.get("choice", 0.4)
    options: dict[str, Any] = {
        "on_failure": draw.choice(emphasis.get("on_failure", ("retry", "retry", "dead_letter", "requeue", "discard"))),
        "max_deliveries": draw.choice((1, 2, 3, 5)),
        "redelivery": Backoff(first=draw.choice((0.0, 0.05)), most=0.5),
        "shutdown": draw.choice((0.5, 5.0, 30.0)),
        "max_restarts": draw.choice((None, None, 3)),
    }
    if chooses:
        options["lookahead"] = draw.choice((None, None, 0, 1, 10))
        options["max_waiting"] = draw.choice((None, None, 1, 2, 10, 40))
    by_rank = emphasis.get("rank", 0.4)
    return Plan(
        tag=tag,
        brokers=brokers,
        steps=steps,
        batchers={name: draw_batcher(draw, name) for name in names},
        partitioned=chooses and draw.random() < 0.7,  # noqa: PLR2004 (most)
        fair=chooses and draw.random() < by_rank,
        prioritised=chooses and draw.random() < by_rank,
        options=options,
        features={each for each in FEATURES if draw.random() < emphasis.get("features", 0.12)},
        failed_hook=draw.choice(emphasis.get("hooks", (None, None, "plain", "async"))),
        letters_hook=draw.choice((None, None, "plain", "async")),
        prepare=draw.choice((None, None, None, "plain", "async")),
        widest=[step.concurrency for step in steps],
        forms=[draw.choice(emphasis.get("forms", FORMS)) for _ in brokers],
    )


FEATURES: Final = ("split", "defer", "ack", "new", "beside", "merge", "empty", "flush")


def draw_broker(world: PipelineWorld, name: str, emphasis: dict[str, Any]) -> Broker:
    """Draw a broker and what will be put into it."""
    draw = world.draw
    total = 1 + int(draw.random() * MANY)
    lease = draw.choice(emphasis.get("leases", (None, None, None, 3.0)))
    broker = Broker(world, name, total, ordered=draw.random() < 0.4, lease=lease)  # noqa: PLR2004 (some)
    broker.redelivers = draw.random() < emphasis.get("redelivers", 0.85)
    broker.keeps_letters = draw.random() < 0.7  # noqa: PLR2004 (most)
    broker.max_deliveries = draw.choice((None, None, 2, 4))
    broker.patient = draw.random() < 0.3  # noqa: PLR2004 (some)
    return broker


def draw_items(world: PipelineWorld, broker: Broker, emphasis: dict[str, Any]) -> list[Item]:
    """Draw what will be put into a broker."""
    draw = world.draw
    keys = draw.choice((1, 2, 4, 20))
    hurried = draw.random() < emphasis.get("deadlines", 0.1)
    poisoned = emphasis.get("poison", 0.3)
    share = draw.choice((0.0, 0.1, 0.3)) if draw.random() < poisoned else 0.0
    items: list[Item] = []
    for number in range(broker.total):
        key = None if draw.random() < 0.1 else f"{broker.name}{int(draw.random() * keys)}"  # noqa: PLR2004 (some)
        item = Item(broker, number, key, 1 + int(draw.random() * 12))
        if hurried:
            item.patience = draw.choice((None, 0.0, 0.05, 2.0))
        if draw.random() < share:
            item.poison = draw.choice((-1, 0, 0, 1))
        items.append(item)
    return items


def processors(plan: StepPlan, handler: Callable[..., Any]) -> Processors:
    """Return the options of a step."""
    place = {"plain": "inline", "thread": "thread"}.get(plan.kind, "task")
    made = Processors(
        handler,
        concurrency=plan.concurrency,
        max_demand=plan.max_demand,
        timeout=plan.timeout,
        retry=plan.retry,
        place=place,
    )
    if plan.kind.startswith("wide"):
        made.ordered = plan.kind == "wide in order"
    return made


def batcher(plan: BatchPlan, handler: Callable[..., Any], functions: Any) -> Batcher:
    """Return the options of a batcher."""
    return Batcher(
        handler,
        size=(0, functions.splitter(plan)) if plan.splits else plan.size,
        max_bytes=plan.max_bytes,
        sizer=functions.sizer if plan.max_bytes is not None else None,
        timeout=plan.timeout,
        key=functions.batch_key if plan.keyed else None,
        concurrency=plan.concurrency,
        serial=plan.serial,
        max_open=plan.max_open,
        max_waiting=plan.max_waiting,
        overflow=plan.overflow,
        run_timeout=plan.run_timeout,
        retry=plan.retry,
        isolate=plan.isolate,
        place={"plain": "inline", "thread": "thread"}.get(plan.kind, "task"),
    )
