"""The demand dispatcher. Rows about the order of consumers are held with ``order="largest"``, which is gen_stage's."""

import pytest

from headgate import DemandDispatcher
from tests.parity.bench import Bench


def largest(*consumers, **options):
    """Return a bench with gen_stage's order, and these consumers."""
    bench = Bench(DemandDispatcher(order="largest", **options))
    for name in consumers:
        assert bench.subscribe(name) == 0
    return bench


def order(asks):
    """Return how consumers that asked for this are served by a batch for all of them."""
    bench = largest("a", "b", "c")
    for name, count in asks:
        bench.ask(name, count)
    bench.dispatch(*range(100))
    return [(name, len(batch)) for name, batch in bench.received()]


@pytest.mark.parametrize("kind", ["turn", "largest"])
def test_subscribing_and_cancelling_ask_for_nothing(kind):
    """G135: a newcomer has no demand and comes last; who leaves is gone."""
    bench = Bench(DemandDispatcher(order=kind))
    assert bench.subscribe("a") == 0
    assert bench.subscribe("b") == 0
    assert bench.pending() == {"a": 0, "b": 0}
    assert bench.cancel("a") == 0
    assert bench.pending() == {"b": 0}
    assert bench.dispatch(1) == [1]
    assert bench.received() == []


@pytest.mark.parametrize("kind", ["turn", "largest"])
def test_demand_of_who_has_left_is_remembered_as_requested(kind):
    """G136: the next ask is reduced by it, and events that come for nobody lower it: 10, 7, 0."""
    bench = Bench(DemandDispatcher(order=kind))
    assert bench.subscribe("a") == 0
    assert bench.ask("a", 10) == 10
    assert bench.cancel("a") == 0
    assert bench.remembered() == 10
    assert bench.subscribe("b") == 0
    assert bench.ask("b", 5) == 0
    assert bench.remembered() == 5
    assert bench.cancel("b") == 0
    assert bench.remembered() == 10
    assert bench.dispatch(1, 2, 3) == [1, 2, 3]
    assert bench.remembered() == 7
    assert bench.dispatch(*range(7)) == list(range(7))
    assert bench.remembered() == 0
    assert bench.subscribe("c") == 0
    assert bench.ask("c", 4) == 4


@pytest.mark.parametrize("kind", ["turn", "largest"])
def test_one_of_two_subscriptions_of_a_consumer_is_cancelled(kind):
    """G137: five events give three to the one that is left, two come back, and of three remembered one remains."""
    bench = Bench(DemandDispatcher(order=kind))
    stage = object()
    bench.subscribe("first", stage=stage)
    bench.subscribe("second", stage=stage)
    assert bench.ask("first", 3) == 3
    assert bench.ask("second", 3) == 3
    assert bench.cancel("first") == 0
    assert bench.remembered() == 3
    assert bench.dispatch(*"abcde") == ["d", "e"]
    assert bench.received() == [("second", ["a", "b", "c"])]
    assert bench.remembered() == 1


@pytest.mark.parametrize("kind", ["turn", "largest"])
def test_dispatching_lowers_demand_and_asks_add_up(kind):
    """G138: 3 - 1 + 3 = 5; what is beyond comes back, and without demand all of it."""
    bench = Bench(DemandDispatcher(order=kind))
    bench.subscribe("a")
    assert bench.ask("a", 3) == 3
    assert bench.dispatch("a") == []
    assert bench.received() == [("a", ["a"])]
    assert bench.pending() == {"a": 2}
    assert bench.ask("a", 3) == 3
    assert bench.pending() == {"a": 5}
    assert bench.dispatch(*"bcdefgh") == ["g", "h"]
    assert bench.received() == [("a", ["b", "c", "d", "e", "f"])]
    assert bench.pending() == {"a": 0}
    assert bench.dispatch("i", "j") == ["i", "j"]
    assert bench.received() == []


def test_the_largest_demand_comes_first():
    """G139: with order "largest"; of equals the earlier, and who asks for more moves up."""
    asks = [("a", 4), ("b", 2), ("c", 3)]
    assert order(asks) == [("a", 4), ("c", 3), ("b", 2)]
    asks.append(("c", 2))
    assert order(asks) == [("c", 5), ("a", 4), ("b", 2)]
    asks.append(("b", 4))
    assert order(asks) == [("b", 6), ("c", 5), ("a", 4)]
    assert order([("b", 3), ("a", 3), ("c", 3)]) == [("b", 3), ("a", 3), ("c", 3)]
    assert order([("b", 3), ("a", 3), ("b", 1), ("a", 1)]) == [("b", 4), ("a", 4)]


def test_a_batch_fills_the_largest_demand_and_equals_take_turns():
    """G140: with order "largest"; whoever was served falls behind its equals."""
    bench = largest("a", "b")
    bench.ask("a", 3)
    bench.ask("b", 2)
    assert bench.dispatch(*"abcde") == []
    assert bench.received() == [("a", ["a", "b", "c"]), ("b", ["d", "e"])]
    assert bench.dispatch(*"abc") == ["a", "b", "c"]
    assert bench.received() == []
    bench.ask("a", 3)
    bench.ask("b", 3)
    assert bench.dispatch("a", "b") == []
    assert bench.received() == [("a", ["a", "b"])]
    assert bench.dispatch("c", "d") == []
    assert bench.received() == [("b", ["c", "d"])]
    assert bench.pending() == {"a": 1, "b": 1}
    assert bench.dispatch("e", "f", "g") == ["g"]
    assert bench.received() == [("a", ["e"]), ("b", ["f"])]


@pytest.mark.parametrize("kind", ["turn", "largest"])
def test_consumers_are_shuffled_once(kind):
    """G141: at the first dispatch, and never again."""
    bench = Bench(DemandDispatcher(order=kind, shuffle=True))
    bench.subscribe("a")
    bench.subscribe("b")
    bench.ask("a", 3)
    bench.ask("b", 2)
    assert bench.port.shuffled == []
    assert bench.dispatch(*"abcde") == []
    assert len(bench.port.shuffled) == 1
    assert bench.received() == [("b", ["a", "b"]), ("a", ["c", "d", "e"])]  # this port reverses
    bench.ask("a", 3)
    bench.ask("b", 3)
    assert bench.dispatch(*"abcdef") == []
    assert len(bench.port.shuffled) == 1
    plain = largest("a")
    plain.ask("a", 3)
    plain.dispatch("a")
    assert plain.port.shuffled == []


def test_an_info_is_delivered_at_once():
    bench = largest("a", "b")
    bench.ask("a", 3)
    assert not bench.side.info("hello")
    assert bench.pending() == {"a": 3, "b": 0}


def test_asking_for_more_than_the_maximum_is_warned_of_and_honoured():
    """G143: the maximum is the dispatcher's option."""
    bench = largest("a", "b", max_demand=3)
    assert bench.ask("a", 3) == 3
    assert bench.port.warnings == []
    assert bench.ask("b", 4) == 4
    [warning] = bench.port.warnings
    assert "asked for 4 at once, more than the dispatcher's max_demand of 3" in warning
    assert bench.dispatch(*range(7)) == []
    assert bench.pending() == {"a": 0, "b": 0}


def test_by_default_consumers_are_served_in_turn():
    """In the original a demand of 1,000 starves one of 10."""
    bench = Bench(DemandDispatcher())
    for name, count in (("a", 1000), ("b", 10)):
        bench.subscribe(name)
        bench.ask(name, count)
    for _ in range(4):
        assert bench.dispatch(*range(5)) == []
    assert [name for name, _ in bench.received()] == ["a", "b", "a", "b"]
