"""Runs seeds: one, or many on all cores."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Iterable
from typing import Any

from headgate.protocol.messages import TAG_NAMES
from headgate.testing.seeds import SeedError, Summary, run_seeds, share_out
from headgate.testing.simulation import families, pipelines, rates
from headgate.testing.simulation.oracles import Violation
from headgate.testing.simulation.pipelines import Play
from headgate.testing.simulation.schedule import Schedule
from headgate.testing.simulation.world import World

PLAYS = {**pipelines.PLAYS, **rates.PLAYS}
FAMILIES: dict[str, Any] = {**families.FAMILIES, **PLAYS}
"""All of them, by name."""


class SimulationError(SeedError):
    """A seed of the protocol's simulation has failed."""


def run_seed(family: str, seed: int, *, trace: bool = False, tail: int = 40) -> World | Play:
    """Run one seed.

    Args:
        family: One of ``FAMILIES``.
        seed: Any integer of at least 0.
        trace: Keep every action, not only the last ones.
        tail: How many actions a failure shows.

    Returns:
        The world, as it was in the end; of a machine of the pipelines the play.

    Raises:
        SimulationError: A rule was broken.
    """
    world: World | Play | None = None
    tail = tail if not trace else 1_000_000
    try:
        if family in PLAYS:
            world = pipelines.start(PLAYS[family], seed, tail)
            world.run()
        else:
            world = World(families.build(family, seed), seed, tail=tail)
            Schedule(world, seed).run()
    except Exception as error:
        rule = error.rule if isinstance(error, Violation) else type(error).__name__
        raise SimulationError(family, seed, rule, _explain(family, seed, world, error)) from error
    return world


def run_family(family: str, seeds: Iterable[int], *, stop_at: int = 1) -> Summary:
    """Run some seeds of one family; end after so many failures."""

    def run(seed: int) -> tuple[int, Iterable[str]]:
        world = run_seed(family, seed)
        return world.steps, world.faults

    return run_seeds(family, seeds, run, stop_at=stop_at)


def run_all(
    families: Iterable[str], schedules: int, *, first: int = 0, jobs: int | None = None, stop_at: int = 1
) -> tuple[dict[str, Summary], float]:
    """Run a number of schedules in total, shared out over families and cores.

    Returns:
        A summary of each family, and the seconds it took.
    """
    names = list(families)
    each = -(-schedules // len(names))
    return share_out(names, each, functools.partial(run_family, stop_at=stop_at), first=first, jobs=jobs)


def uncovered(summaries: dict[str, Summary], share: float = 0.01) -> list[str]:
    """Return the faults that happened in less than this share of a family's schedules."""
    return [text for summary in summaries.values() for text in summary.rare(expected_faults(summary), share)]


def expected_faults(summary: Summary) -> dict[str, int]:
    """Return how often each fault happened that the family can draw, those that never did included."""
    return {kind: summary.faults[kind] for kind in _drawn(summary.family)}


@functools.cache
def _drawn(family: str) -> list[str]:
    """Return the faults that the family can draw."""
    if family in PLAYS:
        return sorted(PLAYS[family].kinds)
    kinds: set[str] = set()
    for seed in range(200):
        kinds.update(families.build(family, seed).faults)
    return sorted(kinds)


def _explain(family: str, seed: int, world: World | Play | None, error: Exception) -> str:
    lines = [f"family {family}, seed {seed}: {type(error).__name__}: {error}"]
    if world is not None:
        lines.append(f"its last {len(world.trace)} actions:")
        lines += [f"  {show(action)}" for action in world.trace]
    if not isinstance(error, Violation):
        lines += traceback.format_exception(error)[-12:]
    lines.append(f"replay: python -m headgate.testing.simulation --family {family} --seed {seed} --trace")
    return "\n".join(lines)


def show(action: tuple[Any, ...]) -> str:
    """Show an action in one line."""
    kind, *rest = action
    if kind == "deliver":
        sender, receiver, message = rest
        return f"{sender} -> {receiver}: {TAG_NAMES[message[0]]} {', '.join(map(str, message[1:]))}"
    return f"{kind} {' '.join(map(str, rest))}"


__all__ = ["FAMILIES", "SimulationError", "Summary", "run_all", "run_family", "run_seed", "show", "uncovered"]
