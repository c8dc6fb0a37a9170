"""``python -m tests.mutants``: plants each bug of `tests.mutants.planted`, and sees that the simulator finds it.

Each runs in a process of its own, on seeds that it shares with all others: seed by seed through all families, 1,000 of
each at the most. One that survives is a missing oracle: the exit status is 1. ``--only NAME`` plants one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from tests.mutants.hunt import hunt
from tests.mutants.planted import MUTANTS


def main() -> int:
    """Plant them all; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", choices=tuple(MUTANTS))
    only = parser.parse_args().only
    names = [only] if only else list(MUTANTS)
    began = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=context, max_tasks_per_child=1) as pool:
        control = pool.submit(hunt, None)
        jobs = [pool.submit(hunt, name) for name in names]
        survivors = 0
        print(f"{'bug':<46}{'seeds':>6}  found by")
        for name, job in zip(names, jobs, strict=True):
            try:
                _, rule, seeds, _ = job.result()
            except Exception as error:
                rule, seeds = "", 0
                print(f"{name:<46}{'-':>6}  cannot be planted: {error}")
                survivors += 1
                continue
            survivors += not rule
            print(f"{name:<46}{seeds:>6}  {rule or 'NOTHING: it survives'}")
        _, rule, seeds, _ = control.result()
    print(f"{'(no bug)':<46}{seeds:>6}  {rule or 'nothing, as it should be'}")
    print(f"{len(names) - survivors} of {len(names)} found in {time.perf_counter() - began:.0f} s")
    return 1 if survivors or rule else 0


if __name__ == "__main__":
    sys.exit(main())
