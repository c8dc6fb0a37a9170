"""Families for what keeps outside systems from being asked for too much: token buckets, and look-ups by `augment`.

Buckets are held to what follows from the list of all uses, window by window. Look-ups run for real, in virtual time,
against a service that counts.
"""

# ruff: noqa: SLF001 (a white-box test kit)
# pyright: reportPrivateUsage=false
from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Callable
from random import Random
from typing import Any, Final

from headgate.errors import AugmentError
from headgate.pipeline.augment import Augment, augment
from headgate.pipeline.rates import RateLimiter
from headgate.protocol.circuits import CircuitBreaker
from headgate.protocol.limits import Bucket, KeyedBuckets
from headgate.protocol.retries import RetryPolicy
from headgate.testing.clock import POLICIES, run
from headgate.testing.simulation.oracles import Violation
from headgate.testing.simulation.plays import Broken, Play
from headgate.types import Message

_EPSILON: Final = 1e-6
_KEYS: Final = 6

# -- buckets ----------------------------------------------------------------------------------------------------------


class Use:
    """Tokens of a key: how many were taken when, by the true time and by the bucket's clock, with which burst."""

    def __init__(self, key: int, n: int, when: float, clock: float, burst: int) -> None:
        """Keep it."""
        self.key, self.n, self.when, self.clock, self.burst = key, n, when, clock, burst
        self.kept = True


