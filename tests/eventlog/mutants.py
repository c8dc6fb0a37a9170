"""``python -m tests.eventlog.mutants``: plants each bug of `tests.eventlog.planted`, and sees that the tests find it.

Each runs in a process of its own. One that survives is a missing test: the exit status is 1.
``--only NAME`` plants one.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.eventlog.planted import MUTANTS
from tests.eventlog.scale import scale
from tests.eventlog.server import server
from tests.eventlog.storm import storm

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 120  # seconds: one that hangs is found


def scale_postgres():
    """Writers and tailing readers in several processes."""
    result = scale(6000, batch=5, url=server().database())
    return bool(result.faults or result.missed or result.disorder or result.damages)


def storm_sqlite():
    """kill -9."""
    return bool(storm(8, seed=3).faults)


def hunt(name):
    """Plant a bug (none: no bug) in this process, and look whether it is found; the exit status is 0 if so."""
    plant, found_by = MUTANTS[name]
    plant()
    if not found_by[0].startswith("tests/"):
        return 0 if globals()[found_by[0]]() else 1
    arguments = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", *found_by]
    if "-k" not in found_by:
        arguments += ["-k", "not postgres and not every_bit_of_a_record and not every_length and not in_a_file"]
    return 0 if pytest.main(arguments) == pytest.ExitCode.TESTS_FAILED else 1


def one(name):
    command = [sys.executable, "-m", "tests.eventlog.mutants", "--hunt", name]
    try:
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return True, "it hangs"
    failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if run.returncode not in (0, 1) or "CannotPlantError" in run.stderr:
        return False, run.stderr[-500:]
    by = failed[0].partition(" - ")[0].removeprefix("FAILED tests/eventlog/") if failed else MUTANTS[name][1][0]
    return run.returncode == 0, by if run.returncode == 0 else "NOTHING: it survives " + run.stderr[-300:]


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.eventlog.mutants", description=__doc__)
    parser.add_argument("--only", choices=tuple(MUTANTS))
    parser.add_argument("--hunt", choices=tuple(MUTANTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.hunt:
        return hunt(options.hunt)
    names = [options.only] if options.only else list(MUTANTS)
    begun, survivors = time.perf_counter(), 0
    for name in names:
        found, by = one(name)
        survivors += not found
        print(f"{'' if found else 'SURVIVES '}{name:<52} {by}", flush=True)
    for each in (scale_postgres, storm_sqlite) if not options.only else ():
        if each():
            print(f"(no bug) is found by {each.__name__}")
            survivors += 1
    print(f"{len(names) - survivors} of {len(names)} found in {time.perf_counter() - begun:.0f} s")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
