"""Runs seeds: one, or many on all cores."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Generator, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from random import Random
from typing import Any

from headgate.protocol.ledger import Piece, Subscriber
from headgate.protocol.messages import KILL
from headgate.protocol.stage import StageCore
from headgate.runtime import driver, express, node
from headgate.testing.clock import POLICIES, VirtualLoop, run_on
from headgate.testing.shell.families import EXPECTED, FAMILIES
from headgate.testing.shell.play import check_end
from headgate.testing.shell.world import Violation, World

KNOBS = (
    (node, "BURST", (1, 2, 32)),
    (node, "TURN_BURSTS", (1, 2, 16)),
    (driver, "STEP_LIMIT", (1, 2, 64)),
    (express, "DEPTH", (0, 1, 16)),
)
"""Bounds of the shell that would never be reached in runs as short as these: each seed draws others."""
LIMIT = 200_000
"""Callbacks after which a run counts as endless; runs take a few hundred."""
EAGER = getattr(asyncio, "eager_task_factory", None)
"""From Python 3.12 on, some runs begin tasks right when they are made."""


class ShellError(AssertionError):
    """A seed has failed. Its text names family and seed, what happened last, and the command that replays it.

    Attributes:
        family: The family.
        seed: The seed.
        rule: The broken rule, or the type of the exception that came out of the run.
    """

    def __init__(self, family: str, seed: int, rule: str, text: str) -> None:
        """Keep what is needed to replay."""
        super().__init__(family, seed, rule, text)
        self.family = family
        self.seed = seed
        self.rule = rule
        self.text = text

    def __str__(self) -> str:
        """Say all of it."""
        return self.text


@dataclass
class Summary:
    """What a number of seeds have shown.

    Attributes:
        schedules: How many were run.
        steps: How many callbacks they took.
        faults: In how many schedules a fault happened, by name.
        failures: (family, seed, rule, text) of each that failed.
    """

    family: str
    schedules: int = 0
    steps: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, int, str, str]] = field(default_factory=list)

    def add(self, other: Summary) -> None:
        """Add what other seeds of this family have shown."""
        self.schedules += other.schedules
        self.steps += other.steps
        self.faults.update(other.faults)
        self.failures += other.failures


def run_seed(family: str, seed: int, *, policy: str | None = None, trace: bool = False) -> World:
    """Run one seed.

    Args:
        family: One of ``FAMILIES``.
        seed: Any integer of at least 0.
        policy: Which ready callback runs next: ``"fifo"``, ``"shuffle"`` or ``"tasks"``. Default: the seed chooses.
        trace: Keep everything that happens, not only the end.

    Returns:
        The world, as it was in the end.

    Raises:
        ShellError: A rule was broken.
    """
    draw = Random(seed * 5 + 3)  # noqa: S311 (chance for tests)
    drawn = POLICIES[int(draw.random() * len(POLICIES))]
    tick, grid = draw.choice((0.0, 20e-6, 100e-6)), draw.choice((0.0, 0.0, 0.001))
    loop = VirtualLoop(seed, policy=policy or drawn, tick=tick, grid=grid, limit=LIMIT)
    if EAGER is not None and draw.random() < 0.3:  # noqa: PLR2004 (some)
        loop.set_task_factory(EAGER)
    world = World(family, seed, loop)
    world.log = type(world.log)(maxlen=None if trace else 60)
    try:
        with _shell(world, draw):
            run_on(loop, FAMILIES[family](world))
            check_end(world)
        _raise_broken(world)
    except Exception as error:
        cause = world.broken or error
        rule = cause.rule if isinstance(cause, Violation) else type(cause).__name__
        raise ShellError(family, seed, rule, _explain(world, cause, policy)) from error
    return world


def _raise_broken(world: World) -> None:
    """Raise a violation that a stage has swallowed."""
    if world.broken is not None:
        raise world.broken


@contextlib.contextmanager
def _shell(world: World, draw: Random) -> Generator[None, None, None]:
    """Set the shell's bounds as the seed draws them, listen to what comes back, and keep the log silent."""
    before = [getattr(module, name) for module, name, _ in KNOBS]
    unacked, raises = Subscriber.unacked, sys.unraisablehook
    for module, name, values in KNOBS:
        setattr(module, name, draw.choice(values))
    Subscriber.unacked = _listen(world)  # type: ignore[method-assign]
    handlers: Any = StageCore._handlers  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    killed = handlers[KILL]
    handlers[KILL] = _listen_to_kills(world, killed)
    sys.unraisablehook = functools.partial(_unraisable, world)
    disabled, node.logger.disabled = node.logger.disabled, True
    try:
        yield
    finally:
        node.logger.disabled = disabled
        sys.unraisablehook = raises
        Subscriber.unacked = unacked  # type: ignore[method-assign]
        handlers[KILL] = killed
        for (module, name, _), value in zip(KNOBS, before, strict=True):
            setattr(module, name, value)