class BucketPlay(Play):
    """Buckets by key that are taken from, given back to, changed, forgotten, and whose clock jumps."""

    kinds = ("refused", "give_back", "late_give_back", "update", "jump", "back", "reserve", "crowded", "forgotten")

    def __init__(self, rng: Random, tail: int) -> None:
        """Draw the options."""
        super().__init__(rng, tail)
        self.limits = [(0.0, rng.choice((0.5, 1.0, 4.0)), rng.choice((1, 2, 5)))]  # since when, rate and burst
        _, rate, burst = self.limits[0]
        self.mode = rng.choice(("plain", "reserve", "update", "jump"))
        self.most = rng.choice((1, 3, 100))
        self.buckets = KeyedBuckets(rate * 10, 10.0, burst, most=self.most)
        self.shift = 2.0**20
        self.jumps: list[float] = []
        self.uses: list[Use] = []

    @property
    def clock(self) -> float:
        """The time that the buckets are told."""
        return self.now + self.shift

    def choices(self) -> dict[str, Callable[[], None]]:
        """Return what may be done."""
        also = {"reserve": self.reserve, "update": self.update, "jump": self.jump, "plain": self.take}[self.mode]
        return {"take": self.take, "more": self.take, "pass": self.time_passes, "give": self.give_back, "also": also}

    def time_passes(self) -> None:
        """Let time pass."""
        self.now += self.rng.choice((0.25, 0.25, 1.0, 3.0, 20.0))
        self.note("now", self.now)

    def take(self) -> None:
        """Take some, as often as it is let."""
        key, n = int(self.rng.random() * _KEYS), self.rng.choice((1, 1, 2, 3))
        bucket = self._use(key)
        for _ in range(self.rng.choice((1, 1, 3))):
            free, wait = bucket.available(self.clock), bucket.take(n, self.clock)
            self.note("take", key, n, self.now, wait)
            self.same("available", wait == 0, n <= free)
            if wait:
                self.faults["refused"] += 1
                break
            self.uses.append(Use(key, n, self.now, self.clock, self.limits[-1][2]))

    def _use(self, key: int) -> Bucket:
        """Look that keys are forgotten when they can be."""
        before, known = len(self.buckets), set(self.buckets._buckets)
        idle = key not in known and all(self._look(each).full(self.clock) for each in known)
        bucket = self.buckets.use(key, self.clock)
        self.happened("forgotten", len(known - set(self.buckets._buckets)))
        if idle and len(self.buckets) > max(self.most, before - 1):
            raise Violation("remembered", f"{len(self.buckets)} keys, of which {before} were idle")
        return bucket

    def _look(self, key: int) -> Bucket:
        """Return a copy: looking is not to change anything."""
        return copy.copy(self.buckets.look(key, self.clock))

    def reserve(self) -> None:
        """Take some, to be used when they are due."""
        key, n = int(self.rng.random() * _KEYS), self.rng.choice((1, 2))
        wait = self.buckets.use(key, self.clock).reserve(n, self.clock)
        self.note("reserve", key, n, self.now, wait)
        if wait != math.inf:
            self.happened("reserve", wait)
            self.uses.append(Use(key, n, self.now + wait, math.nan, self.limits[-1][2]))

    def give_back(self) -> None:
        """Give some back that were taken, right now or a while ago."""
        # When the clock has jumped meanwhile, nobody knows how long it was.
        taken = [use for use in self.uses[-4:] if use.kept and use.clock - use.when == self.shift]
        if not taken:
            return
        use = self.rng.choice(taken)
        self.note("give back", use.key, use.n, use.when)
        use.kept = False
        self.faults["give_back" if use.when == self.now else "late_give_back"] += 1
        self.buckets.use(use.key, self.clock).give_back(use.n, self.clock, use.clock)

    def update(self) -> None:
        """Change the limit."""
        rate, burst = self.rng.choice((0.5, 1.0, 4.0)), self.rng.choice((1, 2, 5))
        self.note("update", rate, burst)
        self.faults["update"] += 1
        self.buckets.update(rate=rate * 2, per=2.0, burst=burst, now=self.clock)
        self.limits.append((self.now, rate, burst))

    def jump(self) -> None:
        """Set the clock, a little or by far, forward or back."""
        by = self.rng.choice((-1.0, 1.0)) * self.rng.choice((0.25, 2.0, 2.0**17))
        self.note("jump", by)
        self.faults["jump" if by > 0 else "back"] += 1
        self.shift += by
        if by > 0:  # what is set back may make it wait, and never lets more pass
            self.jumps.append(self.now)

    def check(self) -> None:
        """Hold every window to the limit, and see that no more is held back than must be."""
        self.happened("crowded", self.buckets.crowded)
        for key in {use.key for use in self.uses}:
            mine = sorted((use for use in self.uses if use.key == key), key=lambda use: use.when)
            self._check_windows(key, [use for use in mine if use.kept])
            if self.mode == "jump":
                self._check_goes_on(key)
            else:
                self._check_open(key, mine)

    def _check_windows(self, key: int, uses: list[Use]) -> None:
        for last, until in enumerate(uses):
            total = 0
            for use in reversed(uses[: last + 1]):
                total += use.n
                jumps = sum(use.when <= each <= until.when for each in self.jumps)
                most = until.burst * (1 + jumps) + self._came(use.when, until.when)
                if total > most + _EPSILON:
                    raise Violation("window", f"key {key}: {total} in [{use.when}, {until.when}], at most {most}")

    def _check_open(self, key: int, uses: list[Use]) -> None:
        """What is available lies between what follows from all uses, and from those that were not given back."""
        got = self._look(key).available(self.clock)
        if got < self._free(uses) or got > self._free([use for use in uses if use.kept]):
            raise Violation("held-back", f"key {key}: {got} are available at {self.now}")

    def _check_goes_on(self, key: int) -> None:
        _, rate, burst = self.limits[-1]
        wait = self._look(key).wait(1, self.clock)
        if wait > 2 * burst / rate + _EPSILON:
            raise Violation("stopped", f"key {key}: the next one may pass in {wait} s")

    def _free(self, uses: list[Use]) -> int:
        total, level = 0, 0.0
        for use in reversed(uses):
            total += use.n
            level = max(level, total - self._came(min(use.when, self.now), self.now))
        return max(0, math.floor(self.limits[-1][2] - level + _EPSILON))

    def _came(self, begin: float, end: float) -> float:
        """Return how many tokens came in between."""
        came = 0.0
        for (since, rate, _), until in zip(
            self.limits, [*(each[0] for each in self.limits[1:]), math.inf], strict=True
        ):
            came += rate * max(0.0, min(until, end) - max(since, begin))
        return came


# -- look-ups ---------------------------------------------------------------------------------------------------------


