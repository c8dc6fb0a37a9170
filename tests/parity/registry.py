"""Which behaviours of the originals' tests there are, which of ours hold them, and the numbers.

G: gen_stage; B: broadway; F: flow, FD: the examples in its documentation.

``rows.txt`` holds the rows: an id and a tag. P is asked of us as it is, A after adaptation, X means nothing outside
of the BEAM. A test says in the first words of its docstring which it holds: ``"G004: ..."``, ``"G025, G026: ..."``.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

FOLDER = Path(__file__).parent
DIFFERENCES = "parity_differences"
NOT_APPLICABLE = {
    "G123": "a deprecated form of an Erlang name; our names are strings and have one form only",
    "G124": "a deprecated form of an Erlang name; our names are strings and have one form only",
    "B019": "options for spawning processes of the BEAM",
    "B112": "Python has no exits beside exceptions",
    "B113": "Python has no thrown values beside exceptions",
    "B114": "Python has no errors beside exceptions",
    "B115": "where the BEAM keeps configurations that processes share; ours is an attribute of the pipeline",
    "B119": "hibernation of processes of the BEAM",
    "B124": "hibernation of processes of the BEAM",
}
"""Rows that mean nothing in Python, and why."""

_IDS = re.compile(r"((?:[A-Z]+\d+(?:, )?)+):")
_Function = TypeVar("_Function", bound=Callable[..., Any])


def different(row: str, why: str) -> Callable[[_Function], _Function]:
    """Mark a test that pins how we deliberately differ from the original in this row."""

    def mark(function: _Function) -> _Function:
        setattr(function, DIFFERENCES, {**getattr(function, DIFFERENCES, {}), row: why})
        return function

    return mark


def read_rows(path: Path = FOLDER / "rows.txt") -> dict[str, str]:
    """Return the tag of every row by its id."""
    return dict(line.split() for line in path.read_text(encoding="utf-8").splitlines())


def ids(function: Callable[..., Any]) -> list[str]:
    """Return the rows that a test says it holds."""
    match = _IDS.match(function.__doc__ or "")
    return match.group(1).split(", ") if match else []


class Ledger:
    """What came of each row; also a plugin of pytest that collects it.

    Args:
        rows: The tag of every row by its id.
        not_applicable: Why a row means nothing to us, by its id.
    """

    def __init__(self, rows: dict[str, str], not_applicable: dict[str, str] = NOT_APPLICABLE) -> None:
        """Start without tests."""
        self.rows = rows
        self.not_applicable = not_applicable
        self.tests: dict[str, list[str]] = {}  # row -> node ids of its tests
        self.differences: dict[str, str] = {}
        self.failed: dict[str, str] = {}  # node id -> what happened
        self.passed: set[str] = set()
        self.mistakes: list[str] = []

    def add(self, node: str, function: Callable[..., Any]) -> None:
        """Take note of a test."""
        rows = ids(function)
        differences = getattr(function, DIFFERENCES, {})
        for row in rows:
            self.tests.setdefault(row, []).append(node)
            if row not in self.rows:
                self.mistakes.append(f"{node}: there is no row {row}")
        for row, why in differences.items():
            self.differences[row] = why
            if row not in rows:
                self.mistakes.append(f"{node}: marked as different in {row}, which its docstring does not begin with")

    # -- pytest's hooks -----------------------------------------------------------------------------------------------

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """See every test."""
        for item in items:
            self.add(item.nodeid, item.function)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """See how it came out. A test that is skipped or expected to fail holds nothing."""
        if report.passed and not hasattr(report, "wasxfail"):
            if report.when == "call":
                self.passed.add(report.nodeid)
        else:
            self.failed.setdefault(report.nodeid, f"{report.outcome} in {report.when}")

    # -- the result ---------------------------------------------------------------------------------------------------

    def wanted(self) -> list[str]:
        """Return the rows that are asked of us."""
        return [row for row, tag in self.rows.items() if tag != "X"]

    def missing(self) -> list[str]:
        """Return the rows about which no test says anything, and X rows without a reason."""
        return [row for row in self.rows if row not in self.tests and row not in self.not_applicable]

    def broken(self) -> list[str]:
        """Return the rows of which a test failed, or did not run."""
        return [
            row
            for row, nodes in self.tests.items()
            if not all(n in self.passed and n not in self.failed for n in nodes)
        ]

    def held(self) -> list[str]:
        """Return the rows that hold: as they are, or after adaptation to Python's idioms."""
        lost = {*self.missing(), *self.broken(), *self.differences}
        return [row for row in self.wanted() if row in self.tests and row not in lost]

    def ok(self) -> bool:
        """Say whether every row has its tests and every test passed."""
        return bool(self.passed) and not (self.missing() or self.failed or self.mistakes)

    def lines(self) -> list[str]:
        """Return the report."""
        broken = self.broken()
        differences = {row: why for row, why in sorted(self.differences.items()) if row not in broken}
        beside = sum(node not in {n for nodes in self.tests.values() for n in nodes} for node in self.passed)
        lines = [f"  {row}  {why}" for row, why in differences.items()]
        if lines:
            lines.insert(0, "different on purpose:")
        not_applicable = [f"  {row}  {why}" for row, why in self.not_applicable.items() if row in self.rows]
        lines += ["not applicable:", *not_applicable] if not_applicable else []
        lines += ["failed:", *(f"  {row}  {', '.join(self.tests[row])}" for row in sorted(broken))] if broken else []
        without = [f"  {node}" for node in self.failed if not any(node in nodes for nodes in self.tests.values())]
        lines += ["failed, without a row:", *without] if without else []
        lines += ["no test:", f"  {' '.join(self.missing())}"] if self.missing() else []
        lines += ["mistakes:", *(f"  {each}" for each in self.mistakes)] if self.mistakes else []
        lines.append(
            f"held {len(self.held())} of {len(self.wanted())} "
            f"({len(differences)} different on purpose, {len(not_applicable)} not applicable, {len(broken)} failed, "
            f"{len(self.missing())} without a test; {beside} more tests passed)"
        )
        return lines
