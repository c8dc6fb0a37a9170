"""The retry family: a small pipeline in time of its own, which knows by the policies alone what may happen."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from operator import attrgetter
from random import Random
from typing import Any, ClassVar

from headgate.protocol.intake import Intake
from headgate.protocol.retries import Retries, RetryPolicy
from headgate.testing.simulation.oracles import Violation
from headgate.testing.simulation.plays import STEPS, Play, numbers
from headgate.types import Message


class RetryPlay(Play):
    """A small pipeline whose handlers fail: who is tried again, when, and what becomes of the order of a key."""

    kinds = ("failed", "given_up", "crash", "passed", "never")
    errors: ClassVar[tuple[type[Exception], ...]] = (ValueError, TimeoutError, ConnectionResetError, KeyError)

    def __init__(self, rng: Random, tail: int) -> None:
        """Draw the policies."""
        super().__init__(rng, tail)
        self.ordered = rng.random() < 0.5  # noqa: PLR2004 (half)
        self.policies: dict[type[Exception], RetryPolicy | None] = {
            each: None if rng.random() < 0.2 else self._policy()  # noqa: PLR2004 (some)
            for each in rng.sample((Exception, OSError, TimeoutError, LookupError), rng.randint(1, 4))
        }
        self.retries = Retries(self.policies)
        self.intake = Intake(serial=attrgetter("key"))
        self.messages = [Message((number,), key=rng.randrange(4)) for number in range(12)]
        self.fails = rng.choice((0.2, 0.5, 0.8))
        self.delayed: list[tuple[float, int, Message]] = []
        self.running: list[Message] = []
        self.ended: dict[Any, list[int]] = {}  # by key: the numbers of those that have ended, in order
        self.intake.offer(self.messages)

    def _policy(self) -> RetryPolicy:
        rng = self.rng
        on = rng.choice((Exception, Exception, (OSError, ValueError)))
        return RetryPolicy(
            rng.randint(1, 5), rng.choice((0, 0.5)), rng.choice((1, 2, 3)), rng.choice((1, 5)), rng.choice((0, 0.5)), on
        )

    def run(self) -> None:
        """Go on until every message has ended."""
        while self.intake.waiting or self.running or self.delayed:
            self.steps += 1
            if self.steps > 100 * STEPS:
                raise Violation("no-end", f"{self.intake.waiting} wait, {len(self.running)} run")
            self._step()
            self.check()
        ends = sorted(number for ended in self.ended.values() for number in ended)
        self.same("every-message-once", ends, list(range(len(self.messages))))

    def _step(self) -> None:
        rng = self.rng
        if self.delayed and (not (self.running or self.intake.ready) or rng.random() < 0.3):  # noqa: PLR2004 (some)
            self._awake()
        elif self.intake.ready and (not self.running or rng.random() < 0.5):  # noqa: PLR2004 (half)
            got = self.intake.take(rng.randint(1, 3))
            self.note("take", numbers(got))
            self.running += got
        elif rng.random() < 0.05:  # noqa: PLR2004 (a few)
            self.faults["crash"] += 1
            back = sorted(self.running, key=lambda item: item.data)
            self.note("crash", numbers(back))
            self.running = []
            self.intake.put_back(back)
        else:
            self._handle(self.running.pop(rng.randrange(len(self.running))))

    def _awake(self) -> None:
        self.now, _, message = heapq.heappop(self.delayed)
        self.note("again", message.data[0], self.now)
        (self.intake.put_back if self.ordered else self.intake.offer)([message])

    def _handle(self, message: Message) -> None:
        rng = self.rng
        if rng.random() >= self.fails:
            self._end(message, "done")
            return
        self.faults["failed"] += 1
        message.attempts += 1
        error = rng.choice(self.errors)("no")
        chance = rng.random()
        wait = self.retries.decide(error, message.attempts, chance)
        self.note("failed", message.data[0], repr(error), message.attempts, wait)
        self._judge(type(error), message.attempts, chance, wait)
        if wait is None:
            self.faults["given_up"] += 1
            self._end(message, "given up")
            return
        self.number += 1
        heapq.heappush(self.delayed, (self.now + wait, self.number, message))
        if not self.ordered:
            self.intake.release([message])

    def _judge(self, error: type[Exception], attempts: int, chance: float, wait: float | None) -> None:
        """Compare an answer with what the policies say, read in the simplest way."""
        known = [each for each in self.policies if issubclass(error, each)]
        policy = self.policies[max(known, key=lambda each: len(each.__mro__))] if known else None
        if policy is None or attempts >= (policy.attempts or 0) or not issubclass(error, policy.on):
            self.happened("never", policy is None)
            self.same("retry-decision", wait, None)
            return
        expected = policy.first
        for _ in range(attempts - 1):
            expected *= policy.factor
        self.same("retry-wait", wait, min(expected, policy.most) * (1 - policy.jitter * chance))

    def _end(self, message: Message, how: str) -> None:
        self.note(how, message.data[0])
        ended = self.ended.setdefault(message.key, [])
        ended.append(message.data[0])
        self.intake.release([message])
        if ended != sorted(ended):
            self.faults["passed"] += 1
            if self.ordered:
                raise Violation("order-within-key", f"key {message.key}: ended in the order {ended}")

    def check(self) -> None:
        """See that nothing is lost, and that each key has one at work at the most."""
        held = [message for _, _, message in self.delayed]
        ended = sum(map(len, self.ended.values()))
        self.same("conservation", self.intake.waiting + len(self.running) + len(held) + ended, len(self.messages))
        keys = [message.key for message in (self.running + held if self.ordered else self.running)]
        self.same("one-of-a-key", sorted(keys), sorted(set(keys)))
        held_keys = set(keys)
        may = {message.key for message in self._waiting() if message.key not in held_keys}
        self.same("work-conserving", self.intake.ready, len(may))

    def _waiting(self) -> Iterator[Message]:
        away = {id(message) for message in self.running} | {id(message) for _, _, message in self.delayed}
        ended = {number for each in self.ended.values() for number in each}
        return (each for each in self.messages if id(each) not in away and each.data[0] not in ended)
