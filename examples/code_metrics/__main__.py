"""The example as a program."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import headgate

from .metrics import File
from .report import show
from .stages import PLACES, app, python_files, standard_library


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        arguments: Of the command line; None for those that the program was started with.

    Returns:
        The exit code: 0 done; 2 there is nothing to measure.
    """
    options = _parser().parse_args(arguments)
    top = options.folder or standard_library()
    paths = python_files(top)[: options.limit]
    if not paths:
        sys.stderr.write(f"code_metrics: {top}: there are no files of Python\n")
        return 2
    workers = options.workers or headgate.cores()
    found: list[File] = []
    began = time.perf_counter()
    job = app(paths, found, place=options.place, workers=workers)
    headgate.run(job, watch_blocked=None)  # inline it blocks the event loop, which is what one may want to see
    seconds = time.perf_counter() - began
    show(found, top)
    print(f"\nplace {options.place}, {workers} at a time: {seconds:.1f} s, {len(found) / seconds:,.0f} files/s")
    return 0


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m examples.code_metrics", description="Measure files of Python.")
    parser.add_argument("folder", nargs="?", type=Path, help="with the files; default: the standard library")
    parser.add_argument("--place", choices=PLACES, default="process", help="where they are measured (%(default)s)")
    parser.add_argument("--workers", type=_positive, metavar="N", help="stages that measure (one for each core)")
    parser.add_argument("--limit", type=_positive, metavar="N", help="files to measure at the most (all)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
