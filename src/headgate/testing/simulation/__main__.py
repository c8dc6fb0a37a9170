"""``python -m headgate.testing.simulation``: run seeds, replay one, or search small configurations exhaustively."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from headgate.testing.seeds import report, say
from headgate.testing.simulation import exhaustive, windows
from headgate.testing.simulation.runner import (
    FAMILIES,
    SimulationError,
    expected_faults,
    run_all,
    run_seed,
    show,
    uncovered,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line says; return the exit status."""
    options = _parser().parse_args(arguments)
    if options.family is not None:
        return _replay(options.family, options.seed, trace=options.trace)
    names = list(FAMILIES) if options.families == "all" else options.families.split(",")
    unknown = [name for name in names if name not in FAMILIES]
    if unknown:
        say(f"expected families to be among {', '.join(FAMILIES)}, got: {', '.join(unknown)}")
        return 2
    status = 0
    if options.schedules:
        status = _run(names, options.schedules, options.first, options.jobs)
    if options.exhaustive != "none" and not status:
        status = _search(small=options.exhaustive == "small", jobs=options.jobs)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m headgate.testing.simulation", description=__doc__)
    parser.add_argument("--families", default="all", help=f"'all', or some of {','.join(FAMILIES)}")
    parser.add_argument("--schedules", type=int, default=10_000, help="how many, over all families (default 10000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--jobs", type=int, default=None, help="processes (default: one for each core)")
    parser.add_argument("--exhaustive", choices=("none", "small", "all"), default="all", help="default all")
    parser.add_argument("--family", choices=tuple(FAMILIES), help="replay one seed of this family")
    parser.add_argument("--seed", type=int, default=0, help="which")
    parser.add_argument("--trace", action="store_true", help="show every action of it")
    return parser


def _replay(family: str, seed: int, *, trace: bool) -> int:
    try:
        world = run_seed(family, seed, trace=trace)
    except SimulationError as failure:
        say(failure.text)
        return 1
    if trace:
        for index, action in enumerate(world.trace):
            say(f"{index:6d} {show(action)}")
    say(f"family {family}, seed {seed}: {world.steps} actions, faults {dict(world.faults)}: nothing wrong")
    return 0


def _run(names: Sequence[str], schedules: int, first: int, jobs: int | None) -> int:
    summaries, seconds = run_all(names, schedules, first=first, jobs=jobs)
    return report(summaries, seconds, expected_faults, uncovered, "actions")


def _search(*, small: bool, jobs: int | None) -> int:
    found, seconds = exhaustive.search_all(exhaustive.cases(small=small), jobs=jobs)
    status = 0
    for each in found:
        if each.failure is not None:
            say(each.failure)
            status = 1
    states = sum(each.states for each in found)
    if not small and not status and states < exhaustive.STATES:
        say(f"there were at least {exhaustive.STATES} states before, now there are {states}")
        status = 1
    say(f"{len(found)} small configurations, {states} states in {seconds:.1f} s: {states / seconds:.0f}/s")
    if not small and not status:
        runs, failures = windows.search_all(jobs=jobs)
        say(f"{runs} runs of chains with every combination of windows")
        for failure in failures:
            say(failure)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
