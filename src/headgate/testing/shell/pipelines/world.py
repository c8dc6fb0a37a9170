"""One run: what was seen of a simulated pipeline, and the rules that it is held to."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from headgate import (
    DeadLetter,
    HandlerError,
    HookError,
    Message,
    RateLimiter,
    SourceError,
    Subscription,
)
from headgate.errors import DuplicateSettlementError, LeaseExpiredError
from headgate.protocol.batches import Batch
from headgate.testing.clock import VirtualLoop, Worker
from headgate.testing.shell.pipelines.broker import Broker, Delivery, Unit
from headgate.testing.shell.world import Violation, World

if TYPE_CHECKING:
    from headgate.testing.shell.pipelines.plan import Plan
    from headgate.testing.shell.pipelines.sources import SimSource


class SimLimiter(RateLimiter):
    """A limiter that keeps a list of what it has let through, for a check of every window."""

    def __init__(self, world: PipelineWorld, rate: float, **options: Any) -> None:
        """Begin with nothing let through."""
        super().__init__(rate, **options)
        self.world = world
        self.passed: Counter[Any] = Counter()
        self.used: Counter[Any] = Counter()
        self.tokens: dict[Any, tuple[float, float]] = {}  # by key: what a bucket would have, and when
        self.largest = self.burst

    def try_acquire(self, n: int = 1, key: Any = None) -> int:
        """Let pass, and check that so many may."""
        count = super().try_acquire(n, key)
        self._take(count, key)
        return count

    async def acquire(self, n: int = 1, key: Any = None) -> None:
        """Wait until so many may pass, and check that they may."""
        await super().acquire(n, key)
        self._take(n, key)

    def _take(self, count: int, key: Any) -> None:
        self.passed[key] += count
        left = self._refill(key) - count
        self.tokens[key] = (left, self.world.loop.time())
        if left < -1e-6:  # noqa: PLR2004 (rounding)
            raise self.world.break_rule("rate", f"{self} let {count} of {key!r} pass, {-left:.3f} too many")

    def _refill(self, key: Any) -> float:
        now = self.world.loop.time()
        left, then = self.tokens.get(key, (float(self.largest), now))
        return min(float(self.largest), left + (now - then) * self.rate / self.per)

    def give_back(self, n: int, key: Any = None, *, taken: float | None = None) -> None:
        """Take back what did not pass."""
        super().give_back(n, key, taken=taken)
        self.passed[key] -= n
        self.tokens[key] = (min(float(self.largest), self._refill(key) + n), self.world.loop.time())
        if self.passed[key] < self.used[key]:
            text = f"{self.used[key]} of {key!r} were used, only {self.passed[key]} were let through"
            raise self.world.break_rule("rate", text)

    def update(self, *, rate: float | None = None, per: float | None = None, burst: int | None = None) -> None:
        """Change the limit; what came up to now came at the old rate."""
        now = self.world.loop.time()
        largest = burst or (self.largest if self._fixed or rate is None else max(1, math.ceil(rate)))
        more = max(0, largest - self.burst)
        self.largest = max(self.largest, largest)
        for key in self.tokens:
            self.tokens[key] = (self._refill(key) + more, now)
        super().update(rate=rate, per=per, burst=burst)

    def use(self, n: int, key: Any = None) -> None:
        """Take note that so many were used."""
        self.used[key] += n
        if self.used[key] > self.passed[key]:
            text = f"{self.used[key]} of {key!r} were used, only {self.passed[key]} were let through"
            raise self.world.break_rule("rate", text)


class PipelineWorld(World):
    """What a run of pipelines is made of.

    Attributes:
        plans: The pipelines.
        brokers: Where their messages come from.
        deliveries: All of them.
        life: The number of the pipelines' life: they are ended and made anew.
        fatal: How often stages were killed, or fell; ``forced``: something was cut short in this life.
        at_risk: From when on leases may pass, since extending them has failed; None: not at all.
    """

    def __init__(self, family: str, seed: int, loop: VirtualLoop) -> None:
        """Begin with nothing."""
        super().__init__(family, seed, loop)
        self.plans: list[Plan] = []
        self.brokers: list[Broker] = []
        self.deliveries: list[Delivery] = []
        self.life = 0
        self.fatal = 0
        self.forced = False
        self.at_risk = False
        self.duplicates_allowed = False
        self.inside: dict[Any, Delivery] = {}  # by pipeline and key: who is in the processors
        self.first_done: dict[Any, int] = {}  # by pipeline and key: the last number that was handled
        self.active: Counter[Any] = Counter()  # handlers that run
        self.handled: set[Any] = set()
        self.limiter: SimLimiter | None = None
        self.key_limiter: SimLimiter | None = None
        self.letters: list[DeadLetter] = []
        self.victims: dict[Any, int] = {}
        self.failure: asyncio.Future[None] = loop.create_future()  # the run is not gone on with
        self.timers: set[asyncio.TimerHandle] = set()  # of the user's own

    def break_rule(self, rule: str, text: str) -> Violation:
        """Keep the first violation, and end the run."""
        if not self.failure.done():
            self.failure.set_result(None)
        return super().break_rule(rule, text)

    def note(self, *what: Any) -> None:
        """Write down what happens, up to the first violation."""
        if self.broken is None or what[0] == "VIOLATION":
            super().note(*what)

    # -- reports ------------------------------------------------------------------------------------------------------

    def reported(self, error: Exception) -> None:
        """Take what the system reports; each has to have a cause."""
        self.note("report", type(error).__name__, str(error)[:200])
        self.reports.append(error)
        faults = self.faults
        if isinstance(error, SourceError):
            caused = isinstance(error.__cause__, OSError) or faults["fetch garbage"]
        elif isinstance(error, DuplicateSettlementError):
            caused = self.duplicates_allowed
        elif isinstance(error, LeaseExpiredError):
            caused = self.at_risk or self.forced
        elif isinstance(error, HookError):
            caused = bool(faults["hook raises"])
        elif isinstance(error, HandlerError):
            caused = bool(faults["garbage"] or faults["batch garbage"] or faults["missing"] or faults["fetch garbage"])
        else:
            caused = isinstance(error, TimeoutError) and self.forced
        if not caused:
            self.break_rule("reports", f"{type(error).__name__}: {error}")

    def bury(self, letter: DeadLetter) -> None:
        """Take a dead letter of the system."""
        self.letters.append(letter)
        self.faults["dead letter"] += 1

    def later(self, delay: float, function: Callable[[], None], *, threaded: bool) -> None:
        """Let a user do something later, perhaps in a thread."""

        def go() -> None:
            self.timers.discard(timer)
            if threaded:
                Worker(self.loop).put(function)
            else:
                function()

        timer = self.loop.call_later(delay, go)
        self.timers.add(timer)

    # -- deliveries ---------------------------------------------------------------------------------------------------

    def find(self, message: Message) -> Delivery | None:
        """Return the delivery that a message is of; None: it was put in by hand."""
        data = message.data
        return self.deliveries[data[2]] if data[0] != "hand" else None

    def fetch_begins(self, source: SimSource, count: int) -> None:
        """Check that no more is asked for than the processors stand."""
        plan = self.plans[0]
        unbegun = sum(
            each.told is None and not each.begun and not each.expired and each.life == self.life
            for each in self.deliveries
        )
        most = plan.capacity + plan.ahead
        mine = unbegun + count
        calm = not (
            self.faults
            or any(each.deadline is not None for each in self.deliveries)
            or plan.grown
            or any(each.failures for each in self.deliveries)
        )
        if self.key_limiter is None and mine > most * len(plan.brokers) and calm:
            text = f"{source.name}: {count} more than {unbegun} that nobody has begun, expected at most {most}"
            raise self.break_rule("demand", text)

    def fetched(self, source: SimSource, count: int) -> None:
        """Take note of what a fetch has brought."""
        self.note("fetched", source.name, count)
        if self.limiter is not None:
            self.limiter.use(count)

    def lease_expired(self, delivery: Delivery) -> None:
        """Take note that a lease has passed; somebody has to be to blame."""
        self.note("expired", delivery)
        self.count_event("lease expired")
        if not (self.at_risk or self.forced) and delivery.told is None and delivery.life == self.life:
            self.break_rule("lease", f"the lease of {delivery} has passed, and nobody has tried to extend it")

    def leases_at_risk(self) -> None:
        """Take note that an extension has failed."""
        self.at_risk = True

    def may_fall(self, plan: Plan, step: int) -> bool:
        """Say whether stages of a step may end early in this life.

        Those of one step may: what a stage has sent on that is gone is not sent again when its receiver falls as well.
        """
        return self.victims.setdefault((self.life, plan.tag), step) == step

    def count_event(self, kind: str) -> None:
        """Note that something special has happened, which is no fault."""
        self.faults[kind] += 1

    def told(self, broker: Broker, method: str, message: Message, *, counted: bool) -> Delivery:
        """Check that a source may be told this.

        Raises:
            Violation: It may not.
        """
        delivery: Any = message.receipt
        self.note("told", method, getattr(delivery, "unit", delivery), "counted" if counted else "uncounted")
        if not isinstance(delivery, Delivery) or delivery.item.broker is not broker or delivery.life != self.life:
            raise self.break_rule("told", f"{broker.name} was told {method} of {message!r}, which is not of this life")
        again = delivery.unsure and delivery.told == method
        if delivery.told is not None and not again:
            raise self.break_rule("settled twice", f"{delivery} was to be {method}, it was {delivery.told} already")
        delivery.told, delivery.unsure = method, False
        self._check_told(broker, delivery, method, message, counted=counted)
        self.stay_out(delivery)
        return delivery

    def stay_out(self, delivery: Delivery) -> None:
        """Take note that a delivery is not in the processors any more."""
        self.inside = {key: each for key, each in self.inside.items() if each is not delivery}

    def _check_told(self, broker: Broker, delivery: Delivery, method: str, message: Message, *, counted: bool) -> None:
        causes = delivery.failures + delivery.excuses
        late = delivery.deadline is not None and self.loop.time() >= delivery.deadline
        causes += late
        if method == "ack":
            if delivery.open and not delivery.excuses:  # a part of what was handled twice
                raise self.break_rule("acknowledged", f"{delivery} was acknowledged, {delivery.open} was not handled")
        elif method == "nack":
            self.count_event("requeued")
            run = self.plans[0].current
            ending = self.forced or run is None or run.draining or run.closed
            plain = self.plans[0].steps[0].kind == "plain"  # of these nobody knows whom they have begun with
            if counted and not (causes or self.forced or ((delivery.begun or plain) and ending)):
                raise self.break_rule("counted", f"{delivery} went back as failed, nothing has")
            overflowed = self._may_overflow(delivery)
            below = ending and len(self.plans) > 1  # the pipeline below had not begun it
            if not counted and not (ending or causes or overflowed or self.fatal):
                raise self.break_rule("given back", f"{delivery} went back, and there is no reason")
            if not counted and delivery.begun and not (causes or overflowed or self.fatal or self.forced or below):
                raise self.break_rule("uncounted", f"{delivery} went back as if nobody had begun it")
            if not broker.redelivers and not (ending or self.fatal):
                raise self.break_rule("given back", f"{delivery} went back to a source that takes nothing back")
        else:
            if not (delivery.failures or late) or message.reason is None:
                raise self.break_rule(method, f"{delivery}: {method}, nothing has failed ({message.reason!r})")
            self.count_event("dead letter" if method == "dead_letter" else "discarded")

    def _may_overflow(self, delivery: Delivery) -> bool:
        """Say whether a delivery may have gone back since there were too many."""
        waits = any(plan.partitioned for plan in self.plans) and delivery.item.broker.ordered
        return waits or (bool(delivery.through) and any(plan.may_overflow for plan in self.plans))

    # -- handlers -----------------------------------------------------------------------------------------------------

    def begin(self, plan: Plan, step: int, message: Message) -> Delivery | None:
        """Check that a step may be given a message.

        Raises:
            Violation: It may not.
        """
        self.note("handle", plan.tag, step, message.data)
        place = (plan.tag, step)
        self.active[place] += 1
        if self.active[place] > plan.widest[step]:
            raise self.break_rule("concurrency", f"{self.active[place]} at step {place}, {plan.widest[step]} allowed")
        delivery = self.find(message)
        if delivery is None:
            return None
        run = plan.current
        first = step == 0 and not delivery.runs[place, message.data]
        first = first and plan.steps[0].kind in ("plain", "async")  # else it was begun a moment before
        if first and run is not None and run.draining and not (delivery.excuses or delivery.failures):
            raise self.break_rule("draining", f"{delivery} was begun while the pipeline was draining")
        if delivery.told is not None and not delivery.excuses:
            raise self.break_rule("handled late", f"{delivery} is handled, and was {delivery.told}")
        if self.key_limiter is not None and step == 0 and plan is self.plans[0]:
            self._check_key_rate(delivery, message)
        delivery.begun = True
        self._count_run(delivery, place, message.data)
        if plan.partitioned and step == 0 and message.key is not None:
            self._enter(plan, delivery, message)
        return delivery

    def _check_key_rate(self, delivery: Delivery, message: Message) -> None:
        assert self.key_limiter is not None  # noqa: S101 (the caller has looked)
        if not delivery.runs[(self.plans[0].tag, 0), message.data]:
            self.key_limiter.use(1, message.key or "none")

    def _count_run(self, delivery: Delivery, place: Any, unit: Unit) -> None:
        delivery.runs[place, unit] += 1
        if delivery.runs[place, unit] > 1:  # what came of it before is not sent on, or comes again
            delivery.forget_parts(unit)
            delivery.finished.discard(unit)
        runs, most = delivery.runs[place, unit], 1 + delivery.failures + delivery.excuses
        if runs > most:
            raise self.break_rule("doubled", f"{unit} was given to {place} {runs} times, expected at most {most}")

    def _enter(self, plan: Plan, delivery: Delivery, message: Message) -> None:
        where = (plan.tag, message.data[0], message.key)
        other = self.inside.get(where)
        late = other is not None and other.deadline is not None and other.deadline <= self.loop.time()
        gone = other is None or other is delivery or other.failures or other.excuses or other.expired or late
        if not gone:
            raise self.break_rule("two of a key", f"{delivery} and {other} of key {message.key!r} at once")
        self.inside[where] = delivery

    def end(self, plan: Plan, step: int) -> None:
        """Take note that a handler has ended."""
        self.active[plan.tag, step] -= 1

    def leave(self, plan: Plan, delivery: Delivery, message: Message) -> None:
        """Take note that a message leaves the processors; check the order of its key."""
        where = (plan.tag, message.data[0], message.key)
        if self.inside.get(where) is delivery:
            del self.inside[where]
        delivery.through.add(message.data)
        item = delivery.item
        if message.data != delivery.unit or (plan.tag, item) in self.handled or item.key is None:
            return
        self.handled.add((plan.tag, item))
        last = self.first_done.get(where, -1)
        if plan.in_order(item) and item.number < last:
            raise self.break_rule("order", f"{delivery} was handled after {last}")
        self.first_done[where] = max(last, item.number)

    def gave_back(self, subscription: Subscription, pieces: list[Any], in_flight: int) -> None:  # noqa: ARG002
        """Take note of what a stage gives back that has ended: it may be handled once more."""
        self.fatal += bool(pieces)
        self.note("back", subscription.consumer.driver.name, len(pieces))
        for batch, _, _ in pieces:
            for event in batch:
                self.excuse(event.items if isinstance(event, Batch) else [event])

    def excuse(self, messages: Sequence[Message]) -> None:
        """Let messages be handled once more."""
        for message in messages:
            delivery = self.find(message)
            if delivery is not None:
                delivery.excuses += 1
                self.inside = {key: each for key, each in self.inside.items() if each is not delivery}
