"""Windows of any sizes, one above the other: nobody waits for an acknowledgement that waits for a demand."""

import itertools

import pytest

from headgate.testing.simulation import windows


@pytest.mark.slow
@pytest.mark.parametrize("order", windows.ORDERS)
def test_no_combination_of_windows_stands_still(order):
    """Every pair of windows up to six, 1,000 above and below each, and triples; none, one or three events for one."""
    runs, failure = windows.search(order)
    assert failure is None
    assert runs >= 2400


@pytest.mark.parametrize(("above", "below"), [((1, 0), (1000, 999)), ((1, 0), (1000, 0)), ((1000, 999), (1, 0))])
@pytest.mark.parametrize("order", windows.ORDERS)
def test_a_large_window_below_a_small_one_gets_its_events_one_by_one(above, below, order):
    """The sink never has as many as its threshold would need; what it has is acknowledged all the same."""
    assert windows.run((above, below), (1,), order, events=50) > 50


def test_the_combinations_are_what_was_promised():
    pairs, triples = list(windows.pairs()), list(windows.triples())
    sizes = {window for chosen, _ in pairs for window in chosen}
    assert {(most, least) for most in range(1, 7) for least in range(most)} < sizes
    assert len(pairs) == len(sizes) ** 2 * 3
    assert {outputs for _, outputs in triples} == set(itertools.product((0, 1, 3), repeat=2))


@pytest.mark.parametrize("order", windows.ORDERS)
def test_acknowledging_only_with_an_ask_would_stand_still(order, monkeypatch):
    """The search can see what it looks for."""
    monkeypatch.setattr("headgate.protocol.consumer.ConsumerSide.flush", lambda self: None)
    with pytest.raises(AssertionError):
        windows.run(((1, 0), (1000, 500)), (1,), order)
