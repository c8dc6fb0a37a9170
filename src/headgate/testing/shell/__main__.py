"""``python -m headgate.testing.shell``: run seeds of whole systems in virtual time, or replay one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from headgate.testing.clock import POLICIES
from headgate.testing.seeds import report, say
from headgate.testing.shell.families import FAMILIES
from headgate.testing.shell.runner import ShellError, run_all, run_seed, show, uncovered


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line says; return the exit status."""
    options = _parser().parse_args(arguments)
    names = list(FAMILIES) if options.families == "all" else options.families.split(",")
    unknown = [name for name in names if name not in FAMILIES]
    if unknown:
        say(f"expected families to be among {', '.join(FAMILIES)}, got: {', '.join(unknown)}")
        return 2
    if options.seed is not None:
        return max(_replay(name, options.seed, options.policy, trace=options.trace) for name in names)
    return _run(names, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m headgate.testing.shell", description=__doc__)
    parser.add_argument("--families", default="all", help=f"'all', or some of {','.join(FAMILIES)}")
    parser.add_argument("--schedules", type=int, default=2000, help="how many of each family (default 2000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--jobs", type=int, default=None, help="processes (default: one for each core)")
    parser.add_argument("--policy", choices=POLICIES, help="what runs next (default: each seed chooses)")
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("--trace", action="store_true", help="show everything that happens in it")
    return parser


def _replay(family: str, seed: int, policy: str | None, *, trace: bool) -> int:
    try:
        world = run_seed(family, seed, policy=policy, trace=trace)
    except ShellError as failure:
        say(failure.text)
        return 1
    if trace:
        for entry in world.log:
            say(show(entry))
    say(
        f"family {family}, seed {seed}: {world.loop.steps} callbacks, {world.loop.time():.3f} virtual seconds, "
        f"faults {dict(world.faults)}, digest {world.digest()}: nothing wrong"
    )
    return 0


def _run(names: Sequence[str], options: argparse.Namespace) -> int:
    summaries, seconds = run_all(
        names, options.schedules, first=options.first, policy=options.policy, jobs=options.jobs
    )
    return report(summaries, seconds, lambda summary: dict(sorted(summary.faults.items())), uncovered, "callbacks")


if __name__ == "__main__":
    sys.exit(main())
