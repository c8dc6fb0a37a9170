"""Every order of events in small configurations, with one fault at any point."""

import pytest

from headgate.testing.simulation.exhaustive import Case, cases, search

# Numbers of states. Fewer would mean that the search has become blind to something: find out why before lowering one.
STATES = {
    Case("demand", 1, 2, 2, (1, 0), "none"): 500,
    Case("demand", 1, 2, 2, (2, 1), "crash"): 800,
    Case("demand", 1, 2, 2, (1, 0), "cancel"): 2500,
    Case("demand", 1, 2, 2, (1, 0), "expel"): 1800,
    Case("demand", 2, 1, 1, (2, 1), "crash"): 3000,
    Case("broadcast", 1, 2, 2, (1, 0), "cancel"): 2300,
    Case("broadcast", 2, 1, 1, (2, 1), "crash"): 1500,
    Case("partition", 1, 2, 2, (1, 0), "crash"): 400,
    Case("partition", 1, 2, 2, (2, 1), "cancel"): 2500,
    Case("demand", 1, 1, 3, (2, 1), "none", (1, (1, 0))): 100,
    Case("demand", 1, 1, 2, (1, 0), "none", (3, (2, 1))): 100,
    Case("demand", 1, 1, 2, (1, 0), "crash", (0, (2, 1))): 100,
}


@pytest.mark.slow
@pytest.mark.parametrize("case", STATES, ids=str)
def test_no_order_breaks_a_rule(case):
    """Whichever message comes first and wherever the fault strikes: everything is handled and everything ends."""
    found = search(case)
    assert found.failure is None, found.failure
    assert found.whole
    assert found.ends > 0
    assert found.states >= STATES[case]


def test_the_configurations_are_what_was_promised():
    """One and two producers and consumers, up to three events, three dispatchers, four windows, no fault or one."""
    every = cases()
    assert {case.dispatcher for case in every} == {"demand", "broadcast", "partition"}
    assert {case.window for case in every} == {(1, 0), (2, 0), (2, 1), (3, 1)}
    assert {case.fault for case in every} == {"none", "crash", "cancel", "expel"}
    assert max(case.events for case in every) == 3
    assert {(case.producers, case.consumers) for case in every} == {(1, 1), (1, 2), (2, 1), (2, 2)}
    assert {case.through[0] for case in every if case.through is not None} == {0, 1, 3}