class LookupPlay(Play):
    """Clients that come and go look keys up in a service that is slow, fails, and goes on when it is cancelled."""

    kinds = (
        *("failed", "timeout", "cancelled", "stubborn", "retry", "rejected", "hit", "joined", "batch", "update"),
        *("waited", "thread"),
    )

    def __init__(self, rng: Random, tail: int) -> None:
        """Draw the options."""
        super().__init__(rng, tail)
        self.most = rng.choice((1, 2, 4))
        self.rate, self.burst = rng.choice(((5.0, 1), (20.0, 3), (math.inf, 1)))
        self.plain = rng.random() < 0.2  # noqa: PLR2004 (some)
        self.batch = rng.choice((1, 1, 3))
        self.ttl = rng.choice((0.0, 0.0, 2.0))
        self.keys = rng.choice((3, 10, 40))
        self.wrong = rng.choice((0.0, 0.3, 0.6))
        self.busy: list[list[Any]] = []  # [keys, whether it was cancelled] of each call under way
        self.begun: list[float] = []
        self.peak = 0
        self.asked: list[int] = []
        self.passed: list[int] = []
        self.answers: dict[Any, float] = {}  # when each key was answered last
        self.known: dict[Any, float] = {}  # of those that somebody has received
        self.broken: Violation | None = None

    def run(self) -> None:
        """Let the clients come, and see what is left when they have gone."""
        rng = self.rng
        seed, policy, tick = rng.randrange(1 << 30), rng.choice(POLICIES), rng.choice((0.0, 20e-6))
        run(self._main(), seed=seed, policy=policy, tick=tick, limit=200_000)
        if self.broken is not None:
            raise self.broken

    def _step(self) -> tuple[Augment, RateLimiter]:
        rng = self.rng
        limiter = RateLimiter(self.rate, burst=self.burst)
        step = augment(
            self._plainly if self.plain else self._serve,
            concurrency=self.most,
            rate=limiter,
            batch=self.batch,
            linger=rng.choice((0.0, 0.1)),
            cache=(100, self.ttl) if self.ttl else None,
            timeout=rng.choice((None, 0.3, 1.0)),
            retry=rng.choice((None, RetryPolicy(attempts=3, first=0.05, on=Broken))),
            breaker=rng.choice((None, CircuitBreaker(2, 0.5), CircuitBreaker(2, 0.5, waits=True))),
            name="service",
        )
        step._chance = rng.random
        return step, limiter

    async def _main(self) -> None:
        step, limiter = self._step()
        async with asyncio.TaskGroup() as group:
            for number in range(24):
                group.create_task(self._client(step, number), name=f"client {number}")
            for number in range(6):
                group.create_task(self._direct(limiter, number), name=f"direct client {number}")
            if self.rng.random() < 0.3 and self.rate != math.inf:  # noqa: PLR2004 (some)
                await asyncio.sleep(1)
                self.faults["update"] += 1
                limiter.update(rate=self.rate / 2)  # less than the service stands
        await asyncio.sleep(60)  # until what was given up has ended
        self._look_closer(step, limiter)
        seen = step.statistics()
        self.same("left", (step._flights, step._trips, step._filling, step._calls.alive), ({}, set(), None, set()))
        self.same("places", (step._calls.slots._value, seen.in_flight, self.busy), (self.most, 0, []))
        self.same("order", self.passed, self.asked)
        await step.close()

    def _look_closer(self, step: Augment, limiter: RateLimiter) -> None:
        """Compare the statistics with what was seen."""
        seen, rates = step.statistics(), limiter.statistics()
        self.steps = len(self.begun)
        peak = seen.most_in_flight if self.plain else self.peak
        self.same("statistics", (seen.calls, seen.most_in_flight), (len(self.begun), peak))
        self.same("waiting", (rates.waiting, limiter._lines), (0, {}))
        if rates.admitted < seen.calls:
            raise Violation("unlimited", f"{seen.calls} calls, {rates.admitted} were admitted")
        happened = {"timeout": seen.timeouts, "retry": seen.retries, "rejected": seen.rejected, "hit": seen.hits}
        happened |= {"joined": seen.joined, "batch": seen.batches, "waited": rates.waited, "thread": self.plain}
        for kind, count in happened.items():
            self.happened(kind, count)

    async def _client(self, step: Augment, number: int) -> None:
        rng = self.rng
        await asyncio.sleep(rng.random() * 3)
        key = int(rng.random() * self.keys)
        try:
            async with asyncio.timeout(rng.choice((None, None, 0.0, 0.05, 0.5, 2.0))):
                message = await step(Message(key))
        except AugmentError:
            self.note("failed", number, key)
            self.faults["failed"] += 1
        except TimeoutError:
            self.note("cancelled", number, key)
            self.faults["cancelled"] += 1
        else:
            self.note("done", number, key)
            self.known[key] = self.answers.get(key, -math.inf)
            if message.metadata["augmented"] != f"<{key}>":
                self._break("result", f"{key} is {message.metadata['augmented']}")

    async def _direct(self, limiter: RateLimiter, number: int) -> None:
        """Use the rate for something else, in the order in which it was asked for."""
        rng = self.rng
        await asyncio.sleep(rng.random() * 3)
        self.asked.append(number)
        try:
            async with asyncio.timeout(rng.choice((None, None, 0.0, 0.2))):
                await limiter.acquire(rng.randint(1, self.burst))
        except TimeoutError:
            self.asked.remove(number)
        else:
            self.passed.append(number)

    def _break(self, rule: str, text: str) -> None:
        self.broken = self.broken or Violation(rule, text)

    def _begin(self, keys: list[Any]) -> list[Any]:
        """Count a call that begins."""
        now = asyncio.get_running_loop().time()
        self.note("call", keys, now)
        call = [keys, False]
        for other, cancelled in self.busy:
            if not cancelled and not self.plain and set(other) & set(keys):
                self._break("twice", f"{keys} are looked up while {other} are")
        for key in keys:
            if now - self.known.get(key, -math.inf) < self.ttl - _EPSILON:
                self._break("cache", f"{key} is known since {self.known[key]}, and asked for at {now}")
        self.busy.append(call)
        self.begun.append(now)
        self.peak = max(self.peak, len(self.busy))
        if len(self.busy) > self.most:
            self._break("at-once", f"{len(self.busy)} calls at once, at most {self.most}")
        for index, time in enumerate(self.begun):
            count = len(self.begun) - index
            late = 0.01 if self.plain else 0.0  # until a thread has begun
            if count > self.burst + self.rate * (now - time + late) + _EPSILON:
                self._break("rate", f"{count} calls in [{time}, {now}], at most {self.burst} + {self.rate:g}/s")
        return call

    async def _serve(self, asked: Any) -> Any:
        rng = self.rng
        keys = asked if isinstance(asked, list) else [asked]
        call = self._begin(keys)
        wrong, stubborn = rng.random() < self.wrong, rng.choice((0.0, 0.0, 0.3, 2.0))
        try:
            await asyncio.sleep(rng.choice((0.0, 0.01, 0.4, 2.0)))
        except asyncio.CancelledError:
            call[1] = True
            if stubborn:
                self.faults["stubborn"] += 1
                await asyncio.sleep(stubborn)
            raise
        finally:
            self.busy.remove(call)
        if wrong:
            raise Broken(keys)
        found = [f"<{key}>" for key in keys]
        for key in keys:
            self.answers[key] = asyncio.get_running_loop().time()
        return (found if rng.random() < 0.5 else dict(zip(keys, found, strict=True))) if self.batch > 1 else found[0]  # noqa: PLR2004 (half)

    def _plainly(self, asked: Any) -> Any:
        """Serve as a plain function: threads of the virtual loop run one at a time, so only results can be checked."""
        keys = asked if isinstance(asked, list) else [asked]
        self.busy.remove(self._begin(keys))
        if self.rng.random() < self.wrong:
            raise Broken(keys)
        found = [f"<{key}>" for key in keys]
        return found if self.batch > 1 else found[0]


PLAYS: Final[dict[str, type[Play]]] = {"rates": BucketPlay, "lookups": LookupPlay}