def _unraisable(world: World, seen: Any) -> None:
    world.break_rule("unraisable", f"{seen.err_msg} {seen.exc_value!r}")


def _listen(world: World) -> Any:
    original = Subscriber.unacked

    def unacked(self: Subscriber, handled: int = 0) -> list[Piece]:
        in_flight = self.in_flight
        pieces = original(self, handled)
        world.gave_back(self.subscription, pieces, in_flight)
        return pieces

    return unacked


def _listen_to_kills(world: World, original: Any) -> Any:
    def on_kill(self: StageCore, message: Any) -> None:
        world.killed.add(self.port)
        original(self, message)

    return on_kill


def run_family(family: str, seeds: Iterable[int], *, policy: str | None = None, stop_at: int = 1) -> Summary:
    """Run some seeds of one family; end after so many failures."""
    summary = Summary(family)
    gc.collect()
    gc.freeze()
    for seed in seeds:
        try:
            world = run_seed(family, seed, policy=policy)
        except ShellError as failure:
            summary.failures.append((family, seed, failure.rule, failure.text))
            if len(summary.failures) >= stop_at:
                break
            continue
        summary.schedules += 1
        summary.steps += world.loop.steps
        summary.faults.update(world.faults.keys())
    gc.unfreeze()
    return summary


def run_all(
    families: Iterable[str],
    schedules: int,
    *,
    first: int = 0,
    policy: str | None = None,
    jobs: int | None = None,
    stop_at: int = 1,
) -> tuple[dict[str, Summary], float]:
    """Run so many schedules of each family, shared out over the cores.

    Returns:
        A summary of each family, and the seconds it took.
    """
    names = list(families)
    jobs = jobs or os.cpu_count() or 1
    pieces = max(1, jobs * 2)
    began = time.perf_counter()
    summaries = {name: Summary(name) for name in names}
    parts = [
        (name, range(first + piece, first + schedules, pieces), policy, stop_at)
        for name in names
        for piece in range(pieces)
    ]
    if jobs == 1:
        for part in parts:
            summaries[part[0]].add(_part(part))
    else:
        with ProcessPoolExecutor(jobs) as pool:
            for result in pool.map(_part, parts):
                summaries[result.family].add(result)
    return summaries, time.perf_counter() - began


def _part(job: tuple[str, range, str | None, int]) -> Summary:
    name, seeds, policy, stop_at = job
    return run_family(name, seeds, policy=policy, stop_at=stop_at)


def uncovered(summaries: dict[str, Summary], share: float = 0.01) -> list[str]:
    """Return the faults that happened in less than this share of a family's schedules."""
    return [
        f"{name}: {fault} in {summary.faults[fault]} of {summary.schedules}"
        for name, summary in summaries.items()
        for fault in EXPECTED[name]
        if summary.faults[fault] < share * summary.schedules
    ]


def _explain(world: World, error: BaseException, policy: str | None) -> str:
    lines = [f"family {world.family}, seed {world.seed}: {type(error).__name__}: {error}"]
    lines.append(f"the last {len(world.log)} things that happened:")
    lines += [f"  {show(entry)}" for entry in world.log]
    if not isinstance(error, Violation):
        lines += traceback.format_exception(error)[-12:]
    extra = "" if policy is None else f" --policy {policy}"
    lines.append(
        f"replay: python -m headgate.testing.shell --families {world.family} --seed {world.seed}{extra} --trace"
    )
    return "\n".join(lines)


def show(entry: tuple[Any, ...]) -> str:
    """Show one thing that happened in one line."""
    when, kind, *rest = entry
    return f"{when * 1000:12.4f} ms  {kind} {' '.join(map(str, rest))}"
