"""The count of rows itself: it must not call held what is not."""

import re
from types import SimpleNamespace

from tests.parity.registry import Ledger, different, ids, read_rows


def holds():
    """G1: as it is."""


def holds_two():
    """G2, G3: both at once."""


@different("G4", "ours is better")
def differs():
    """G4: in our way."""


def beside():
    """What no row asks for: G5: is not the beginning."""


ROWS = {"G1": "P", "G2": "P", "G3": "A", "G4": "P", "G5": "X"}


def outcome(ledger, node, when="call", **how):
    report = {"nodeid": node, "when": when, "passed": False, "outcome": "failed", **how}
    ledger.pytest_runtest_logreport(SimpleNamespace(**report))


def ledger_of(*functions, rows=None, passed=True):
    ledger = Ledger(ROWS if rows is None else rows, {"G5": "no such thing"})
    items = [SimpleNamespace(nodeid=function.__name__, function=function) for function in functions]
    ledger.pytest_collection_modifyitems(items)
    for item in items if passed else ():
        for when in ("setup", "call", "teardown"):
            outcome(ledger, item.nodeid, when, passed=True)
    return ledger


def test_the_ids_are_what_a_docstring_begins_with():
    assert [ids(function) for function in (holds, holds_two, beside)] == [["G1"], ["G2", "G3"], []]


def test_everything_passed():
    ledger = ledger_of(holds, holds_two, differs, beside)
    assert ledger.ok()
    assert ledger.held() == ["G1", "G2", "G3"]
    lines = ledger.lines()
    assert lines[:2] == ["different on purpose:", "  G4  ours is better"]
    assert lines[2:4] == ["not applicable:", "  G5  no such thing"]
    assert lines[-1].startswith(
        "held 3 of 4 (1 different on purpose, 1 not applicable, 0 failed, 0 without a test; 1 more"
    )


def test_a_row_without_a_test_is_missing():
    ledger = ledger_of(holds, differs)
    assert not ledger.ok()
    assert ledger.missing() == ["G2", "G3"]
    assert "  G2 G3" in ledger.lines()


def test_a_row_one_of_whose_tests_failed_is_not_held():
    ledger = ledger_of(holds, holds_two, differs)
    outcome(ledger, "holds_two")
    assert not ledger.ok()
    assert ledger.broken() == ["G2", "G3"]
    assert ledger.held() == ["G1"]


def test_a_skipped_test_and_one_that_may_fail_hold_nothing():
    for how in ({"outcome": "skipped"}, {"passed": True, "outcome": "passed", "wasxfail": "later"}):
        ledger = ledger_of(holds, holds_two, differs, passed=False)
        outcome(ledger, "holds", **how)
        outcome(ledger, "differs", passed=True)
        assert "G1" in ledger.broken()
        assert ledger.held() == []
        assert not ledger.ok()


def test_tests_that_did_not_run_hold_nothing():
    ledger = ledger_of(holds, holds_two, differs, passed=False)
    assert ledger.held() == []
    assert not ledger.ok()


def test_an_unknown_row_and_a_difference_in_another_row_are_mistakes():
    marked = different("G1", "why")(lambda: None)
    marked.__name__ = "marked"
    assert len(ledger_of(holds, holds_two, differs, marked).mistakes) == 1
    ledger = ledger_of(holds, rows={"G2": "P"})
    assert ledger.mistakes == ["holds: there is no row G1"]
    assert not ledger.ok()


def test_the_list_of_rows_is_complete():
    rows = read_rows()
    assert sum(row.startswith("G") for row in rows) == 176
    assert sum(row.startswith("B") for row in rows) == 125
    assert sum(re.fullmatch(r"F\d+", row) is not None for row in rows) == 172
    assert sum(row.startswith("FD") for row in rows) == 25
    assert sorted({*rows.values()}) == ["A", "P", "X"]
    ranges = [("G001", "G212"), ("B001", "B135"), ("F001", "F185"), ("FD01", "FD26")]
    assert all(any(first <= row <= last for first, last in ranges) for row in rows)
