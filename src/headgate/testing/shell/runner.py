"""Runs seeds: one, or many on all cores."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
import traceback
from collections.abc import Generator, Iterable
from random import Random
from typing import Any

from headgate.protocol.ledger import Piece, Subscriber
from headgate.protocol.messages import KILL
from headgate.protocol.stage import StageCore
from headgate.runtime import driver, express, node
from headgate.testing.clock import POLICIES, VirtualLoop, run_on
from headgate.testing.seeds import SeedError, Summary, run_seeds, share_out
from headgate.testing.shell.families import EXPECTED, FAMILIES, WORLDS
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


class ShellError(SeedError):
    """A seed of the shell's simulation has failed."""


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
    world = WORLDS.get(family, World)(family, seed, loop)
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

    def run(seed: int) -> tuple[int, Iterable[str]]:
        world = run_seed(family, seed, policy=policy)
        return world.loop.steps, world.faults

    return run_seeds(family, seeds, run, stop_at=stop_at)


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
    work = functools.partial(run_family, policy=policy, stop_at=stop_at)
    return share_out(families, schedules, work, first=first, jobs=jobs)


def uncovered(summaries: dict[str, Summary], share: float = 0.01) -> list[str]:
    """Return the faults that happened in less than this share of a family's schedules."""
    return [text for name, summary in summaries.items() for text in summary.rare(EXPECTED[name], share)]


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
