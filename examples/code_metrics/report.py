"""The outcome, for people: tables, by rich if it is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from .metrics import File, Function

SHOWN = 5
_HEADINGS = ("file", "function", "lines", "branches", "depth")
_RANKS: dict[str, Callable[[Function], int]] = {
    "the most branches": lambda each: each.branches,
    "the most lines": lambda each: each.lines,
    "the deepest blocks": lambda each: each.depth,
}


def totals(files: Iterable[File]) -> dict[str, int]:
    """Add up."""
    sums = Counter(files=0, unreadable=0, lines=0, classes=0, functions=0, branches=0)
    for each in files:
        sums["files"] += 1
        sums["unreadable"] += bool(each.error)
        sums["lines"] += each.lines
        sums["classes"] += each.classes
        sums["functions"] += len(each.functions)
        sums["branches"] += sum(function.branches for function in each.functions)
    return dict(sums)


def most_used(files: Iterable[File], count: int = 10) -> list[tuple[str, int]]:
    """Return the names that occur most often; of equal ones the first by alphabet."""
    names: Counter[str] = Counter()
    for each in files:
        names.update(each.names)
    return sorted(names.items(), key=lambda item: (-item[1], item[0]))[:count]


def show(files: Sequence[File], top: Path) -> None:
    """Print it."""
    sums = totals(files)
    text = ", ".join(f"{count:,} {what}" for what, count in sums.items() if what not in ("branches", "unreadable"))
    functions = [function for each in files for function in each.functions]
    if functions:
        text += f"; {sums['branches'] / len(functions):.1f} branches in a function, on average"
    print(text)
    print("names:", ", ".join(f"{name} {count:,}" for name, count in most_used(files)))
    for title, rank in _RANKS.items():
        first = sorted(functions, key=lambda each: (-rank(each), each))[:SHOWN]
        _table(title, [(_inside(each.path, top), each.name, *map(str, each[2:])) for each in first])
    wrong = [each for each in files if each.error]
    if wrong:
        print(f"\nno files of this Python, {len(wrong)}:")
        for each in sorted(wrong):
            print(f"  {_inside(each.path, top)}: {each.error}")


def _inside(path: str, top: Path) -> str:
    return Path(path).relative_to(top).as_posix()


def _table(title: str, rows: Sequence[Sequence[str]]) -> None:
    try:
        from rich.console import Console  # noqa: PLC0415 (it need not be there)
        from rich.table import Table  # noqa: PLC0415
    except ImportError:
        _plain_table(title, rows)
        return
    print(f"\n{title}")
    table = Table(box=None, pad_edge=False)
    for at, heading in enumerate(_HEADINGS):
        options: Any = {"justify": "right"} if at > 1 else {"overflow": "fold"}
        table.add_column(heading, **options)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _plain_table(title: str, rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *rows, strict=True)]
    print(f"\n{title}")
    for row in (_HEADINGS, *rows):
        cells = (
            cell.rjust(width) if at > 1 else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(cells).rstrip())
