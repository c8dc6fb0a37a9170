"""Word count: how often each word occurs in 128 MB of real text, on all cores.

Run it over the text that every Python brings along, or over folders and files of yours::

    python -m examples.word_count
    python -m examples.word_count ~/books notes.txt --top 20 --workers 4

The text is the sources and documents of the standard library, and of the packages that are installed beside it: files
that are read where they lie, in the order of their names, until there are 128 MB. Nobody says where the flow runs. As
it sums up large files, it does so in worker processes, each of which reads files itself. What crosses to this process
is counts, which are put together here, and go three ways: added up, counted, sorted. Between the plan and the words, a
terminal shows how far it is. On a machine of two cores it prints::

    text: 21,839 files, 128 MB, from /usr/lib/python3.11 and /usr/lib/python3.11/site-packages

    source-1: from_lines() at word_count.py:110 (bounded, 128,000,236 bytes, max_demand 64)

    work-1: 2 workers at Process(), from source-1
        flat_map(words) at word_count.py:110
        part of count_by() at word_count.py:110
        (a worker that dies is made up for by the others)
        -> merge-2

    merge-2: 1 worker on the event loop, from work-1
        merge of count_by() at word_count.py:110
        -> tee-3
        -> tee-4
        -> work-5

    tee-3: 1 worker on the event loop, from merge-2
        sum() at word_count.py:112
        -> into function

    tee-4: 1 worker on the event loop, from merge-2
        count() at word_count.py:113
        -> into function

    work-5: 1 worker on the event loop, from merge-2
        top(1) at word_count.py:114
        -> results

    runs in 2 worker processes, as 128 MB of files are summed up where they are read

    self       378,962
    the        240,416
    a          213,702
    ...

    14,130,110 words, 185,463 different ones, in 3,558,002 lines
    128 MB in 4.6 s: 28 MB/s

"""

from __future__ import annotations

import argparse
import os
import re
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from headgate import Flow, Process
from headgate.flow import FlowStatistics

SUFFIXES = frozenset({".c", ".h", ".html", ".md", ".py", ".pyi", ".rst", ".tex", ".txt"})
WORD = re.compile(r"[^\W\d_]+")
MEGABYTE = 1_000_000


class Counts(NamedTuple):
    """The outcome.

    Attributes:
        top: The words that occur most often, each with how often.
        words: How many words there are.
        different: How many different ones.
        run: What the flow tells of its run.
    """

    top: list[tuple[str, int]]
    words: int
    different: int
    run: FlowStatistics


def words(line: str) -> list[str]:
    """Cut a line into words: letters without a break, in small letters."""
    return WORD.findall(line.lower())


class Totals:
    """What branches of the flow find out beside its results."""

    def __init__(self) -> None:
        self.words: list[int] = []
        self.different: list[int] = []


def word_count(paths: Sequence[str], top: int, totals: Totals) -> Flow:
    """Describe the flow.

    Args:
        paths: Files of text.
        top: How many words to give.
        totals: Where the totals go.
    """
    counts = Flow.from_lines(paths, errors="replace").flat_map(words).count_by()
    return counts.tee(
        lambda each: each.sum(1).into(totals.words.extend),
        lambda each: each.count().into(totals.different.extend),
    ).top(top, by=1)


def count(paths: Sequence[str], top: int = 10, *, progress: bool = False, **options: Any) -> Counts:
    """Count.

    Args:
        paths: Files of text.
        top: How many words to give.
        progress: Show how far it is on the terminal.
        **options: As of `Flow.options`: ``workers``, ``place``.
    """
    found: list[tuple[str, int]] = []
    totals = Totals()
    run = word_count(paths, top, totals).options(**options).into(found.extend).run(progress=progress)
    return Counts(found, sum(totals.words), sum(totals.different), run)


def texts(folder: Path) -> Iterator[Path]:
    """Yield the files of text in a folder and those below, in the order of their names."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(place, name) for name in sorted(names) if Path(name).suffix in SUFFIXES)


def gather(tops: Sequence[Path], most: int) -> tuple[list[str], int]:
    """Gather files until they have so many bytes.

    Args:
        tops: Folders, and files, which are taken whatever they are called.
        most: Bytes; the last file may exceed them.

    Returns:
        The files, each once, and their bytes.
    """
    found: dict[str, int] = {}
    size = 0
    for top in tops:
        for path in [top] if top.is_file() else texts(top):
            if size >= most:
                return list(found), size
            if str(path) not in found and path.is_file():  # not where a link leads nowhere
                found[str(path)] = path.stat().st_size
                size += found[str(path)]
    return list(found), size


def everywhere() -> list[Path]:
    """Return the folders of text that are there with every Python."""
    return [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code: 0 done, 2 there is no text, 130 stopped by Ctrl-C."""
    options = _parser().parse_args(arguments)
    tops = options.text or everywhere()
    paths, size = gather(tops, options.megabytes * MEGABYTE if options.megabytes else sys.maxsize)
    if not size:
        sys.stderr.write(f"word_count: {tops[0]}: there is no text\n")
        return 2
    print(f"text: {len(paths):,} files, {size / MEGABYTE:,.0f} MB, from {' and '.join(map(str, tops))}\n")
    where: dict[str, Any] = {}
    if options.workers is not None:
        where = {"workers": options.workers, "place": Process()}
    flow = word_count(paths, options.top, Totals()).options(**where)
    print(flow.explain(), flush=True)
    print(flush=True)
    try:
        show(count(paths, options.top, progress=sys.stderr.isatty(), **where))
    except KeyboardInterrupt:
        sys.stderr.write("\nword_count: stopped\n")
        return 130
    return 0


def show(counts: Counts) -> None:
    """Print the outcome."""
    width = max((len(word) for word, _ in counts.top), default=0)
    print()
    for word, times in counts.top:
        print(f"{word:<{width}}  {times:>12,}")
    run = counts.run
    megabytes = run.volume / MEGABYTE
    print(f"\n{counts.words:,} words, {counts.different:,} different ones, in {run.read:,} lines")
    print(f"{megabytes:,.0f} MB in {run.seconds:.1f} s: {megabytes / run.seconds:,.0f} MB/s")


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m examples.word_count", description="Count the words of text.")
    parser.add_argument("text", nargs="*", type=Path, help="folders or files (what every Python brings along)")
    parser.add_argument("--megabytes", type=_positive, metavar="N", default=128, help="of text at most (%(default)s)")
    parser.add_argument("--top", type=_positive, metavar="N", default=10, help="words to show (%(default)s)")
    parser.add_argument("--workers", type=_positive, metavar="N", help="worker processes (as the flow decides)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
