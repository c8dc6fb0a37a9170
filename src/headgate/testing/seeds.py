"""What both simulations need to run many seeds: of the protocol (`simulation`) and of the shell around it (`shell`)."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

ENOUGH = 1000
"""With so many schedules of a family each of its faults has to happen in 1 % of them."""


class SeedError(AssertionError):
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
        steps: How many actions or callbacks they took.
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

    def rare(self, expected: Iterable[str], share: float) -> list[str]:
        """Say which of these faults happened in less than this share of the schedules."""
        return [
            f"{self.family}: {fault} in {self.faults[fault]} of {self.schedules}"
            for fault in expected
            if self.faults[fault] < share * self.schedules
        ]


def run_seeds(
    family: str, seeds: Iterable[int], run: Callable[[int], tuple[int, Iterable[str]]], *, stop_at: int
) -> Summary:
    """Run some seeds of one family; end after so many failures.

    Args:
        family: Its name.
        seeds: Which.
        run: Runs a seed; returns its steps and the faults that happened, or raises `SeedError`.
        stop_at: How many failures are enough.
    """
    summary = Summary(family)
    gc.collect()
    gc.freeze()
    for seed in seeds:
        try:
            steps, faults = run(seed)
        except SeedError as failure:
            summary.failures.append((family, seed, failure.rule, failure.text))
            if len(summary.failures) >= stop_at:
                break
            continue
        summary.schedules += 1
        summary.steps += steps
        summary.faults.update(set(faults))
    gc.unfreeze()
    return summary


def share_out(
    names: Iterable[str], each: int, work: Callable[[str, range], Summary], *, first: int, jobs: int | None
) -> tuple[dict[str, Summary], float]:
    """Run so many schedules of each family, shared out over the cores.

    Args:
        names: The families.
        each: How many schedules of each.
        work: Runs some seeds of a family; it is pickled.
        first: The first seed.
        jobs: Processes. None: one for each core.

    Returns:
        A summary of each family, and the seconds it took.
    """
    jobs = jobs or os.cpu_count() or 1
    pieces = max(1, jobs * 2)
    began = time.perf_counter()
    summaries = {name: Summary(name) for name in names}
    parts = [(name, range(first + piece, first + each, pieces)) for name in summaries for piece in range(pieces)]
    if jobs == 1:
        for name, seeds in parts:
            summaries[name].add(work(name, seeds))
    else:
        with ProcessPoolExecutor(jobs) as pool:
            for result in pool.map(work, *zip(*parts, strict=True)):
                summaries[result.family].add(result)
    return summaries, time.perf_counter() - began


def report(
    summaries: Mapping[str, Summary],
    seconds: float,
    faults: Callable[[Summary], Mapping[str, int]],
    uncovered: Callable[[dict[str, Summary]], list[str]],
    unit: str,
) -> int:
    """Print what was found; return the exit status.

    Args:
        summaries: Of each family.
        seconds: What it took.
        faults: Those of a family that are shown.
        uncovered: Says which faults hardly ever happened.
        unit: What a step is called.
    """
    status = 0
    for name, summary in summaries.items():
        shown = ", ".join(f"{fault} {count}" for fault, count in faults(summary).items())
        each = summary.steps / max(1, summary.schedules)
        say(f"{name:<11}{summary.schedules:>6} schedules{each:>6.0f} {unit} each; {shown}")
        for _, _, _, text in summary.failures:
            say(text)
            status = 1
    done = sum(summary.schedules for summary in summaries.values())
    say(f"{done} schedules in {seconds:.1f} s: {done / seconds:.0f}/s")
    if not status and all(summary.schedules >= ENOUGH for summary in summaries.values()):
        rare = uncovered(dict(summaries))
        if rare:
            say("faults that hardly ever happen: " + "; ".join(rare))
            status = 1
    return status


def say(text: str) -> None:
    """Print a line."""
    sys.stdout.write(text + "\n")
