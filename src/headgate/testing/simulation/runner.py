"""Runs seeds: one, or many on all cores."""

from __future__ import annotations

import gc
import os
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from headgate.protocol.messages import TAG_NAMES
from headgate.testing.simulation.families import FAMILIES, build
from headgate.testing.simulation.oracles import Violation
from headgate.testing.simulation.schedule import Schedule
from headgate.testing.simulation.world import World


class SimulationError(AssertionError):
    """A seed has failed. Its text names the family and the seed, the last actions, and the command that replays it.

    Attributes:
        family: The family.
        seed: The seed.
        rule: The broken rule, or the type of an exception that came out of the protocol.
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
        steps: How many actions they took.
        faults: In how many schedules a fault happened, by name.
        possible: In how many it could have been drawn.
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


def run_seed(family: str, seed: int, *, trace: bool = False, tail: int = 40) -> World:
    """Run one seed.

    Args:
        family: One of ``FAMILIES``.
        seed: Any integer of at least 0.
        trace: Keep every action, not only the last ones.
        tail: How many actions a failure shows.

    Returns:
        The world, as it was in the end.

    Raises:
        SimulationError: A rule was broken.
    """
    world: World | None = None
    try:
        world = World(build(family, seed), seed, tail=tail if not trace else 1_000_000)
        Schedule(world, seed).run()
    except Exception as error:
        rule = error.rule if isinstance(error, Violation) else type(error).__name__
        raise SimulationError(family, seed, rule, _explain(family, seed, world, error)) from error
    return world


def run_family(family: str, seeds: Iterable[int], *, stop_at: int = 1) -> Summary:
    """Run some seeds of one family; end after so many failures."""
    summary = Summary(family)
    gc.collect()
    gc.freeze()
    for seed in seeds:
        try:
            world = run_seed(family, seed)
        except SimulationError as failure:
            summary.failures.append((family, seed, failure.rule, failure.text))
            if len(summary.failures) >= stop_at:
                break
            continue
        summary.schedules += 1
        summary.steps += world.steps
        summary.faults.update(world.faults.keys())
    gc.unfreeze()
    return summary


def run_all(
    families: Iterable[str], schedules: int, *, first: int = 0, jobs: int | None = None, stop_at: int = 1
) -> tuple[dict[str, Summary], float]:
    """Run a number of schedules in total, shared out over families and cores.

    Returns:
        A summary of each family, and the seconds it took.
    """
    names = list(families)
    each = -(-schedules // len(names))
    jobs = jobs or os.cpu_count() or 1
    pieces = max(1, jobs * 2)
    began = time.perf_counter()
    summaries = {name: Summary(name) for name in names}
    parts = [(name, range(first + piece, first + each, pieces)) for name in names for piece in range(pieces)]
    if jobs == 1:
        results: Iterable[Summary] = (run_family(name, seeds, stop_at=stop_at) for name, seeds in parts)
        for result in results:
            summaries[result.family].add(result)
    else:
        with ProcessPoolExecutor(jobs) as pool:
            for result in pool.map(_part, ((name, seeds, stop_at) for name, seeds in parts)):
                summaries[result.family].add(result)
    return summaries, time.perf_counter() - began


def _part(job: tuple[str, range, int]) -> Summary:
    name, seeds, stop_at = job
    return run_family(name, seeds, stop_at=stop_at)


def uncovered(summaries: dict[str, Summary], share: float = 0.01) -> list[str]:
    """Return the faults that happened in less than this share of a family's schedules."""
    found: list[str] = []
    for name, summary in summaries.items():
        for fault, count in expected_faults(name, summary.faults).items():
            if count < share * summary.schedules:
                found.append(f"{name}: {fault} in {count} of {summary.schedules}")
    return found


def expected_faults(family: str, seen: Counter[str]) -> dict[str, int]:
    """Return how often each fault happened that the family can draw, those that never did included."""
    kinds: set[str] = set()
    for seed in range(200):
        kinds.update(build(family, seed).faults)
    return {kind: seen[kind] for kind in sorted(kinds)}


def _explain(family: str, seed: int, world: World | None, error: Exception) -> str:
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
