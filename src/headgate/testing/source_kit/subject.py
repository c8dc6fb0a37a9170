"""What `check_source` checks: its options, and what all rules and scripts do with them."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from headgate.testing.source_kit.driver import Driver
from headgate.types import Message, Source

Payload = dict[str, Any]


@dataclass
class Subject:
    """What is checked: the options of `check_source`.

    Attributes:
        rule: What is being checked, for errors.
        seed: The seed of a random script, for errors.
    """

    make: Callable[..., Source]
    put: Callable[[Any, list[Payload]], Any] | None
    number: Callable[[Message], int]
    finish: Callable[[Any], Any] | None
    peer: Callable[[Any], Source] | None
    letters: Callable[[Any], Iterable[int]] | None
    fail: Callable[[Any], Any] | None
    reopen: Callable[[Any], Source]
    sleep: Callable[[float], Any] | None
    delay: float
    patience: float
    quiet: float
    skip: frozenset[str]
    probe: Source
    rule: str = ""
    seed: int = 0

    def drive(self, source: Source) -> Driver:
        """Return what calls a source."""
        return Driver(source, self.rule, self.seed, self.number, self.patience)

    async def opened(self, count: int, keys: int | None = None) -> Driver:
        """Make a source with so many messages, and open it.

        Args:
            count: How many; their numbers count from 0.
            keys: How many keys they have, in turn. Default: one each.
        """
        payloads = self.payloads(range(count), keys)
        if self.put is None:
            driver = self.drive(self.make(payloads))
        else:
            driver = self.drive(self.make())
            if payloads:
                await self.add(driver, payloads)
        await driver.open()
        return driver

    @staticmethod
    def payloads(numbers: Iterable[int], keys: int | None = None) -> list[Payload]:
        """Make payloads."""
        return [{"number": number, "key": f"key-{number % keys if keys else number}"} for number in numbers]

    async def add(self, driver: Driver, payloads: list[Payload]) -> None:
        """Put more."""
        driver.calls.append(f"put {[each['number'] for each in payloads]}")
        await self.extern(driver, self.put, payloads)

    async def extern(self, driver: Driver, function: Callable[..., Any] | None, *args: Any) -> Any:
        """Call a function of the caller's about a source: in a thread if that blocks, as it may block too."""
        assert function is not None  # noqa: S101 (conditions of the rules)
        call = functools.partial(function, driver.source, *args)
        value = await driver.loop.run_in_executor(None, call) if driver.source.blocking else call()
        return await value if inspect.isawaitable(value) else value

    async def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        value = asyncio.sleep(seconds) if self.sleep is None else self.sleep(seconds)
        if inspect.isawaitable(value):
            await value

    async def reopened(self, driver: Driver) -> Driver:
        """Close it, and open it again."""
        await driver.close()
        again = self.drive(self.reopen(driver.source))
        again.calls = driver.calls
        await again.open()
        return again

    @property
    def watch(self) -> float:
        """Seconds to watch that nothing comes: no lease is over by then."""
        return self.quiet if self.probe.lease is None else min(self.quiet, self.probe.lease / 4)
