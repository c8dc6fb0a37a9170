"""Command line: ``python -m benchmarks``; ``--help`` shows the options.

JSON lines go to the standard output, or with ``--json`` to a file; the table follows on the standard output.
The exit status is 1 when a contender crashed, hung or computed something wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from benchmarks.environment import environment
from benchmarks.rows import all_rows
from benchmarks.runner import Failure, Result, progress, run_row, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.model import Row


def _positive_int(text: str) -> int:
    number = int(text)
    if number < 1:
        message = f"must be at least 1, not {number}"
        raise argparse.ArgumentTypeError(message)
    return number


def _positive_float(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        message = f"must be above 0, not {number}"
        raise argparse.ArgumentTypeError(message)
    return number


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Headgate beside its peers.")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="only these rows; * and ? match")
    parser.add_argument("--contenders", nargs="+", metavar="NAME", help="only these contenders; * and ? match")
    parser.add_argument("--repeat", type=_positive_int, default=5, help="measurements of each contender (default 5)")
    parser.add_argument(
        "--seconds-scale", type=_positive_float, default=1.0, help="factor on the time of each (default 1.0)"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the JSON lines here, not to the output")
    parser.add_argument("--list", action="store_true", help="list the rows and their contenders, and end")
    arguments = parser.parse_args(argv)
    arguments.chosen = _choose(arguments.rows, arguments.contenders)
    if not arguments.chosen:
        parser.error("no row or contender of these names; --list shows them")
    return arguments


def _choose(names: Sequence[str] | None, contenders: Sequence[str] | None) -> list[Row]:
    """Return the rows that match a name, each with the contenders that match one."""

    def matches(text: str, patterns: Sequence[str] | None) -> bool:
        return patterns is None or any(fnmatch(text, pattern) for pattern in patterns)

    chosen = [
        replace(row, contenders=tuple(one for one in row.contenders if matches(one.name, contenders)))
        for row in all_rows()
        if matches(row.name, names)
    ]
    return [row for row in chosen if row.contenders]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks.

    Args:
        argv: Command line without the program, `sys.argv` when None.

    Returns:
        The exit status.
    """
    arguments = _arguments(argv)
    rows: list[Row] = arguments.chosen
    if arguments.list:
        for row in rows:
            print(f"{row.name:18} {row.summary}\n{'':18} {', '.join(one.name for one in row.contenders)}")
        return 0
    results: list[Result] = []
    failures: list[Failure] = []
    with ExitStack() as stack:
        out = stack.enter_context(arguments.json.open("w", encoding="utf-8")) if arguments.json else sys.stdout
        options = {"repeat": arguments.repeat, "seconds_scale": arguments.seconds_scale}
        _write(out, {"environment": environment(), "options": options})
        for row in rows:
            good, bad = run_row(row, arguments.repeat, arguments.seconds_scale, progress)
            for line in [one.as_json() for one in good] + [one.as_json() for one in bad]:
                _write(out, line)
            results += good
            failures += bad
        # The load at the end shows whether something else ran meanwhile.
        _write(out, {"environment": environment(), "failures": len(failures)})
    print(table(results, failures))
    return 1 if failures else 0


def _write(out: TextIO, line: Mapping[str, object]) -> None:
    out.write(json.dumps(line) + "\n")
    out.flush()


if __name__ == "__main__":
    sys.exit(main())
